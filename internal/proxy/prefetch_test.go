package proxy_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/proxy"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// company is an image of the origin with all that belongs to it.
type company struct {
	image, sign, sbom, countersign, legacy registrytest.Image
}

// pushed is the whole of a manifest that lies in a repository of the origin.
func pushed(t *testing.T, s *site, doc registrytest.Document, tags ...string) registrytest.Image {
	t.Helper()
	m := registrytest.PushManifest(t, s.upstream, theirApp, doc.Manifest(t), tags...)
	return registrytest.Image{Repo: theirApp, Manifest: m, Config: *doc.Config, Layers: doc.Layers}
}

func pushCompany(t *testing.T, s *site) (c company) {
	t.Helper()
	referrer := func(subject registry.Manifest, artifactType string) registrytest.Image {
		doc := registrytest.ImageDocument(t, s.upstream, theirApp)
		doc.Subject, doc.ArtifactType = new(subject.Descriptor()), artifactType
		return pushed(t, s, doc)
	}
	c.image = registrytest.PushImage(t, s.upstream, theirApp, "v1")
	c.sign, c.sbom = referrer(c.image.Manifest, signType), referrer(c.image.Manifest, sbomType)
	c.countersign = referrer(c.sign.Manifest, signType)
	c.legacy = pushed(t, s, registrytest.ImageDocument(t, s.upstream, theirApp), c.image.Manifest.Digest.ReferrersTag()+".sig")
	return c
}

// has reports whether a manifest and its blobs are in the cache.
func (s *site) has(t *testing.T, m registrytest.Image) bool {
	t.Helper()
	if _, err := s.cache.Resolve(t.Context(), ourApp, oci.DigestRef(m.Manifest.Digest)); err != nil {
		registrytest.WantCode(t, "look into the cache", err, registry.ManifestUnknown, registry.NameUnknown)
		return false
	}
	for _, d := range append(m.Layers, m.Config) {
		if _, err := s.cache.Blob(t.Context(), ourApp, d.Digest); err != nil {
			registrytest.WantCode(t, "look into the cache", err, registry.BlobUnknown)
			return false
		}
	}
	return true
}

// prefetched reports whether the company of a manifest is noted to be here.
func (s *site) prefetched(t *testing.T, d oci.Digest) bool {
	t.Helper()
	row, err := s.state.ProxyManifest(t.Context(), ourApp, d)
	if err != nil {
		t.Fatal(err)
	}
	return row.Prefetched
}

func (s *site) pull(t *testing.T, ref oci.Ref) {
	t.Helper()
	if _, err := s.Manifest(t.Context(), ourApp, ref); err != nil {
		t.Fatalf("pull %s: %v", ref, err)
	}
}

// TestCompanyComesWithAnImage: what is wanted of it, and it serves when the origin
// is gone.
func TestCompanyComesWithAnImage(t *testing.T) {
	s := newSite(t, siteOptions{proxy: func(o *proxy.Options) { o.Prefetch = []string{signType, "cosign"} }})
	c := pushCompany(t, s)
	s.pull(t, oci.TagRef("v1"))
	eventually(t, "the company is fetched", func() bool { return s.prefetched(t, c.image.Manifest.Digest) })
	for name, m := range map[string]registrytest.Image{"signature": c.sign, "signature of the signature": c.countersign, "cosign's": c.legacy} {
		if !s.has(t, m) {
			t.Errorf("the %s is not here", name)
		}
	}
	_, err := s.cache.Resolve(t.Context(), ourApp, oci.DigestRef(c.sbom.Manifest.Digest))
	if !registry.IsCode(err, registry.ManifestUnknown) || s.has(t, c.image) {
		t.Error("what nobody wanted was fetched")
	}
	s.origin.fail(down)
	asked := s.origin.total()
	s.wantListed(t, "offline", c.image.Manifest.Digest, c.sign.Manifest, c.sbom.Manifest)
	registrytest.WantManifest(t, s, ourApp, oci.TagRef(c.image.Manifest.Digest.ReferrersTag()+".sig"), c.legacy.Manifest)
	registrytest.WantManifest(t, s, ourApp, oci.DigestRef(c.countersign.Manifest.Digest), c.countersign.Manifest)
	if again := s.origin.total(); again != asked {
		t.Errorf("the origin was asked %d times", again-asked)
	}
	s.origin.fail(nil)
	s.advance(time.Minute)
	s.pull(t, oci.DigestRef(c.image.Manifest.Digest)) // this process remembers
	s.advance(time.Hour)
	s.pull(t, oci.DigestRef(c.image.Manifest.Digest)) // and has forgotten
	for range 2 {                                     // jobs are done in turn
		other := registrytest.PushImage(t, s.upstream, theirApp).Manifest
		s.pull(t, oci.DigestRef(other.Digest))
		eventually(t, "that of another image is fetched", func() bool { return s.prefetched(t, other.Digest) })
	}
	if got := s.origin.count("referrers"); got != 2+2 {
		t.Errorf("the origin was asked for %d lists; the image, its signature and two other images have one each", got)
	}
}

func TestAllCompanyComes(t *testing.T) {
	s := newSite(t, siteOptions{proxy: func(o *proxy.Options) { o.Prefetch = []string{"*"} }})
	c := pushCompany(t, s)
	index := registrytest.PushIndex(t, s.upstream, theirApp, []registry.Manifest{c.image.Manifest}, "multi")
	ofIndex := registrytest.PushReferrer(t, s.upstream, theirApp, index.Descriptor(), signType, nil)
	s.pull(t, oci.TagRef("multi"))
	eventually(t, "the company of the index is fetched", func() bool { return s.prefetched(t, index.Digest) })
	if _, err := s.cache.Manifest(t.Context(), ourApp, oci.DigestRef(ofIndex.Digest)); err != nil {
		t.Errorf("the signature of the index: %v", err)
	}
	if s.has(t, c.sign) {
		t.Error("the company of a child was fetched before the child")
	}
	s.pull(t, oci.DigestRef(c.image.Manifest.Digest))
	eventually(t, "the company of the child is fetched", func() bool { return s.prefetched(t, c.image.Manifest.Digest) })
	for name, m := range map[string]registrytest.Image{"signature": c.sign, "SBOM": c.sbom, "countersignature": c.countersign, "cosign's": c.legacy} {
		if !s.has(t, m) {
			t.Errorf("the %s is not here", name)
		}
	}
}

// TestCompanyFails: it is tried again with a later pull, and not at once; pulls do
// not mind.
func TestCompanyFails(t *testing.T) {
	s := newSite(t, siteOptions{proxy: func(o *proxy.Options) { o.Prefetch = []string{"*"} }})
	c := pushCompany(t, s)
	tried := make(chan struct{}, 10)
	unwrap := s.origin.wrap(func(r registry.Reader) registry.Reader { return blobless{r, tried} })
	s.pull(t, oci.TagRef("v1"))
	<-tried
	eventually(t, "the job ends", func() bool {
		s.pull(t, oci.TagRef("v1"))
		s.advance(time.Second)
		return len(tried) > 0
	})
	if s.prefetched(t, c.image.Manifest.Digest) {
		t.Error("what failed is noted as done")
	}
	if past := s.ahead.Load(); past < int64(50*time.Second) {
		t.Errorf("what failed is tried again after %v", time.Duration(past))
	}
	unwrap()
	eventually(t, "it is done with a later pull", func() bool {
		s.pull(t, oci.DigestRef(c.image.Manifest.Digest))
		s.advance(10 * time.Second)
		return s.prefetched(t, c.image.Manifest.Digest)
	})
}

// blobless is a reader that fails to find blobs, and tells of it.
type blobless struct {
	registry.Reader
	tried chan struct{}
}

func (r blobless) Blob(context.Context, string, oci.Digest) (registry.Blob, error) {
	select {
	case r.tried <- struct{}{}:
	default:
	}
	return nil, down
}

// TestNoCompany: without Options.Prefetch nothing comes that nobody asked for.
func TestNoCompany(t *testing.T) {
	s := newSite(t, siteOptions{})
	c := pushCompany(t, s)
	s.pull(t, oci.TagRef("v1"))
	s.Close() // waits for what is under way
	if s.has(t, c.sign) || s.origin.count("referrers") != 0 {
		t.Error("a signature was fetched")
	}
}

// platformIndex pushes an index of images for platforms, under a tag.
func platformIndex(t *testing.T, s *site, tag string, platforms ...string) (index registry.Manifest, images []registrytest.Image) {
	t.Helper()
	doc := registrytest.Document{MediaType: oci.MediaTypeIndex, Manifests: []oci.Descriptor{}}
	for _, platform := range platforms {
		image := registrytest.PushImage(t, s.upstream, theirApp)
		images = append(images, image)
		d := image.Manifest.Descriptor()
		d.Platform = []byte(platform)
		doc.Manifests = append(doc.Manifests, d)
	}
	return registrytest.PushManifest(t, s.upstream, theirApp, doc.Manifest(t), tag), images
}

const (
	amd64 = `{"os":"linux","architecture":"amd64"}`
	armv7 = `{"os":"linux","architecture":"arm","variant":"v7"}`
	noOS  = `{"os":"unknown","architecture":"unknown"}`
)

func TestPrefetchWhole(t *testing.T) {
	s := newSite(t, siteOptions{})
	index, images := platformIndex(t, s, "v1", amd64, armv7, noOS)
	sign := registrytest.PushReferrer(t, s.upstream, theirApp, index.Descriptor(), signType, nil)
	sbom := registrytest.PushReferrer(t, s.upstream, theirApp, images[1].Manifest.Descriptor(), sbomType, nil)
	legacy := pushed(t, s, registrytest.ImageDocument(t, s.upstream, theirApp), index.Digest.ReferrersTag()+".att")
	var last proxy.Progress
	steps := 0
	if err := s.Prefetch(t.Context(), "hub/app", oci.TagRef("v1"), func(p proxy.Progress) { last = p; steps++ }); err != nil {
		t.Fatal(err)
	}
	// The index, three images, two referrers and cosign's; each but the index has two blobs.
	if last.Manifests != 7 || last.Blobs != 12 || last.Failed != 0 || steps != 19 || last.Bytes <= 6*440 {
		t.Errorf("%+v after %d steps", last, steps)
	}
	s.origin.fail(down)
	for _, image := range append(images, legacy) {
		if !s.has(t, image) {
			t.Errorf("%s is not here", image.Manifest.Digest)
		}
	}
	s.wantListed(t, "offline, of the index", index.Digest, sign)
	s.wantListed(t, "offline, of an image", images[1].Manifest.Digest, sbom)
	registrytest.WantManifest(t, s, ourApp, oci.DigestRef(sbom.Digest), sbom)
	registrytest.WantManifest(t, s, ourApp, oci.TagRef(index.Digest.ReferrersTag()+".att"), legacy.Manifest)
	asked := s.origin.total()
	if err := s.Prefetch(t.Context(), ourApp, oci.DigestRef(index.Digest), nil); err != nil || s.origin.total() != asked {
		t.Errorf("again, offline: %v; the origin was asked %d times", err, s.origin.total()-asked)
	}
}

func TestPrefetchPlatforms(t *testing.T) {
	s := newSite(t, siteOptions{})
	_, images := platformIndex(t, s, "v1", amd64, armv7, noOS)
	if err := s.Prefetch(t.Context(), ourApp, oci.TagRef("v1"), nil, "linux/arm"); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true, true} {
		if got := s.has(t, images[i]); got != want {
			t.Errorf("image %d is here: %v", i, got)
		}
	}
	err := s.Prefetch(t.Context(), ourApp, oci.TagRef("v1"), nil, "linux/s390x", "linux/arm/v6")
	if err == nil || !strings.Contains(err.Error(), "linux/arm/v7") || !strings.Contains(err.Error(), "linux/s390x") {
		t.Errorf("platforms that are not there: %v", err)
	}
}

// TestPrefetchInPart: what fails is named, and does not stop the rest.
func TestPrefetchInPart(t *testing.T) {
	s := newSite(t, siteOptions{})
	_, images := platformIndex(t, s, "v1", amd64, armv7)
	s.origin.wrap(func(r registry.Reader) registry.Reader { return withoutManifest{r, images[0].Manifest.Digest, down} })
	var last proxy.Progress
	err := s.Prefetch(t.Context(), ourApp, oci.TagRef("v1"), func(p proxy.Progress) { last = p })
	if err == nil || !strings.Contains(err.Error(), string(images[0].Manifest.Digest)) || !registry.IsCode(err, registry.Unavailable) {
		t.Errorf("without one image: %v", err)
	}
	if last.Failed != 1 || last.Manifests != 2 || !s.has(t, images[1]) {
		t.Errorf("%+v", last)
	}
	for _, c := range []struct {
		repo string
		ref  oci.Ref
		want registry.Code
	}{{"other/app", oci.TagRef("v1"), registry.NameUnknown}, {ourApp, oci.TagRef("none"), registry.ManifestUnknown}} {
		registrytest.WantCode(t, "prefetch "+c.repo, s.Prefetch(t.Context(), c.repo, c.ref, nil), c.want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Prefetch(ctx, ourApp, oci.TagRef("v1"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("one that is given up: %v", err)
	}
}
