package remote

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

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
func decodeError(resp *http.Response, req request) error {
	var body struct {
		Errors []wireError `json:"errors"`
	}
	// A body of another form says nothing; its status does.
	_ = json.NewDecoder(io.LimitReader(resp.Body, maxErrorBody)).Decode(&body)
	var first wireError
	if len(body.Errors) > 0 {
		first = body.Errors[0]
	}
	e := &registry.Error{Code: classify(resp.StatusCode, first.Code, req.absent), Repo: req.repo}
	e.Err = fmt.Errorf("upstream answered %s %s %.200q", resp.Status, first.Code, first.Message)
	switch e.Code {
	case registry.ManifestBlobUnknown:
		e.Detail = missing(body.Errors)
	case registry.Unavailable:
		e.Detail = fmt.Sprintf("the upstream registry answered %d %s; try again later", resp.StatusCode, http.StatusText(resp.StatusCode))
	case registry.Unauthorized:
		e.Detail = "the upstream registry wants other credentials"
	default:
		e.Detail = describe(first)
	}
	return e
}

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
	if status == http.StatusNotFound {
		return absent
	}
	return registry.Unavailable
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
	return registry.Errorf(registry.Unavailable, repo, "the upstream registry is at fault: "+format, args...)
}
