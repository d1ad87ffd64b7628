package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// startLimit serves a fresh folder and connects to it.
func startLimit(t *testing.T) *client {
	t.Helper()
	s, err := newLimitServer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	c, err := dial(t.Context(), srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

// The blobs' digests come from remembered hashes; verify hashes for itself.
func TestLimitServerKeepsBlobs(t *testing.T) {
	c, src := startLimit(t), newSource()
	for _, size := range []int64{tailSize, 2 << 10, 2 << 10, 1<<20 + tailSize, 3<<20 + 5} {
		b := src.blob(size)
		if err := c.pushBlob("a/b", &b); err != nil {
			t.Fatal(err)
		}
		path := blobPath("a/b", b.digest)
		if err := c.verify(path, b.digest); err != nil {
			t.Error(err)
		}
		if _, err := c.do(request{method: http.MethodHead, path: path, want: http.StatusOK, wantSize: size}); err != nil {
			t.Error(err)
		}
	}
}

func TestLimitServerKeepsManifests(t *testing.T) {
	c, src := startLimit(t), newSource()
	first, second := newImage("1", src.blobs(3, 2<<10)), newImage("2", src.blobs(3, 2<<10))
	if err := c.pushImage("a/b", "latest", first); err != nil {
		t.Fatal(err)
	}
	if err := c.putManifest("a/b", second.digest, second, "latest", "v2"); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]image{first.digest: first, second.digest: second, "latest": second, "v2": second} {
		if err := c.verify(manifestPath("a/b", ref), want.digest); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestLimitServerRefuses(t *testing.T) {
	b := newSource().blob(2 << 10)
	wrong := "sha256:" + strings.Repeat("0", 64)
	tests := []request{
		{method: http.MethodPut, path: "/v2/a/blobs/uploads/1?digest=" + wrong, blob: &b, want: http.StatusBadRequest},
		{method: http.MethodGet, path: blobPath("a", wrong), want: http.StatusNotFound},
		{method: http.MethodGet, path: manifestPath("a", "..%2f..%2fetc"), want: http.StatusNotFound},
		{method: http.MethodDelete, path: manifestPath("a", "v1"), want: http.StatusMethodNotAllowed},
	}
	c := startLimit(t)
	for _, r := range tests {
		if _, err := c.do(r); err != nil {
			t.Error(err)
		}
	}
}

func TestCommitPath(t *testing.T) {
	for location, want := range map[string]string{
		"/v2/a/blobs/uploads/1":                             "/v2/a/blobs/uploads/1?digest=sha256:0",
		"http://127.0.0.1:5000/v2/a/blobs/uploads/1?s=x%3D": "/v2/a/blobs/uploads/1?s=x%3D&digest=sha256:0",
		"": "",
	} {
		got, err := commitPath(location, "sha256:0")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("commitPath(%q) = %q, %v; want %q", location, got, err, want)
		}
	}
}
