package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/fsblob"
	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/proxy"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// longAgo is a clock on which all that is done is old for a collection, which
// goes by the real one.
const longAgo = -400 * 24 * time.Hour

// base pushes a layer that images of the origin share.
func base(t *testing.T, s *site) oci.Descriptor {
	t.Helper()
	d := registrytest.PushBlob(t, s.upstream, theirApp, registrytest.Random(5000))
	d.MediaType = registrytest.LayerType
	return d
}

// built pushes an image on layers that there are, with a layer of its own.
func built(t *testing.T, s *site, tag string, on ...oci.Descriptor) registrytest.Image {
	t.Helper()
	doc := registrytest.ImageDocument(t, s.upstream, theirApp)
	doc.Layers = append(doc.Layers, on...)
	return pushed(t, s, doc, tag)
}

// pullAll pulls an image as clients do, a minute after the last thing that
// happened: its manifest by a tag or a digest, and its blobs.
func (s *site) pullAll(t *testing.T, ref string, m registrytest.Image) {
	t.Helper()
	s.advance(2 * time.Minute)
	parsed, err := oci.ParseRef(ref)
	if err != nil {
		t.Fatal(err)
	}
	registrytest.WantManifest(t, s, ourApp, parsed, m.Manifest)
	for _, d := range append(m.Layers, m.Config) {
		b, err := s.Blob(t.Context(), ourApp, d.Digest)
		if err != nil {
			t.Fatalf("find a blob of %s: %v", ref, err)
		}
		if content := registrytest.ReadBlob(t, b, 0, d.Size); !d.Digest.Verify(content) {
			t.Errorf("a blob of %s has wrong bytes", ref)
		}
		eventually(t, "a blob is in the cache", func() bool {
			_, err := s.cache.Blob(t.Context(), ourApp, d.Digest)
			return err == nil && !s.Busy(d.Digest)
		})
	}
}

// evict evicts when all that is under way has come to rest.
func (s *site) evict(t *testing.T, b proxy.Budget) proxy.Freed {
	t.Helper()
	s.advance(time.Second)
	got, err := s.Evict(t.Context(), b)
	if err != nil {
		t.Fatalf("evict: %v", err)
	}
	return got
}

func (s *site) used(t *testing.T) int64 {
	t.Helper()
	n, err := s.state.ProxyUsage(t.Context(), "hub")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// wantKept checks which manifests are in the cache, whole.
func (s *site) wantKept(t *testing.T, what string, want bool, images ...registrytest.Image) {
	t.Helper()
	for i, m := range images {
		if got := s.has(t, m); got != want {
			t.Errorf("%s: that image %d is kept is %v, want %v", what, i, got, want)
		}
	}
}

// wantGone checks that nothing of a manifest is in the cache, but for some blobs.
func (s *site) wantGone(t *testing.T, what string, m registrytest.Image, but ...oci.Digest) {
	t.Helper()
	registrytest.WantNoManifest(t, s.cache, ourApp, oci.DigestRef(m.Manifest.Digest))
	kept := map[oci.Digest]bool{}
	for _, d := range but {
		kept[d] = true
	}
	for _, d := range append(m.Layers, m.Config) {
		if _, err := s.cache.Blob(t.Context(), ourApp, d.Digest); (err == nil) != kept[d.Digest] {
			t.Errorf("%s: find blob %s: %v", what, d.Digest, err)
		}
	}
}

func eachStore(t *testing.T, run func(t *testing.T, blobs blob.Store)) {
	t.Run("memory", func(t *testing.T) { run(t, memblob.New()) })
	t.Run("folder", func(t *testing.T) {
		files, err := fsblob.New(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		run(t, files)
	})
}

func objects(t *testing.T, s blob.Store) (n int, bytes int64) {
	t.Helper()
	for o, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		n++
		bytes += o.Size
	}
	return n, bytes
}

// TestEvictToBudget: the oldest go, whole, with their bytes; what others need
// stays; who reads goes on reading; what is asked for comes again.
func TestEvictToBudget(t *testing.T) {
	eachStore(t, func(t *testing.T, blobs blob.Store) {
		s := newSite(t, siteOptions{ahead: longAgo, blobs: blobs})
		shared := base(t, s)
		var images []registrytest.Image
		for i := range 6 {
			m := built(t, s, fmt.Sprint("v", i), shared)
			images = append(images, m)
			s.pullAll(t, fmt.Sprint("v", i), m)
		}
		s.pullAll(t, "v0", images[0]) // the oldest is v1 now
		used := s.used(t)
		one := (used - shared.Size) / int64(len(images))

		if got := s.evict(t, proxy.Budget{Bytes: used * 10 / 9}); got != (proxy.Freed{}) {
			t.Errorf("within the budget %+v were freed", got)
		}
		reading, err := s.Blob(t.Context(), ourApp, images[1].Layers[0].Digest)
		if err != nil {
			t.Fatal(err)
		}
		r, err := reading.Open(t.Context(), 0, images[1].Layers[0].Size)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		first := make([]byte, 10)
		if _, err := io.ReadFull(r, first); err != nil {
			t.Fatal(err)
		}

		budget := proxy.Budget{Bytes: used * 100 / 95}
		got := s.evict(t, budget)
		if now := s.used(t); now > budget.Bytes*8/10 || now <= budget.Bytes*8/10-one {
			t.Errorf("of %d bytes %d are used, want those up to 80 percent", budget.Bytes, now)
		}
		n := got.Images
		if n < 1 || n > 4 || got.Manifests != n || got.Blobs != 2*n || got.Bytes != used-s.used(t) || got.Pinned+got.Busy != 0 {
			t.Errorf("freed were %+v of %d bytes", got, used-s.used(t))
		}
		for i, m := range images[1 : n+1] {
			s.wantGone(t, fmt.Sprint("image ", i+1), m, shared.Digest)
		}
		stays := append([]registrytest.Image{images[0]}, images[n+1:]...)
		s.wantKept(t, "what was used later", true, stays...)

		before, bytes := objects(t, blobs)
		c, err := s.cache.Collect(t.Context())
		if err != nil || c.Objects != 2*n {
			t.Errorf("collected %+v, %v; want the blobs of %d images", c, err, n)
		}
		if after, left := objects(t, blobs); before-after != 2*n || left >= bytes {
			t.Errorf("there were %d objects of %d bytes, and there are %d of %d", before, bytes, after, left)
		}
		if rest, err := io.ReadAll(r); err != nil || !images[1].Layers[0].Digest.Verify(append(first, rest...)) {
			t.Errorf("who was reading got %d bytes, %v", len(rest), err)
		}

		asked := s.origin.total()
		s.origin.fail(down)
		for _, m := range stays {
			s.pullAll(t, string(m.Manifest.Digest), m)
		}
		if s.origin.total() != asked {
			t.Error("the origin was asked for what is kept")
		}
		s.origin.fail(nil)
		for i, m := range images {
			s.pullAll(t, fmt.Sprint("v", i), m)
		}
		s.wantKept(t, "after they were pulled again", true, images...)
	})
}

// TestEvictIdle goes by the last use, of a tag or a digest, by GET or HEAD.
func TestEvictIdle(t *testing.T) {
	s := newSite(t, siteOptions{ahead: longAgo})
	var images []registrytest.Image
	for i := range 4 {
		m := built(t, s, fmt.Sprint("v", i))
		images = append(images, m)
		s.pullAll(t, fmt.Sprint("v", i), m)
	}
	s.advance(29 * 24 * time.Hour)
	s.pull(t, oci.TagRef("v1"))
	s.pull(t, oci.DigestRef(images[2].Manifest.Digest))
	if _, err := s.Resolve(t.Context(), ourApp, oci.TagRef("v3")); err != nil {
		t.Fatal(err)
	}
	budget := proxy.Budget{MaxIdle: 30 * 24 * time.Hour}
	if got := s.evict(t, budget); got != (proxy.Freed{}) {
		t.Errorf("before its time %+v were freed", got)
	}
	s.advance(2 * 24 * time.Hour)
	if got := s.evict(t, budget); got.Images != 1 || got.Manifests != 1 || got.Blobs != 2 {
		t.Errorf("freed were %+v, want one image", got)
	}
	s.wantGone(t, "the idle one", images[0])
	s.wantKept(t, "the others", true, images[1:]...)
	s.advance(30 * 24 * time.Hour)
	if got := s.evict(t, proxy.Budget{Bytes: 1 << 40}); got != (proxy.Freed{}) {
		t.Errorf("without a bound of time %+v were freed", got)
	}
	if got := s.evict(t, budget); got.Images != 3 || s.used(t) != 0 {
		t.Errorf("freed were %+v, and %d bytes are left", got, s.used(t))
	}
}

// TestEvictIndex: an index goes with its children, but for those that another
// one, or a tag, holds. A child that is used keeps its index.
func TestEvictIndex(t *testing.T) {
	s := newSite(t, siteOptions{ahead: longAgo})
	var children []registrytest.Image
	var list []registry.Manifest
	for i := range 4 {
		m := registrytest.PushImage(t, s.upstream, theirApp)
		children, list = append(children, m), append(list, m.Manifest)
		if i == 3 {
			pushAgain(t, s, m, "tagged")
		}
	}
	old := registrytest.PushIndex(t, s.upstream, theirApp, list, "old")
	other := registrytest.PushIndex(t, s.upstream, theirApp, list[2:3], "new")
	used := registrytest.PushIndex(t, s.upstream, theirApp, append([]registry.Manifest{registrytest.PushImage(t, s.upstream, theirApp).Manifest}, list[1]), "used")
	s.pull(t, oci.TagRef("old"))
	s.pull(t, oci.TagRef("used"))
	for i, m := range children { // of which the first is never pulled
		if i > 0 {
			s.pullAll(t, string(m.Manifest.Digest), m)
		}
	}
	s.pullAll(t, "tagged", children[3])
	s.advance(24 * time.Hour)
	s.pull(t, oci.TagRef("new"))
	s.pull(t, oci.DigestRef(list[1].Digest)) // which both of its indexes are used with
	if got := s.evict(t, proxy.Budget{MaxIdle: 12 * time.Hour}); got != (proxy.Freed{}) {
		t.Errorf("while a child of each is used %+v were freed", got)
	}
	registrytest.WantManifest(t, s.cache, ourApp, oci.TagRef("old"), old)
	s.advance(24 * time.Hour)
	s.pull(t, oci.TagRef("new"))
	s.pull(t, oci.TagRef("used"))
	if got := s.evict(t, proxy.Budget{MaxIdle: 12 * time.Hour}); got.Images != 1 || got.Manifests != 1 || got.Blobs != 0 {
		t.Errorf("freed were %+v, want an index alone", got)
	}
	registrytest.WantNoManifest(t, s.cache, ourApp, oci.TagRef("old"))
	registrytest.WantManifest(t, s.cache, ourApp, oci.TagRef("new"), other)
	registrytest.WantManifest(t, s.cache, ourApp, oci.TagRef("used"), used)
	s.wantKept(t, "children of others", true, children[1], children[2], children[3])
	if got := s.evict(t, proxy.Budget{MaxIdle: 12 * time.Hour}); got.Images != 1 || got.Manifests != 1 || got.Blobs != 2 {
		t.Errorf("freed were %+v, want what is tagged alone", got)
	}
	s.advance(24 * time.Hour)
	if got := s.evict(t, proxy.Budget{MaxIdle: 12 * time.Hour}); got.Images != 2 || got.Manifests != 4 || got.Blobs != 4 || s.used(t) != 0 {
		t.Errorf("freed were %+v, and %d bytes are left", got, s.used(t))
	}
}

// pushAgain gives a manifest of the origin a tag.
func pushAgain(t *testing.T, s *site, m registrytest.Image, tag string) {
	t.Helper()
	registrytest.PushManifest(t, s.upstream, theirApp, m.Manifest, tag)
}

// TestEvictCompany: what says something about an image goes with it, and keeps it
// while it is used.
func TestEvictCompany(t *testing.T) {
	s := newSite(t, siteOptions{ahead: longAgo, proxy: func(o *proxy.Options) { o.Prefetch = []string{"*", "cosign"} }})
	c := pushCompany(t, s)
	all := []registrytest.Image{c.image, c.sign, c.sbom, c.countersign, c.legacy}
	come := func() {
		t.Helper()
		s.pullAll(t, "v1", c.image)
		eventually(t, "all that belongs to it is here", func() bool {
			for _, m := range all {
				if !s.has(t, m) {
					return false
				}
			}
			return s.prefetched(t, c.image.Manifest.Digest)
		})
	}
	come()
	s.advance(24 * time.Hour)
	s.pull(t, oci.DigestRef(c.countersign.Manifest.Digest))
	if got := s.evict(t, proxy.Budget{MaxIdle: 12 * time.Hour}); got != (proxy.Freed{}) {
		t.Errorf("of an image that is verified %+v were freed", got)
	}
	s.wantKept(t, "while it is verified", true, all...)
	s.advance(24 * time.Hour)
	if got := s.evict(t, proxy.Budget{MaxIdle: 12 * time.Hour}); got.Images != 1 || got.Manifests != 5 || got.Blobs != 10 || s.used(t) != 0 {
		t.Errorf("freed were %+v, and %d bytes are left", got, s.used(t))
	}
	for i, m := range all {
		s.wantGone(t, fmt.Sprint("part ", i), m)
	}
	if _, err := s.state.ProxyReferrers(t.Context(), ourApp, c.image.Manifest.Digest); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("the list of its referrers is still known: %v", err)
	}
	come() // and again
}

// TestEvictLocal: what was pushed here stays, and so does what it says something
// about.
func TestEvictLocal(t *testing.T) {
	s := newSite(t, siteOptions{ahead: longAgo, hosted: hosted.Options{
		Retention: func(string) hosted.Retention { return hosted.Retention{Orphans: 7 * 24 * time.Hour} }}})
	image, child, other := built(t, s, "v1"), built(t, s, "child"), built(t, s, "v2")
	registrytest.PushIndex(t, s.upstream, theirApp, []registry.Manifest{child.Manifest}, "index")
	if err := s.upstream.DeleteTag(t.Context(), theirApp, "child"); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"v1", "v2"} {
		s.pullAll(t, ref, map[string]registrytest.Image{"v1": image, "v2": other}[ref])
	}
	s.pull(t, oci.TagRef("index"))
	s.pullAll(t, string(child.Manifest.Digest), child)
	mine := signature(t, s, ourApp, image.Manifest, signType)
	onMine := signature(t, s, ourApp, child.Manifest, signType)
	s.advance(24 * time.Hour)
	budget := proxy.Budget{MaxIdle: time.Hour}
	if got := s.evict(t, budget); got.Images != 1 || got.Pinned != 2 {
		t.Errorf("freed were %+v, want one, and two pinned", got)
	}
	s.wantGone(t, "the one without", other)
	s.wantKept(t, "those with signatures of our own", true, image, child)
	if _, err := s.cache.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantListed(t, "after a collection", image.Manifest.Digest, mine)
	s.wantListed(t, "after a collection", child.Manifest.Digest, onMine)
	// A purge leaves them too; when they are gone, nothing holds the images.
	if got, err := s.Purge(t.Context(), ourApp, ""); err != nil || got.Images != 0 || got.Pinned != 2 {
		t.Errorf("purged were %+v, %v", got, err)
	}
	for _, m := range []registry.Manifest{mine, onMine} {
		_, err := s.Purge(t.Context(), ourApp, string(m.Digest))
		registrytest.WantCode(t, "purge what was pushed here", err, registry.Denied)
		if err := s.DeleteManifest(t.Context(), ourApp, m.Digest); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.evict(t, budget); got.Images != 2 || got.Manifests != 3 {
		t.Errorf("freed were %+v, want the two", got)
	}
}

func TestEvictPinned(t *testing.T) {
	s := newSite(t, siteOptions{ahead: longAgo})
	stays, moved, goes := built(t, s, "stable-1"), built(t, s, "stable"), built(t, s, "v1")
	s.pullAll(t, "stable-1", stays)
	s.pullAll(t, "stable", moved)
	s.pullAll(t, "v1", goes)
	untagged := registrytest.PushImage(t, s.upstream, theirApp)
	s.pullAll(t, string(untagged.Manifest.Digest), untagged)
	var asked sync.Map
	pinned := func(name, tag string) bool {
		asked.Store(name+":"+tag, true)
		return name == theirApp && strings.HasPrefix(tag, "stable-")
	}
	s.advance(24 * time.Hour)
	if got := s.evict(t, proxy.Budget{MaxIdle: time.Hour, Pinned: pinned}); got.Images != 3 || got.Pinned != 1 {
		t.Errorf("freed were %+v, want three, and one pinned", got)
	}
	s.wantKept(t, "what is pinned", true, stays)
	for _, name := range []string{theirApp + ":v1", theirApp + ":"} {
		if _, ok := asked.Load(name); !ok {
			t.Errorf("nobody asked whether %s is pinned", name)
		}
	}
	if got := s.evict(t, proxy.Budget{Bytes: 1, Pinned: pinned}); got.Images != 0 || got.Pinned != 1 {
		t.Errorf("for want of bytes %+v were freed", got)
	}
	stats, err := s.Stats(t.Context(), pinned)
	if err != nil || stats.Images != 1 || stats.Pinned != 1 || stats.Manifests != 1 || stats.Bytes != s.used(t) || stats.OldestUse.IsZero() || !stats.OldestUse.Equal(stats.NewestUse) {
		t.Errorf("statistics %+v, %v", stats, err)
	}
}

// TestEvictBusy: what is being fetched or read, or used meanwhile, has its turn
// another time.
func TestEvictBusy(t *testing.T) {
	gate := make(chan struct{})
	var meanwhile func(registry.Registry) // when the image is about to go
	s := newSite(t, siteOptions{ahead: longAgo,
		origin: func(w *watched) registry.Reader { return slowly{w, gate} },
		cache:  func(r registry.Registry) registry.Registry { return &interrupted{Registry: r, before: &meanwhile} },
	})
	image := built(t, s, "v1")
	s.pull(t, oci.TagRef("v1"))
	b, err := s.Blob(t.Context(), ourApp, image.Layers[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		if content := registrytest.ReadBlob(t, b, 0, image.Layers[0].Size); !image.Layers[0].Digest.Verify(content) {
			t.Errorf("who was reading got %d bytes", len(content))
		}
	})
	eventually(t, "it is being fetched", func() bool { return s.Busy(image.Layers[0].Digest) })
	budget := proxy.Budget{MaxIdle: time.Hour}
	s.advance(24 * time.Hour)
	if got := s.evict(t, budget); got != (proxy.Freed{Busy: 1}) {
		t.Errorf("while it is fetched %+v were freed", got)
	}
	close(gate)
	reading.Wait()
	s.pullAll(t, "v1", image)
	s.advance(24 * time.Hour)
	for what, use := range map[string]func(){
		"here": func() { s.pull(t, oci.TagRef("v1")) },
		"through another process": func() {
			use := meta.ProxyUse{Repository: ourApp, Digest: image.Manifest.Digest, At: s.now()}
			if err := s.state.TouchProxyManifests(t.Context(), []meta.ProxyUse{use}); err != nil {
				t.Error(err)
			}
		},
	} {
		meanwhile = func(registry.Registry) {
			meanwhile = nil
			use()
		}
		if got := s.evict(t, budget); got != (proxy.Freed{Busy: 1}) {
			t.Errorf("of what was used %s meanwhile %+v were freed", what, got)
		}
		s.wantKept(t, "what was used "+what+" meanwhile", true, image)
		s.advance(24 * time.Hour)
	}
	if got := s.evict(t, budget); got.Images != 1 || got.Busy != 0 {
		t.Errorf("when nobody reads %+v were freed", got)
	}
}

// slowly gives out blobs when a gate has opened.
type slowly struct {
	*watched
	gate chan struct{}
}

func (s slowly) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	b, err := s.watched.Blob(ctx, repo, d)
	return slowBlob{b, s.gate}, err
}

type slowBlob struct {
	registry.Blob
	gate chan struct{}
}

func (b slowBlob) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	select {
	case <-b.gate:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return b.Blob.Open(ctx, off, n)
}

// interrupted is a cache in which something happens before referrers are listed,
// and whose deletions fail for a while.
type interrupted struct {
	registry.Registry
	before *func(registry.Registry)
	mu     sync.Mutex
	left   int // deletions that succeed before one fails; 0: all do
}

var errCrash = errors.New("crash")

func (r *interrupted) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	// The companions of an image are looked for when it has been read.
	if strings.HasPrefix(ref.Tag, "sha256-") && *r.before != nil {
		(*r.before)(r.Registry)
	}
	return r.Registry.Resolve(ctx, repo, ref)
}

func (r *interrupted) deletes() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left > 0 {
		if r.left--; r.left == 0 {
			return errCrash
		}
	}
	return nil
}

// interruptedState is its part that takes manifests.
type interruptedState struct {
	proxy.State
	*interrupted
}

func (s interruptedState) EvictProxyManifest(ctx context.Context, m meta.ProxyManifest, used bool) error {
	if err := s.deletes(); err != nil {
		return err
	}
	return s.State.EvictProxyManifest(ctx, m, used)
}

func (r *interrupted) DeleteBlob(ctx context.Context, repo string, d oci.Digest) error {
	if err := r.deletes(); err != nil {
		return err
	}
	return r.Registry.DeleteBlob(ctx, repo, d)
}

// TestEvictionMeetsAPush: what is pushed while its subject goes has it back.
func TestEvictionMeetsAPush(t *testing.T) {
	var meanwhile func(registry.Registry)
	s := newSite(t, siteOptions{ahead: longAgo, cache: func(r registry.Registry) registry.Registry {
		return &interrupted{Registry: r, before: &meanwhile}
	}})
	image := built(t, s, "v1")
	s.pullAll(t, "v1", image)
	s.advance(24 * time.Hour)
	var mine registry.Manifest
	meanwhile = func(registry.Registry) {
		meanwhile = nil
		mine = signature(t, s.cache, ourApp, image.Manifest, signType) // through another process
	}
	if got := s.evict(t, proxy.Budget{MaxIdle: time.Hour}); got.Images != 1 {
		t.Errorf("freed were %+v, want the image", got)
	}
	eventually(t, "the subject is back", func() bool {
		_, err := s.cache.Resolve(t.Context(), ourApp, oci.DigestRef(image.Manifest.Digest))
		return err == nil
	})
	s.wantListed(t, "after all", image.Manifest.Digest, mine)
	s.advance(24 * time.Hour)
	if got := s.evict(t, proxy.Budget{MaxIdle: time.Hour}); got != (proxy.Freed{Pinned: 1}) {
		t.Errorf("freed were %+v, want it pinned", got)
	}
}

// meeting is a state in which something happens at the last moment: before a
// manifest is taken out of the cache, or is noted to be our own.
type meeting struct {
	proxy.State
	evict, own func()
}

func (m *meeting) EvictProxyManifest(ctx context.Context, note meta.ProxyManifest, used bool) error {
	if do := m.evict; do != nil {
		m.evict = nil
		do()
	}
	return m.State.EvictProxyManifest(ctx, note, used)
}

func (m *meeting) OwnProxyManifest(ctx context.Context, repo string, d oci.Digest) error {
	if do := m.own; do != nil {
		m.own = nil
		do()
	}
	return m.State.OwnProxyManifest(ctx, repo, d)
}

// TestEvictionMeetsAPushOfTheSame: a push that was answered is kept, whichever of
// the two came first.
func TestEvictionMeetsAPushOfTheSame(t *testing.T) {
	for _, first := range []string{"the eviction", "the push", "a use elsewhere"} {
		t.Run(first, func(t *testing.T) {
			state := &meeting{}
			s := newSite(t, siteOptions{ahead: longAgo, proxy: func(o *proxy.Options) {
				state.State = o.State
				o.State = state
			}})
			image := built(t, s, "v1")
			doc := registrytest.ImageDocument(t, s.upstream, theirApp)
			doc.Subject, doc.ArtifactType = &oci.Descriptor{MediaType: oci.MediaTypeImage, Digest: oci.SHA256.FromBytes([]byte("absent")), Size: 6}, signType
			theirs := registrytest.PushManifest(t, s.upstream, theirApp, doc.Manifest(t))
			s.pullAll(t, "v1", image)
			s.pull(t, oci.DigestRef(theirs.Digest))
			s.advance(24 * time.Hour)
			push := func() {
				registrytest.PushManifest(t, s, ourApp, registry.Manifest{MediaType: theirs.MediaType, Content: theirs.Content})
			}
			evict := func() {
				if _, err := s.Evict(t.Context(), proxy.Budget{MaxIdle: time.Hour}); err != nil {
					t.Error(err)
				}
			}
			switch first {
			case "the eviction":
				state.evict = push
				evict()
				state.evict = push // of whichever comes second
				evict()
			case "the push":
				state.own = evict
				push()
			default:
				state.evict = func() {
					err := state.TouchProxyManifests(t.Context(), []meta.ProxyUse{
						{Repository: ourApp, Digest: theirs.Digest, At: s.now()}, {Repository: ourApp, Digest: image.Manifest.Digest, At: s.now()}})
					if err != nil {
						t.Error(err)
					}
				}
				evict()
			}
			if _, err := s.cache.Manifest(t.Context(), ourApp, oci.DigestRef(theirs.Digest)); err != nil {
				t.Errorf("it is gone: %v", err)
			}
		})
	}
}

// TestEvictInterrupted: wherever eviction ends, what is half gone serves, and goes
// with the next run.
func TestEvictInterrupted(t *testing.T) {
	budget := proxy.Budget{MaxIdle: time.Hour}
	for after := 1; ; after *= 2 { // the first ones are of manifests
		cut := &interrupted{before: new(func(registry.Registry))}
		s := newSite(t, siteOptions{ahead: longAgo, proxy: func(o *proxy.Options) {
			o.Prefetch = []string{"*", "cosign"}
			o.State = interruptedState{o.State, cut}
		},
			cache: func(r registry.Registry) registry.Registry { cut.Registry = r; return cut }})
		c := pushCompany(t, s)
		index := registrytest.PushIndex(t, s.upstream, theirApp, []registry.Manifest{c.image.Manifest}, "index")
		if err := s.upstream.DeleteTag(t.Context(), theirApp, "v1"); err != nil {
			t.Fatal(err)
		}
		all := []registrytest.Image{c.image, c.sign, c.sbom, c.countersign, c.legacy}
		come := func() {
			s.advance(24 * time.Hour)
			s.pull(t, oci.TagRef("index"))
			s.pullAll(t, string(c.image.Manifest.Digest), c.image)
			for _, m := range all[1:] {
				s.pullAll(t, string(m.Manifest.Digest), m)
			}
			s.pull(t, oci.TagRef(c.image.Manifest.Digest.ReferrersTag()+".sig"))
		}
		come()
		s.advance(24 * time.Hour)
		cut.left = after
		_, err := s.Evict(t.Context(), budget)
		if err == nil {
			if after <= 16 { // six manifests and ten blobs
				t.Errorf("after %d deletions all was gone", after)
			}
			return
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("evict: %v", err)
		}
		registrytest.WantManifest(t, s, ourApp, oci.TagRef("index"), index)
		come()
		s.advance(24 * time.Hour)
		if got := s.evict(t, budget); s.used(t) != 0 {
			t.Errorf("cut after %d deletions: then %+v were freed, and %d bytes are left", after, got, s.used(t))
		}
		s.cutThenLeft(t, after, cut, come)
	}
}

// cutThenLeft cuts an eviction and leaves what is half gone to the next one, and
// to collection.
func (s *site) cutThenLeft(t *testing.T, after int, cut *interrupted, come func()) {
	t.Helper()
	come()
	s.advance(24 * time.Hour)
	cut.left = after
	if _, err := s.Evict(t.Context(), proxy.Budget{MaxIdle: time.Hour}); !errors.Is(err, errCrash) {
		t.Fatalf("evict: %v", err)
	}
	s.advance(24 * time.Hour)
	s.evict(t, proxy.Budget{MaxIdle: time.Hour})
	if _, err := s.cache.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.used(t); n != 0 {
		t.Errorf("cut after %d deletions: %d bytes are left for ever", after, n)
	}
}

// TestEvictedTagIsAskedForAgain, also where nothing else is.
func TestEvictedTagIsAskedForAgain(t *testing.T) {
	s := newSite(t, siteOptions{ahead: longAgo, proxy: func(o *proxy.Options) {
		o.TagTTL = func(string, string) time.Duration { return -1 }
	}})
	s.pullAll(t, "v1", built(t, s, "v1"))
	next := built(t, s, "v1")
	s.advance(24 * time.Hour)
	if got := s.evict(t, proxy.Budget{MaxIdle: time.Hour}); got.Images != 1 {
		t.Fatalf("freed were %+v", got)
	}
	if _, err := s.state.ProxyTag(t.Context(), ourApp, "v1"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("the tag is still known: %v", err)
	}
	s.pullAll(t, "v1", next)
}

// TestEvictionForgetsNotes: of what is gone nothing is remembered for long, and
// what was fetched again is still known to have been.
func TestEvictionForgetsNotes(t *testing.T) {
	s := newSite(t, siteOptions{ahead: longAgo})
	image := built(t, s, "v1")
	s.pullAll(t, "v1", image)
	s.advance(24 * time.Hour)
	s.evict(t, proxy.Budget{MaxIdle: time.Hour})
	if _, err := s.state.ProxyManifest(t.Context(), ourApp, image.Manifest.Digest); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("the note of what is evicted: %v", err)
	}
	s.pullAll(t, "v1", image)
	if _, err := s.state.ProxyManifest(t.Context(), ourApp, image.Manifest.Digest); err != nil {
		t.Errorf("the note of what came again: %v", err)
	}
	// Somebody else deletes it: the next run finds that out.
	if err := s.cache.DeleteManifest(t.Context(), ourApp, image.Manifest.Digest); err != nil {
		t.Fatal(err)
	}
	s.advance(24 * time.Hour)
	if got := s.evict(t, proxy.Budget{MaxIdle: time.Hour}); got != (proxy.Freed{}) {
		t.Errorf("of what was gone before %+v were freed", got)
	}
	if _, err := s.state.ProxyManifest(t.Context(), ourApp, image.Manifest.Digest); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("the note of what is gone: %v", err)
	}
}

// TestCollectionLeavesCaches: a collection does not take what eviction has not
// taken: what no tag holds, and what names manifests that never came.
func TestCollectionLeavesCaches(t *testing.T) {
	s := newSite(t, siteOptions{ahead: longAgo, hosted: hosted.Options{
		Retention: func(string) hosted.Retention { return hosted.Retention{Orphans: 7 * 24 * time.Hour} }}})
	child, absent, old, next := registrytest.PushImage(t, s.upstream, theirApp), registrytest.PushImage(t, s.upstream, theirApp), built(t, s, "v1"), registrytest.Image{}
	index := registrytest.PushIndex(t, s.upstream, theirApp, []registry.Manifest{child.Manifest, absent.Manifest}, "index")
	alone := registrytest.PushImage(t, s.upstream, theirApp)
	s.pullAll(t, "v1", old)
	next = built(t, s, "v1") // which leaves the old one without a tag
	s.pullAll(t, "v1", next)
	s.pull(t, oci.DigestRef(index.Digest))
	s.pullAll(t, string(child.Manifest.Digest), child)
	signed := signature(t, s.upstream, theirApp, child.Manifest, signType)
	registrytest.WantManifest(t, s, ourApp, oci.DigestRef(signed.Digest), signed)
	registrytest.WantBlob(t, s, ourApp, alone.Config.Digest, fromOrigin(t, s, alone.Config)) // nothing that is here names it
	eventually(t, "it is kept for now", func() bool { return !s.Busy(alone.Config.Digest) })
	for range 2 {
		if _, err := s.cache.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.wantKept(t, "after collections", true, child, old, next)
	registrytest.WantManifest(t, s.cache, ourApp, oci.DigestRef(index.Digest), index)
	registrytest.WantManifest(t, s.cache, ourApp, oci.DigestRef(signed.Digest), signed)
	_, err := s.cache.Blob(t.Context(), ourApp, alone.Config.Digest)
	registrytest.WantCode(t, "find a blob that no manifest names", err, registry.BlobUnknown)
	s.pullAll(t, string(absent.Manifest.Digest), absent)
}

// fromOrigin is the content of a blob.
func fromOrigin(t *testing.T, s *site, d oci.Descriptor) []byte {
	t.Helper()
	b, err := s.upstream.Blob(t.Context(), theirApp, d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	return registrytest.ReadBlob(t, b, 0, d.Size)
}

// TestEvictWhilePulled: pulls and evictions that meet do each other no harm, and
// nothing that came from the origin is ever taken for pushed here.
func TestEvictWhilePulled(t *testing.T) {
	s := newSite(t, siteOptions{ahead: longAgo})
	shared := base(t, s)
	var images []registrytest.Image
	for i := range 4 {
		images = append(images, built(t, s, fmt.Sprint("v", i), shared))
	}
	const rounds = 25
	var pulls, evictions sync.WaitGroup
	var jumping sync.RWMutex // held by those who must not see the clock jump
	done := make(chan struct{})
	var freed proxy.Freed
	evictions.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			// Notes are forgotten too, but not between a note and its manifest.
			jumping.Lock()
			s.advance(11 * time.Minute)
			jumping.Unlock()
			got, err := s.Evict(t.Context(), proxy.Budget{Bytes: 1000})
			if err != nil {
				t.Errorf("evict: %v", err)
			}
			freed.Add(got)
		}
	})
	for i, m := range images {
		pulls.Go(func() {
			for range rounds {
				jumping.RLock()
				got, err := s.Manifest(t.Context(), ourApp, oci.TagRef(fmt.Sprint("v", i)))
				jumping.RUnlock()
				if err != nil || got.Digest != m.Manifest.Digest {
					t.Errorf("got manifest %s, %v", got.Digest, err)
				}
				for _, d := range append(m.Layers, m.Config) {
					b, err := s.Blob(t.Context(), ourApp, d.Digest)
					if err != nil {
						t.Errorf("find a blob: %v", err)
						return
					}
					if !d.Digest.Verify(registrytest.ReadBlob(t, b, 0, d.Size)) {
						t.Error("a blob has wrong bytes")
					}
				}
			}
		})
	}
	pulls.Wait()
	close(done)
	evictions.Wait()
	if freed.Images == 0 {
		t.Error("nothing was evicted meanwhile")
	}
	for i, m := range images {
		s.pullAll(t, fmt.Sprint("v", i), m)
		if _, err := s.state.ProxyManifest(t.Context(), ourApp, m.Manifest.Digest); err != nil {
			t.Errorf("the note of image %d: %v", i, err)
		}
	}
	s.advance(time.Hour)
	if got := s.evict(t, proxy.Budget{MaxIdle: time.Minute}); got.Images != len(images) || got.Pinned != 0 {
		t.Errorf("in the end %+v were freed", got)
	}
	if _, err := s.cache.Collect(t.Context()); err != nil { // blobs that came when their manifest had gone
		t.Fatal(err)
	}
	if n := s.used(t); n != 0 {
		t.Errorf("%d bytes are left for ever", n)
	}
}
