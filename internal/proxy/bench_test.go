package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/blob/fsblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/ocihttp"
	"github.com/berth-registry/berth/internal/proxy"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
	"github.com/berth-registry/berth/internal/remote"
)

// benchSize is that of the blobs: 64 MiB, or BERTH_BENCH_MIB.
func benchSize(b *testing.B) int {
	n, err := strconv.Atoi(os.Getenv("BERTH_BENCH_MIB"))
	if err != nil {
		n = 64
	}
	b.SetBytes(int64(n) << 20)
	return n << 20
}

// benchFolder keeps rows and objects.
func benchFolder(b *testing.B) (*meta.DB, *hosted.Registry) {
	b.Helper()
	db, err := meta.Open(b.Context(), meta.Options{Path: metatest.File(b)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	files, err := fsblob.New(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	return db, hosted.New(db, files, hosted.Options{Sparse: func(string) bool { return true }})
}

func benchFront(b *testing.B, r registry.Registry) string {
	front := httptest.NewServer(ocihttp.New(ocihttp.Options{Open: func(auth.Identity) registry.Registry { return r }}))
	b.Cleanup(front.Close)
	return front.URL
}

// benchWorld is a registry and a proxy of it, each behind HTTP.
type benchWorld struct {
	origin, cache *hosted.Registry
	direct, proxy string // URLs
}

func newBenchWorld(b *testing.B) *benchWorld {
	b.Helper()
	w := &benchWorld{}
	_, w.origin = benchFolder(b)
	w.direct = benchFront(b, w.origin)
	upstream, err := remote.New(w.direct, remote.Options{Unverified: true})
	if err != nil {
		b.Fatal(err)
	}
	db, cache := benchFolder(b)
	w.cache = cache
	p, err := proxy.New(upstream, cache, proxy.Options{Name: "hub", State: db, Spool: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	w.proxy = benchFront(b, p)
	return w
}

// ship gives the origin a new blob.
func (w *benchWorld) ship(b *testing.B, size int) oci.Digest {
	b.Helper()
	content := make([]byte, size)
	copy(content, registrytest.Random(32))
	return registrytest.PushBlob(b, w.origin, "team/app", content).Digest
}

// kept waits until a blob is in the cache.
func (w *benchWorld) kept(b *testing.B, d oci.Digest) {
	for {
		_, err := w.cache.Blob(b.Context(), "hub/team/app", d)
		if err == nil {
			return
		}
		if !registry.IsCode(err, registry.BlobUnknown) && !registry.IsCode(err, registry.NameUnknown) {
			b.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// pull takes in a blob n times at once.
func pull(b *testing.B, n int, url string, size int) {
	b.Helper()
	done := make(chan error, n)
	for range n {
		go func() { done <- get(url, size) }()
	}
	for range n {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

func get(url string, size int) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(size) || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s with %d bytes, %v", url, resp.Status, n, err)
	}
	return nil
}

// BenchmarkPull compares pulling from the origin with pulling through a cache
// that lacks the blob, or has it.
func BenchmarkPull(b *testing.B) {
	for _, clients := range []int{1, 50} {
		for _, from := range []string{"origin", "cold", "warm"} {
			b.Run(fmt.Sprintf("%s/%d", from, clients), func(b *testing.B) { benchPull(b, from, clients) })
		}
	}
}

func benchPull(b *testing.B, from string, clients int) {
	w := newBenchWorld(b)
	size := benchSize(b)
	url := w.proxy + "/v2/hub/team/app/blobs/"
	if from == "origin" {
		url = w.direct + "/v2/team/app/blobs/"
	}
	d := w.ship(b, size)
	if from == "warm" {
		pull(b, 1, url+d.String(), size)
		w.kept(b, d)
	}
	for first := true; b.Loop(); first = false {
		if from == "cold" && !first {
			b.StopTimer()
			w.kept(b, d)
			d = w.ship(b, size)
			b.StartTimer()
		}
		pull(b, clients, url+d.String(), size)
	}
}
