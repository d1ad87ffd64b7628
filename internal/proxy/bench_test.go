package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
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
	w.proxy, w.cache = benchProxy(b, w.direct)
	return w
}

// benchProxy serves a proxy of what is at a URL.
func benchProxy(b *testing.B, url string) (served string, cache *hosted.Registry) {
	b.Helper()
	upstream, err := remote.New(url, remote.Options{Unverified: true})
	if err != nil {
		b.Fatal(err)
	}
	db, cache := benchFolder(b)
	p, err := proxy.New(upstream, cache, proxy.Options{Name: "hub", State: db, Spool: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	return benchFront(b, p), cache
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

// BenchmarkFirstByte tells how long after the origin a client gets the first byte
// of a blob that is not in the cache.
func BenchmarkFirstByte(b *testing.B) {
	const begun, size = 100 << 10, 200 << 10
	var content []byte
	var sent time.Time
	received := make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(size))
		if r.Method == http.MethodHead {
			return
		}
		sent = time.Now()
		w.Write(content[:begun])
		w.(http.Flusher).Flush()
		<-received
		w.Write(content[begun:])
	}))
	b.Cleanup(origin.Close)
	url, _ := benchProxy(b, origin.URL)
	var took []time.Duration
	for b.Loop() {
		content = registrytest.Random(size)
		resp, err := http.Get(url + "/v2/hub/team/app/blobs/" + oci.SHA256.FromBytes(content).String())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(sent))
		received <- struct{}{}
		if n, err := io.Copy(io.Discard, resp.Body); n != size-1 || err != nil {
			b.Fatalf("%d bytes, %v", n+1, err)
		}
		resp.Body.Close()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
}
