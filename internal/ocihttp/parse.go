package ocihttp

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/requestid"
)

// kind is what a path names: a row of the routes table.
type kind uint8

const (
	kindNone kind = iota
	kindPing
	kindCatalog
	kindTags
	kindReferrers
	kindManifest
	kindBlob
	kindUploads // where sessions are started
	kindUpload  // one session
	kinds
)

var kindNames = [kinds]string{
	"none", "ping", "catalog", "tags", "referrers", "manifest", "blob", "uploads", "upload",
}

// request is a parsed URL. Every name in it is valid.
type request struct {
	kind   kind
	repo   string
	ref    oci.Ref    // of kindManifest
	digest oci.Digest // of kindBlob and kindReferrers
	upload string     // of kindUpload
	query  url.Values
}

// parse reads a URL as it was sent. Its errors are fit for clients; the kind
// is set with an error too, if it is known.
func parse(u *url.URL) (request, error) {
	path, err := unescape(u.EscapedPath())
	if err != nil {
		return request{}, err
	}
	req, err := parsePath(path)
	if err != nil || u.RawQuery == "" {
		return req, err
	}
	if req.query, err = url.ParseQuery(u.RawQuery); err != nil {
		return req, refuse(http.StatusBadRequest, "UNSUPPORTED", "the query string is malformed; separate parameters by '&' and percent-encode their values")
	}
	return req, nil
}

// unescape undoes the one escape that a valid path can hold, the colon of a
// digest. All others are refused rather than decoded: two spellings of one
// path are two ways past whatever stands in front.
func unescape(path string) (string, error) {
	escaped := false
	for rest := path; ; escaped = true {
		i := strings.IndexByte(rest, '%')
		if i < 0 {
			break
		}
		if esc := rest[i:min(i+3, len(rest))]; !strings.EqualFold(esc, "%3a") {
			return "", registry.Errorf(registry.NameInvalid, "", "the path holds %q; of a path only ':' may be percent-encoded", esc)
		}
		rest = rest[i+3:]
	}
	if !escaped {
		return path, nil
	}
	return strings.ReplaceAll(strings.ReplaceAll(path, "%3A", ":"), "%3a", ":"), nil
}

// parsePath tells kinds apart from the right, for a repository's name may hold
// components like "blobs" or "tags".
func parsePath(path string) (request, error) {
	rest, ok := strings.CutPrefix(path, "/v2")
	switch {
	case !ok || rest != "" && rest[0] != '/':
		return request{}, noRoute()
	case rest == "" || rest == "/":
		return request{kind: kindPing}, nil
	case rest == "/_catalog":
		return request{kind: kindCatalog}, nil
	}
	if repo, ok := strings.CutSuffix(rest, "/blobs/uploads/"); ok {
		return inRepo(request{kind: kindUploads}, repo)
	}
	rest, last := cutLast(rest)
	before, parent := cutLast(rest)
	switch {
	case parent == "tags" && last == "list":
		return inRepo(request{kind: kindTags}, before)
	case parent == "manifests":
		return withRef(before, last)
	case parent == "referrers":
		return withDigest(kindReferrers, before, last)
	case parent == "blobs" && last == "uploads":
		return inRepo(request{kind: kindUploads}, before)
	case parent == "blobs":
		return withDigest(kindBlob, before, last)
	}
	if repo, ok := strings.CutSuffix(rest, "/blobs/uploads"); ok {
		return withUpload(repo, last)
	}
	return request{}, noRoute()
}

// cutLast splits off what follows the last slash.
func cutLast(s string) (before, last string) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+1:]
}

// inRepo completes req with the repository, which still has its leading slash.
func inRepo(req request, repo string) (request, error) {
	req.repo = strings.TrimPrefix(repo, "/")
	if err := oci.CheckRepository(req.repo); err != nil {
		return request{kind: req.kind}, err
	}
	return req, nil
}

func withRef(repo, s string) (request, error) {
	ref, err := oci.ParseRef(s)
	if err != nil {
		return request{kind: kindManifest}, err
	}
	return inRepo(request{kind: kindManifest, ref: ref}, repo)
}

func withDigest(k kind, repo, s string) (request, error) {
	d, err := oci.ParseDigest(s)
	if err != nil {
		return request{kind: k}, err
	}
	return inRepo(request{kind: k, digest: d}, repo)
}

// withUpload accepts ids that can be one: what cannot was never given out.
func withUpload(repo, id string) (request, error) {
	req, err := inRepo(request{kind: kindUpload}, repo)
	if err != nil {
		return req, err
	}
	if !requestid.Plain(id, 128) {
		return req, &registry.Error{Code: registry.UploadUnknown, Repo: req.repo}
	}
	req.upload = id
	return req, nil
}

func noRoute() error {
	return refuse(http.StatusNotFound, "UNSUPPORTED", "no such resource; the OCI distribution API is served under /v2/")
}

// param is the value of a query parameter that may stand once; "" if absent.
func (r *request) param(name string) (string, error) {
	values := r.query[name]
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	}
	return "", refuse(http.StatusBadRequest, "UNSUPPORTED", "parameter %s stands %d times; send it once", name, len(values))
}

// digestParam is like param for a digest.
func (r *request) digestParam(name string) (oci.Digest, error) {
	s, err := r.param(name)
	if s == "" || err != nil {
		return "", err
	}
	return oci.ParseDigest(s)
}
