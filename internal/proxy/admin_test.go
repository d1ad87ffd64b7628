package proxy_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/proxy"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

func (s *site) purge(t *testing.T, repo, ref string) proxy.Freed {
	t.Helper()
	got, err := s.Purge(t.Context(), repo, ref)
	if err != nil {
		t.Fatalf("purge %s %s: %v", repo, ref, err)
	}
	return got
}

// TestPurge takes out what is in use, too, and of one repository as of all.
func TestPurge(t *testing.T) {
	s := newSite(t, siteOptions{ahead: longAgo})
	const otherApp = "library/other"
	one, two, child := built(t, s, "v1"), built(t, s, "v2"), registrytest.PushImage(t, s.upstream, theirApp)
	index := registrytest.PushIndex(t, s.upstream, theirApp, []registry.Manifest{child.Manifest}, "index")
	other := registrytest.PushImage(t, s.upstream, otherApp, "v1")
	come := func() {
		t.Helper()
		s.pullAll(t, "v1", one)
		s.pullAll(t, "v2", two)
		s.pull(t, oci.TagRef("index"))
		s.pullAll(t, string(child.Manifest.Digest), child)
		registrytest.WantManifest(t, s, "hub/other", oci.TagRef("v1"), other.Manifest)
	}
	come()
	if got := s.purge(t, "hub/app", "v1"); got.Images != 1 || got.Manifests != 1 || got.Blobs != 2 {
		t.Errorf("by a tag %+v were purged", got)
	}
	s.wantGone(t, "by a tag", one)
	s.wantKept(t, "by a tag", true, two, child)
	_, err := s.Purge(t.Context(), ourApp, string(child.Manifest.Digest))
	registrytest.WantCode(t, "purge a child", err, registry.Referenced)
	if got := s.purge(t, ourApp, string(index.Digest)); got.Images != 1 || got.Manifests != 2 || got.Blobs != 2 {
		t.Errorf("by a digest %+v were purged", got)
	}
	s.wantGone(t, "by a digest", child)
	for _, ref := range []string{"v1", "none", string(index.Digest)} {
		if got := s.purge(t, ourApp, ref); got != (proxy.Freed{}) {
			t.Errorf("by what is not there %+v were purged", got)
		}
	}
	come()
	if got := s.purge(t, ourApp, ""); got.Images != 3 || got.Manifests != 4 || got.Blobs != 6 {
		t.Errorf("of a repository %+v were purged", got)
	}
	registrytest.WantManifest(t, s.cache, "hub/library/other", oci.TagRef("v1"), other.Manifest)
	come()
	if got := s.purge(t, "", ""); got.Images != 4 || s.used(t) != 0 {
		t.Errorf("of all %+v were purged, and %d bytes are left", got, s.used(t))
	}
	// What was absent is asked for again.
	registrytest.WantNoManifest(t, s, ourApp, oci.TagRef("late"))
	registrytest.PushManifest(t, s.upstream, theirApp, one.Manifest, "late")
	s.purge(t, ourApp, "")
	registrytest.WantManifest(t, s, ourApp, oci.TagRef("late"), one.Manifest)
	for _, repo := range []string{"library/app", "hubs/app", "hub"} {
		_, err := s.Purge(t.Context(), repo, "")
		registrytest.WantCode(t, "purge elsewhere", err, registry.NameUnknown)
		registrytest.WantCode(t, "refresh elsewhere", s.Refresh(t.Context(), repo, ""), registry.NameUnknown)
	}
	for _, ref := range []string{"-", "sha256:none"} {
		if _, err := s.Purge(t.Context(), ourApp, ref); err == nil {
			t.Errorf("%q was purged", ref)
		}
		if err := s.Refresh(t.Context(), ourApp, ref); err == nil {
			t.Errorf("%q was refreshed", ref)
		}
	}
}

// TestPurgeOfWhatMayNotBeHad: a repository that is not allowed any more can still
// be cleaned up after.
func TestPurgeOfWhatMayNotBeHad(t *testing.T) {
	allowed := true
	s := newSite(t, siteOptions{ahead: longAgo, proxy: func(o *proxy.Options) { o.Allow = func(string) bool { return allowed } }})
	s.pullAll(t, "v1", built(t, s, "v1"))
	allowed = false
	if got := s.purge(t, ourApp, ""); got.Images != 1 || s.used(t) != 0 {
		t.Errorf("%+v were purged, and %d bytes are left", got, s.used(t))
	}
}

func TestPurgeIsCancelled(t *testing.T) {
	s := newSite(t, siteOptions{ahead: longAgo})
	image := built(t, s, "v1")
	s.pullAll(t, "v1", image)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := s.Purge(ctx, "", ""); !errors.Is(err, context.Canceled) || got != (proxy.Freed{}) {
		t.Errorf("%+v were purged, %v", got, err)
	}
	if got, err := s.Evict(ctx, proxy.Budget{Bytes: 1}); !errors.Is(err, context.Canceled) || got != (proxy.Freed{}) {
		t.Errorf("%+v were evicted, %v", got, err)
	}
	s.wantKept(t, "when nothing was done", true, image)
}

// TestRefresh has all asked again, and what is known serve where there is no
// answer.
func TestRefresh(t *testing.T) {
	for what, at := range map[string][2]string{
		"a tag": {"hub/app", "v1"}, "a repository": {ourApp, ""}, "all": {"", ""},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t, siteOptions{ahead: longAgo, proxy: func(o *proxy.Options) {
				o.TagTTL = func(string, string) time.Duration { return -1 }
			}})
			image := registrytest.PushImage(t, s.upstream, theirApp, "v1")
			first := signature(t, s.upstream, theirApp, image.Manifest, signType)
			refresh := func() {
				t.Helper()
				if err := s.Refresh(t.Context(), at[0], at[1]); err != nil {
					t.Fatalf("refresh: %v", err)
				}
			}
			s.pullAll(t, "v1", image)
			s.wantListed(t, "at first", image.Manifest.Digest, first)
			second := signature(t, s.upstream, theirApp, image.Manifest, signType)
			s.wantListed(t, "while it is fresh", image.Manifest.Digest, first)
			refresh()
			s.origin.fail(down)
			s.pullAll(t, "v1", image)
			if how := s.wantListed(t, "without an answer", image.Manifest.Digest, first); how.Hit || how.Forward != "stale" {
				t.Errorf("without an answer: %+v", how)
			}
			s.origin.fail(nil)
			refresh() // also of what was not answered a moment ago
			s.wantListed(t, "asked again", image.Manifest.Digest, first, second)
			resolved := s.origin.count("resolve")
			s.pullAll(t, "v1", image)
			if n := s.origin.count("resolve") - resolved; n != 1 {
				t.Errorf("the tag was asked for %d times", n)
			}
			s.pullAll(t, "v1", image)
			if n := s.origin.count("resolve") - resolved; n != 1 {
				t.Errorf("the tag was asked for %d times, when it was fresh", n)
			}
		})
	}
}

// TestRefreshOfAbsence: what was absent is asked for again, by a tag or a digest.
func TestRefreshOfAbsence(t *testing.T) {
	s := newSite(t, siteOptions{ahead: longAgo, proxy: func(o *proxy.Options) { o.NegativeTTL = 1000 * time.Hour }})
	registrytest.PushImage(t, s.upstream, theirApp, "there")
	doc := registrytest.ImageDocument(t, s.upstream, theirApp)
	m := doc.Manifest(t)
	m.Digest = oci.SHA256.FromBytes(m.Content)
	for _, ref := range []string{"v1", string(m.Digest)} {
		parsed, err := oci.ParseRef(ref)
		if err != nil {
			t.Fatal(err)
		}
		registrytest.WantNoManifest(t, s, ourApp, parsed)
		asked := s.origin.total()
		registrytest.WantNoManifest(t, s, ourApp, parsed)
		if s.origin.total() != asked {
			t.Errorf("%s is asked for again by itself", ref)
		}
		registrytest.PushManifest(t, s.upstream, theirApp, m, "v1")
		if err := s.Refresh(t.Context(), ourApp, ref); err != nil {
			t.Fatal(err)
		}
		registrytest.WantManifest(t, s, ourApp, parsed, m)
		if got := s.purge(t, ourApp, ref); got.Images != 1 {
			t.Errorf("%+v were purged", got)
		}
		if err := s.upstream.DeleteManifest(t.Context(), theirApp, m.Digest); err != nil {
			t.Fatal(err)
		}
	}
}
