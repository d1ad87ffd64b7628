package proxy_test

import (
	"context"
	"encoding/json"
	"iter"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/proxy"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// The repository of these tests, as the origin and as the proxy call it.
const (
	theirApp = "library/app"
	ourApp   = "hub/library/app"
)

// site is a proxy with all that it stands on: an origin that counts what it is
// asked and can be broken, and a cache, on one clock.
type site struct {
	*proxy.Registry
	upstream *hosted.Registry // what the origin has
	origin   *watched
	cache    *hosted.Registry
	state    *countedState
	ahead    atomic.Int64           // of the real clock, in ns
	another  func() *proxy.Registry // of another process, on the same state

	mu     sync.Mutex
	events []proxy.Event
}

// siteOptions change what a site is made of.
type siteOptions struct {
	ahead  time.Duration // of the clock, at first
	hosted hosted.Options
	blobs  blob.Store                                // of the cache; nil: one in memory
	origin func(*watched) registry.Reader            // what the proxy sees of it
	cache  func(registry.Registry) registry.Registry // the same of the cache
	proxy  func(*proxy.Options)
}

func newSite(t *testing.T, o siteOptions) *site {
	t.Helper()
	s := &site{}
	s.ahead.Store(int64(o.ahead))
	s.upstream = hosted.New(openDB(t, time.Now), memblob.New(), hosted.Options{})
	s.origin = &watched{Reader: s.upstream, calls: map[string]int{}}
	db := openDB(t, s.now)
	if o.blobs == nil {
		o.blobs = memblob.New()
	}
	strict := hosted.New(db, o.blobs, o.hosted)
	o.hosted.Sparse = func(string) bool { return true }
	s.cache = hosted.New(db, o.blobs, o.hosted)
	s.state = &countedState{State: db, lists: map[oci.Digest]int{}}
	options := proxy.Options{Name: "hub", State: s.state, Leases: db, Spool: t.TempDir(), Library: true,
		LocalReferrers: true, Own: strict, Now: s.now, Observe: s.observe}
	if o.proxy != nil {
		o.proxy(&options)
	}
	var origin registry.Reader = s.origin
	if o.origin != nil {
		origin = o.origin(s.origin)
	}
	s.another = func() *proxy.Registry {
		var cache registry.Registry = s.cache
		if o.cache != nil {
			cache = o.cache(cache)
		}
		p, err := proxy.New(origin, cache, options)
		if err != nil {
			t.Fatalf("make a proxy: %v", err)
		}
		t.Cleanup(p.Close)
		return p
	}
	s.Registry = s.another()
	return s
}

func openDB(t *testing.T, now func() time.Time) *meta.DB {
	t.Helper()
	db, err := meta.Open(t.Context(), meta.Options{Path: metatest.File(t), Now: now})
	if err != nil {
		t.Fatalf("open a database: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func (s *site) now() time.Time          { return time.Now().Add(time.Duration(s.ahead.Load())) }
func (s *site) advance(d time.Duration) { s.ahead.Add(int64(d)) }

func (s *site) observe(e proxy.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

// results are those of the answers of a kind.
func (s *site) results(kind string) (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Kind == kind {
			list = append(list, e.Result)
		}
	}
	return list
}

// listed asks for referrers; how is where the answer came from.
func (s *site) listed(t *testing.T, subject oci.Digest, artifactType string) (list []oci.Descriptor, how registry.Freshness, err error) {
	t.Helper()
	ctx, told := registry.WithFreshness(t.Context())
	for d, failed := range s.Referrers(ctx, ourApp, subject, artifactType, "") {
		if failed != nil {
			err = failed
			break
		}
		list = append(list, d)
	}
	if f := told(); f != nil {
		how = *f
	}
	return list, how, err
}

// wantListed fails t unless the referrers are those of the manifests.
func (s *site) wantListed(t *testing.T, what string, subject oci.Digest, want ...registry.Manifest) registry.Freshness {
	t.Helper()
	list, how, err := s.listed(t, subject, "")
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	wantDigests(t, what, list, want...)
	return how
}

// wantDigests fails t unless a list has the manifests, each once and in order.
func wantDigests(t *testing.T, what string, list []oci.Descriptor, want ...registry.Manifest) {
	t.Helper()
	missing := map[oci.Digest]bool{}
	for _, m := range want {
		missing[m.Digest] = true
	}
	last := oci.Digest("")
	for _, d := range list {
		if !missing[d.Digest] {
			t.Errorf("%s: %s is listed, but should not be, or twice", what, d.Digest)
		}
		if d.Digest < last {
			t.Errorf("%s: %s comes after %s", what, d.Digest, last)
		}
		last = d.Digest
		delete(missing, d.Digest)
	}
	for d := range missing {
		t.Errorf("%s: %s is not listed", what, d)
	}
}

// watched is an origin that counts what it is asked for, and fails with an error.
type watched struct {
	registry.Reader // not to be used by itself
	mu              sync.Mutex
	calls           map[string]int
	broken          error
}

// call counts, and finds who answers.
func (w *watched) call(kind string) (registry.Reader, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[kind]++
	return w.Reader, w.broken
}

// wrap changes who answers from now on; unwrap ends that.
func (w *watched) wrap(wrap func(registry.Reader) registry.Reader) (unwrap func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	inner := w.Reader
	w.Reader = wrap(inner)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.Reader = inner
	}
}

// fail has all calls fail from now on; nil: none.
func (w *watched) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = err
}

func (w *watched) count(kind string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[kind]
}

func (w *watched) total() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, of := range w.calls {
		n += of
	}
	return n
}

func (w *watched) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	r, err := w.call("resolve")
	if err != nil {
		return oci.Descriptor{}, err
	}
	return r.Resolve(ctx, repo, ref)
}

func (w *watched) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	r, err := w.call("manifest")
	if err != nil {
		return registry.Manifest{}, err
	}
	return r.Manifest(ctx, repo, ref)
}

func (w *watched) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	r, err := w.call("blob")
	if err != nil {
		return nil, err
	}
	return r.Blob(ctx, repo, d)
}

func (w *watched) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return func(yield func(oci.Descriptor, error) bool) {
		r, err := w.call("referrers")
		if err != nil {
			yield(oci.Descriptor{}, err)
			return
		}
		r.Referrers(ctx, repo, subject, artifactType, after)(yield)
	}
}

// tagging is an origin without a referrers API: clients keep an index under the
// referrers tag, and what it says is passed on unseen.
type tagging struct{ *watched }

func (o tagging) AllReferrers(ctx context.Context, repo string, subject oci.Digest) ([]oci.Descriptor, bool, error) {
	r, err := o.call("referrers")
	if err != nil {
		return nil, false, err
	}
	m, err := r.Manifest(ctx, repo, oci.TagRef(subject.ReferrersTag()))
	if registry.IsCode(err, registry.ManifestUnknown) || registry.IsCode(err, registry.NameUnknown) {
		return nil, true, nil
	}
	if err != nil {
		return nil, true, err
	}
	var index oci.Index
	err = json.Unmarshal(m.Content, &index)
	return index.Manifests, true, err
}

// claiming is an origin that lists what a test says.
type claiming struct {
	*watched
	list   []oci.Descriptor
	tagged bool
}

func (o *claiming) AllReferrers(context.Context, string, oci.Digest) ([]oci.Descriptor, bool, error) {
	_, err := o.call("referrers")
	return o.list, o.tagged, err
}

// countedState counts the lists of referrers that are kept, by subject.
type countedState struct {
	proxy.State
	mu    sync.Mutex
	lists map[oci.Digest]int
}

func (s *countedState) SaveProxyReferrers(ctx context.Context, repo string, subject oci.Digest, r meta.ProxyReferrers) error {
	s.mu.Lock()
	s.lists[subject]++
	s.mu.Unlock()
	return s.State.SaveProxyReferrers(ctx, repo, subject, r)
}

// down is what an origin that cannot be reached says.
var down = &registry.Error{Code: registry.Unavailable, Detail: "connection refused"}

// signature pushes a referrer of a manifest, of a type.
func signature(t *testing.T, r registry.Registry, repo string, subject registry.Manifest, artifactType string) registry.Manifest {
	t.Helper()
	return registrytest.PushReferrer(t, r, repo, subject.Descriptor(), artifactType, map[string]string{"org.example": artifactType})
}

// withTag is a reader in which a tag stands for a manifest.
type withTag struct {
	registry.Reader
	tag string
	m   registry.Manifest
}

func (r withTag) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	if ref.Tag == r.tag {
		return r.m, nil
	}
	return r.Reader.Manifest(ctx, repo, ref)
}

// withoutManifest is a reader that does not give out a manifest.
type withoutManifest struct {
	registry.Reader
	digest oci.Digest
	err    error
}

func (r withoutManifest) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	if ref.Digest == r.digest {
		return registry.Manifest{}, r.err
	}
	return r.Reader.Manifest(ctx, repo, ref)
}

// slowLists is a reader whose lists of referrers are waited for.
type slowLists struct {
	registry.Reader
	asked, answer chan struct{}
}

func (r slowLists) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	r.asked <- struct{}{}
	<-r.answer
	return r.Reader.Referrers(ctx, repo, subject, artifactType, after)
}

// countedLeases counts how often a lease was wanted.
type countedLeases struct {
	proxy.Leases
	taken atomic.Int64
}

func (l *countedLeases) LeaseProxy(ctx context.Context, key string, ttl time.Duration) (int64, bool, error) {
	defer l.taken.Add(1)
	return l.Leases.LeaseProxy(ctx, key, ttl)
}
