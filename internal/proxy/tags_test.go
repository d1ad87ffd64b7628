package proxy

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

func TestTagIsAskedForOnceInAWhile(t *testing.T) {
	s := newPullStack(t)
	m := s.push(t, "v1")
	how := s.wants(t, "cold", "v1", m, "GET v1")
	if how.Hit || how.Forward != "uri-miss" || how.Status != 200 || !how.Stored || how.Age != 0 {
		t.Errorf("a cold tag comes as %+v", how)
	}
	s.advance(59 * time.Second)
	for range 20 {
		if how := s.wants(t, "fresh", "v1", m); !how.Hit || how.Age != 59*time.Second {
			t.Fatalf("a fresh tag comes as %+v", how)
		}
	}
	if e := s.lastEvent(t); e != (Event{"manifest", "hit", 0}) {
		t.Errorf("observed %+v", e)
	}
	s.restart(t)
	s.wants(t, "fresh after a restart", "v1", m)
	s.advance(time.Second)
	how = s.wants(t, "old, unchanged", "v1", m, "HEAD v1")
	if how.Hit || how.Forward != "stale" || how.Status != 200 || how.Age != 0 {
		t.Errorf("a confirmed tag comes as %+v", how)
	}
	if e := s.lastEvent(t); e != (Event{"manifest", "revalidated", 0}) {
		t.Errorf("observed %+v", e)
	}
	s.wants(t, "confirmed", "v1", m)

	s.advance(time.Minute)
	next := s.push(t, "v1")
	how = s.wants(t, "old, changed", "v1", next, "HEAD v1", "GET "+next.Digest.String())
	if how.Hit || how.Forward != "stale" || !how.Stored {
		t.Errorf("a changed tag comes as %+v", how)
	}
	if e := s.lastEvent(t); e != (Event{"manifest", "miss", int64(len(next.Content))}) {
		t.Errorf("observed %+v", e)
	}
	s.wants(t, "changed", "v1", next)

	s.advance(time.Minute)
	registrytest.PushManifest(t, s.store, appThere, m, "v1")
	s.wants(t, "old, changed back", "v1", m, "HEAD v1")
	s.wants(t, "changed back", "v1", m)
	if got := s.cachedTag(t, "v1"); got != m.Digest {
		t.Errorf("the tag of the cache is %s, want %s", got, m.Digest)
	}
}

// TestHeadOfAColdTag: the pull follows, so the manifest comes at once.
func TestHeadOfAColdTag(t *testing.T) {
	s := newPullStack(t)
	m := s.push(t, "v1")
	d, err := s.Resolve(t.Context(), appHere, oci.TagRef("v1"))
	if err != nil || d.Digest != m.Digest || d.Size != int64(len(m.Content)) || d.MediaType != m.MediaType {
		t.Fatalf("resolved %+v, %v", d, err)
	}
	s.wantCalls(t, "a cold HEAD", "GET v1")
	s.wants(t, "the pull by tag", "v1", m)
	s.wants(t, "the pull by digest", m.Digest.String(), m)
}

func TestManyAskForOneTag(t *testing.T) {
	s := newPullStack(t)
	m := s.push(t, "v1")
	s.together(t, 20, oci.TagRef("v1"), m)
	s.wantCalls(t, "20 at once, cold", "GET v1")
	s.advance(time.Minute)
	s.together(t, 20, oci.TagRef("v1"), m)
	s.wantCalls(t, "20 at once, old", "HEAD v1")
	s.advance(time.Minute)
	next := s.push(t, "v1")
	s.together(t, 20, oci.TagRef("v1"), next)
	s.wantCalls(t, "20 at once, changed", "HEAD v1", "GET "+next.Digest.String())
}

// TestReplicasAskOnce: two processes on one state ask as one.
func TestReplicasAskOnce(t *testing.T) {
	for what, ttl := range map[string]time.Duration{"a minute": time.Minute, "none": 0} {
		t.Run(what, func(t *testing.T) {
			s := newPullStack(t, withTTL(ttl))
			s.change = append(s.change, func(o *Options) { o.Leases = s.db })
			s.restart(t)
			second := openState(t, s.path)
			s.change = append(s.change, func(o *Options) { o.Leases = second })
			other := s.start(t, second)
			m := s.push(t, "v1")
			gate, arrived := make(chan struct{}), make(chan string, 10)
			s.origin.set(func(call string) error {
				arrived <- call
				<-gate
				return nil
			})
			for _, want := range []string{"GET v1", "HEAD v1"} {
				s.origin.forget()
				var all sync.WaitGroup
				ask := func(p *Registry) {
					if got, err := p.Manifest(t.Context(), appHere, oci.TagRef("v1")); err != nil || got.Digest != m.Digest {
						t.Errorf("got %s, %v", got.Digest, err)
					}
				}
				all.Go(func() { ask(s.Registry) })
				<-arrived // so the first one has the lease, and what the second does is wait
				all.Go(func() { ask(other) })
				waitFor(t, func() bool { // the second one waits for the first
					other.calls.mu.Lock()
					defer other.calls.mu.Unlock()
					return len(other.calls.byKey) == 1
				})
				s.advance(time.Second)
				gate <- struct{}{}
				all.Wait()
				s.wantCalls(t, "two replicas", want)
				s.advance(time.Minute)
			}
		})
	}
}

// waitFor waits until something that must happen has happened.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for !ok() {
		select {
		case <-t.Context().Done():
			t.Fatal("it never happened")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestTimesOfTags(t *testing.T) {
	s := newPullStack(t, func(o *Options) {
		o.TagTTL = func(name, tag string) time.Duration {
			switch {
			case name != appThere:
				t.Errorf("asked for the time of %s", name)
			case tag == "latest":
				return 0
			case strings.HasPrefix(tag, "v"):
				return -1
			}
			return time.Hour
		}
	})
	m := s.push(t, "latest", "v1", "edge")
	for _, tag := range []string{"latest", "v1", "edge"} {
		s.wants(t, tag, tag, m, "GET "+tag)
	}
	for range 3 {
		s.wants(t, "always asked for", "latest", m, "HEAD latest")
	}
	s.advance(59 * time.Minute)
	s.wants(t, "an hour", "edge", m)
	s.advance(time.Minute)
	s.wants(t, "an hour later", "edge", m, "HEAD edge")
	s.advance(10000 * time.Hour)
	s.push(t, "v1")
	if how := s.wants(t, "never asked for again", "v1", m); !how.Hit {
		t.Errorf("a tag that stays comes as %+v", how)
	}
}

// TestStretch: an origin that allows few requests more is asked less often.
func TestStretch(t *testing.T) {
	stretch := 3
	s := newPullStack(t, func(o *Options) { o.Stretch = func() int { return stretch } })
	m := s.push(t, "v1")
	s.wants(t, "cold", "v1", m, "GET v1")
	s.fails(t, "absent", "v2", registry.ManifestUnknown, "GET v2")
	s.advance(89 * time.Second)
	s.fails(t, "absent", "v2", registry.ManifestUnknown)
	s.advance(90 * time.Second)
	s.wants(t, "fresh", "v1", m)
	s.fails(t, "absent, later", "v2", registry.ManifestUnknown, "GET v2")
	s.advance(time.Second)
	s.wants(t, "old", "v1", m, "HEAD v1")
	s.advance(61 * time.Second)
	stretch = 0 // nonsense counts as 1
	s.wants(t, "not stretched", "v1", m, "HEAD v1")
}

func TestStaleWhileTheOriginDoesNotAnswer(t *testing.T) {
	for what, c := range map[string]struct {
		err    error
		status int
		detail string
	}{
		"down":    {errDown, 0, "upstream-unavailable"},
		"token":   {errToken, 0, "upstream-faulty"},
		"limit":   {errLimit, 429, "upstream-limit"},
		"refused": {errRefused, 0, "upstream-refused"},
		"other":   {errOther, 0, "upstream-error"},
		"status":  {&registry.Error{Code: registry.Unavailable, Err: answered(503)}, 503, "upstream-unavailable"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newPullStack(t)
			m := s.push(t, "v1")
			s.wants(t, "cold", "v1", m, "GET v1")
			s.origin.fail(c.err)
			s.advance(time.Hour)
			how := s.wants(t, "stale", "v1", m, "HEAD v1")
			want := registry.Freshness{Forward: "stale", Status: c.status, Detail: c.detail, Age: time.Hour}
			if how != want {
				t.Errorf("a stale tag comes as %+v, want %+v", how, want)
			}
			if e := s.lastEvent(t); e != (Event{"manifest", "stale", 0}) {
				t.Errorf("observed %+v", e)
			}
			s.advance(time.Second)
			want.Age += time.Second
			if how := s.wants(t, "not asked again at once", "v1", m); how != want {
				t.Errorf("a stale tag comes, again, as %+v, want %+v", how, want)
			}
			s.origin.set(nil)
			s.advance(time.Hour)
			if how := s.wants(t, "the origin answers again", "v1", m, "HEAD v1"); how.Age != 0 {
				t.Errorf("a confirmed tag comes as %+v", how)
			}
		})
	}
}

// answered is an error that tells a status.
type answered int

func (a answered) Error() string   { return "answered" }
func (a answered) HTTPStatus() int { return int(a) }

// TestOriginWantsToBeLeftAlone: not one request comes before it said, whatever
// the tag.
func TestOriginWantsToBeLeftAlone(t *testing.T) {
	s := newPullStack(t)
	m := s.push(t, "v1", "v2")
	s.wants(t, "cold", "v1", m, "GET v1")
	s.wants(t, "cold", "v2", m, "GET v2")
	s.advance(time.Hour)
	s.origin.fail(errLimit)
	s.wants(t, "limited", "v1", m, "HEAD v1")
	s.advance(59 * time.Second)
	s.wants(t, "left alone", "v1", m)
	s.wants(t, "another tag", "v2", m)
	s.origin.set(nil)
	s.advance(time.Second)
	s.wants(t, "asked again", "v1", m, "HEAD v1")
	s.wants(t, "another tag too", "v2", m, "HEAD v2")

	s.advance(time.Hour)
	s.origin.fail(&registry.Error{Code: registry.TooManyRequests, Limit: &registry.Limit{RetryAfter: 1000 * time.Hour}})
	s.wants(t, "limited for long", "v1", m, "HEAD v1")
	s.origin.set(nil)
	s.advance(silenceMost - time.Second)
	s.wants(t, "left alone for long", "v1", m)
	s.advance(time.Second)
	s.wants(t, "not for ever", "v1", m, "HEAD v1")
}

// TestOriginHangs: who can be served what is known waits for a while only.
func TestOriginHangs(t *testing.T) {
	s := newPullStack(t)
	s.asks.patience = time.Millisecond
	m := s.push(t, "v1")
	s.wants(t, "cold", "v1", m, "GET v1")
	s.advance(time.Hour)
	gate := make(chan struct{})
	s.origin.set(func(string) error {
		<-gate
		return nil
	})
	next := s.push(t, "v1")
	s.origin.forget()
	got, how, err := s.ask(t, oci.TagRef("v1"))
	if err != nil || got.Digest != m.Digest || how.Detail != "upstream-slow" || how.Forward != "stale" {
		t.Errorf("a tag of an origin that hangs is %s, %v; it comes as %+v", got.Digest, err, how)
	}
	waitFor(t, func() bool { return slices.Equal(s.origin.heard(), []string{"HEAD v1"}) })
	s.asks.patience = time.Hour // who waits at all now, waits too long
	s.wants(t, "not waited for again at once", "v1", m)
	close(gate)
	waitFor(t, func() bool { return s.cachedTag(t, "v1") == next.Digest })
	waitFor(t, func() bool { m, _, err := s.ask(t, oci.TagRef("v1")); return err == nil && m.Digest == next.Digest })
}

// TestClientLeaves: the work that it began is done for the next one.
func TestClientLeaves(t *testing.T) {
	s := newPullStack(t)
	m := s.push(t, "v1")
	gate, arrived := make(chan struct{}), make(chan struct{})
	s.origin.set(func(string) error {
		close(arrived)
		<-gate
		return nil
	})
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-arrived
		leave()
	}()
	if _, err := s.Manifest(ctx, appHere, oci.TagRef("v1")); !errors.Is(err, context.Canceled) {
		t.Errorf("who left got %v", err)
	}
	close(gate)
	waitFor(t, func() bool { return s.cachedTag(t, "v1") == m.Digest })
	s.wantCalls(t, "one client", "GET v1")
}

func TestStaleIsBounded(t *testing.T) {
	s := newPullStack(t, func(o *Options) { o.MaxStale = 10 * time.Hour })
	m := s.push(t, "v1")
	s.wants(t, "cold", "v1", m, "GET v1")
	s.origin.fail(errDown)
	s.advance(10 * time.Hour)
	s.wants(t, "just young enough", "v1", m, "HEAD v1")
	s.advance(time.Second)
	how, _ := s.fails(t, "too old", "v1", registry.Unavailable, "HEAD v1")
	if how.Forward != "stale" || how.Detail != "upstream-unavailable" {
		t.Errorf("a tag that is too old comes as %+v", how)
	}
	s.wants(t, "its digest is for ever", m.Digest.String(), m)
	s.origin.set(nil)
	s.wants(t, "the origin answers again", "v1", m, "HEAD v1")
}

func TestNothingCachedAndNoAnswer(t *testing.T) {
	for what, c := range map[string]struct {
		err  error
		code registry.Code
	}{
		"down": {errDown, registry.Unavailable}, "token": {errToken, registry.Faulty}, "limit": {errLimit, registry.TooManyRequests},
	} {
		t.Run(what, func(t *testing.T) {
			s := newPullStack(t)
			m := s.push(t, "v1")
			s.origin.fail(c.err)
			for _, ref := range []string{"v1", m.Digest.String()} {
				how, err := s.fails(t, ref, ref, c.code, "GET "+ref)
				if how.Forward != "uri-miss" || how.Stored || how.Detail == "" {
					t.Errorf("nothing comes as %+v", how)
				}
				var e *registry.Error
				if !errors.As(err, &e) || c.err == errLimit && e.Limit.RetryAfter != time.Minute {
					t.Errorf("%v does not say when to come back", err)
				}
				if e := s.lastEvent(t); e != (Event{"manifest", "error", 0}) {
					t.Errorf("observed %+v", e)
				}
			}
			s.origin.set(nil)
			s.wants(t, "the origin answers", "v1", m, "GET v1")
		})
	}
}

// TestAbsentTagIsAskedForOnce, also where the origin does not say whether it is
// absent or not for us.
func TestAbsentTagIsAskedForOnce(t *testing.T) {
	for what, err := range map[string]error{
		"no tag": &registry.Error{Code: registry.ManifestUnknown}, "no repository": &registry.Error{Code: registry.NameUnknown}, "refused": errRefused,
	} {
		t.Run(what, func(t *testing.T) {
			s := newPullStack(t)
			s.origin.fail(err)
			how, _ := s.fails(t, "cold", "v1", registry.CodeOf(err), "GET v1")
			if how.Forward != "uri-miss" || !how.Stored {
				t.Errorf("an absent tag comes as %+v", how)
			}
			s.advance(29 * time.Second)
			if how, _ := s.fails(t, "again", "v1", registry.ManifestUnknown); !how.Hit || how.Age != 29*time.Second {
				t.Errorf("an absent tag comes, again, as %+v", how)
			}
			if e := s.lastEvent(t); e != (Event{"manifest", "negative", 0}) {
				t.Errorf("observed %+v", e)
			}
			s.restart(t)
			s.fails(t, "after a restart", "v1", registry.ManifestUnknown)
			s.origin.set(nil)
			m := s.push(t, "v1")
			s.advance(time.Second)
			s.wants(t, "half a minute later", "v1", m, "GET v1")
		})
	}
}

func TestDeletedTagIsKept(t *testing.T) {
	s := newPullStack(t)
	m := s.push(t, "v1")
	s.wants(t, "cold", "v1", m, "GET v1")
	s.deleteTag(t, "v1")
	s.wants(t, "not yet noticed", "v1", m)
	s.advance(time.Minute)
	how := s.wants(t, "noticed", "v1", m, "HEAD v1")
	if want := (registry.Freshness{Forward: "stale", Status: 404, Detail: "upstream-deleted", Age: time.Minute}); how != want {
		t.Errorf("a kept tag comes as %+v, want %+v", how, want)
	}
	s.advance(30 * time.Second)
	if how := s.wants(t, "kept", "v1", m); !how.Hit || how.Age != 30*time.Second {
		t.Errorf("a kept tag comes, again, as %+v", how)
	}

	s.advance(30 * time.Second)
	s.wants(t, "missing still", "v1", m, "HEAD v1")
	s.advance(10 * time.Second)
	if how := s.wants(t, "kept", "v1", m); !how.Hit || how.Age != 70*time.Second {
		t.Errorf("a kept tag comes, a minute later, as %+v", how)
	}

	s.advance(6 * 24 * time.Hour)
	registrytest.PushManifest(t, s.store, appThere, m, "v1")
	if how := s.wants(t, "back", "v1", m, "HEAD v1"); how.Detail != "" || how.Age != 0 {
		t.Errorf("a tag that is back comes as %+v", how)
	}
	s.deleteTag(t, "v1")
	s.advance(2 * 24 * time.Hour)
	s.wants(t, "gone anew", "v1", m, "HEAD v1")
	s.advance(7 * 24 * time.Hour)
	s.wants(t, "gone for a week", "v1", m, "HEAD v1")
	s.restart(t)
	s.advance(time.Hour)
	how, _ = s.fails(t, "gone for longer", "v1", registry.ManifestUnknown, "HEAD v1")
	if how.Forward != "stale" || how.Status != 404 {
		t.Errorf("a tag that is gone comes as %+v", how)
	}
	s.fails(t, "gone", "v1", registry.ManifestUnknown)
	if got := s.cachedTag(t, "v1"); got != "" {
		t.Errorf("the cache has the tag still, as %s", got)
	}
	s.wants(t, "its digest", m.Digest.String(), m)
}

// TestKeptForSoLong: also a tag that is never asked for again is kept no longer
// than that, once it is known to be gone.
func TestKeptForSoLong(t *testing.T) {
	s := newPullStack(t, withTTL(-1))
	m := s.push(t, "v1")
	s.wants(t, "cold", "v1", m, "GET v1")
	s.deleteTag(t, "v1")
	if err := s.db.ForgetProxyTags(t.Context(), "hub", appHere, "v1"); err != nil {
		t.Fatal(err)
	}
	s.wants(t, "noticed", "v1", m, "HEAD v1")
	s.advance(7 * 24 * time.Hour)
	s.wants(t, "kept", "v1", m)
	s.advance(time.Second)
	s.fails(t, "kept for long enough", "v1", registry.ManifestUnknown, "HEAD v1")
}

func TestDeletedTagIsFollowed(t *testing.T) {
	s := newPullStack(t, following)
	m := s.push(t, "v1", "v2")
	s.wants(t, "cold", "v1", m, "GET v1")
	s.wants(t, "cold", "v2", m, "GET v2")
	s.deleteTag(t, "v1")
	s.wants(t, "not yet noticed", "v1", m)
	s.advance(time.Minute)
	s.fails(t, "noticed", "v1", registry.ManifestUnknown, "HEAD v1")
	s.advance(29 * time.Second)
	s.fails(t, "gone", "v1", registry.ManifestUnknown)
	if got := s.cachedTag(t, "v1"); got != "" {
		t.Errorf("the cache has the tag still, as %s", got)
	}
	s.wants(t, "its digest", m.Digest.String(), m)
	s.wants(t, "another tag", "v2", m, "HEAD v2")
	registrytest.PushManifest(t, s.store, appThere, m, "v1")
	s.advance(time.Second)
	s.wants(t, "back", "v1", m, "GET v1")
	s.origin.fail(errRefused)
	s.advance(time.Minute)
	s.wants(t, "refused is not deleted", "v1", m, "HEAD v1")
}

func (s *pullStack) deleteTag(t testing.TB, tag string) {
	t.Helper()
	if err := s.store.DeleteTag(t.Context(), appThere, tag); err != nil {
		t.Fatal(err)
	}
}

// TestTagMovesMeanwhile: between the question and the answer a tag may move, and
// what it stood for may be gone.
func TestTagMovesMeanwhile(t *testing.T) {
	for what, follow := range map[string]bool{"keep": false, "follow": true} {
		t.Run(what, func(t *testing.T) {
			s := newPullStack(t, func(o *Options) { o.Follow = follow })
			m := s.push(t, "v1")
			s.wants(t, "cold", "v1", m, "GET v1")
			s.advance(time.Minute)
			passing := s.push(t, "v1")
			last := registry.Manifest{}
			s.origin.set(func(call string) error {
				if call == "GET "+passing.Digest.String() {
					last = s.push(t, "v1")
					return s.store.DeleteManifest(t.Context(), appThere, passing.Digest)
				}
				return nil
			})
			s.origin.forget()
			got, _, err := s.ask(t, oci.TagRef("v1"))
			if err != nil || got.Digest != last.Digest {
				t.Fatalf("got %s, %v; want %s", got.Digest, err, last.Digest)
			}
			s.wantCalls(t, "moving", "HEAD v1", "GET "+passing.Digest.String(), "GET v1")
			s.wants(t, "moved", "v1", last)

			s.advance(time.Minute)
			passing = s.push(t, "v1")
			s.origin.set(func(call string) error {
				if call == "GET "+passing.Digest.String() {
					s.deleteTag(t, "v1")
					return s.store.DeleteManifest(t.Context(), appThere, passing.Digest)
				}
				return nil
			})
			calls := []string{"HEAD v1", "GET " + passing.Digest.String(), "GET v1"}
			if follow {
				s.fails(t, "vanished", "v1", registry.ManifestUnknown, calls...)
			} else {
				s.wants(t, "vanished", "v1", last, calls...)
			}
		})
	}
}

// TestNonsenseInPlaceOfACachedTag: what was known serves on.
func TestNonsenseInPlaceOfACachedTag(t *testing.T) {
	s := newPullStack(t)
	m := s.push(t, "v1")
	s.wants(t, "cold", "v1", m, "GET v1")
	s.advance(time.Minute)
	next := s.push(t, "v1")
	s.Close()
	bad := next
	bad.Content = []byte("{}")
	p, err := New(&lying{s.origin, bad}, s.cache, Options{Name: "hub", State: s.db, Spool: t.TempDir(), Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	got, err := p.Manifest(t.Context(), appHere, oci.TagRef("v1"))
	if err != nil || got.Digest != m.Digest {
		t.Errorf("got %s, %v; want %s", got.Digest, err, m.Digest)
	}
}

// TestCrashBetweenTheTwo: where the note of a tag and the cache disagree, the
// origin is asked, and what the cache has is better than nothing.
func TestCrashBetweenTheTwo(t *testing.T) {
	for what, ask := range map[string]string{"after it": "v1", "or never written": "v2"} {
		t.Run(what, func(t *testing.T) {
			s := newPullStack(t, withTTL(-1), func(o *Options) { o.MaxStale = time.Hour })
			old := s.push(t, "v1")
			s.wants(t, "cold", "v1", old, "GET v1")
			s.advance(time.Minute)
			m := s.push(t, "v1", "v2")
			s.wants(t, "its digest", m.Digest.String(), m, "GET "+m.Digest.String())
			if _, err := s.cache.Registry.PutManifest(t.Context(), appHere, m, ask); err != nil {
				t.Fatal(err)
			}
			s.origin.fail(errDown)
			s.advance(30 * time.Minute)
			if how := s.wants(t, "origin down", ask, m, "HEAD "+ask); how.Age != 30*time.Minute {
				t.Errorf("comes as %+v", how)
			}
			s.advance(31 * time.Minute)
			s.fails(t, "and too old", ask, registry.Unavailable, "HEAD "+ask)
			s.origin.set(nil)
			s.wants(t, "the origin answers", ask, m, "HEAD "+ask)
			s.wants(t, "known again", ask, m)
		})
	}
}

// TestPushedTag: the origin has no say in what was pushed here.
func TestPushedTag(t *testing.T) {
	s := newPullStack(t)
	theirs := s.push(t, "v1")
	s.wants(t, "cold", "v1", theirs, "GET v1")
	s.fails(t, "absent", "v2", registry.ManifestUnknown, "GET v2")
	ours := registrytest.PushImage(t, s.cache.Registry, appHere, "v1", "v2").Manifest
	for _, tag := range []string{"v1", "v2"} {
		if how := s.wants(t, "pushed here", tag, ours); !how.Hit || how.Detail != "local" || how.Age >= 0 {
			t.Errorf("what was pushed here comes as %+v", how)
		}
		s.advance(1000 * time.Hour)
		s.wants(t, "pushed here long ago", tag, ours)
	}
}

// TestPushedHereAndThere: the same manifest, of which the origin has the tag.
func TestPushedHereAndThere(t *testing.T) {
	s := newPullStack(t)
	image := registrytest.PushImage(t, s.store, appThere, "v1")
	cache := s.cache.Registry
	if _, err := cache.PutManifest(t.Context(), appHere, image.Manifest); err != nil {
		t.Fatal(err)
	}
	s.wants(t, "cold", "v1", image.Manifest, "GET v1")
	s.wants(t, "fresh", "v1", image.Manifest)
	if err := s.db.ForgetProxyTags(t.Context(), "hub", appHere, "v1"); err != nil {
		t.Fatal(err)
	}
	s.wants(t, "asked for again", "v1", image.Manifest, "HEAD v1")
	next := s.push(t, "v1")
	s.advance(time.Minute)
	s.wants(t, "moved there", "v1", next, "HEAD v1", "GET "+next.Digest.String())
}

// TestRefreshedTag is asked for once more; what it stood for stays known.
func TestRefreshedTag(t *testing.T) {
	s := newPullStack(t, withTTL(-1), func(o *Options) { o.MaxStale = time.Hour })
	m := s.push(t, "v1")
	s.wants(t, "cold", "v1", m, "GET v1")
	s.fails(t, "absent", "v2", registry.ManifestUnknown, "GET v2")
	if err := s.db.ForgetProxyTags(t.Context(), "hub", "", ""); err != nil {
		t.Fatal(err)
	}
	s.advance(time.Hour)
	s.origin.fail(errDown)
	if how := s.wants(t, "origin down", "v1", m, "HEAD v1"); how.Age != time.Hour {
		t.Errorf("comes as %+v", how)
	}
	s.advance(time.Second)
	s.fails(t, "too old by when it came", "v1", registry.Unavailable, "HEAD v1")
	s.origin.set(nil)
	s.wants(t, "asked for again", "v1", m, "HEAD v1")
	s.wants(t, "known again", "v1", m)
	s.fails(t, "absence is asked for again", "v2", registry.ManifestUnknown, "GET v2")
}

// TestCompanionTagsHaveTheTimesOfReferrers, not those of tags.
func TestCompanionTagsHaveTheTimesOfReferrers(t *testing.T) {
	s := newPullStack(t, withTTL(-1), func(o *Options) { o.MaxStale = time.Minute })
	d := s.push(t, "v1").Digest
	for _, tag := range []string{d.ReferrersTag(), d.ReferrersTag() + ".sig", d.ReferrersTag() + ".att", d.ReferrersTag() + ".sbom"} {
		m := s.push(t, tag)
		s.wants(t, "cold", tag, m, "GET "+tag)
		s.advance(299 * time.Second)
		s.wants(t, "fresh", tag, m)
		s.advance(time.Second)
		s.wants(t, "old", tag, m, "HEAD "+tag)
		s.origin.fail(errDown)
		s.advance(30 * 24 * time.Hour)
		s.wants(t, "stale", tag, m, "HEAD "+tag)
		s.advance(time.Hour)
		s.fails(t, "too old", tag, registry.Unavailable, "HEAD "+tag)
		s.fails(t, "cold, origin down", tag[:len(tag)-1]+"0", registry.Unavailable, "GET "+tag[:len(tag)-1]+"0")
		s.origin.set(nil)
	}
}

func TestTagsAreThoseOfBoth(t *testing.T) {
	for what, c := range map[string]struct {
		follow bool
		want   string
	}{"keep": {false, "a b c gone ours"}, "follow": {true, "a b c ours"}} {
		t.Run(what, func(t *testing.T) {
			s := newPullStack(t, func(o *Options) { o.Follow = c.follow })
			m := s.push(t, "a", "b", "c", "gone")
			s.wants(t, "cold", "b", m, "GET b")
			s.wants(t, "cold", "gone", m, "GET gone")
			s.deleteTag(t, "gone")
			registrytest.PushImage(t, s.cache.Registry, appHere, "ours")
			want := strings.Fields(c.want)
			for i, after := range append([]string{""}, want...) {
				s.origin.forget()
				ctx, told := registry.WithFreshness(t.Context())
				registrytest.WantList(t, "tags after "+after, s.Tags(ctx, appHere, after), want[i:]...)
				s.wantCalls(t, "tags", strings.TrimSpace("LIST "+after))
				if f := told(); f.Hit || f.Forward != "miss" {
					t.Errorf("a list comes as %+v", f)
				}
			}
			registrytest.WantList(t, "tags of the short name", s.Tags(t.Context(), "hub/app", ""), want...)
			for range s.Tags(t.Context(), appHere, "") {
				break
			}
			if e := s.lastEvent(t); e != (Event{"tags", "miss", 0}) {
				t.Errorf("observed %+v", e)
			}
		})
	}
}

func TestTagsWhileTheOriginDoesNotAnswer(t *testing.T) {
	s := newPullStack(t, following)
	m := s.push(t, "a", "b", "c")
	s.origin.fail(errDown)
	registrytest.WantCode(t, "list, cold", registrytest.ListError(t, s.Tags(t.Context(), appHere, "")), registry.Unavailable)
	if e := s.lastEvent(t); e != (Event{"tags", "error", 0}) {
		t.Errorf("observed %+v", e)
	}
	s.origin.set(nil)
	s.wants(t, "cold", "a", m, "GET a")
	s.wants(t, "cold", "c", m, "GET c")
	for _, err := range []error{errDown, errLimit, errRefused, errToken} {
		s.origin.fail(err)
		for after, want := range map[string]string{"": "a c", "a": "c", "z": ""} {
			ctx, told := registry.WithFreshness(t.Context())
			registrytest.WantList(t, "tags here after "+after, s.Tags(ctx, appHere, after), strings.Fields(want)...)
			if f := told(); f.Hit || f.Forward != "stale" || f.Detail != detailOf(err) {
				t.Errorf("a list comes as %+v", f)
			}
		}
		if e := s.lastEvent(t); e != (Event{"tags", "stale", 0}) {
			t.Errorf("observed %+v", e)
		}
	}
	s.origin.set(nil)
	registrytest.WantCode(t, "list what is nowhere", registrytest.ListError(t, s.Tags(t.Context(), "hub/library/none", "")), registry.NameUnknown)
	if e := s.lastEvent(t); e != (Event{"tags", "negative", 0}) {
		t.Errorf("observed %+v", e)
	}
	s.origin.fail(&registry.Error{Code: registry.NameUnknown})
	registrytest.WantCode(t, "list what was deleted there", registrytest.ListError(t, s.Tags(t.Context(), appHere, "")), registry.NameUnknown)
	registrytest.PushImage(t, s.cache.Registry, appHere, "ours")
	registrytest.WantList(t, "what was pushed here", s.Tags(t.Context(), appHere, ""), "ours")
	s.change = []func(*Options){}
	s.restart(t)
	registrytest.WantList(t, "what is kept", s.Tags(t.Context(), appHere, ""), "a", "c", "ours")
}

// listing is an origin that lists what a test says.
type listing struct {
	*listened
	tags iter.Seq2[string, error]
}

func (l *listing) Tags(context.Context, string, string) iter.Seq2[string, error] { return l.tags }

func TestTagsBreakOff(t *testing.T) {
	s := newPullStack(t)
	s.wants(t, "cold", "v1", s.push(t, "v1"), "GET v1")
	s.Close()
	for what, c := range map[string]struct {
		tags iter.Seq2[string, error]
		want string
		code registry.Code
	}{
		"in the middle": {func(yield func(string, error) bool) { _ = yield("a", nil) && yield("", errDown) }, "a", registry.Unavailable},
		"nonsense": {func(yield func(string, error) bool) {
			_ = yield("a", nil) && yield("../x", nil) && yield("\"", nil) && yield("b", nil) && yield("a", nil) && yield("b", nil)
		}, "a b v1", 0},
		"without end": {func(yield func(string, error) bool) {
			for ok := yield("a", nil); ok; ok = yield("!", nil) {
			}
		}, "a", registry.Faulty},
	} {
		t.Run(what, func(t *testing.T) {
			p, err := New(&listing{s.origin, c.tags}, s.cache, Options{Name: "hub", State: s.db, Spool: t.TempDir(), Now: s.now})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			got := []string{}
			err = nil
			for tag, failure := range p.Tags(t.Context(), appHere, "") {
				if err = failure; err == nil {
					got = append(got, tag)
				}
			}
			if strings.Join(got, " ") != c.want || c.code != 0 && !registry.IsCode(err, c.code) || c.code == 0 && err != nil {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestListsAreOfThisProxyOnly(t *testing.T) {
	s := newPullStack(t)
	cache := s.cache.Registry
	content := registrytest.Random(100)
	for _, repo := range []string{"hub", "hub-old/app", "hub.old/app", "hub/a", "hub/library/b", "hub/z/z", "hub0/app", "hub2/app", "aaa/app", "zzz/app"} {
		registrytest.PushImage(t, cache, repo, "v1")
		registrytest.PushBlob(t, cache, repo, content)
	}
	mine := []string{"hub/a", "hub/library/b", "hub/z/z"}
	for i, after := range append([]string{""}, mine...) {
		registrytest.WantList(t, "repositories after "+after, s.Repositories(t.Context(), after), mine[i:]...)
	}
	registrytest.WantList(t, "repositories after all", s.Repositories(t.Context(), "zzz"))
	found := map[string]bool{}
	for _, repo := range registrytest.Collect(t, s.Holders(t.Context(), "hub/a", oci.SHA256.FromBytes(content))) {
		found[repo] = true
	}
	if len(found) != len(mine) || !found[mine[0]] || !found[mine[1]] || !found[mine[2]] {
		t.Errorf("holders are %v, want %v", found, mine)
	}
	s.wantCalls(t, "lists")
}
