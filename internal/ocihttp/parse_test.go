package ocihttp

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

var (
	someHex    = strings.Repeat("0a", 32)
	someDigest = oci.Digest("sha256:" + someHex)
	bigDigest  = oci.Digest("sha512:" + strings.Repeat("0a", 64))
)

func TestParse(t *testing.T) {
	for target, want := range map[string]request{
		"/v2":                                 {kind: kindPing},
		"/v2/":                                {kind: kindPing},
		"/v2/_catalog":                        {kind: kindCatalog},
		"/v2/_catalog?n=3":                    {kind: kindCatalog, query: url.Values{"n": {"3"}}},
		"/v2/a/tags/list":                     {kind: kindTags, repo: "a"},
		"/v2/a/manifests/latest":              {kind: kindManifest, repo: "a", ref: oci.TagRef("latest")},
		"/v2/a/b/c/manifests/1.0":             {kind: kindManifest, repo: "a/b/c", ref: oci.TagRef("1.0")},
		"/v2/a/manifests/sha256:" + someHex:   {kind: kindManifest, repo: "a", ref: oci.DigestRef(someDigest)},
		"/v2/a/manifests/sha256%3A" + someHex: {kind: kindManifest, repo: "a", ref: oci.DigestRef(someDigest)},
		"/v2/a/manifests/sha256%3a" + someHex: {kind: kindManifest, repo: "a", ref: oci.DigestRef(someDigest)},
		"/v2/a/blobs/" + string(bigDigest):    {kind: kindBlob, repo: "a", digest: bigDigest},
		"/v2/a/referrers/" + string(someDigest) + "?artifactType=a%2Fb": {
			kind: kindReferrers, repo: "a", digest: someDigest, query: url.Values{"artifactType": {"a/b"}}},
		"/v2/a/blobs/uploads":       {kind: kindUploads, repo: "a"},
		"/v2/a/blobs/uploads/":      {kind: kindUploads, repo: "a"},
		"/v2/a/blobs/uploads/x-1.z": {kind: kindUpload, repo: "a", upload: "x-1.z"},
		"/v2/a/blobs/uploads/x?digest=sha256%3A12": {
			kind: kindUpload, repo: "a", upload: "x", query: url.Values{"digest": {"sha256:12"}}},

		// Names that look like routes.
		"/v2/manifests/manifests/manifests":                   {kind: kindManifest, repo: "manifests", ref: oci.TagRef("manifests")},
		"/v2/a/tags/manifests/list":                           {kind: kindManifest, repo: "a/tags", ref: oci.TagRef("list")},
		"/v2/a/manifests/tags/list":                           {kind: kindTags, repo: "a/manifests"},
		"/v2/tags/list/tags/list":                             {kind: kindTags, repo: "tags/list"},
		"/v2/a/blobs/uploads/manifests/v1":                    {kind: kindManifest, repo: "a/blobs/uploads", ref: oci.TagRef("v1")},
		"/v2/a/blobs/uploads/tags/list":                       {kind: kindTags, repo: "a/blobs/uploads"},
		"/v2/a/blobs/uploads/blobs/uploads/":                  {kind: kindUploads, repo: "a/blobs/uploads"},
		"/v2/a/blobs/uploads/blobs/uploads/id":                {kind: kindUpload, repo: "a/blobs/uploads", upload: "id"},
		"/v2/a/blobs/uploads/blobs/" + string(someDigest):     {kind: kindBlob, repo: "a/blobs/uploads", digest: someDigest},
		"/v2/a/blobs/uploads/referrers/" + string(someDigest): {kind: kindReferrers, repo: "a/blobs/uploads", digest: someDigest},
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parse(u); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("parse(%q) = %+v, %v; want %+v", target, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const noCode = registry.Codes // for refusals, which have a status of their own
	long := strings.Repeat("a", oci.MaxRepository+1)
	for target, want := range map[string]registry.Code{
		"/":                              noCode,
		"/v1/":                           noCode,
		"/v2x":                           noCode,
		"/v2x/a/tags/list":               noCode,
		"//v2/":                          noCode,
		"/v2//":                          noCode,
		"/v2/_catalog/":                  noCode,
		"/v2/a":                          noCode,
		"/v2/a/b/c":                      noCode,
		"/v2/a/tags/list/":               noCode,
		"/v2/../etc/passwd":              noCode,
		"/v2/_catalog?n=%zz":             noCode,
		"/v2/_catalog?a;b":               noCode,
		"/v2/tags/list":                  registry.NameInvalid,
		"/v2//tags/list":                 registry.NameInvalid,
		"/v2/a//tags/list":               registry.NameInvalid,
		"/v2/./a/tags/list":              registry.NameInvalid,
		"/v2/a/../b/tags/list":           registry.NameInvalid,
		"/v2/%2e%2e/tags/list":           registry.NameInvalid,
		"/v2/a%2fb/tags/list":            registry.NameInvalid,
		"/v2/a%2Fmanifests%2Fx":          registry.NameInvalid,
		"/v2/a%00/tags/list":             registry.NameInvalid,
		"/v2/%61/tags/list":              registry.NameInvalid,
		"/v2/a%3Ab/tags/list":            registry.NameInvalid,
		"/v2/é/tags/list":                registry.NameInvalid,
		"/v2/A/tags/list":                registry.NameInvalid,
		"/v2/" + long + "/tags/list":     registry.NameInvalid,
		"/v2/a/manifests/":               registry.TagInvalid,
		"/v2/a/manifests/.x":             registry.TagInvalid,
		"/v2/a/manifests/..":             registry.TagInvalid,
		"/v2/a/manifests/" + long:        registry.TagInvalid,
		"/v2/a/manifests/sha256:bad":     registry.DigestInvalid,
		"/v2/a/manifests/md5:" + someHex: registry.DigestInvalid,
		"/v2/a/blobs/":                   registry.DigestInvalid,
		"/v2/a/blobs/latest":             registry.DigestInvalid,
		"/v2/a/referrers/latest":         registry.DigestInvalid,
		"/v2/a/blobs/sha256:" + strings.ToUpper(someHex): registry.DigestInvalid,
		"/v2/a/blobs/uploads/..~":                        registry.UploadUnknown,
		"/v2/a/blobs/uploads/" + long:                    registry.UploadUnknown,
		"/v2/a/blobs/uploads//":                          noCode,
		"/v2//blobs/uploads/":                            registry.NameInvalid,
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		_, err = parse(u)
		if _, refused := err.(*refusal); refused {
			if want != noCode {
				t.Errorf("parse(%q): refused with %v; want code %v", target, err, want)
			}
			continue
		}
		if err == nil || registry.CodeOf(err) != want {
			t.Errorf("parse(%q): %v; want code %v", target, err, want)
		}
	}
}

func TestAllowed(t *testing.T) {
	if got, want := allowed(kindUpload, methodOther), "GET, HEAD, PUT, PATCH, DELETE"; got != want {
		t.Errorf("methods of an upload: %s; want %s", got, want)
	}
	if got, want := allowed(kindManifest, methodOf(http.MethodDelete)), "GET, HEAD, PUT"; got != want {
		t.Errorf("methods of a manifest but DELETE: %s; want %s", got, want)
	}
	for k := kindPing; k < kinds; k++ {
		if allowed(k, methodOther) == "" {
			t.Errorf("kind %d has no handler", k)
		}
	}
}

// target rebuilds the path of a request: what parse understood must be
// what stood there.
func (r request) target() string {
	switch r.kind {
	case kindPing:
		return "/v2/"
	case kindCatalog:
		return "/v2/_catalog"
	case kindTags:
		return "/v2/" + r.repo + "/tags/list"
	case kindReferrers:
		return "/v2/" + r.repo + "/referrers/" + string(r.digest)
	case kindManifest:
		return "/v2/" + r.repo + "/manifests/" + r.ref.String()
	case kindBlob:
		return "/v2/" + r.repo + "/blobs/" + string(r.digest)
	case kindUploads:
		return "/v2/" + r.repo + "/blobs/uploads/"
	case kindUpload:
		return "/v2/" + r.repo + "/blobs/uploads/" + r.upload
	}
	return ""
}

func FuzzParsePath(f *testing.F) {
	for _, seed := range []string{
		"/v2/", "/v2/_catalog", "/v2/a/b/tags/list", "/v2/a/manifests/latest", "/v2/a/blobs/uploads/id",
		"/v2/a/blobs/sha256%3A" + someHex, "/v2/a/referrers/" + string(someDigest), "/v2/a/../b/manifests/%00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		req, err := parse(u)
		if err != nil {
			if _, refused := err.(*refusal); !refused && registry.CodeOf(err) == registry.Internal {
				t.Fatalf("parse(%q): an error without a code: %v", target, err)
			}
			return
		}
		if req.repo != "" && oci.CheckRepository(req.repo) != nil {
			t.Fatalf("parse(%q) let the repository %q pass", target, req.repo)
		}
		path := strings.NewReplacer("%3A", ":", "%3a", ":").Replace(u.EscapedPath())
		if path == "/v2" || strings.HasSuffix(path, "/blobs/uploads") {
			path += "/"
		}
		if req.target() != path {
			t.Fatalf("parse(%q) understood %q", target, req.target())
		}
	})
}
