package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/proxy"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// TestPushReferrer: of a subject that nobody has; it is listed at once, although
// the origin's list is fresh.
func TestPushReferrer(t *testing.T) {
	s := newSite(t, siteOptions{})
	registrytest.PushImage(t, s.upstream, theirApp)
	image := registry.Manifest{MediaType: oci.MediaTypeImage, Digest: oci.SHA256.FromBytes([]byte("absent")), Content: []byte("absent")}
	s.wantListed(t, "before", image.Digest)
	if _, err := s.Manifest(t.Context(), ourApp, oci.DigestRef(image.Digest)); !registry.IsCode(err, registry.ManifestUnknown) {
		t.Fatalf("the subject: %v", err)
	}
	doc := registrytest.ImageDocument(t, s, "hub/app") // as this repository is called too
	doc.Subject, doc.ArtifactType = new(image.Descriptor()), signType
	m := doc.Manifest(t)
	m.Digest = oci.SHA256.FromBytes(m.Content)
	// That it was asked for before says nothing later.
	if _, err := s.Manifest(t.Context(), ourApp, oci.DigestRef(m.Digest)); !registry.IsCode(err, registry.ManifestUnknown) {
		t.Fatalf("before the push: %v", err)
	}
	put, err := s.PutManifest(t.Context(), "hub/app", m)
	if err != nil || put.Subject != image.Digest || put.Descriptor.Digest != m.Digest {
		t.Fatalf("push a referrer: %+v, %v", put, err)
	}
	list, how, err := s.listed(t, image.Digest, signType)
	if err != nil || !how.Hit || len(list) != 1 || list[0].Size != int64(len(m.Content)) || list[0].ArtifactType != signType {
		t.Errorf("listed after the push: %+v, %+v, %v", list, how, err)
	}
	registrytest.WantManifest(t, s, ourApp, oci.DigestRef(m.Digest), m)
	for _, d := range append(doc.Layers, *doc.Config) {
		if _, err := s.Blob(t.Context(), ourApp, d.Digest); err != nil {
			t.Errorf("its blob: %v", err)
		}
	}
}

func TestPushRefused(t *testing.T) {
	closed := newSite(t, siteOptions{proxy: func(o *proxy.Options) { o.LocalReferrers = false }})
	open := newSite(t, siteOptions{proxy: func(o *proxy.Options) { o.Allow = func(name string) bool { return name == theirApp } }})
	image := registrytest.PushImage(t, open.upstream, theirApp).Manifest
	subject := new(image.Descriptor())
	plain := registrytest.Document{MediaType: oci.MediaTypeIndex, Manifests: []oci.Descriptor{}}
	referrer := plain
	referrer.Subject = subject
	companion := image.Digest.ReferrersTag()
	for name, c := range map[string]struct {
		s    *site
		repo string
		doc  registrytest.Document
		tags []string
		want registry.Code
		says string
	}{
		"a cache that takes nothing":       {closed, ourApp, referrer, nil, registry.Denied, "push to a project"},
		"not even cosign's":                {closed, ourApp, plain, []string{companion + ".sig"}, registry.Denied, "push to a project"},
		"an image":                         {open, ourApp, plain, nil, registry.Denied, "push images to a project"},
		"an image with a tag":              {open, ourApp, plain, []string{"v1"}, registry.Denied, "push images to a project"},
		"a referrer with a tag":            {open, ourApp, referrer, []string{"v1"}, registry.Denied, "without a tag"},
		"a referrer with cosign's and one": {open, ourApp, referrer, []string{companion + ".sig", "v1"}, registry.Denied, "without a tag"},
		"the index under a referrers tag":  {open, ourApp, plain, []string{companion}, registry.Denied, "lists referrers"},
		"another repository":               {open, "hub/library/other", referrer, nil, registry.NameUnknown, ""},
		"another proxy's":                  {open, "other/app", referrer, nil, registry.NameUnknown, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.s.PutManifest(t.Context(), c.repo, c.doc.Manifest(t), c.tags...)
			registrytest.WantCode(t, "push", err, c.want)
			var e *registry.Error
			if errors.As(err, &e) && !strings.Contains(fmt.Sprint(e.Detail), c.says) {
				t.Errorf("it says %v, not %q", e.Detail, c.says)
			}
			_, err = c.s.cache.Manifest(t.Context(), c.repo, oci.DigestRef(oci.SHA256.FromBytes(c.doc.Manifest(t).Content)))
			registrytest.WantCode(t, "find it in the cache", err, registry.NameUnknown)
		})
	}
	_, err := open.PutManifest(t.Context(), ourApp, registry.Manifest{MediaType: oci.MediaTypeImage, Content: []byte("x")})
	registrytest.WantCode(t, "push what is no manifest", err, registry.ManifestInvalid)
	for name, c := range map[string]struct {
		s    *site
		repo string
		want registry.Code
	}{
		"a cache that takes nothing": {closed, ourApp, registry.Denied},
		"another repository":         {open, "hub/library/other", registry.NameUnknown},
	} {
		_, err := c.s.StartUpload(t.Context(), c.repo, registry.UploadOptions{})
		registrytest.WantCode(t, "start an upload to "+name, err, c.want)
		_, err = c.s.ResumeUpload(t.Context(), c.repo, "x")
		registrytest.WantCode(t, "resume an upload to "+name, err, c.want)
		_, err = c.s.Mount(t.Context(), c.repo, ourApp, image.Digest)
		registrytest.WantCode(t, "mount into "+name, err, c.want)
	}
}

func TestPushUpload(t *testing.T) {
	s := newSite(t, siteOptions{})
	content := registrytest.Random(1000)
	u, err := s.StartUpload(t.Context(), "hub/app", registry.UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{ourApp, "hub/app"} {
		if u, err = s.ResumeUpload(t.Context(), name, u.ID()); err != nil {
			t.Fatalf("resume it as of %s: %v", name, err)
		}
	}
	d := oci.SHA256.FromBytes(content)
	if _, err := u.Commit(t.Context(), 0, bytes.NewReader(content), d); err != nil {
		t.Fatal(err)
	}
	registrytest.WantBlob(t, s, ourApp, d, content)

	if _, err := s.Mount(t.Context(), "hub/library/tool", "hub/app", d); err != nil {
		t.Errorf("mount from another repository of the proxy: %v", err)
	}
	registrytest.WantBlob(t, s, "hub/library/tool", d, content)
	registrytest.PushBlob(t, s.cache, "team/app", content)
	for _, from := range []string{"", "team/app", "hub/library/none"} {
		_, err := s.Mount(t.Context(), "hub/library/new", from, d)
		registrytest.WantCode(t, fmt.Sprintf("mount from %q", from), err, registry.BlobUnknown)
	}
}

// TestPushOfWhatIsElsewhere: a client that was told that a blob is there need not
// send it, wherever it is; what nobody has is missing.
func TestPushOfWhatIsElsewhere(t *testing.T) {
	s := newSite(t, siteOptions{})
	image := registrytest.PushImage(t, s.upstream, theirApp)
	doc := registrytest.Document{MediaType: oci.MediaTypeImage, ArtifactType: signType,
		Subject: new(image.Manifest.Descriptor()), Config: &image.Config, Layers: image.Layers}
	m := registrytest.PushManifest(t, s, ourApp, doc.Manifest(t))
	for _, d := range image.Layers {
		if _, err := s.cache.Blob(t.Context(), ourApp, d.Digest); err != nil {
			t.Errorf("a blob of what was pushed is not here: %v", err)
		}
	}
	s.origin.fail(down)
	registrytest.WantManifest(t, s, ourApp, oci.DigestRef(m.Digest), m)
	s.origin.fail(nil)
	index := registrytest.Document{MediaType: oci.MediaTypeIndex, Subject: doc.Subject, Manifests: []oci.Descriptor{image.Manifest.Descriptor()}}
	registrytest.PushManifest(t, s, ourApp, index.Manifest(t))

	doc.Layers = []oci.Descriptor{{MediaType: registrytest.LayerType, Digest: oci.SHA256.FromBytes([]byte("absent")), Size: 6}}
	_, err := s.PutManifest(t.Context(), ourApp, doc.Manifest(t))
	registrytest.WantCode(t, "push what names a blob that nobody has", err, registry.ManifestBlobUnknown)
	s.origin.fail(down)
	doc.Layers[0].Digest = oci.SHA256.FromBytes([]byte("absent too"))
	_, err = s.PutManifest(t.Context(), ourApp, doc.Manifest(t))
	registrytest.WantCode(t, "push what names a blob that may be there", err, registry.Unavailable)
}

// TestPushIsNotBelieved: what a client says of blobs neither gives it those of other
// repositories nor misleads others.
func TestPushIsNotBelieved(t *testing.T) {
	s := newSite(t, siteOptions{})
	image := registrytest.PushImage(t, s.upstream, theirApp)
	content := registrytest.Random(1000)
	d := registrytest.PushBlob(t, s.upstream, "library/other", content)
	registrytest.WantBlob(t, s, "hub/library/other", d.Digest, content) // in the cache, too
	doc := registrytest.Document{MediaType: oci.MediaTypeImage, ArtifactType: signType, Subject: new(image.Manifest.Descriptor()),
		Config: &image.Config, Layers: []oci.Descriptor{{MediaType: registrytest.LayerType, Digest: d.Digest, Size: d.Size}}}
	_, err := s.PutManifest(t.Context(), ourApp, doc.Manifest(t))
	registrytest.WantCode(t, "push what names a blob of another repository", err, registry.ManifestBlobUnknown)
	_, err = s.Blob(t.Context(), ourApp, d.Digest)
	registrytest.WantCode(t, "find it", err, registry.BlobUnknown)

	doc.Layers = []oci.Descriptor{image.Layers[0]}
	doc.Layers[0].Size++
	registrytest.PushManifest(t, s, ourApp, doc.Manifest(t))
	b, err := s.Blob(t.Context(), ourApp, image.Layers[0].Digest)
	if err != nil || b.Descriptor().Size != image.Layers[0].Size {
		t.Errorf("after a lie about its size: %v", err)
	}
}

// TestPushTakesOver: what came from the origin and is pushed here stays, whatever
// becomes of it there.
func TestPushTakesOver(t *testing.T) {
	s := newSite(t, siteOptions{})
	image := registrytest.PushImage(t, s.upstream, theirApp).Manifest
	kept, lost := signature(t, s.upstream, theirApp, image, signType), signature(t, s.upstream, theirApp, image, signType)
	for _, m := range []registry.Manifest{kept, lost} {
		registrytest.WantManifest(t, s, ourApp, oci.DigestRef(m.Digest), m)
	}
	registrytest.PushManifest(t, s, ourApp, registry.Manifest{MediaType: kept.MediaType, Content: kept.Content})
	for _, m := range []registry.Manifest{kept, lost} {
		if err := s.upstream.DeleteManifest(t.Context(), theirApp, m.Digest); err != nil {
			t.Fatal(err)
		}
	}
	s.wantListed(t, "what was pushed here", image.Digest, kept)
}

// cosignSignatures is what cosign pushes under its tag for an image.
func cosignSignatures(t *testing.T, r registry.Registry, repo string, tag string) registry.Manifest {
	t.Helper()
	return registrytest.PushManifest(t, r, repo, registrytest.ImageDocument(t, r, repo).Manifest(t), tag)
}

// TestCosignTag: what is pushed under cosign's tag is what the tag stands for here,
// whatever the origin has, until the tag is deleted.
func TestCosignTag(t *testing.T) {
	for _, suffix := range []string{".sig", ".att", ".sbom"} {
		t.Run(suffix, func(t *testing.T) {
			s := newSite(t, siteOptions{})
			image := registrytest.PushImage(t, s.upstream, theirApp).Manifest
			tag := image.Digest.ReferrersTag() + suffix
			ref := oci.TagRef(tag)
			registrytest.WantNoManifest(t, s, ourApp, ref)
			ours := cosignSignatures(t, s, ourApp, tag)
			registrytest.WantManifest(t, s, ourApp, ref, ours)
			cosignSignatures(t, s.upstream, theirApp, tag)
			s.advance(24 * time.Hour)
			asked := s.origin.total()
			registrytest.WantManifest(t, s, ourApp, ref, ours)
			if again := s.origin.total(); again != asked {
				t.Errorf("the origin was asked %d times for what was pushed here", again-asked)
			}
			if err := s.DeleteTag(t.Context(), "hub/app", tag); err != nil {
				t.Fatal(err)
			}
			theirs := cosignSignatures(t, s.upstream, theirApp, tag)
			registrytest.WantManifest(t, s, ourApp, ref, theirs)

			// And over what came from there; even if it is the same.
			registrytest.PushManifest(t, s, ourApp, registry.Manifest{MediaType: theirs.MediaType, Content: theirs.Content}, tag)
			cosignSignatures(t, s.upstream, theirApp, tag)
			s.advance(24 * time.Hour)
			registrytest.WantManifest(t, s, ourApp, ref, theirs)
		})
	}
}

// TestCosignTagAgainstPulls: no answer of the origin that is on its way takes the
// place of what is pushed.
func TestCosignTagAgainstPulls(t *testing.T) {
	s := newSite(t, siteOptions{})
	image := registrytest.PushImage(t, s.upstream, theirApp).Manifest
	tag := image.Digest.ReferrersTag() + ".sig"
	cosignSignatures(t, s.upstream, theirApp, tag)
	asked, answer := make(chan struct{}), make(chan struct{})
	s.origin.wrap(func(r registry.Reader) registry.Reader { return &slowOnce{Reader: r, asked: asked, answer: answer} })
	var pull sync.WaitGroup
	pull.Go(func() {
		if _, err := s.Manifest(t.Context(), ourApp, oci.TagRef(tag)); err != nil {
			t.Error(err)
		}
	})
	<-asked
	doc := registrytest.ImageDocument(t, s, ourApp).Manifest(t)
	pushed := make(chan error, 1)
	go func() {
		_, err := s.PutManifest(t.Context(), ourApp, doc, tag)
		pushed <- err
	}()
	// It waits for the answer; with a context that ends it gives up.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.PutManifest(ended, ourApp, doc, tag); !errors.Is(err, context.Canceled) {
		t.Errorf("a push that is given up: %v", err)
	}
	close(answer)
	if err := <-pushed; err != nil {
		t.Fatal(err)
	}
	pull.Wait()
	s.advance(time.Hour)
	doc.Digest = oci.SHA256.FromBytes(doc.Content)
	registrytest.WantManifest(t, s, ourApp, oci.TagRef(tag), doc)
}

// slowOnce is a reader whose first answer to a tag is waited for.
type slowOnce struct {
	registry.Reader
	once          sync.Once
	asked, answer chan struct{}
}

func (r *slowOnce) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	m, err := r.Reader.Manifest(ctx, repo, ref)
	if !ref.IsDigest() {
		r.once.Do(func() {
			close(r.asked)
			<-r.answer
		})
	}
	return m, err
}

func TestDeleteFromCache(t *testing.T) {
	s := newSite(t, siteOptions{})
	image := registrytest.PushImage(t, s.upstream, theirApp, "v1")
	for _, ref := range []oci.Ref{oci.TagRef("v1"), oci.DigestRef(image.Manifest.Digest)} {
		registrytest.WantManifest(t, s, ourApp, ref, image.Manifest)
	}
	if err := s.DeleteTag(t.Context(), "hub/app", "v1"); err != nil {
		t.Fatal(err)
	}
	asked := s.origin.total()
	registrytest.WantManifest(t, s, ourApp, oci.TagRef("v1"), image.Manifest) // it may come back
	if s.origin.total() == asked {
		t.Error("a deleted tag is served without asking")
	}
	registrytest.WantCode(t, "delete an absent tag", s.DeleteTag(t.Context(), ourApp, "none"), registry.ManifestUnknown)

	theirs := signature(t, s.upstream, theirApp, image.Manifest, sbomType)
	s.wantListed(t, "before", image.Manifest.Digest, theirs)
	if err := s.DeleteManifest(t.Context(), "hub/app", image.Manifest.Digest); err != nil {
		t.Fatal(err)
	}
	_, err := s.cache.Manifest(t.Context(), ourApp, oci.TagRef("v1"))
	registrytest.WantCode(t, "find a deleted manifest in the cache", err, registry.ManifestUnknown)
	if err := s.upstream.DeleteManifest(t.Context(), theirApp, theirs.Digest); err != nil {
		t.Fatal(err)
	}
	s.wantListed(t, "after", image.Manifest.Digest)
	s.origin.fail(down)
	_, err = s.Manifest(t.Context(), ourApp, oci.DigestRef(image.Manifest.Digest))
	registrytest.WantCode(t, "pull what was deleted", err, registry.Unavailable)

	d := registrytest.PushBlob(t, s, ourApp, registrytest.Random(9))
	if err := s.DeleteBlob(t.Context(), "hub/app", d.Digest); err != nil {
		t.Fatal(err)
	}
	_, err = s.cache.Blob(t.Context(), ourApp, d.Digest)
	registrytest.WantCode(t, "find a deleted blob in the cache", err, registry.BlobUnknown)
	for what, err := range map[string]error{
		"tag": s.DeleteTag(t.Context(), "other/app", "v1"), "manifest": s.DeleteManifest(t.Context(), "other/app", d.Digest),
		"blob": s.DeleteBlob(t.Context(), "other/app", d.Digest),
	} {
		registrytest.WantCode(t, "delete a "+what+" elsewhere", err, registry.NameUnknown)
	}
}

// TestReferrersGoWithTheirSubject: after it was deleted, and not at once.
func TestReferrersGoWithTheirSubject(t *testing.T) {
	s := newSite(t, siteOptions{ahead: -30 * 24 * time.Hour, hosted: hosted.Options{
		Retention: func(string) hosted.Retention { return hosted.Retention{Orphans: 7 * 24 * time.Hour} }}})
	image := registrytest.PushImage(t, s.upstream, theirApp, "v1").Manifest
	other := registrytest.PushImage(t, s.upstream, theirApp, "v2").Manifest
	for _, m := range []registry.Manifest{image, other} {
		registrytest.WantManifest(t, s, ourApp, oci.DigestRef(m.Digest), m)
	}
	goes, stays := signature(t, s, ourApp, image, signType), signature(t, s, ourApp, other, signType)
	if err := s.upstream.DeleteManifest(t.Context(), theirApp, image.Digest); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteManifest(t.Context(), ourApp, image.Digest); err != nil {
		t.Fatal(err)
	}
	s.wantListed(t, "after the deletion", image.Digest, goes)
	if _, err := s.cache.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantListed(t, "after a collection later than the grace", image.Digest)
	s.wantListed(t, "of another subject", other.Digest, stays)
	registrytest.WantNoManifest(t, s, ourApp, oci.DigestRef(goes.Digest))
}

// TestPushKeepsItsSubject: what was pushed here is held by its subject, which is
// therefore fetched although nobody pulls it.
func TestPushKeepsItsSubject(t *testing.T) {
	s := newSite(t, siteOptions{ahead: -30 * 24 * time.Hour, hosted: hosted.Options{
		Retention: func(string) hosted.Retention { return hosted.Retention{Orphans: 7 * 24 * time.Hour} }}})
	image := registrytest.PushImage(t, s.upstream, theirApp, "v1").Manifest
	ours := signature(t, s, ourApp, image, signType)
	eventually(t, "the subject is fetched", func() bool {
		_, err := s.cache.Resolve(t.Context(), ourApp, oci.DigestRef(image.Digest))
		return err == nil
	})
	if _, err := s.cache.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantListed(t, "after a collection", image.Digest, ours)
}

// eventually waits for something that happens beside the test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}
