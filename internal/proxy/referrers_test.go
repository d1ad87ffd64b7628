package proxy_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/proxy"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

const (
	sbomType = "application/x.sbom"
	signType = "application/x.signature"
)

func TestReferrersAreJoined(t *testing.T) {
	s := newSite(t, siteOptions{})
	image := registrytest.PushImage(t, s.upstream, theirApp, "v1").Manifest
	theirs := []registry.Manifest{
		signature(t, s.upstream, theirApp, image, sbomType), signature(t, s.upstream, theirApp, image, signType),
	}
	ours := signature(t, s, ourApp, image, signType)
	// Pushed here too: listed once.
	both := registrytest.PushManifest(t, s.upstream, theirApp, registrytest.Document{MediaType: oci.MediaTypeIndex, ArtifactType: sbomType,
		Subject: new(image.Descriptor()), Manifests: []oci.Descriptor{}}.Manifest(t))
	registrytest.PushManifest(t, s, ourApp, registry.Manifest{MediaType: both.MediaType, Content: both.Content})

	want := append(theirs, ours, both)
	if how := s.wantListed(t, "cold", image.Digest, want...); how.Hit || how.Forward != "uri-miss" || !how.Stored {
		t.Errorf("a cold list comes as %+v", how)
	}
	if how := s.wantListed(t, "warm", image.Digest, want...); !how.Hit {
		t.Errorf("a warm list comes as %+v", how)
	}
	if got := s.origin.count("referrers"); got != 1 {
		t.Errorf("the origin was asked %d times", got)
	}
	for _, m := range theirs { // in the cache too, from now on
		if _, err := s.Manifest(t.Context(), ourApp, oci.DigestRef(m.Digest)); err != nil {
			t.Fatal(err)
		}
	}
	s.wantListed(t, "with manifests in the cache", image.Digest, want...)
	if got, want := s.results("referrers"), []string{"miss", "hit", "hit"}; !slices.Equal(got, want) {
		t.Errorf("observed %v, want %v", got, want)
	}

	list, _, err := s.listed(t, image.Digest, sbomType)
	if err != nil {
		t.Fatal(err)
	}
	wantDigests(t, "filtered", list, theirs[0], both)
	all := registrytest.Collect(t, s.Referrers(t.Context(), ourApp, image.Digest, "", ""))
	for i, d := range all {
		rest := registrytest.Collect(t, s.Referrers(t.Context(), ourApp, image.Digest, "", d.Digest))
		if !slices.EqualFunc(rest, all[i+1:], func(a, b oci.Descriptor) bool { return a.Digest == b.Digest }) {
			t.Errorf("behind the %d. of %d come %d", i+1, len(all), len(rest))
		}
	}
	for _, d := range all {
		i := slices.IndexFunc(want, func(m registry.Manifest) bool { return m.Digest == d.Digest })
		if d.Size != int64(len(want[i].Content)) || d.MediaType != want[i].MediaType || d.ArtifactType == "" {
			t.Errorf("listed as %+v, has %d bytes", d, len(want[i].Content))
		}
	}
}

// TestReferrersInPages: lists longer than one look at the cache takes, on both
// sides, with some that the origin lists no more.
func TestReferrersInPages(t *testing.T) {
	s := newSite(t, siteOptions{})
	image := registrytest.PushImage(t, s.upstream, theirApp, "v1").Manifest
	var want, gone []registry.Manifest
	for i := range 450 {
		doc := registrytest.Document{MediaType: oci.MediaTypeIndex, ArtifactType: fmt.Sprintf("application/x.%d", i),
			Subject: new(image.Descriptor()), Manifests: []oci.Descriptor{}}.Manifest(t)
		if i%3 == 0 {
			want = append(want, registrytest.PushManifest(t, s, ourApp, doc))
			continue
		}
		m := registrytest.PushManifest(t, s.upstream, theirApp, doc)
		if i%3 == 1 {
			want = append(want, m)
		} else {
			gone = append(gone, m)
		}
		if i%2 == 0 {
			if _, err := s.Manifest(t.Context(), ourApp, oci.DigestRef(m.Digest)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, m := range gone {
		if err := s.upstream.DeleteManifest(t.Context(), theirApp, m.Digest); err != nil {
			t.Fatal(err)
		}
	}
	s.wantListed(t, "a long list", image.Digest, want...)
}

func TestReferrersUnderATag(t *testing.T) {
	s := newSite(t, siteOptions{origin: func(w *watched) registry.Reader { return tagging{w} }})
	image := registrytest.PushImage(t, s.upstream, theirApp, "v1").Manifest
	sbom := signature(t, s.upstream, theirApp, image, sbomType)
	plain := registrytest.PushReferrer(t, s.upstream, theirApp, image.Descriptor(), "", nil)
	bundle := registrytest.PushManifest(t, s.upstream, theirApp, registrytest.Document{MediaType: oci.MediaTypeIndex,
		Subject: new(image.Descriptor()), Manifests: []oci.Descriptor{}}.Manifest(t))
	stranger := signature(t, s.upstream, theirApp, registrytest.PushImage(t, s.upstream, theirApp).Manifest, signType)
	absent := oci.Descriptor{MediaType: oci.MediaTypeImage, Digest: oci.SHA256.FromBytes([]byte("absent")), Size: 6}
	entries := []oci.Descriptor{absent, sbom.Descriptor(), plain.Descriptor(), bundle.Descriptor(), stranger.Descriptor(), image.Descriptor(), sbom.Descriptor()}
	for i := range entries { // somebody's guesses
		entries[i].Size, entries[i].ArtifactType = 1, "application/x.wrong"
	}
	// The store of the origin would not take an index of what is absent.
	tagged := registrytest.Document{MediaType: oci.MediaTypeIndex, Manifests: entries}.Manifest(t)
	s.origin.wrap(func(r registry.Reader) registry.Reader { return withTag{r, image.Digest.ReferrersTag(), tagged} })

	asTheyAre := func(what string) {
		t.Helper()
		s.wantListed(t, what, image.Digest, sbom, plain, bundle)
		list, _, _ := s.listed(t, image.Digest, "")
		for _, d := range list {
			want := map[oci.Digest]registry.Manifest{sbom.Digest: sbom, plain.Digest: plain, bundle.Digest: bundle}[d.Digest]
			types := map[oci.Digest]string{sbom.Digest: sbomType, plain.Digest: registrytest.ConfigType, bundle.Digest: ""}
			notes := map[oci.Digest]map[string]string{sbom.Digest: {"org.example": sbomType}}
			if d.Size != int64(len(want.Content)) || d.ArtifactType != types[d.Digest] || !maps.Equal(d.Annotations, notes[d.Digest]) {
				t.Errorf("%s: listed as %+v", what, d)
			}
		}
	}
	asTheyAre("cold")
	fetched := s.origin.count("manifest")
	s.advance(6 * time.Minute)
	s.wantListed(t, "asked again", image.Digest, sbom, plain, bundle)
	// What is absent is asked for again; nothing else.
	if again := s.origin.count("manifest") - fetched; again != 1 || s.origin.count("referrers") != 2 {
		t.Errorf("%d manifests were fetched again, and %d lists", again, s.origin.count("referrers"))
	}
	got, err := s.cache.Manifest(t.Context(), ourApp, oci.DigestRef(sbom.Digest))
	if err != nil || string(got.Content) != string(sbom.Content) {
		t.Errorf("the manifest that confirmed an entry is not kept: %v", err)
	}
	for _, m := range []registry.Manifest{sbom, plain, bundle} { // as eviction does
		if err := s.cache.DeleteManifest(t.Context(), ourApp, m.Digest); err != nil {
			t.Fatal(err)
		}
	}
	asTheyAre("without the manifests")
}

// TestReferrersUnderATagFail: one entry that cannot be had for now must not make
// the list shorter.
func TestReferrersUnderATagFail(t *testing.T) {
	list := &claiming{tagged: true}
	s := newSite(t, siteOptions{origin: func(w *watched) registry.Reader { list.watched = w; return list }})
	image := registrytest.PushImage(t, s.upstream, theirApp, "v1").Manifest
	one, two := signature(t, s.upstream, theirApp, image, sbomType), signature(t, s.upstream, theirApp, image, signType)
	list.list = []oci.Descriptor{one.Descriptor(), two.Descriptor()}
	for _, err := range []error{down, &registry.Error{Code: registry.NameUnknown, Err: registry.ErrRefused}} {
		unwrap := s.origin.wrap(func(r registry.Reader) registry.Reader { return withoutManifest{r, two.Digest, err} })
		if got, _, err := s.listed(t, image.Digest, ""); !registry.IsCode(err, registry.Unavailable) {
			t.Errorf("where an entry cannot be had, %d are listed: %v", len(got), err)
		}
		unwrap()
		s.advance(time.Minute)
	}
	s.wantListed(t, "when it can", image.Digest, one, two)

	for range 3000 {
		list.list = append(list.list, oci.Descriptor{MediaType: oci.MediaTypeImage, Digest: oci.SHA256.FromBytes(registrytest.Random(9))})
	}
	s.advance(6 * time.Minute)
	before := s.origin.count("manifest")
	how := s.wantListed(t, "with too many entries", image.Digest, one, two)
	if how.Forward != "stale" || s.origin.count("manifest") != before {
		t.Errorf("too many entries: %+v, and %d manifests were asked for", how, s.origin.count("manifest")-before)
	}
}

// TestReferrersAreTidied: what an origin says of its referrers is passed on within
// bounds, and no entry is lost for what is wrong with it.
func TestReferrersAreTidied(t *testing.T) {
	digest := func(s string) oci.Digest { return oci.SHA256.FromBytes([]byte(s)) }
	list := &claiming{list: []oci.Descriptor{
		{MediaType: oci.MediaTypeImage, Digest: digest("notes"), Size: 7, ArtifactType: sbomType, Annotations: map[string]string{"a": strings.Repeat("x", 70_000)}},
		{MediaType: oci.MediaTypeImage, Digest: digest("type"), Size: 7, ArtifactType: strings.Repeat("x", 300)},
		{MediaType: oci.MediaTypeImage, Digest: digest("more"), Size: 7, URLs: []string{"https://example.com"}, Data: []byte("x"), Platform: []byte(`{}`), ArtifactType: signType},
		{MediaType: oci.MediaTypeImage, Digest: "md5:00", Size: 7},
		{MediaType: oci.MediaTypeImage, Digest: digest("size"), Size: -1},
		{MediaType: "a\nb", Digest: digest("line"), Size: 1},
		{MediaType: oci.MediaTypeImage, Digest: digest("more"), Size: 8},
	}}
	s := newSite(t, siteOptions{origin: func(w *watched) registry.Reader { list.watched = w; return list }})
	got, _, err := s.listed(t, digest("subject"), "")
	if err != nil || len(got) != 3 {
		t.Fatalf("%d are listed: %v, %v", len(got), got, err)
	}
	for _, d := range got {
		if d.Annotations != nil || d.URLs != nil || d.Data != nil || d.Platform != nil || d.Size != 7 || len(d.ArtifactType) > 255 {
			t.Errorf("listed as %+v", d)
		}
	}
}

// TestReferrersInTheCacheAreKnown: whatever the origin says of them.
func TestReferrersInTheCacheAreKnown(t *testing.T) {
	list := &claiming{}
	s := newSite(t, siteOptions{origin: func(w *watched) registry.Reader { list.watched = w; return list }})
	image := registrytest.PushImage(t, s.upstream, theirApp, "v1").Manifest
	theirs := signature(t, s.upstream, theirApp, image, signType)
	list.list = []oci.Descriptor{{MediaType: oci.MediaTypeIndex, Digest: theirs.Digest, Size: 1, ArtifactType: sbomType}}
	for _, want := range []oci.Descriptor{list.list[0], {MediaType: oci.MediaTypeImage, Size: int64(len(theirs.Content)), ArtifactType: signType}} {
		got, _, err := s.listed(t, image.Digest, want.ArtifactType)
		if err != nil || len(got) != 1 || got[0].Size != want.Size || got[0].MediaType != want.MediaType {
			t.Errorf("listed as %+v, %v; want %+v", got, err, want)
		}
		registrytest.WantManifest(t, s, ourApp, oci.DigestRef(theirs.Digest), theirs)
	}
}

// TestReferrersTooLongToKeep: a list beyond 4 MiB is served, and asked for again.
func TestReferrersTooLongToKeep(t *testing.T) {
	list := &claiming{}
	s := newSite(t, siteOptions{origin: func(w *watched) registry.Reader { list.watched = w; return list }})
	for i := range 100 {
		list.list = append(list.list, oci.Descriptor{MediaType: oci.MediaTypeImage, Digest: oci.SHA256.FromBytes([]byte{byte(i)}),
			Size: 7, Annotations: map[string]string{"a": strings.Repeat("x", 50_000)}})
	}
	for i := range 2 {
		got, how, err := s.listed(t, "sha256:"+oci.Digest(strings.Repeat("0", 64)), "")
		if err != nil || len(got) != 100 || how.Hit || how.Stored {
			t.Errorf("%d are listed as %+v: %v", len(got), how, err)
		}
		if n := s.origin.count("referrers"); n != i+1 {
			t.Errorf("the origin was asked %d times", n)
		}
	}
	if len(s.state.lists) != 0 {
		t.Error("it is kept")
	}
	list.list = slices.Repeat(list.list, 8)
	for i := range list.list {
		list.list[i].Digest = oci.SHA256.FromBytes(fmt.Append(nil, i))
	}
	if got, _, err := s.listed(t, "sha256:"+oci.Digest(strings.Repeat("0", 64)), ""); !registry.IsCode(err, registry.Unavailable) {
		t.Errorf("of 40 MB %d are listed: %v", len(got), err)
	}
}

// TestReferrersOfNothing: that there are none is an answer, and kept like any.
func TestReferrersOfNothing(t *testing.T) {
	s := newSite(t, siteOptions{})
	absent := oci.SHA256.FromBytes([]byte("absent"))
	for range 3 {
		s.wantListed(t, "of what nobody has", absent)
	}
	if got := s.origin.count("referrers"); got != 1 {
		t.Errorf("the origin was asked %d times", got)
	}
	s.origin.fail(&registry.Error{Code: registry.NameUnknown})
	other := oci.SHA256.FromBytes([]byte("other"))
	s.wantListed(t, "of a repository that the origin does not have", other)
	s.origin.fail(down)
	s.wantListed(t, "as heard before", other)
}

// TestReferrersOfTheSilent: an origin that fails makes lists old, never short.
func TestReferrersOfTheSilent(t *testing.T) {
	for name, failure := range map[string]error{
		"down":    down,
		"busy":    &registry.Error{Code: registry.TooManyRequests, Limit: &registry.Limit{RetryAfter: 42 * time.Second}},
		"faulty":  &registry.Error{Code: registry.Faulty},
		"refuses": &registry.Error{Code: registry.NameUnknown, Err: registry.ErrRefused},
		"other":   errors.New("something else"),
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, siteOptions{})
			image := registrytest.PushImage(t, s.upstream, theirApp, "v1").Manifest
			theirs := signature(t, s.upstream, theirApp, image, sbomType)
			ours := signature(t, s, ourApp, image, signType)

			s.origin.fail(failure)
			_, how, err := s.listed(t, image.Digest, "")
			var e *registry.Error
			if !errors.As(err, &e) || e.Code != registry.Unavailable || e.Limit == nil || e.Limit.RetryAfter <= 0 || how.Hit {
				t.Fatalf("cold: %v, %+v", err, how)
			}
			if want := failure; name == "busy" && e.Limit.RetryAfter != 42*time.Second {
				t.Errorf("cold: to come back after %v, the origin says %v", e.Limit.RetryAfter, want)
			}
			s.origin.fail(nil)
			s.advance(time.Minute)
			s.wantListed(t, "up again", image.Digest, theirs, ours)

			s.origin.fail(failure)
			s.advance(time.Hour)
			later := signature(t, s, ourApp, image, signType)
			if how := s.wantListed(t, "warm", image.Digest, theirs, ours, later); how.Forward != "stale" || how.Hit || how.Age < time.Hour || how.Detail == "" {
				t.Errorf("warm: as %+v", how)
			}
			asked := s.origin.count("referrers")
			s.wantListed(t, "warm, at once again", image.Digest, theirs, ours, later)
			if again := s.origin.count("referrers"); again != asked {
				t.Errorf("what did not answer is asked again at once, %d times", again-asked)
			}
			s.advance(30 * 24 * time.Hour)
			if _, _, err := s.listed(t, image.Digest, ""); !registry.IsCode(err, registry.Unavailable) {
				t.Errorf("after 30 days: %v", err)
			}
		})
	}
}

func TestShortReferrers(t *testing.T) {
	s := newSite(t, siteOptions{proxy: func(o *proxy.Options) { o.ShortReferrers = true }})
	image := registrytest.PushImage(t, s.upstream, theirApp, "v1").Manifest
	theirs := signature(t, s.upstream, theirApp, image, sbomType)
	ours := signature(t, s, ourApp, image, signType)
	s.origin.fail(down)
	if how := s.wantListed(t, "cold", image.Digest, ours); how.Detail == "" || how.Stored {
		t.Errorf("as %+v", how)
	}
	s.origin.fail(nil)
	s.wantListed(t, "up again", image.Digest, theirs, ours)
}

// TestReferrersAreAskedForOnce: one question for all who ask meanwhile, and one
// list kept whatever they ask for.
func TestReferrersAreAskedForOnce(t *testing.T) {
	s := newSite(t, siteOptions{})
	image := registrytest.PushImage(t, s.upstream, theirApp, "v1").Manifest
	theirs := signature(t, s.upstream, theirApp, image, sbomType)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { s.wantListed(t, "together", image.Digest, theirs) })
	}
	all.Wait()
	for i := range 1000 {
		for _, err := range s.Referrers(t.Context(), ourApp, image.Digest, fmt.Sprint("a/", i), "") {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := s.origin.count("referrers"); got != 1 {
		t.Errorf("the origin was asked %d times", got)
	}
	if len(s.state.lists) != 1 || s.state.lists[image.Digest] != 1 {
		t.Errorf("kept are %v", s.state.lists)
	}
}

// TestReferrersOfReplicas: two processes ask one question.
func TestReferrersOfReplicas(t *testing.T) {
	leases := &countedLeases{}
	s := newSite(t, siteOptions{proxy: func(o *proxy.Options) { leases.Leases, o.Leases = o.Leases, leases }})
	image := registrytest.PushImage(t, s.upstream, theirApp, "v1").Manifest
	theirs := signature(t, s.upstream, theirApp, image, sbomType)
	asked, answer := make(chan struct{}, 2), make(chan struct{})
	s.origin.wrap(func(r registry.Reader) registry.Reader { return slowLists{r, asked, answer} })
	var all sync.WaitGroup
	for _, p := range []*proxy.Registry{s.Registry, s.another()} {
		all.Go(func() {
			for d, err := range p.Referrers(t.Context(), ourApp, image.Digest, "", "") {
				if err != nil || d.Digest != theirs.Digest {
					t.Errorf("%s is listed: %v", d.Digest, err)
				}
			}
		})
	}
	<-asked
	eventually(t, "both want to ask", func() bool { return leases.taken.Load() > 1 })
	close(answer)
	all.Wait()
	if got := s.origin.count("referrers"); got != 1 {
		t.Errorf("the origin was asked %d times", got)
	}
}

// TestReferrersFreshness: how long a list is fresh, and that a busy origin makes
// it longer.
func TestReferrersFreshness(t *testing.T) {
	stretch := 1
	s := newSite(t, siteOptions{proxy: func(o *proxy.Options) {
		o.ReferrersTTL, o.Stretch = 10*time.Minute, func() int { return stretch }
	}})
	image := registrytest.PushImage(t, s.upstream, theirApp, "v1").Manifest
	s.wantListed(t, "at first", image.Digest)
	theirs := signature(t, s.upstream, theirApp, image, sbomType)
	s.advance(9 * time.Minute)
	s.wantListed(t, "after 9 minutes", image.Digest)
	s.advance(2 * time.Minute)
	stretch = 3
	s.wantListed(t, "after 11 minutes of 30", image.Digest)
	stretch = 1
	if how := s.wantListed(t, "after 11 minutes of 10", image.Digest, theirs); how.Forward != "stale" || !how.Stored {
		t.Errorf("as %+v", how)
	}
	if got, want := s.results("referrers"), []string{"miss", "hit", "hit", "revalidated"}; !slices.Equal(got, want) {
		t.Errorf("observed %v, want %v", got, want)
	}
}

func TestReferrersFilteredOut(t *testing.T) {
	s := newSite(t, siteOptions{proxy: func(o *proxy.Options) { o.Allow = func(name string) bool { return name != theirApp } }})
	for _, repo := range []string{ourApp, "hub/app", "other/app"} {
		err := registrytest.ListError(t, s.Referrers(t.Context(), repo, oci.SHA256.FromBytes(nil), "", ""))
		registrytest.WantCode(t, "list referrers in "+repo, err, registry.NameUnknown)
	}
	if got := s.origin.total(); got != 0 {
		t.Errorf("the origin was asked %d times", got)
	}
}
