package proxy

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// TestHeadFetchesNothing: a blob is found without being fetched, and its size
// is asked for once.
func TestHeadFetchesNothing(t *testing.T) {
	s := newBlobStack(t)
	content := registrytest.Random(1000)
	d := s.ship(t, content)
	for range 3 {
		ctx, told := registry.WithFreshness(t.Context())
		b, err := s.Blob(ctx, blobHere, d)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.Descriptor(); got.Digest != d || got.Size != 1000 {
			t.Errorf("descriptor: %+v", got)
		}
		_, err = b.URL(t.Context(), time.Minute)
		registrytest.WantCode(t, "address of what is not in the cache", err, registry.Unsupported)
		if f := told(); f == nil || f.Hit || f.Forward != "uri-miss" {
			t.Errorf("a miss is told as %+v", f)
		}
	}
	s.origin.wantAsked(t, 1, 0)
	s.wantSeen(t, "blob", "miss", "miss", "miss")
	s.wantNothingLeft(t, 0)
}

// TestExpectedBlobIsNotAskedFor: a manifest has told its size.
func TestExpectedBlobIsNotAskedFor(t *testing.T) {
	s := newBlobStack(t)
	content := registrytest.Random(1000)
	d := s.ship(t, content)
	s.expect(blobHere, &oci.Manifest{Blobs: []oci.Descriptor{{Digest: d, Size: 1000}}})
	if got := s.find(t, d).Descriptor().Size; got != 1000 {
		t.Errorf("size %d", got)
	}
	s.origin.wantAsked(t, 0, 0)
	takeAll(t, s.open(t, d, 0), content)
	s.landed(t, d)
	s.find(t, d)
	s.origin.wantAsked(t, 1, 1) // once for both, when it was opened
}

// knower is an origin that opens what a manifest describes without a look.
type knower struct{ *shipper }

func (o knower) KnownBlob(repo string, desc oci.Descriptor) registry.Blob {
	return &direct{o.shipper, repo, desc}
}

type direct struct {
	*shipper
	repo string
	desc oci.Descriptor
}

func (b *direct) Descriptor() oci.Descriptor { return b.desc }

func (b *direct) URL(context.Context, time.Duration) (string, error) {
	return "", &registry.Error{Code: registry.Unsupported}
}

func (b *direct) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	inner, err := b.shipper.Reader.Blob(ctx, b.repo, b.desc.Digest)
	if err != nil {
		return nil, err
	}
	return shipped{inner, b.shipper}.Open(ctx, off, n)
}

// TestKnowerIsNotAskedAtAll: one request brings a blob that a manifest describes.
func TestKnowerIsNotAskedAtAll(t *testing.T) {
	s := newBlobStack(t)
	s.Registry.origin = knower{s.origin}
	content := registrytest.Random(1000)
	d := s.ship(t, content)
	s.expect(blobHere, &oci.Manifest{Blobs: []oci.Descriptor{{Digest: d, Size: 1000}}})
	takeAll(t, s.open(t, d, 0), content)
	s.landed(t, d)
	s.origin.wantAsked(t, 0, 1)
}

// TestWrongExpectation: what a manifest says wrongly fails before any byte, and is
// asked for then.
func TestWrongExpectation(t *testing.T) {
	content := registrytest.Random(1000)
	for _, size := range []int64{999, 1001, 0} {
		s := newBlobStack(t)
		d := s.ship(t, content)
		s.expect(blobHere, &oci.Manifest{Blobs: []oci.Descriptor{{Digest: d, Size: size}}})
		b, err := s.Blob(t.Context(), blobHere, d)
		if size > 0 && err == nil {
			_, err = b.Open(t.Context(), 0, size)
		}
		registrytest.WantCode(t, "open a blob of another size", err, registry.Faulty)
		takeAll(t, s.open(t, d, 0), content)
	}
}

// TestEmptyThatIsNone: nobody would open a blob without bytes and find out.
func TestEmptyThatIsNone(t *testing.T) {
	s := newBlobStack(t)
	d := s.ship(t, registrytest.Random(1000))
	s.origin.size = func(int64) int64 { return 0 }
	_, err := s.Blob(t.Context(), blobHere, d)
	registrytest.WantCode(t, "find a blob that cannot be empty", err, registry.Faulty)
}

// TestAbsentBlobIsNotAskedForAgain, for a while; and a manifest of that digest is
// another thing.
func TestAbsentBlobIsNotAskedForAgain(t *testing.T) {
	s := newBlobStack(t, func(o *Options) { o.NegativeTTL = time.Minute })
	s.ship(t, registrytest.Random(10)) // the repository is there
	content := registrytest.Random(1000)
	d := oci.SHA256.FromBytes(content)
	look := func() {
		t.Helper()
		_, err := s.Blob(t.Context(), blobHere, d)
		registrytest.WantCode(t, "find an absent blob", err, registry.BlobUnknown)
	}
	look()
	look()
	s.origin.wantAsked(t, 1, 0)
	s.wantSeen(t, "blob", "negative", "negative")
	s.ahead.Store(int64(2 * time.Minute))
	look()
	s.origin.wantAsked(t, 2, 0)
	s.ship(t, content)
	s.ahead.Store(int64(4 * time.Minute))
	s.find(t, d)
	s.origin.wantAsked(t, 3, 0)

	other := s.ship(t, registrytest.Random(1000))
	if err := s.o.State.SaveProxyTag(t.Context(), blobHere, other.String(), meta.ProxyTag{CheckedAt: s.o.Now()}); err != nil {
		t.Fatal(err)
	}
	s.find(t, other) // although there is no such manifest
}

// TestBlobThatVanished: a manifest names it, but the origin has lost it.
func TestBlobThatVanished(t *testing.T) {
	s := newBlobStack(t)
	s.ship(t, registrytest.Random(10))
	d := oci.SHA256.FromBytes(registrytest.Random(1000))
	s.expect(blobHere, &oci.Manifest{Blobs: []oci.Descriptor{{Digest: d, Size: 1000}}})
	_, err := s.find(t, d).Open(t.Context(), 0, 1000)
	registrytest.WantCode(t, "open a blob that the origin has lost", err, registry.BlobUnknown)
	_, err = s.Blob(t.Context(), blobHere, d)
	registrytest.WantCode(t, "find it again", err, registry.BlobUnknown)
	s.origin.wantAsked(t, 1, 0)
}

// TestOriginErrorIsNoAbsence: an origin that is down has said nothing.
func TestOriginErrorIsNoAbsence(t *testing.T) {
	s := newBlobStack(t)
	d := s.ship(t, registrytest.Random(1000))
	s.origin.look = func(string, oci.Digest) error { return &registry.Error{Code: registry.Unavailable} }
	for range 2 {
		_, err := s.Blob(t.Context(), blobHere, d)
		registrytest.WantCode(t, "find a blob of an origin that is down", err, registry.Unavailable)
	}
	s.origin.wantAsked(t, 2, 0)
	s.wantSeen(t, "blob", "error", "error")
	s.origin.look = nil
	s.find(t, d)
}

// TestNotAllowed: what is not this proxy's is not asked for.
func TestNotAllowed(t *testing.T) {
	s := newBlobStack(t, func(o *Options) { o.Allow = func(name string) bool { return name != blobThere } })
	d := s.ship(t, registrytest.Random(1000))
	for _, repo := range []string{blobHere, "other/library/app"} {
		_, err := s.Blob(t.Context(), repo, d)
		registrytest.WantCode(t, "find a blob of "+repo, err, registry.NameUnknown)
	}
	s.origin.wantAsked(t, 0, 0)
}

// TestOtherRepositoryHasIt: a digest is fetched once for all repositories of a
// proxy that are proven to have it, and for no others.
func TestOtherRepositoryHasIt(t *testing.T) {
	s := newBlobStack(t)
	content := registrytest.Random(1000)
	d := s.ship(t, content)
	registrytest.PushBlob(t, s.store, "library/web", content)
	registrytest.PushBlob(t, s.store, "library/secret", registrytest.Random(10))
	takeAll(t, s.open(t, d, 0), content)
	s.landed(t, d)
	if _, err := s.Blob(t.Context(), "hub/library/web", d); err != nil {
		t.Fatal(err)
	}
	s.wantCached(t, "hub/library/web", d, true)
	registrytest.WantBlob(t, s.Registry, "hub/library/web", d, content)
	s.origin.wantAsked(t, 2, 1)
	_, err := s.Blob(t.Context(), "hub/library/secret", d)
	registrytest.WantCode(t, "find a blob that another repository has", err, registry.BlobUnknown)
	s.wantCached(t, "hub/library/secret", d, false)
}

// TestOtherProjectHasIt: what other projects hold did not come from this origin.
func TestOtherProjectHasIt(t *testing.T) {
	s := newBlobStack(t)
	content := registrytest.Random(1000)
	d := s.ship(t, content)
	registrytest.PushBlob(t, s.cache, "team/app", content)
	takeAll(t, s.open(t, d, 0), content)
	s.landed(t, d)
	s.origin.wantAsked(t, 1, 1)
}

// TestJoinedFromAnotherRepository: what comes is there for both, also when the
// origin has gone.
func TestJoinedFromAnotherRepository(t *testing.T) {
	s := newBlobStack(t)
	g := newGate()
	s.origin.body = g.body
	content := registrytest.Random(1 << 20)
	d := s.ship(t, content)
	registrytest.PushBlob(t, s.store, "library/web", content)
	g.to(1 << 19)
	first := s.open(t, d, 0)
	b, err := s.Blob(t.Context(), "hub/library/web", d)
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Open(t.Context(), 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	g.to(1 << 20)
	takeAll(t, first, content)
	takeAll(t, second, content)
	s.landed(t, d)
	s.origin.wantAsked(t, 2, 1)
	s.sizes = sizes{} // as behind a restart
	s.origin.look = func(string, oci.Digest) error { return errCut }
	for _, repo := range []string{blobHere, "hub/library/web"} {
		registrytest.WantBlob(t, s.Registry, repo, d, content)
	}
}

// TestFetchBlob brings blobs into the cache, once.
func TestFetchBlob(t *testing.T) {
	s := newBlobStack(t)
	content := registrytest.Random(1 << 20)
	d := s.ship(t, content)
	for range 2 {
		if err := s.fetchBlob(t.Context(), blobHere, blobThere, d); err != nil {
			t.Fatal(err)
		}
		s.wantCached(t, blobHere, d, true)
	}
	s.origin.wantAsked(t, 1, 1)
	err := s.fetchBlob(t.Context(), blobHere, blobThere, oci.SHA256.FromBytes(nil))
	registrytest.WantCode(t, "fetch an absent blob", err, registry.BlobUnknown)

	full := s.ship(t, registrytest.Random(1<<20))
	s.blobs.Room(1000)
	err = s.fetchBlob(t.Context(), blobHere, blobThere, full)
	registrytest.WantCode(t, "fetch into a full cache", err, registry.InsufficientStorage)
	if !errors.Is(err, blob.ErrFull) {
		t.Errorf("it is not said why: %v", err)
	}
	s.wantNothingLeft(t, 1)
}

// TestWarm: what is in the cache is told as a hit and asks nobody.
func TestWarm(t *testing.T) {
	s := newBlobStack(t)
	content := registrytest.Random(1000)
	d := registrytest.PushBlob(t, s.cache, blobHere, content).Digest
	ctx, told := registry.WithFreshness(t.Context())
	if _, err := s.Blob(ctx, blobHere, d); err != nil {
		t.Fatal(err)
	}
	if f := told(); f == nil || !f.Hit {
		t.Errorf("a hit is told as %+v", f)
	}
	registrytest.WantBlob(t, s.Registry, blobHere, d, content)
	s.origin.wantAsked(t, 0, 0)
	s.wantSeen(t, "blob", "hit", "hit")
}

// TestSizesAreBounded: the ones that were used last stay.
func TestSizesAreBounded(t *testing.T) {
	var h sizes
	digest := func(i int) oci.Digest { return oci.SHA256.FromBytes([]byte{byte(i), byte(i >> 8), byte(i >> 16)}) }
	h.add(blobHere, digest(0), 10)
	for i := range 2 * maxSizes {
		h.add(blobHere, digest(1+i), int64(i))
		if size, ok := h.get(blobHere, digest(0)); !ok || size != 10 {
			t.Fatalf("after %d others the one in use is forgotten", i+1)
		}
	}
	if len(h.byKey) != maxSizes || h.order.Len() != maxSizes {
		t.Errorf("%d and %d are remembered, want %d", len(h.byKey), h.order.Len(), maxSizes)
	}
	if _, ok := h.get(blobHere, digest(1)); ok {
		t.Error("the oldest is not forgotten")
	}
	if _, ok := h.get("hub/library/web", digest(0)); ok {
		t.Error("another repository's is known")
	}
	h.add(blobHere, digest(0), 11)
	if size, _ := h.get(blobHere, digest(0)); size != 11 {
		t.Errorf("size %d, want the last one that was told", size)
	}
	h.drop(blobHere, digest(0))
	h.drop(blobHere, digest(0))
	if _, ok := h.get(blobHere, digest(0)); ok {
		t.Error("what was dropped is known")
	}
}
