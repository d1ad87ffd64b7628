package ocihttp_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/ocihttp"
	"github.com/berth-registry/berth/internal/registry"
)

func TestPing(t *testing.T) {
	s := newServer(t)
	for _, path := range []string{"/v2/", "/v2"} {
		s.get(path).wants(200, "Content-Type", "application/json", "Docker-Distribution-Api-Version", "registry/2.0",
			"X-Content-Type-Options", "nosniff").holds("{}")
		s.do("HEAD", path, nil).wants(200, "Content-Length", "2").holds("")
	}
}

func TestManifestPull(t *testing.T) {
	s := newServer(t)
	m := s.pushImage("team/app", "v1", "config")
	d := string(digestOf(m))
	for _, ref := range []string{"v1", d, strings.Replace(d, ":", "%3A", 1)} {
		path := "/v2/team/app/manifests/" + ref
		headers := []string{"Content-Type", oci.MediaTypeImage, "Docker-Content-Digest", d, "Etag", `"` + d + `"`}
		get := s.get(path).wants(200, headers...).holds(m)
		head := s.do("HEAD", path, nil).wants(200, headers...).holds("")
		if get.length != int64(len(m)) || head.length != get.length {
			t.Errorf("%s: Content-Length %d and %d; want %d", ref, get.length, head.length, len(m))
		}
		for _, match := range []string{`"` + d + `"`, "*", `W/"` + d + `"`, `"x", "` + d + `"`} {
			for _, method := range []string{"GET", "HEAD"} {
				s.do(method, path, nil, "If-None-Match", match).wants(304, "Docker-Content-Digest", d, "Etag", `"`+d+`"`).holds("")
			}
		}
		s.get(path, "If-None-Match", `"x"`).wants(200).holds(m)
	}
	for _, method := range []string{"GET", "HEAD"} {
		s.do(method, "/v2/team/app/manifests/v2", nil).fails(404, "MANIFEST_UNKNOWN")
		s.do(method, "/v2/team/app/manifests/"+string(digestOf("x")), nil).fails(404, "MANIFEST_UNKNOWN")
		s.do(method, "/v2/team/none/manifests/v1", nil).fails(404, "NAME_UNKNOWN")
		s.do(method, "/v2/team/app/manifests/sha256:bad", nil).fails(400, "DIGEST_INVALID")
		s.do(method, "/v2/team/app/manifests/-v1", nil).fails(400, "NAME_INVALID")
		s.do(method, "/v2/team/APP/manifests/v1", nil).fails(400, "NAME_INVALID")
	}
}

func TestBlobPull(t *testing.T) {
	s := newServer(t)
	const content = "0123456789"
	d := string(s.pushBlob("a", content))
	path := "/v2/a/blobs/" + d
	headers := []string{"Content-Type", "application/octet-stream", "Docker-Content-Digest", d, "Etag", `"` + d + `"`,
		"Accept-Ranges", "bytes", "Content-Length", "10"}
	s.get(path).wants(200, headers...).holds(content)
	s.do("HEAD", path, nil).wants(200, headers...).holds("")
	s.do("HEAD", path, nil, "Range", "bytes=2-3").wants(200, headers...)
	for _, method := range []string{"GET", "HEAD"} {
		s.do(method, path, nil, "If-None-Match", `"`+d+`"`).wants(304, "Content-Range", "").holds("")
		s.do(method, "/v2/a/blobs/"+string(digestOf("x")), nil).fails(404, "BLOB_UNKNOWN").wants(404, "Etag", "")
		s.do(method, "/v2/b/blobs/"+d, nil).fails(404, "NAME_UNKNOWN")
		s.do(method, "/v2/a/blobs/sha256:bad", nil).fails(400, "DIGEST_INVALID")
	}
}

func TestBlobRange(t *testing.T) {
	s := newServer(t)
	const content = "0123456789"
	path := "/v2/a/blobs/" + string(s.pushBlob("a", content))
	for header, want := range map[string]string{
		"bytes=2-4": "bytes 2-4/10", "bytes=7-": "bytes 7-9/10", "bytes=-3": "bytes 7-9/10",
		"bytes=0-0": "bytes 0-0/10", "bytes=8-99": "bytes 8-9/10", "bytes=-99": "bytes 0-9/10",
	} {
		var first, last int
		for i, part := range strings.Split(strings.TrimSuffix(strings.TrimPrefix(want, "bytes "), "/10"), "-") {
			*[]*int{&first, &last}[i] = int(part[0] - '0')
		}
		s.get(path, "Range", header).wants(206, "Content-Range", want).holds(content[first : last+1])
	}
	for _, header := range []string{"bytes=10-", "bytes=500-0", "bytes=5000-10000", "bytes=-0", "bytes=x"} {
		s.get(path, "Range", header).fails(416, "SIZE_INVALID").wants(416, "Content-Range", "bytes */10")
	}
	for _, header := range []string{"bytes=0-1,4-5", "lines=0-1"} {
		s.get(path, "Range", header).wants(200, "Content-Range", "").holds(content)
	}
	etag := `"` + string(digestOf(content)) + `"`
	s.get(path, "Range", "bytes=0-1", "If-Range", etag).wants(206).holds("01")
	s.get(path, "Range", "bytes=0-1", "If-Range", `"x"`).wants(200).holds(content)
	s.get(path, "Range", "bytes=0-1", "If-Range", "W/"+etag).wants(200).holds(content)
	s.get(path, "Range", "bytes=0-1", "If-Range", "Sat, 29 Oct 1994 19:43:31 GMT").wants(200).holds(content)
	s.get(path, "Range", "bytes=99-", "If-None-Match", etag).wants(304)
}

func TestEmptyBlob(t *testing.T) {
	s := newServer(t)
	path := "/v2/a/blobs/" + string(s.pushBlob("a", ""))
	s.get(path).wants(200, "Content-Length", "0").holds("")
	s.do("HEAD", path, nil).wants(200, "Content-Length", "0")
	s.get(path, "Range", "bytes=0-").fails(416, "SIZE_INVALID").wants(416, "Content-Range", "bytes */0")
}

// linked is a blob store whose objects have URLs; fault may refuse one.
type linked struct {
	blob.Store
	ttl   time.Duration
	opens int
	fault error
}

func (l *linked) URL(_ context.Context, key string, ttl time.Duration) (string, error) {
	l.ttl = ttl
	if l.fault != nil {
		return "", l.fault
	}
	return "https://store.example/" + key[:4] + "?sig=1", nil
}

func (l *linked) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	l.opens++
	return l.Store.Open(ctx, key, off, n)
}

func TestBlobRedirect(t *testing.T) {
	store := &linked{Store: memblob.New()}
	s := serve(t, store, func(o *ocihttp.Options) { o.RedirectTTL = 7 * time.Minute })
	path := "/v2/a/blobs/" + string(s.pushBlob("a", "content"))
	a := s.get(path, "Range", "bytes=0-1").wants(307, "Content-Length", "0", "Content-Range", "", "Cache-Control", "no-store").holds("")
	if location := a.header.Get("Location"); !strings.HasPrefix(location, "https://store.example/") || store.ttl != 7*time.Minute {
		t.Errorf("redirected to %q for %s", location, store.ttl)
	}
	s.do("HEAD", path, nil).wants(200, "Location", "", "Content-Length", "7")
	s.get(path, "If-None-Match", "*").wants(304, "Location", "")
	// No service answers these as the others do.
	for _, header := range []string{"bytes=7-", "bytes=500-0", "bytes=-0", "bytes=x"} {
		s.get(path, "Range", header).fails(416, "SIZE_INVALID").wants(416, "Content-Range", "bytes */7", "Location", "")
	}
	s.get("/v2/a/blobs/"+string(s.pushBlob("a", ""))).wants(200, "Content-Length", "0", "Location", "").holds("")
	if store.opens != 0 {
		t.Errorf("the object was opened %d times", store.opens)
	}
	if strings.Contains(s.log.String(), "sig=1") {
		t.Error("the log holds a signed URL")
	}
	store.fault = blob.ErrUnavailable
	s.get(path, "Range", "bytes=0-1").fails(503, "UNAVAILABLE").wants(503, "Content-Range", "", "Location", "")
	store.fault = blob.ErrUnsupported
	s.get(path, "Range", "bytes=1-2").wants(206, "Content-Range", "bytes 1-2/7", "Location", "").holds("on")
}

// TestBlobRedirectForSome: who is not to be redirected gets the bytes here.
func TestBlobRedirectForSome(t *testing.T) {
	s := serve(t, &linked{Store: memblob.New()}, func(o *ocihttp.Options) {
		o.Redirect = func(r *http.Request) bool { return r.UserAgent() == "near" }
	})
	path := "/v2/a/blobs/" + string(s.pushBlob("a", "content"))
	s.get(path, "User-Agent", "near").wants(307)
	s.get(path, "User-Agent", "far").wants(200, "Location", "", "Content-Length", "7", "Accept-Ranges", "bytes").holds("content")
	s.get(path, "User-Agent", "far", "Range", "bytes=0-2").wants(206, "Content-Range", "bytes 0-2/7").holds("con")
}

// broken is a blob store whose objects end too early.
type broken struct{ blob.Store }

func (b broken) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	return b.Store.Open(ctx, key, off, n-1)
}

func TestShortBlobIsCut(t *testing.T) {
	s := serve(t, broken{memblob.New()})
	path := "/v2/a/blobs/" + string(s.pushBlob("a", "content"))
	resp, err := s.Client().Get(s.URL + path)
	if err == nil { // else not even the header came, which is as good
		defer resp.Body.Close()
		if got, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("a blob that lost a byte was served as whole: %q", got)
		}
	}
	eventually(t, func() bool { return strings.Contains(s.log.String(), "integrity check") })
}

// TestServerWriterIsReached: no wrapper may stand between a blob and the
// server's own ResponseWriter, for only that one reaches sendfile.
func TestServerWriterIsReached(t *testing.T) {
	s := newServer(t)
	d := s.pushBlob("a", "content")
	var target io.Writer
	spy := registrySpy{s.reg, func(w io.Writer) { target = w }}
	var given http.ResponseWriter
	h := ocihttp.New(ocihttp.Options{Open: func(auth.Identity) registry.Registry { return spy }})
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given = w
		h.ServeHTTP(w, r)
	})
	s.get("/v2/a/blobs/" + string(d)).wants(200)
	if target == nil || target != io.Writer(given) {
		t.Errorf("content was written to a %T; want the server's %T", target, given)
	}
}

// registrySpy tells which writer its blobs are copied to.
type registrySpy struct {
	registry.Registry
	tell func(io.Writer)
}

func (r registrySpy) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	b, err := r.Registry.Blob(ctx, repo, d)
	return blobSpy{b, r.tell}, err
}

type blobSpy struct {
	registry.Blob
	tell func(io.Writer)
}

func (b blobSpy) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	rc, err := b.Blob.Open(ctx, off, n)
	return readerSpy{rc, b.tell}, err
}

type readerSpy struct {
	io.ReadCloser
	tell func(io.Writer)
}

func (r readerSpy) WriteTo(w io.Writer) (int64, error) {
	r.tell(w)
	return io.Copy(w, r.ReadCloser)
}

func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for range 500 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("it did not happen within 5 seconds")
}
