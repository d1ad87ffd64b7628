package remote

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// Bounds of what is read and passed on of an answer that reports an error.
const (
	maxErrorBody   = 64 << 10
	maxErrorDetail = 4 << 10
)

// wireError is an element of the errors list of the distribution-spec.
type wireError struct {
	Code    string          `json:"code"`
	Message string          `json:"message"`
	Detail  json.RawMessage `json:"detail"`
}

// wireCodes are the codes of the distribution-spec and of Docker's registry.
var wireCodes = map[string]registry.Code{
	"BLOB_UNKNOWN":          registry.BlobUnknown,
	"BLOB_UPLOAD_INVALID":   registry.UploadInvalid,
	"BLOB_UPLOAD_UNKNOWN":   registry.UploadUnknown,
	"DIGEST_INVALID":        registry.DigestInvalid,
	"MANIFEST_BLOB_UNKNOWN": registry.ManifestBlobUnknown,
	"MANIFEST_INVALID":      registry.ManifestInvalid,
	"MANIFEST_UNVERIFIED":   registry.ManifestInvalid,
	"MANIFEST_UNKNOWN":      registry.ManifestUnknown,
	"NAME_INVALID":          registry.NameInvalid,
	"NAME_UNKNOWN":          registry.NameUnknown,
	"TAG_INVALID":           registry.TagInvalid,
	"SIZE_INVALID":          registry.SizeInvalid,
	"UNAUTHORIZED":          registry.Unauthorized,
	"DENIED":                registry.Denied,
	"UNSUPPORTED":           registry.Unsupported,
	"TOOMANYREQUESTS":       registry.TooManyRequests,
}

// statusCodes are the statuses that say more than any code in the body.
var statusCodes = map[int]registry.Code{
	http.StatusConflict:                     registry.Referenced,
	http.StatusRequestEntityTooLarge:        registry.ManifestTooLarge,
	http.StatusRequestedRangeNotSatisfiable: registry.RangeInvalid,
	http.StatusTooManyRequests:              registry.TooManyRequests,
	http.StatusInsufficientStorage:          registry.InsufficientStorage,
}

// plainCodes are the statuses that count when the body says nothing.
var plainCodes = map[int]registry.Code{
	http.StatusUnauthorized:     registry.Unauthorized,
	http.StatusForbidden:        registry.Denied,
	http.StatusMethodNotAllowed: registry.Unsupported,
}

// decodeError reads what an answer outside of the 2xx class says.
func (r *Registry) decodeError(resp *http.Response, req request) error {
	var body struct {
		Errors []wireError `json:"errors"`
	}
	// A body of another form says nothing; its status does.
	_ = json.NewDecoder(io.LimitReader(resp.Body, maxErrorBody)).Decode(&body)
	var first wireError
	if len(body.Errors) > 0 {
		first = body.Errors[0]
	}
	code := classify(resp.StatusCode, first.Code, req.absent)
	closed := resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden
	if code == registry.Unauthorized || code == registry.Denied || closed && r.o.Refusals && code != registry.TooManyRequests {
		return r.refused(resp, req, first)
	}
	e := &registry.Error{Code: code, Repo: req.repo, Err: &answer{resp.StatusCode, first.Code, first.Message}}
	switch code {
	case registry.ManifestBlobUnknown:
		e.Detail = missing(body.Errors)
	case registry.Unavailable:
		e.Detail = fmt.Sprintf("the upstream registry answered %d %s; try again later", resp.StatusCode, http.StatusText(resp.StatusCode))
	case registry.Faulty:
		e.Detail = fmt.Sprintf("the upstream registry answered %d %s, which makes no sense here", resp.StatusCode, http.StatusText(resp.StatusCode))
	default:
		e.Detail = describe(first)
	}
	if wait, ok := RetryAfter(resp.Header, r.o.Now()); ok && (code == registry.TooManyRequests || code == registry.Unavailable) {
		e.Limit = &registry.Limit{RetryAfter: wait}
	}
	return e
}

// errStorage is wrapped by the refusal of an address that a registry redirected to.
var errStorage = errors.New("refused by the storage")

// refused is the error for an answer that wants other credentials than ours.
func (r *Registry) refused(resp *http.Response, req request, said wireError) error {
	e := &registry.Error{Repo: req.repo, Err: &answer{resp.StatusCode, said.Code, said.Message}}
	switch {
	case strayed(resp.Request):
		// An address that was made for us and is not good (any more).
		e.Code, e.Detail = registry.Unavailable, "the storage behind the upstream registry refuses the address that it gave; try again"
		e.Err = fmt.Errorf("%w: %w", errStorage, e.Err)
	case r.o.Refusals && req.repo != "":
		e.Code, e.Err = registry.NameUnknown, fmt.Errorf("%w: %w", registry.ErrRefused, e.Err)
	case classify(resp.StatusCode, said.Code, req.absent) == registry.Denied:
		e.Code, e.Detail = registry.Denied, describe(said)
	default:
		e.Code, e.Detail = registry.Unauthorized, "the upstream registry wants other credentials"
	}
	return e
}

// answer is what an upstream said that did not do what it was asked.
type answer struct {
	status  int
	code    string
	message string
}

func (a *answer) Error() string {
	return fmt.Sprintf("upstream answered %d %s %.60q %.200q", a.status, http.StatusText(a.status), a.code, a.message)
}

// HTTPStatus is for those who tell their own clients what upstream answered.
func (a *answer) HTTPStatus() int { return a.status }

// classify finds the code of an answer.
func classify(status int, wire string, absent registry.Code) registry.Code {
	if code, ok := statusCodes[status]; ok {
		return code
	}
	if status >= 500 {
		return registry.Unavailable
	}
	if code, ok := wireCodes[wire]; ok {
		return code
	}
	if code, ok := plainCodes[status]; ok {
		return code
	}
	switch status {
	case http.StatusNotFound:
		return absent
	case http.StatusRequestTimeout, http.StatusTooEarly:
		return registry.Unavailable
	}
	return registry.Faulty
}

// describe passes on the detail of an error or, if it has none, its message.
func describe(e wireError) any {
	var detail any
	if len(e.Detail) > 0 && len(e.Detail) <= maxErrorDetail && json.Unmarshal(e.Detail, &detail) == nil && detail != nil {
		return detail
	}
	if e.Message != "" && len(e.Message) <= maxErrorDetail {
		return e.Message
	}
	return nil
}

// missing collects the digests that MANIFEST_BLOB_UNKNOWN errors name.
func missing(list []wireError) []oci.Digest {
	digests := []oci.Digest{}
	for _, e := range list {
		var text string
		var object struct {
			Digest string `json:"digest"` // also matches Docker's "Digest"
		}
		if json.Unmarshal(e.Detail, &text) != nil && json.Unmarshal(e.Detail, &object) == nil {
			text = object.Digest
		}
		if d, err := oci.ParseDigest(text); err == nil {
			digests = append(digests, d)
		}
	}
	return digests
}

// faulty is the error for an answer that cannot be right.
func faulty(repo, format string, args ...any) error {
	return registry.Errorf(registry.Faulty, repo, "the upstream registry is at fault: "+format, args...)
}

// broken is the error for a body that ended too early. One with a code says
// itself what is the matter.
func broken(repo string, err error) error {
	if coded, ok := withCode(repo, err); ok {
		return coded
	}
	return &registry.Error{Code: registry.Unavailable, Repo: repo, Detail: "the upstream registry broke off its answer; try again", Err: err}
}

// noCredentials is the error for a request that nobody could be found to vouch for.
func noCredentials(repo string, err error) error {
	if coded, ok := withCode(repo, err); ok {
		return coded
	}
	return &registry.Error{Code: registry.Unavailable, Repo: repo,
		Detail: "no credentials for the upstream registry could be had; try again", Err: withoutURL(err)}
}

// unreachable describes a request that got no answer.
func (r *Registry) unreachable(ctx context.Context, req request, err error) error {
	if coded, ok := withCode(req.repo, err); ok {
		return coded
	}
	err = withoutURL(err)
	if errors.Is(err, errRedirect) {
		return &registry.Error{Code: registry.Faulty, Repo: req.repo, Detail: "the upstream registry is at fault: " + err.Error(), Err: err}
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	e := &registry.Error{Code: registry.Unavailable, Repo: req.repo,
		Detail: fmt.Sprintf("no answer from the registry at %s; try again", r.base.Host), Err: err}
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		e.Code, e.Detail = registry.Faulty, fmt.Sprintf("the certificate of the registry at %s is not to be trusted", r.base.Host)
	case errors.Is(err, http.ErrSchemeMismatch):
		e.Code, e.Detail = registry.Faulty, fmt.Sprintf("the registry at %s does not speak TLS", r.base.Host)
	}
	return e
}

// withCode is the error with a code that err holds, as one about repo.
func withCode(repo string, err error) (*registry.Error, bool) {
	var coded *registry.Error
	if !errors.As(err, &coded) {
		return nil, false
	}
	about := *coded
	about.Repo = repo
	return &about, true
}

// withoutURL takes the URL out of what net/http says: a query may hold what is
// nobody's business.
func withoutURL(err error) error {
	var withURL *url.Error
	if errors.As(err, &withURL) {
		return withURL.Err
	}
	return err
}
