package ocihttp_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/ocihttp"
	"github.com/berth-registry/berth/internal/registry"
)

// server is the front over a hosted registry, behind a real socket.
type server struct {
	*httptest.Server
	t   *testing.T
	reg registry.Registry
	log *logLines
}

// newServer starts a server; change may alter its options.
func newServer(t *testing.T, change ...func(*ocihttp.Options)) *server {
	return serve(t, memblob.New(), change...)
}

func serve(t *testing.T, store blob.Store, change ...func(*ocihttp.Options)) *server {
	t.Helper()
	db, err := meta.Open(t.Context(), meta.Options{Path: metatest.File(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := &server{t: t, reg: hosted.New(db, store, hosted.Options{}), log: &logLines{}}
	o := ocihttp.Options{
		Open: func(auth.Identity) registry.Registry { return s.reg },
		Log:  slog.New(slog.NewJSONHandler(s.log, nil)),
	}
	for _, f := range change {
		f(&o)
	}
	s.Server = httptest.NewUnstartedServer(ocihttp.New(o))
	s.Config.MaxHeaderBytes = 256 << 10
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// logLines collects the log of a server.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// answer is a response that was read to its end.
type answer struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	length int64
	body   string
}

// do sends a request; header holds names and values in turns. A body that is
// not a string reader goes out chunked.
func (s *server) do(method, path string, body io.Reader, header ...string) *answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return s.send(r)
}

func (s *server) send(r *http.Request) *answer {
	s.t.Helper()
	resp, err := s.Client().Transport.RoundTrip(r)
	if err != nil {
		s.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return &answer{s.t, r.Method + " " + clip(r.URL.RequestURI()), resp.StatusCode, resp.Header, resp.ContentLength, string(body)}
}

func (s *server) get(path string, header ...string) *answer {
	s.t.Helper()
	return s.do("GET", path, nil, header...)
}

// wants checks the status and headers, which stand as names and values in
// turns; the value "" wants a header to be absent.
func (a *answer) wants(status int, header ...string) *answer {
	a.t.Helper()
	if a.status != status {
		a.t.Errorf("%s: status %d; want %d; body %s", a.what, a.status, status, clip(a.body))
	}
	for i := 0; i < len(header); i += 2 {
		if got := strings.Join(a.header.Values(header[i]), "|"); got != header[i+1] {
			a.t.Errorf("%s: %s: %q; want %q", a.what, header[i], got, header[i+1])
		}
	}
	return a
}

// fails checks the status and the code of every listed error.
func (a *answer) fails(status int, code string) *answer {
	a.t.Helper()
	a.wants(status, "Content-Type", "application/json")
	if strings.HasPrefix(a.what, "HEAD ") {
		if a.body != "" {
			a.t.Errorf("%s: a body: %s", a.what, clip(a.body))
		}
		return a
	}
	var got struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || len(got.Errors) == 0 {
		a.t.Errorf("%s: body %s is not a list of errors (%v)", a.what, clip(a.body), err)
	}
	for _, e := range got.Errors {
		if e.Code != code || e.Message == "" {
			a.t.Errorf("%s: error %s %q; want %s with a message", a.what, e.Code, e.Message, code)
		}
	}
	return a
}

func (a *answer) holds(body string) *answer {
	a.t.Helper()
	if a.body != body {
		a.t.Errorf("%s: body %s; want %s", a.what, clip(a.body), clip(body))
	}
	return a
}

func clip(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}

// startUpload opens a session and returns its path.
func (s *server) startUpload(repo, query string) string {
	s.t.Helper()
	a := s.do("POST", "/v2/"+repo+"/blobs/uploads/"+query, nil).wants(202, "Range", "0-0", "Content-Length", "0")
	location := a.header.Get("Location")
	if id, ok := strings.CutPrefix(location, "/v2/"+repo+"/blobs/uploads/"); !ok || id != a.header.Get("Docker-Upload-UUID") {
		s.t.Fatalf("%s: Location %q, Docker-Upload-UUID %q", a.what, location, a.header.Get("Docker-Upload-UUID"))
	}
	return location
}

// pushBlob stores content and returns its digest.
func (s *server) pushBlob(repo, content string) oci.Digest {
	s.t.Helper()
	d := digestOf(content)
	s.do("POST", "/v2/"+repo+"/blobs/uploads/?digest="+string(d), strings.NewReader(content)).
		wants(201, "Location", "/v2/"+repo+"/blobs/"+string(d), "Docker-Content-Digest", string(d))
	return d
}

func digestOf(content string) oci.Digest { return oci.SHA256.FromBytes([]byte(content)) }

// image is a manifest of a config and no layers.
func image(config string, extra ...string) string {
	return `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeImage + `","config":` + descriptor("application/x.config", config) +
		`,"layers":[]` + strings.Join(extra, "") + `}`
}

func descriptor(mediaType, content string) string {
	text, _ := json.Marshal(oci.Descriptor{MediaType: mediaType, Digest: digestOf(content), Size: int64(len(content))})
	return string(text)
}

// pushImage stores an image with its config and returns its manifest.
func (s *server) pushImage(repo, ref, config string, extra ...string) string {
	s.t.Helper()
	s.pushBlob(repo, config)
	m := image(config, extra...)
	if ref == "" {
		ref = string(digestOf(m))
	}
	s.do("PUT", "/v2/"+repo+"/manifests/"+ref, strings.NewReader(m), "Content-Type", oci.MediaTypeImage).wants(201)
	return m
}

// chunked hides a reader's length from the client, which then sends chunks.
type chunked struct{ io.Reader }
