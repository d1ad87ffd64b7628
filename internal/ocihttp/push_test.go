package ocihttp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

func TestUploadInChunks(t *testing.T) {
	for _, last := range []string{"PATCH", "PUT"} {
		for _, ranges := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s-%v", last, ranges), func(t *testing.T) {
				s := newServer(t)
				d := string(digestOf("abcdef"))
				at := s.startUpload("a/b", "")
				s.do("PATCH", at, strings.NewReader("abc"), withRange(ranges, "0-2")...).
					wants(202, "Location", at, "Range", "0-2", "Content-Length", "0", "Docker-Upload-Uuid", at[len("/v2/a/b/blobs/uploads/"):])
				s.get(at).wants(204, "Location", at, "Range", "0-2").holds("")
				if last == "PATCH" {
					s.do("PATCH", at, chunked{strings.NewReader("def")}, withRange(ranges, "3-5")...).wants(202, "Range", "0-5")
					s.do("PUT", at+"?digest="+d, nil).wants(201, "Location", "/v2/a/b/blobs/"+d, "Docker-Content-Digest", d)
				} else {
					s.do("PUT", at+"?digest="+d, chunked{strings.NewReader("def")}, withRange(ranges, "3-5")...).wants(201)
				}
				s.get("/v2/a/b/blobs/" + d).wants(200).holds("abcdef")
				for _, method := range []string{"GET", "PATCH", "DELETE"} {
					s.do(method, at, nil).fails(404, "BLOB_UPLOAD_UNKNOWN")
				}
			})
		}
	}
}

func withRange(yes bool, text string) []string {
	if !yes {
		return nil
	}
	return []string{"Content-Range", text}
}

func TestUploadOutOfOrder(t *testing.T) {
	s := newServer(t)
	at := s.startUpload("a", "")
	s.do("PATCH", at, strings.NewReader("xyz"), "Content-Range", "3-5").fails(416, "BLOB_UPLOAD_INVALID").
		wants(416, "Location", at, "Range", "0-0")
	s.do("PATCH", at, strings.NewReader("abc"), "Content-Range", "bytes 0-2/*").wants(202)
	d := string(digestOf("abcdef"))
	for _, wrong := range []string{"0-2", "2-4", "4-6"} {
		s.do("PATCH", at, strings.NewReader("def"), "Content-Range", wrong).fails(416, "BLOB_UPLOAD_INVALID").
			wants(416, "Location", at, "Range", "0-2")
		s.do("PUT", at+"?digest="+d, strings.NewReader("def"), "Content-Range", wrong).fails(416, "BLOB_UPLOAD_INVALID").
			wants(416, "Location", at, "Range", "0-2")
	}
	s.do("PUT", at+"?digest="+d, strings.NewReader("def"), "Content-Range", "3-5").wants(201)
}

func TestUploadRefusals(t *testing.T) {
	s := newServer(t)
	at := s.startUpload("a", "")
	for _, malformed := range []string{"0", "5-2", "a-b", "bytes=0-2", "0-2/3", "-2", "0-9223372036854775807"} {
		s.do("PATCH", at, strings.NewReader("abc"), "Content-Range", malformed).fails(400, "BLOB_UPLOAD_INVALID")
	}
	s.do("PATCH", at, strings.NewReader("abc"), "Content-Range", "0-3").fails(400, "SIZE_INVALID")
	s.do("PATCH", at, nil, "Content-Range", "0-3").fails(400, "SIZE_INVALID")
	s.get(at).wants(204, "Range", "0-0")

	s.do("PUT", at, strings.NewReader("abc")).fails(400, "DIGEST_INVALID")
	s.do("PUT", at+"?digest=sha256:bad", strings.NewReader("abc")).fails(400, "DIGEST_INVALID")
	s.do("PUT", at+"?digest=md5:"+strings.Repeat("0", 32), strings.NewReader("abc")).fails(400, "DIGEST_INVALID")
	d := string(digestOf("abc"))
	s.do("PUT", at+"?digest="+d+"&digest="+d, strings.NewReader("abc")).fails(400, "UNSUPPORTED")
	s.do("PUT", at+"?digest=%zz", strings.NewReader("abc")).fails(400, "UNSUPPORTED")
	s.get(at).wants(204, "Range", "0-0")

	// A wrong digest leaves the session with what it has.
	s.do("PUT", at+"?digest="+string(digestOf("other")), strings.NewReader("abc")).fails(400, "DIGEST_INVALID")
	s.get(at).wants(204, "Range", "0-2")
	s.do("PUT", at+"?digest="+d, nil).wants(201)

	other := s.startUpload("a", "")
	elsewhere := strings.Replace(other, "/v2/a/", "/v2/b/", 1)
	for _, method := range []string{"GET", "HEAD", "PATCH", "DELETE"} {
		s.do(method, elsewhere, nil).fails(404, "BLOB_UPLOAD_UNKNOWN")
	}
	s.do("PUT", elsewhere+"?digest="+d, strings.NewReader("abc")).fails(404, "BLOB_UPLOAD_UNKNOWN")
	s.do("DELETE", other, nil).wants(204).holds("")
	s.do("DELETE", other, nil).fails(404, "BLOB_UPLOAD_UNKNOWN")
}

// TestUploadBodyAgainstRange: without a Content-Length the Content-Range is
// what holds.
func TestUploadBodyAgainstRange(t *testing.T) {
	s := newServer(t)
	at := s.startUpload("a", "")
	s.do("PATCH", at, chunked{strings.NewReader("ab")}, "Content-Range", "0-2").fails(400, "SIZE_INVALID")
	s.get(at).wants(204, "Range", "0-1")
	s.do("PATCH", at, chunked{strings.NewReader("cdXX")}, "Content-Range", "2-3").fails(400, "SIZE_INVALID")
	s.get(at).wants(204, "Range", "0-3")
	s.do("PUT", at+"?digest="+string(digestOf("abcd")), nil).wants(201)
}

func TestUploadStart(t *testing.T) {
	s := newServer(t)
	s.do("POST", "/v2/a/blobs/uploads", nil).wants(202)
	// A body without a digest is nobody's: the session starts empty.
	a := s.do("POST", "/v2/a/blobs/uploads/", strings.NewReader("ignored")).wants(202, "Range", "0-0")
	s.do("PUT", a.header.Get("Location")+"?digest="+string(digestOf("")), nil).wants(201)

	at := s.startUpload("a", "?digest-algorithm=sha512")
	d := string(oci.SHA512.FromBytes([]byte("abc")))
	s.do("PUT", at+"?digest="+d, strings.NewReader("abc")).wants(201, "Docker-Content-Digest", d)
	s.do("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", nil).fails(400, "DIGEST_INVALID")
	s.do("POST", "/v2/A/blobs/uploads/", nil).fails(400, "NAME_INVALID")

	for name, content := range map[string]string{"sha256": "abc", "sha512": "", "": ""} {
		algorithm := oci.Algorithm(name)
		if name == "" {
			algorithm = oci.SHA256
		}
		d := string(algorithm.FromBytes([]byte(content)))
		s.do("POST", "/v2/b/blobs/uploads/?digest="+d, chunked{strings.NewReader(content)}).
			wants(201, "Location", "/v2/b/blobs/"+d, "Docker-Content-Digest", d)
		s.get("/v2/b/blobs/" + d).wants(200).holds(content)
	}
	s.do("POST", "/v2/b/blobs/uploads/?digest="+string(digestOf("x")), strings.NewReader("y")).fails(400, "DIGEST_INVALID")
	s.do("POST", "/v2/b/blobs/uploads/?digest=sha256:12", strings.NewReader("y")).fails(400, "DIGEST_INVALID")
}

func TestMount(t *testing.T) {
	s := newServer(t)
	d := string(s.pushBlob("from/here", "content"))
	for _, query := range []string{"mount=" + d + "&from=from/here", "mount=" + d, "from=from%2Fhere&mount=" + strings.Replace(d, ":", "%3A", 1)} {
		to := fmt.Sprintf("to/r%d", len(query))
		s.do("POST", "/v2/"+to+"/blobs/uploads/?"+query, nil).wants(201, "Location", "/v2/"+to+"/blobs/"+d, "Docker-Content-Digest", d)
		s.get("/v2/" + to + "/blobs/" + d).wants(200).holds("content")
	}
	s.startUpload("to/y", "?mount="+d+"&from=from/nowhere")
	s.startUpload("to/y", "?mount="+string(digestOf("absent"))+"&from=from/here")
	s.startUpload("to/y", "?from=from/here")
	s.do("POST", "/v2/to/y/blobs/uploads/?mount=sha256:1&from=from/here", nil).fails(400, "DIGEST_INVALID")
	s.do("POST", "/v2/to/y/blobs/uploads/?mount="+d+"&from=../x", nil).fails(400, "NAME_INVALID")

	// A session that replaces a mount hashes as the mount's digest does.
	d512 := string(oci.SHA512.FromBytes([]byte("abc")))
	at := s.startUpload("to/y", "?mount="+d512+"&from=from/here")
	s.do("PUT", at+"?digest="+d512, strings.NewReader("abc")).wants(201)
	// What could not be mounted may have come along.
	extra := string(digestOf("extra"))
	s.do("POST", "/v2/to/y/blobs/uploads/?mount="+extra+"&digest="+extra, strings.NewReader("extra")).wants(201)
}

func TestManifestPush(t *testing.T) {
	s := newServer(t)
	m := image("config")
	d := string(digestOf(m))
	put := func(ref, content, mediaType string) *answer {
		return s.do("PUT", "/v2/a/manifests/"+ref, strings.NewReader(content), "Content-Type", mediaType)
	}
	missing := put("v1", m, oci.MediaTypeImage).fails(400, "MANIFEST_BLOB_UNKNOWN")
	if !strings.Contains(missing.body, string(digestOf("config"))) {
		t.Errorf("the missing blob is not named: %s", missing.body)
	}
	s.pushBlob("a", "config")
	put("v1", m, oci.MediaTypeImage).wants(201, "Location", "/v2/a/manifests/"+d, "Docker-Content-Digest", d, "Oci-Subject", "", "Oci-Tag", "")
	put(d, m, oci.MediaTypeImage+"; charset=utf-8").wants(201, "Docker-Content-Digest", d)
	put("v2", m, "").wants(201)
	s.get("/v2/a/manifests/v2").wants(200).holds(m)

	put(string(digestOf("x")), m, oci.MediaTypeImage).fails(400, "DIGEST_INVALID")
	put("sha256:baddigeststring", m, oci.MediaTypeImage).fails(400, "DIGEST_INVALID")
	put("v1", m, oci.MediaTypeIndex).fails(400, "MANIFEST_INVALID")
	put("v1", "", oci.MediaTypeImage).fails(400, "MANIFEST_INVALID")

	subject := s.pushImage("a", "", "config", `,"subject":`+descriptor(oci.MediaTypeImage, m))
	put("v3", subject, oci.MediaTypeImage).wants(201, "Oci-Subject", d)
}

func TestManifestPushWithTags(t *testing.T) {
	s := newServer(t)
	s.pushBlob("a", "config")
	m := image("config")
	at := "/v2/a/manifests/" + string(digestOf(m))
	put := func(path string) *answer {
		return s.do("PUT", path, strings.NewReader(m), "Content-Type", oci.MediaTypeImage)
	}
	put(at+"?tag=x&tag=y&tag=x").wants(201, "Oci-Tag", "x|y")
	s.get("/v2/a/manifests/y").wants(200).holds(m)
	put(at+"?tag=-bad").fails(400, "NAME_INVALID")
	put(at+"?tag=").fails(400, "NAME_INVALID")
	put("/v2/a/manifests/z?tag=x").fails(400, "UNSUPPORTED")

	var hundred []string
	for i := range 100 {
		hundred = append(hundred, fmt.Sprintf("tag=t%02d", i))
	}
	a := put(at + "?" + strings.Join(hundred, "&")).wants(201)
	if got := a.header.Values("Oci-Tag"); len(got) != 100 || !slices.IsSorted(got) {
		t.Errorf("OCI-Tag: %v", got)
	}
	put(at+"?tag=more&"+strings.Join(hundred, "&")).fails(414, "UNSUPPORTED")
	s.get("/v2/a/manifests/more").fails(404, "MANIFEST_UNKNOWN")
}

func TestManifestSize(t *testing.T) {
	s := newServer(t)
	s.pushBlob("a", "config")
	pad := func(n int) string {
		m := image("config")
		return m + strings.Repeat(" ", n-len(m))
	}
	put := func(content string, inChunks bool) *answer {
		if inChunks {
			return s.do("PUT", "/v2/a/manifests/v1", chunked{strings.NewReader(content)}, "Content-Type", oci.MediaTypeImage)
		}
		return s.do("PUT", "/v2/a/manifests/v1", strings.NewReader(content), "Content-Type", oci.MediaTypeImage)
	}
	put(pad(oci.MaxManifest), false).wants(201)
	put(pad(oci.MaxManifest), true).wants(201)
	put(pad(oci.MaxManifest+1), false).fails(413, "SIZE_INVALID")
	put(pad(oci.MaxManifest+1), true).fails(413, "SIZE_INVALID")
}

func TestManifestHostileJSON(t *testing.T) {
	s := newServer(t)
	s.pushBlob("a", "config")
	good := image("config")
	for name, content := range map[string]string{
		"not JSON":     "{",
		"a list":       "[]",
		"deep":         strings.Replace(good, `"layers":[]`, `"x":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000), 1),
		"twice":        strings.Replace(good, `"layers":[]`, `"config":{},"layers":[]`, 1),
		"case":         strings.Replace(good, `"layers":[]`, `"Layers":[]`, 1),
		"huge number":  strings.Replace(good, `"schemaVersion":2`, `"schemaVersion":2e999`, 1),
		"bad UTF-8":    strings.Replace(good, `"layers":[]`, "\"x\":\"\xff\"", 1),
		"trailing":     good + "{}",
		"null":         "null",
		"wrong digest": strings.Replace(good, "sha256:", "sha256:x", 1),
	} {
		a := s.do("PUT", "/v2/a/manifests/v1", strings.NewReader(content), "Content-Type", oci.MediaTypeImage).fails(400, "MANIFEST_INVALID")
		var got struct{ Errors []struct{ Detail any } }
		if json.Unmarshal([]byte(a.body), &got); len(got.Errors) != 1 || got.Errors[0].Detail == nil {
			t.Errorf("%s: no detail says why: %s", name, a.body)
		}
	}
	s.get("/v2/a/manifests/v1").fails(404, "MANIFEST_UNKNOWN")
}

func TestDelete(t *testing.T) {
	s := newServer(t)
	m := s.pushImage("a", "v1", "config")
	config, d := "/v2/a/blobs/"+string(digestOf("config")), string(digestOf(m))
	index := `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeIndex + `","manifests":[` + descriptor(oci.MediaTypeImage, m) + `]}`
	s.do("PUT", "/v2/a/manifests/all", strings.NewReader(index), "Content-Type", oci.MediaTypeIndex).wants(201)

	s.do("DELETE", config, nil).fails(409, "DENIED")
	s.do("DELETE", "/v2/a/manifests/"+d, nil).fails(409, "DENIED")
	s.do("DELETE", "/v2/a/manifests/v1", nil).wants(202, "Content-Length", "0")
	s.do("DELETE", "/v2/a/manifests/v1", nil).fails(404, "MANIFEST_UNKNOWN")
	s.get("/v2/a/manifests/" + d).wants(200)
	s.do("DELETE", "/v2/a/manifests/"+string(digestOf(index)), nil).wants(202)
	s.get("/v2/a/manifests/all").fails(404, "MANIFEST_UNKNOWN")
	s.do("DELETE", "/v2/a/manifests/"+d, nil).wants(202)
	s.do("DELETE", config, nil).wants(202)
	s.do("DELETE", config, nil).fails(404, "BLOB_UNKNOWN")
	for _, path := range []string{"/manifests/v1", "/manifests/" + d, "/blobs/" + d} {
		s.do("DELETE", "/v2/none"+path, nil).fails(404, "NAME_UNKNOWN")
	}
	s.do("DELETE", "/v2/a/blobs/latest", nil).fails(400, "DIGEST_INVALID")
}

// forgetful loses what it is sent, as a database does that crashes.
type forgetful struct {
	registry.Registry
	code registry.Code
}

func (f forgetful) StartUpload(ctx context.Context, repo string, o registry.UploadOptions) (registry.Upload, error) {
	u, err := f.Registry.StartUpload(ctx, repo, o)
	return forgotten{u, f.code}, err
}

type forgotten struct {
	registry.Upload
	code registry.Code
}

func (f forgotten) Commit(context.Context, int64, io.Reader, oci.Digest) (oci.Descriptor, error) {
	return oci.Descriptor{}, &registry.Error{Code: f.code}
}

// TestWholePushThatWasLost: a client that pushes with one request knows of no
// session that it could begin anew. It is told to send the blob again.
func TestWholePushThatWasLost(t *testing.T) {
	for _, code := range []registry.Code{registry.UploadUnknown, registry.RangeInvalid} {
		s := newServer(t)
		s.reg = forgetful{s.reg, code}
		s.do("POST", "/v2/a/b/blobs/uploads/?digest="+string(digestOf("abc")), strings.NewReader("abc")).fails(503, "UNAVAILABLE").
			wants(503, "Retry-After", "5")
	}
}
