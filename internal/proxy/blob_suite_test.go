package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/blobtest"
	"github.com/berth-registry/berth/internal/blob/fsblob"
	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

const (
	blobHere  = "hub/library/app"
	blobThere = "library/app"
)

// blobStack is a proxy named hub between a hosted registry, as its origin, and
// another over a folder, as its cache.
type blobStack struct {
	*Registry
	origin *shipper
	store  registry.Registry // what the origin has
	db     *meta.DB          // of the cache, and the proxy's state
	blobs  *blobtest.Faulty  // of the cache
	spool  string

	mu     sync.Mutex
	events []Event
	stored atomic.Int64
	ahead  atomic.Int64 // of the clock, in ns
}

func newBlobStack(t testing.TB, change ...func(*Options)) *blobStack {
	t.Helper()
	files, err := fsblob.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	store := hosted.New(openRows(t, metatest.File(t)), memblob.New(), hosted.Options{})
	return newBlobStackOn(t, &shipper{Reader: store}, store, metatest.File(t), files, change...)
}

// newBlobStackOn shares an origin and a cache with others.
func newBlobStackOn(t testing.TB, origin *shipper, store registry.Registry, rows string, files blob.Store, change ...func(*Options)) *blobStack {
	t.Helper()
	s := &blobStack{origin: origin, store: store, db: openRows(t, rows), blobs: &blobtest.Faulty{Store: files}, spool: t.TempDir()}
	cache := hosted.New(s.db, s.blobs, hosted.Options{Sparse: func(string) bool { return true }})
	o := Options{
		Name: "hub", State: s.db, Spool: s.spool,
		Stored: func(n int64) { s.stored.Add(n) },
		Now:    func() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) },
		Observe: func(e Event) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, e)
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, f := range change {
		f(&o)
	}
	var err error
	if s.Registry, err = New(origin, cache, o); err != nil {
		t.Fatal(err)
	}
	s.flights.pause = time.Millisecond
	t.Cleanup(s.Close)
	return s
}

func openRows(t testing.TB, path string) *meta.DB {
	t.Helper()
	db, err := meta.Open(t.Context(), meta.Options{Path: path, Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// ship gives the origin a blob.
func (s *blobStack) ship(t testing.TB, content []byte) oci.Digest {
	t.Helper()
	return registrytest.PushBlob(t, s.store, blobThere, content).Digest
}

// find is Blob, which must succeed.
func (s *blobStack) find(t testing.TB, d oci.Digest) registry.Blob {
	t.Helper()
	b, err := s.Blob(t.Context(), blobHere, d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// open reads from off to the end of a blob.
func (s *blobStack) open(t testing.TB, d oci.Digest, off int64) io.ReadCloser {
	t.Helper()
	b := s.find(t, d)
	r, err := b.Open(t.Context(), off, b.Descriptor().Size-off)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// landed waits until nothing more is done for a blob that nobody reads.
func (s *blobStack) landed(t testing.TB, d oci.Digest) {
	t.Helper()
	for s.flights.busy(d) {
		if t.Context().Err() != nil {
			t.Fatalf("%s is still in use", d)
		}
		time.Sleep(time.Millisecond)
	}
}

// wantCached wants the cache to have a blob, or not to.
func (s *blobStack) wantCached(t testing.TB, repo string, d oci.Digest, want bool) {
	t.Helper()
	_, err := s.cache.Blob(t.Context(), repo, d)
	if want && err != nil || !want && !noBlob(err) {
		t.Errorf("the cache's %s in %s: %v, want it there: %t", d, repo, err, want)
	}
}

// wantNothingLeft ends the proxy and wants no bytes in the cache but those of n blobs, no upload
// and no spool.
func (s *blobStack) wantNothingLeft(t testing.TB, n int) {
	t.Helper()
	s.Close()
	objects := 0
	for _, err := range s.blobs.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		objects++
	}
	if objects != n {
		t.Errorf("the cache's folder has %d objects, want %d", objects, n)
	}
	uploads, err := s.db.IdleUploads(t.Context(), "", 10)
	if err != nil || len(uploads) != 0 {
		t.Errorf("uploads that were left: %v, %v", uploads, err)
	}
	s.wantNoSpool(t)
}

// wantNoSpool wants no file of the spool to be there or open.
func (s *blobStack) wantNoSpool(t testing.TB) {
	t.Helper()
	if left, err := filepath.Glob(filepath.Join(s.spool, "*")); err != nil || len(left) != 0 {
		t.Errorf("left in the spool: %v, %v", left, err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return // only Linux tells
	}
	for _, e := range open {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.HasPrefix(to, s.spool) {
			t.Errorf("still open: %s", to)
		}
	}
}

func (s *blobStack) seen(kind string) (results []string, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Kind == kind {
			results = append(results, e.Result)
			bytes += e.Bytes
		}
	}
	return results, bytes
}

func (s *blobStack) wantSeen(t testing.TB, kind string, want ...string) {
	t.Helper()
	if got, _ := s.seen(kind); !slices.Equal(got, want) {
		t.Errorf("%s events: %v, want %v", kind, got, want)
	}
}

// part of a blob that was opened.
type part struct{ off, n int64 }

// shipper is an origin that counts what is asked of it, and breaks as it is told.
type shipper struct {
	registry.Reader
	// look comes before each Blob. body changes the n-th body, from 1, of those
	// that were opened. Both may be nil; they are set before anything is asked.
	look func(repo string, d oci.Digest) error
	size func(int64) int64 // that it claims
	body func(n int, p part, r io.ReadCloser) (io.ReadCloser, error)

	mu    sync.Mutex
	heads int
	parts []part
}

func (s *shipper) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	s.mu.Lock()
	s.heads++
	s.mu.Unlock()
	if s.look != nil {
		if err := s.look(repo, d); err != nil {
			return nil, err
		}
	}
	b, err := s.Reader.Blob(ctx, repo, d)
	return shipped{b, s}, err
}

// asked is how often it was looked for a blob, and how often one was opened.
func (s *shipper) asked() (heads, gets int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heads, len(s.parts)
}

func (s *shipper) wantAsked(t testing.TB, heads, gets int) {
	t.Helper()
	if h, g := s.asked(); h != heads || g != gets {
		t.Errorf("the origin was looked at %d times and %d blobs were opened, want %d and %d", h, g, heads, gets)
	}
}

func (s *shipper) wantParts(t testing.TB, want ...part) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.parts, want) {
		t.Errorf("opened at the origin: %v, want %v", s.parts, want)
	}
}

// shipped is a blob of the origin.
type shipped struct {
	registry.Blob
	s *shipper
}

func (b shipped) Descriptor() oci.Descriptor {
	d := b.Blob.Descriptor()
	if b.s.size != nil {
		d.Size = b.s.size(d.Size)
	}
	return d
}

func (b shipped) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	b.s.mu.Lock()
	b.s.parts = append(b.s.parts, part{off, n})
	count := len(b.s.parts)
	b.s.mu.Unlock()
	r, err := b.Blob.Open(ctx, off, n)
	if err != nil || b.s.body == nil {
		return r, err
	}
	return b.s.body(count, part{off, n}, endsEarly{ctx, r})
}

// endsEarly ends with a context, as an HTTP body does.
type endsEarly struct {
	ctx context.Context
	io.ReadCloser
}

func (r endsEarly) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.ReadCloser.Read(p)
}

// gate lets bytes pass up to a mark, which the test sets.
type gate struct {
	mu      sync.Mutex
	changed *sync.Cond
	mark    int64
	passed  int64
}

func newGate() *gate {
	g := &gate{}
	g.changed = sync.NewCond(&g.mu)
	return g
}

// to lets bytes pass up to the n-th of all.
func (g *gate) to(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mark = n
	g.changed.Broadcast()
}

// body is a body of which only that much passes.
func (g *gate) body(_ int, _ part, r io.ReadCloser) (io.ReadCloser, error) {
	ctx := context.Background()
	if e, ok := r.(endsEarly); ok {
		ctx = e.ctx
	}
	context.AfterFunc(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.changed.Broadcast()
	})
	return gated{r, g, ctx}, nil
}

type gated struct {
	io.ReadCloser
	g   *gate
	ctx context.Context
}

func (r gated) Read(p []byte) (int, error) {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	for r.g.passed >= r.g.mark {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		r.g.changed.Wait()
	}
	n, err := r.ReadCloser.Read(p[:min(int64(len(p)), r.g.mark-r.g.passed)])
	r.g.passed += int64(n)
	return n, err
}

// cut is a body that breaks off after n bytes.
func cut(r io.ReadCloser, n int64, err error) io.ReadCloser {
	return body{io.MultiReader(io.LimitReader(r, n), failing{err}), r}
}

type body struct {
	io.Reader
	io.Closer
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

var errCut = errors.New("connection reset by peer")

// take reads n bytes and holds them against content.
func take(t testing.TB, r io.Reader, content []byte) {
	t.Helper()
	got := make([]byte, len(content))
	if n, err := io.ReadFull(r, got); err != nil {
		t.Fatalf("%d bytes of %d, then %v", n, len(content), err)
	}
	if !bytes.Equal(got, content) {
		t.Fatalf("%d bytes differ from the blob's", len(got))
	}
}

// takeAll is take of all that there is; it closes r.
func takeAll(t testing.TB, r io.ReadCloser, content []byte) {
	t.Helper()
	got, err := io.ReadAll(r)
	r.Close()
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%d bytes, which are right: %t, %v; want %d", len(got), bytes.Equal(got, content), err, len(content))
	}
}
