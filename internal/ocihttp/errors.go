package ocihttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// statusClientGone is logged, never sent.
const statusClientGone = 499

// errClientGone is wrapped by errors that there is nobody to tell of.
var errClientGone = errors.New("the client is gone")

// form is how an error looks on the wire.
type form struct {
	status  int
	code    string // of the distribution-spec's closed list; of Docker's for 5xx
	message string
	retry   string // Retry-After, in seconds
}

var forms = [registry.Codes]form{
	registry.Internal:            {500, "UNKNOWN", "internal error; its cause is in the server's log under this request id", ""},
	registry.BlobUnknown:         {404, "BLOB_UNKNOWN", "blob unknown to this repository", ""},
	registry.UploadInvalid:       {400, "BLOB_UPLOAD_INVALID", "blob upload invalid", ""},
	registry.UploadUnknown:       {404, "BLOB_UPLOAD_UNKNOWN", "upload session unknown to this repository; start a new one", ""},
	registry.DigestInvalid:       {400, "DIGEST_INVALID", "digest malformed, not supported, or not that of the content", ""},
	registry.ManifestBlobUnknown: {400, "MANIFEST_BLOB_UNKNOWN", "the manifest references content that this repository does not have; push it first", ""},
	registry.ManifestInvalid:     {400, "MANIFEST_INVALID", "manifest invalid", ""},
	registry.ManifestUnknown:     {404, "MANIFEST_UNKNOWN", "manifest unknown to this repository", ""},
	registry.ManifestTooLarge:    {413, "SIZE_INVALID", "manifest too large", ""},
	registry.BlobTooLarge:        {413, "SIZE_INVALID", "blob too large", ""},
	registry.NameInvalid:         {400, "NAME_INVALID", "repository name invalid", ""},
	registry.NameUnknown:         {404, "NAME_UNKNOWN", "repository name not known to this registry", ""},
	registry.TagInvalid:          {400, "NAME_INVALID", "tag invalid", ""},
	registry.SizeInvalid:         {400, "SIZE_INVALID", "the length of the content is not the announced one", ""},
	registry.RangeInvalid:        {416, "BLOB_UPLOAD_INVALID", "the upload stands elsewhere; go on behind the Range of this answer", ""},
	registry.Unauthorized:        {401, "UNAUTHORIZED", "authentication required", ""},
	registry.Denied:              {403, "DENIED", "access denied", ""},
	registry.Referenced:          {409, "DENIED", "still referenced; delete what references it first", ""},
	registry.Unsupported:         {405, "UNSUPPORTED", "the operation is not supported here", ""},
	registry.TooManyRequests:     {429, "TOOMANYREQUESTS", "too many requests; wait and try again", "10"},
	registry.InsufficientStorage: {507, "UNAVAILABLE", "the registry is out of storage space; its operator must free some", ""},
	registry.Unavailable:         {503, "UNAVAILABLE", "temporarily unavailable; try again", "5"},
	registry.Faulty:              {502, "UNAVAILABLE", "another registry, on which this answer depends, is at fault; its operator, or that of this one, must see to it", ""},
}

// refusal is an error that only HTTP knows.
type refusal struct {
	status int
	code   string
	detail string
}

func refuse(status int, code, format string, args ...any) error {
	return &refusal{status, code, fmt.Sprintf(format, args...)}
}

func (e *refusal) Error() string { return e.detail }

// entry is an element of the errors list of an answer.
type entry struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail,omitempty"`
}

// respondError answers err if nothing was sent yet. It reports whether the
// client got a whole answer.
func (x *exchange) respondError(err error) bool {
	if x.status != 0 {
		return false
	}
	if errors.Is(err, errClientGone) || errors.Is(err, context.Canceled) && x.ctx.Err() != nil {
		x.status = statusClientGone
		return false
	}
	status, entries := x.describe(err)
	x.dropHeaders()
	if status == http.StatusRequestTimeout {
		x.set("Connection", "close")
	}
	// The client that does not take in its error does not get another.
	return x.respondBytes(status, "application/json", encode(entries)) == nil
}

// describe finds the form of err and sets the headers that belong to it.
func (x *exchange) describe(err error) (status int, entries []entry) {
	var refused *refusal
	if errors.As(err, &refused) {
		return refused.status, []entry{{refused.code, http.StatusText(refused.status), refused.detail}}
	}
	code := registry.CodeOf(err)
	if code >= registry.Codes {
		code = registry.Internal
	}
	f := &forms[code]
	switch code {
	case registry.Unauthorized:
		x.set("Www-Authenticate", x.h.Challenge(x.r, x.scope(), err))
	case registry.Unsupported:
		x.set("Allow", allowed(x.req.kind, methodOf(x.r.Method)))
	}
	if f.retry != "" {
		x.set("Retry-After", f.retry)
	}
	if coded := (*registry.Error)(nil); errors.As(err, &coded) && coded.Limit != nil {
		x.setLimit(coded.Limit)
	}
	detail := x.detail(code, err)
	missing, ok := detail.([]oci.Digest)
	if !ok || len(missing) == 0 {
		return f.status, []entry{{f.code, f.message, detail}}
	}
	for _, d := range missing {
		entries = append(entries, entry{f.code, f.message, map[string]any{"digest": d}})
	}
	return f.status, entries
}

// setLimit says what was exceeded and when to come back, in whole seconds.
func (x *exchange) setLimit(l *registry.Limit) {
	wait := strconv.FormatInt(int64((l.RetryAfter+time.Second-1)/time.Second), 10)
	x.set("Retry-After", wait)
	if l.Window == 0 {
		return
	}
	x.set("Ratelimit-Limit", strconv.FormatInt(l.Amount, 10))
	x.set("Ratelimit-Remaining", "0")
	x.set("Ratelimit-Reset", wait)
	x.set("Ratelimit-Policy", fmt.Sprintf("%d;w=%d", l.Amount, int64(l.Window/time.Second)))
}

// Status is the HTTP status of an error's code.
func Status(c registry.Code) int {
	if c >= registry.Codes {
		c = registry.Internal
	}
	return forms[c].status
}

// detail is what a client is told beyond the message. Where a hidden thing
// must look like an absent one it is made from the request alone.
func (x *exchange) detail(code registry.Code, err error) any {
	switch code {
	case registry.Internal:
		return map[string]any{"requestId": x.requestID}
	case registry.NameUnknown, registry.Unauthorized:
		// Without any detail dockerd takes a 401 for an accident, and tries to
		// push five times within a minute before it tells.
		return named("name", x.req.repo)
	case registry.BlobUnknown:
		return named("digest", string(x.req.digest))
	case registry.ManifestUnknown:
		return named("reference", x.req.ref.String())
	case registry.UploadUnknown:
		return named("upload", x.req.upload)
	}
	var coded *registry.Error
	if errors.As(err, &coded) {
		return coded.Detail
	}
	return err.Error() // of a parser in package oci: made for clients
}

// named is a detail of one field, or none if the request has no such thing.
func named(field, value string) any {
	if value == "" {
		return nil
	}
	return map[string]string{field: value}
}

// dropHeaders removes what a handler had set to describe its content.
func (x *exchange) dropHeaders() {
	h := x.w.Header()
	for _, key := range [...]string{"Etag", "Docker-Content-Digest", "Content-Length", "Accept-Ranges", "Link", "Oci-Filters-Applied"} {
		delete(h, key)
	}
}

// encode is the JSON form of an error. A detail that has none is left out.
func encode(entries []entry) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if enc.Encode(map[string]any{"errors": entries}) != nil {
		for i := range entries {
			entries[i].Detail = nil
		}
		buf.Reset()
		_ = enc.Encode(map[string]any{"errors": entries}) // strings always have a form
	}
	return buf.Bytes()
}
