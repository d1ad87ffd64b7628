package proxy

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

func TestDigestIsAskedForOnce(t *testing.T) {
	s := newPullStack(t)
	child := s.push(t)
	index := registrytest.PushIndex(t, s.store, appThere, []registry.Manifest{child, s.push(t), s.push(t), s.push(t), s.push(t)}, "all")
	for _, m := range []registry.Manifest{index, child} {
		d := m.Digest.String()
		how := s.wants(t, "cold", d, m, "GET "+d)
		if how.Hit || how.Forward != "uri-miss" || !how.Stored {
			t.Errorf("a cold manifest comes as %+v", how)
		}
		if e := s.lastEvent(t); e != (Event{"manifest", "miss", int64(len(m.Content))}) {
			t.Errorf("observed %+v", e)
		}
		s.origin.fail(errDown)
		s.advance(1000 * time.Hour)
		if how := s.wants(t, "warm, origin down", d, m); !how.Hit || how.Age >= 0 {
			t.Errorf("a warm manifest comes as %+v", how)
		}
		s.restart(t)
		s.wants(t, "after a restart", d, m)
		desc, err := s.Resolve(t.Context(), appHere, oci.DigestRef(m.Digest))
		if err != nil || desc.Digest != m.Digest || desc.Size != int64(len(m.Content)) || desc.MediaType != m.MediaType {
			t.Errorf("resolved %+v, %v", desc, err)
		}
		s.origin.set(nil)
	}
	if tags := registrytest.Collect(t, s.cache.Tags(t.Context(), appHere, "")); len(tags) != 0 {
		t.Errorf("the cache has the tags %v", tags)
	}
}

func TestAbsentDigestIsAskedForOnce(t *testing.T) {
	s := newPullStack(t)
	s.push(t, "v1")
	m := registrytest.PushImage(t, registryOf(t), appThere).Manifest
	d := m.Digest.String()
	if how, _ := s.fails(t, "cold", d, registry.ManifestUnknown, "GET "+d); how.Status != 404 || how.Forward != "uri-miss" {
		t.Errorf("an absent manifest comes as %+v", how)
	}
	s.advance(29 * time.Second)
	if how, _ := s.fails(t, "again", d, registry.ManifestUnknown); !how.Hit || how.Age != 29*time.Second {
		t.Errorf("an absent manifest comes, again, as %+v", how)
	}
	s.restart(t)
	s.fails(t, "after a restart", d, registry.ManifestUnknown)
	s.advance(time.Second)
	s.fails(t, "after half a minute", d, registry.ManifestUnknown, "GET "+d)
}

func TestManyAskForOneDigest(t *testing.T) {
	s := newPullStack(t)
	m := s.push(t)
	n := s.together(t, 20, oci.DigestRef(m.Digest), m)
	s.wantCalls(t, "20 at once", "GET "+m.Digest.String())
	if n != 1 {
		t.Errorf("%d of 20 say that bytes came for them", n)
	}
}

// together asks n times at once and returns how many answers brought bytes.
func (s *pullStack) together(t *testing.T, n int, ref oci.Ref, want registry.Manifest) (brought int) {
	t.Helper()
	s.origin.forget()
	s.mu.Lock()
	s.events = nil
	s.mu.Unlock()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			m, err := s.Manifest(t.Context(), appHere, ref)
			if err != nil || m.Digest != want.Digest {
				t.Errorf("got %s, %v; want %s", m.Digest, err, want.Digest)
			}
		})
	}
	all.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Bytes > 0 {
			brought++
		}
	}
	return brought
}

// lying is an origin that sends a manifest for whatever it is asked.
type lying struct {
	*listened
	m registry.Manifest
}

func (l *lying) Manifest(_ context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	return l.m, l.note("GET", repo, ref.String())
}

func TestNonsenseIsNotBelieved(t *testing.T) {
	s := newPullStack(t)
	image := s.push(t, "v1")
	other := s.push(t)
	large := image
	large.Content = append(append([]byte(nil), image.Content...), strings.Repeat(" ", oci.MaxManifest)...)
	large.Digest = oci.SHA256.FromBytes(large.Content)
	page := []byte("<html>log in</html>")
	byDigest := oci.DigestRef(image.Digest)
	for what, c := range map[string]struct {
		ref oci.Ref
		m   registry.Manifest
	}{
		"a page":                    {oci.TagRef("v1"), registry.Manifest{MediaType: "text/html", Digest: oci.SHA256.FromBytes(page), Content: page}},
		"a page as a manifest":      {oci.TagRef("v1"), registry.Manifest{MediaType: oci.MediaTypeImage, Digest: oci.SHA256.FromBytes(page), Content: page}},
		"another manifest":          {byDigest, other},
		"another under its digest":  {byDigest, registry.Manifest{MediaType: other.MediaType, Digest: image.Digest, Content: other.Content}},
		"a wrong digest":            {oci.TagRef("v1"), registry.Manifest{MediaType: image.MediaType, Digest: other.Digest, Content: image.Content}},
		"a digest of no kind":       {oci.TagRef("v1"), registry.Manifest{MediaType: image.MediaType, Digest: "md5:00", Content: image.Content}},
		"too much":                  {oci.TagRef("v1"), large},
		"nothing":                   {oci.TagRef("v1"), registry.Manifest{}},
		"schema 1":                  {oci.TagRef("v1"), registry.Manifest{MediaType: schema1Signed, Digest: oci.SHA256.FromBytes([]byte("{}")), Content: []byte("{}")}},
		"an index as an image":      {oci.TagRef("v1"), registry.Manifest{MediaType: oci.MediaTypeIndex, Digest: image.Digest, Content: image.Content}},
		"an image with two layouts": {oci.TagRef("v1"), twice(image)},
	} {
		t.Run(what, func(t *testing.T) {
			p, err := New(&lying{s.origin, c.m}, s.cache, Options{Name: "hub", State: s.db, Spool: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			_, err = p.Manifest(t.Context(), appHere, c.ref)
			registrytest.WantCode(t, "get", err, registry.Faulty)
			if e, ok := err.(*registry.Error); !ok || e.Detail == nil {
				t.Errorf("%v says nothing", err)
			}
			for _, ref := range []oci.Ref{c.ref, oci.DigestRef(c.m.Digest)} {
				if _, err := s.cache.Resolve(t.Context(), appHere, ref); !ref.IsZero() && !notThere(err) {
					t.Errorf("%s is in the cache: %v", ref, err)
				}
			}
		})
	}
}

// twice has a key two times.
func twice(m registry.Manifest) registry.Manifest {
	m.Content = []byte(strings.Replace(string(m.Content), "{", `{"schemaVersion":2,`, 1))
	m.Digest = oci.SHA256.FromBytes(m.Content)
	return m
}

// TestFailingCache: what cannot be kept is passed on.
func TestFailingCache(t *testing.T) {
	full := &registry.Error{Code: registry.InsufficientStorage}
	s := newPullStack(t)
	old := s.push(t, "v1")
	d := old.Digest.String()
	for what, ref := range map[string]string{"tag": "v1", "digest": d} {
		s.cache.fail(full)
		for range 2 {
			how := s.wants(t, what+", cache full", ref, old, "GET "+ref)
			if how.Stored || how.Forward != "uri-miss" {
				t.Errorf("a manifest that is not kept comes as %+v", how)
			}
			if e := s.lastEvent(t); e.Result != "passed" || e.Bytes == 0 {
				t.Errorf("observed %+v", e)
			}
		}
		s.cache.fail(nil)
	}
	s.wants(t, "the cache works again", "v1", old, "GET v1")

	s.cache.fail(full)
	s.advance(time.Hour)
	moved := s.push(t, "v1")
	for range 2 {
		s.wants(t, "moved, cache full", "v1", moved, "HEAD v1", "GET "+moved.Digest.String())
	}
	s.origin.fail(errDown)
	s.wants(t, "moved, cache full, origin down", "v1", old, "HEAD v1")
	s.origin.set(nil)
	s.cache.fail(nil)
	s.advance(time.Hour)
	s.wants(t, "the cache works again", "v1", moved, "HEAD v1", "GET "+moved.Digest.String())
	s.origin.fail(errDown)
	s.wants(t, "kept at last", "v1", moved)
}

// forgetful is a state that cannot be written, or not be read.
type forgetful struct {
	State
	note, save, read error
}

func (f *forgetful) SaveProxyManifest(ctx context.Context, m meta.ProxyManifest) error {
	if f.note != nil {
		return f.note
	}
	return f.State.SaveProxyManifest(ctx, m)
}

func (f *forgetful) SaveProxyTag(ctx context.Context, repo, ref string, tag meta.ProxyTag) error {
	if f.save != nil {
		return f.save
	}
	return f.State.SaveProxyTag(ctx, repo, ref, tag)
}

func (f *forgetful) ProxyTag(ctx context.Context, repo, ref string) (meta.ProxyTag, error) {
	if f.read != nil {
		return meta.ProxyTag{}, f.read
	}
	return f.State.ProxyTag(ctx, repo, ref)
}

func TestFailingState(t *testing.T) {
	s := newPullStack(t)
	m := s.push(t, "v1")
	state := &forgetful{State: s.db, note: meta.ErrFull}
	s.Registry = s.start(t, state)
	s.wants(t, "no note", "v1", m, "GET v1")
	if _, err := s.cache.Resolve(t.Context(), appHere, oci.DigestRef(m.Digest)); !notThere(err) {
		t.Errorf("a manifest without its note is in the cache, as if it had been pushed: %v", err)
	}
	state.note, state.save = nil, meta.ErrFull
	s.wants(t, "what was said is lost", "v1", m, "GET v1")
	s.wants(t, "so the origin is asked again", "v1", m, "HEAD v1")
	s.origin.fail(errDown)
	if how := s.wants(t, "or, where it is down, the cache is believed", "v1", m, "HEAD v1"); how.Age != 0 {
		t.Errorf("the age is %s, although the manifest came just now", how.Age)
	}
	s.origin.set(nil)
	state.save, state.read = nil, meta.ErrUnavailable
	s.fails(t, "no database", "v1", registry.Unavailable)
	state.read = errOther
	s.fails(t, "a fault", "v1", registry.Internal)
}

// leaseless cannot give leases.
type leaseless struct{ Leases }

func (leaseless) LeaseProxy(context.Context, string, time.Duration) (int64, bool, error) {
	return 0, false, meta.ErrFull
}

// TestFailingLeases: without them more may be asked, but nothing is refused.
func TestFailingLeases(t *testing.T) {
	s := newPullStack(t)
	m := s.push(t, "v1")
	s.change = append(s.change, func(o *Options) { o.Leases = leaseless{s.db} })
	s.restart(t)
	s.wants(t, "cold", "v1", m, "GET v1")
	s.advance(time.Hour)
	s.wants(t, "old", "v1", m, "HEAD v1")
}

// TestOriginWantsOthers: what the origin has against us is not what a client did
// wrong.
func TestOriginWantsOthers(t *testing.T) {
	s := newPullStack(t)
	m := s.push(t, "v1")
	for _, code := range []registry.Code{registry.Unauthorized, registry.Denied, registry.Unsupported, registry.ManifestTooLarge} {
		s.origin.fail(&registry.Error{Code: code})
		s.fails(t, "by tag", "v1", registry.Faulty, "GET v1")
		s.fails(t, "by digest", m.Digest.String(), registry.Faulty, "GET "+m.Digest.String())
		registrytest.WantCode(t, "list tags", registrytest.ListError(t, s.Tags(t.Context(), appHere, "")), registry.Faulty)
	}
	s.origin.set(nil)
	s.wants(t, "in order again", "v1", m, "GET v1")
	s.advance(time.Hour)
	s.origin.fail(&registry.Error{Code: registry.Denied})
	if how := s.wants(t, "stale", "v1", m, "HEAD v1"); how.Detail != "upstream-faulty" {
		t.Errorf("comes as %+v", how)
	}
}

// TestFilter: what is not allowed does not exist, although it is in the cache.
func TestFilter(t *testing.T) {
	s := newPullStack(t)
	m := s.push(t, "v1")
	s.wants(t, "allowed", "v1", m, "GET v1")
	s.change = append(s.change, func(o *Options) { o.Allow = func(name string) bool { return !strings.HasPrefix(name, "library/") } })
	s.restart(t)
	s.fails(t, "by tag", "v1", registry.NameUnknown)
	s.fails(t, "by digest", m.Digest.String(), registry.NameUnknown)
	_, err := s.Resolve(t.Context(), appHere, oci.TagRef("v1"))
	registrytest.WantCode(t, "resolve", err, registry.NameUnknown)
	registrytest.WantCode(t, "list tags", registrytest.ListError(t, s.Tags(t.Context(), appHere, "")), registry.NameUnknown)
	registrytest.WantList(t, "repositories", s.Repositories(t.Context(), ""))
	for _, name := range []string{"hub", "hub2/library/app", "library/app", "other/app"} {
		_, err := s.Manifest(t.Context(), name, oci.TagRef("v1"))
		registrytest.WantCode(t, "get from "+name, err, registry.NameUnknown)
	}
	s.wantCalls(t, "filtered")
}

// TestLibrary: one name of the origin, whichever way it is written here.
func TestLibrary(t *testing.T) {
	s := newPullStack(t)
	m := s.push(t, "v1")
	for _, repo := range []string{"hub/app", appHere} {
		if got, err := s.Manifest(t.Context(), repo, oci.TagRef("v1")); err != nil || got.Digest != m.Digest {
			t.Errorf("%s: %s, %v", repo, got.Digest, err)
		}
	}
	s.wantCalls(t, "two names", "GET v1")
	registrytest.WantList(t, "repositories", s.Repositories(t.Context(), ""), appHere)
}

// registryOf is an empty registry.
func registryOf(t testing.TB) registry.Registry { return newPullStack(t).store }
