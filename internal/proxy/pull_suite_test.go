package proxy

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

const (
	appHere  = "hub/library/app"
	appThere = "library/app"
)

// pullStack is a proxy named hub between a hosted registry, as its origin, and
// another one, as its cache. Its clock moves by hand.
type pullStack struct {
	*Registry
	store  registry.Registry // what the origin has
	origin *listened
	cache  *brittle
	db     *meta.DB // of the cache, and the proxy's state
	path   string   // of its file
	change []func(*Options)

	mu     sync.Mutex
	clock  time.Time
	events []Event
}

func newPullStack(t testing.TB, change ...func(*Options)) *pullStack {
	t.Helper()
	s := &pullStack{
		store: hosted.New(openState(t, metatest.File(t)), memblob.New(), hosted.Options{}),
		path:  metatest.File(t), change: change, clock: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC),
	}
	s.origin = &listened{Reader: s.store}
	s.db = openState(t, s.path)
	cache := hosted.New(s.db, memblob.New(), hosted.Options{Sparse: func(string) bool { return true }})
	s.cache = &brittle{Registry: cache}
	s.Registry = s.start(t, s.db)
	return s
}

// start starts a proxy on what the stack has.
func (s *pullStack) start(t testing.TB, state State) *Registry {
	t.Helper()
	o := Options{Name: "hub", State: state, Spool: t.TempDir(), Library: true, Now: s.now, Observe: s.observe,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	for _, f := range s.change {
		f(&o)
	}
	p, err := New(s.origin, s.cache, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// restart replaces the proxy by one that has only what is stored.
func (s *pullStack) restart(t testing.TB) {
	t.Helper()
	s.Close()
	s.Registry = s.start(t, s.db)
}

func (s *pullStack) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock
}

func (s *pullStack) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock = s.clock.Add(d)
}

func (s *pullStack) observe(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

// lastEvent is what was observed last.
func (s *pullStack) lastEvent(t testing.TB) Event {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.events) == 0 {
		t.Fatal("nothing was observed")
	}
	return s.events[len(s.events)-1]
}

// push gives the origin an image.
func (s *pullStack) push(t testing.TB, tags ...string) registry.Manifest {
	t.Helper()
	return registrytest.PushImage(t, s.store, appThere, tags...).Manifest
}

// ask asks for a manifest and says how the answer came about.
func (s *pullStack) ask(t testing.TB, ref oci.Ref) (registry.Manifest, registry.Freshness, error) {
	t.Helper()
	ctx, told := registry.WithFreshness(t.Context())
	m, err := s.Manifest(ctx, appHere, ref)
	if f := told(); f != nil {
		return m, *f, err
	}
	return m, registry.Freshness{}, err
}

// wants asks for a tag or digest and wants m, with the calls of the origin that
// are named; it returns how the answer came about.
func (s *pullStack) wants(t testing.TB, what, ref string, m registry.Manifest, calls ...string) registry.Freshness {
	t.Helper()
	parsed, err := oci.ParseRef(ref)
	if err != nil {
		t.Fatal(err)
	}
	s.origin.forget()
	got, how, err := s.ask(t, parsed)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if got.Digest != m.Digest || got.MediaType != m.MediaType || string(got.Content) != string(m.Content) {
		t.Fatalf("%s: got %s, want %s", what, got.Digest, m.Digest)
	}
	s.wantCalls(t, what, calls...)
	return how
}

// fails asks and wants an error of a code.
func (s *pullStack) fails(t testing.TB, what, ref string, code registry.Code, calls ...string) (registry.Freshness, error) {
	t.Helper()
	parsed, err := oci.ParseRef(ref)
	if err != nil {
		t.Fatal(err)
	}
	s.origin.forget()
	_, how, err := s.ask(t, parsed)
	registrytest.WantCode(t, what, err, code)
	s.wantCalls(t, what, calls...)
	return how, err
}

func (s *pullStack) wantCalls(t testing.TB, what string, calls ...string) {
	t.Helper()
	if got := s.origin.heard(); !slices.Equal(got, calls) {
		t.Errorf("%s: the origin was asked %q, want %q", what, got, calls)
	}
}

// cachedTag is what the cache has under a tag; "": nothing.
func (s *pullStack) cachedTag(t testing.TB, tag string) oci.Digest {
	t.Helper()
	d, err := s.cache.Resolve(t.Context(), appHere, oci.TagRef(tag))
	if err != nil && !notThere(err) {
		t.Fatal(err)
	}
	return d.Digest
}

// listened is an origin that notes what it is asked. answer may fail a call, or
// keep it waiting.
type listened struct {
	registry.Reader
	mu     sync.Mutex
	calls  []string
	answer func(call string) error
}

func (l *listened) note(kind, repo, what string) error {
	call := strings.TrimSpace(kind + " " + strings.TrimPrefix(repo+":"+what, appThere+":"))
	l.mu.Lock()
	l.calls = append(l.calls, call)
	answer := l.answer
	l.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(call)
}

// set has answer decide from now on; nil: every call is answered.
func (l *listened) set(answer func(call string) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = answer
}

// fail has every call fail.
func (l *listened) fail(err error) { l.set(func(string) error { return err }) }

func (l *listened) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = nil
}

func (l *listened) heard() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls)
}

func (l *listened) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	if err := l.note("HEAD", repo, ref.String()); err != nil {
		return oci.Descriptor{}, err
	}
	return l.Reader.Resolve(ctx, repo, ref)
}

func (l *listened) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	if err := l.note("GET", repo, ref.String()); err != nil {
		return registry.Manifest{}, err
	}
	return l.Reader.Manifest(ctx, repo, ref)
}

func (l *listened) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	if err := l.note("BLOB", repo, d.String()); err != nil {
		return nil, err
	}
	return l.Reader.Blob(ctx, repo, d)
}

func (l *listened) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := l.note("LIST", repo, after); err != nil {
			yield("", err)
			return
		}
		l.Reader.Tags(ctx, repo, after)(yield)
	}
}

// brittle is a cache whose writes of manifests fail with an error.
type brittle struct {
	registry.Registry
	mu     sync.Mutex
	broken error
}

func (b *brittle) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = err
}

func (b *brittle) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags ...string) (registry.PutResult, error) {
	b.mu.Lock()
	err := b.broken
	b.mu.Unlock()
	if err != nil {
		return registry.PutResult{}, err
	}
	return b.Registry.PutManifest(ctx, repo, m, tags...)
}

// What an origin that does not answer may say.
var (
	errDown    = &registry.Error{Code: registry.Unavailable, Detail: "connection refused"}
	errToken   = &registry.Error{Code: registry.Faulty, Detail: "the token service answered 500"}
	errLimit   = &registry.Error{Code: registry.TooManyRequests, Limit: &registry.Limit{RetryAfter: time.Minute}}
	errRefused = &registry.Error{Code: registry.NameUnknown, Err: registry.ErrRefused}
	errOther   = errors.New("something else")
)

func withTTL(d time.Duration) func(*Options) {
	return func(o *Options) { o.TagTTL = func(string, string) time.Duration { return d } }
}

func following(o *Options) { o.Follow = true }

func openState(t testing.TB, path string) *meta.DB {
	t.Helper()
	db, err := meta.Open(t.Context(), meta.Options{Path: path, Shared: true})
	if err != nil {
		t.Fatalf("open a database: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}
