package upstream_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
	"github.com/berth-registry/berth/internal/upstream"
)

const index = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

var (
	indexDigest = oci.SHA256.FromBytes([]byte(index))
	content     = []byte("0123456789")
	blobDigest  = oci.SHA256.FromBytes(content)
	v1          = oci.TagRef("v1")
)

// script is a registry that does what a test says, and notes what it is asked.
type script struct {
	*httptest.Server
	mu   sync.Mutex
	does http.HandlerFunc
	asks []string // method and what lies behind the repository, or the whole path
}

func scripted(t *testing.T, does http.HandlerFunc) *script {
	t.Helper()
	s := &script{does: does}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asks = append(s.asks, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v2/team/app/"))
	does := s.does
	s.mu.Unlock()
	does(w, r)
}

// now changes what the registry does.
func (s *script) now(does http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.does = does
}

// asked returns what was asked since it was last called.
func (s *script) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asks := s.asks
	s.asks = nil
	return asks
}

func (s *script) wantAsked(t *testing.T, what string, want ...string) {
	t.Helper()
	if got := s.asked(); !slices.Equal(got, want) {
		t.Errorf("%s: asked %q, want %q", what, got, want)
	}
}

// serve is a registry that has an index as v1 and a blob.
func serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/manifests/v1"), strings.HasSuffix(r.URL.Path, "/manifests/"+indexDigest.String()):
		w.Header().Set("Content-Type", oci.MediaTypeIndex)
		w.Header().Set("Docker-Content-Digest", indexDigest.String())
		w.Header().Set("Content-Length", fmt.Sprint(len(index)))
		io.WriteString(w, index)
	case strings.HasSuffix(r.URL.Path, "/blobs/"+blobDigest.String()):
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(content)))
	case strings.HasSuffix(r.URL.Path, "/tags/list"):
		io.WriteString(w, `{"tags":["v1","v2"]}`)
	default:
		http.NotFound(w, r)
	}
}

// status answers a status, with header fields in pairs.
func status(code int, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(fields); i += 2 {
			w.Header().Set(fields[i], fields[i+1])
		}
		w.WriteHeader(code)
	}
}

// hangUp ends the connection without an answer.
func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// clock stands still until it is moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// calls notes what an upstream observes.
type calls struct {
	mu  sync.Mutex
	all []upstream.Call
}

func (c *calls) observe(call upstream.Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, call)
}

func (c *calls) take() []upstream.Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.all
	c.all = nil
	return all
}

// resolve asks for v1 of team/app.
func resolve(t *testing.T, u *upstream.Registry) error {
	t.Helper()
	d, err := u.Resolve(t.Context(), "team/app", v1)
	if err == nil && d.Digest != indexDigest {
		t.Errorf("resolved %v", d)
	}
	return err
}

func wantCode(t *testing.T, what string, err error, code registry.Code) {
	t.Helper()
	if code == 0 && err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if code != 0 {
		registrytest.WantCode(t, what, err, code)
	}
}

// read reads all of a blob of team/app.
func read(ctx context.Context, b registry.Blob) (string, error) {
	rc, err := b.Open(ctx, 0, b.Descriptor().Size)
	if err != nil {
		return "", err
	}
	defer rc.Close()
	all, err := io.ReadAll(rc)
	return string(all), err
}

func known(u *upstream.Registry) registry.Blob {
	return u.KnownBlob("team/app", oci.Descriptor{Digest: blobDigest, Size: int64(len(content))})
}
