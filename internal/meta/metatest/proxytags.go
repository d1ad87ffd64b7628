package metatest

import (
	"fmt"
	"reflect"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

var proxyTagCases = []testCase{
	{"proxy/tags", proxyTags},
	{"proxy/tags are forgotten", proxyForgotten},
	{"proxy/tags are forgotten page by page", proxyForgottenPages},
	{"proxy/referrers", proxyReferrers},
	{"proxy/pauses", proxyPauses},
}

const hub = "hub/library/app" // a repository of the proxy hub

func (e *env) proxyTag(repo, ref string) meta.ProxyTag {
	e.Helper()
	t, err := e.db.ProxyTag(e.Context(), repo, ref)
	e.ok(err)
	return t
}

func proxyTags(e *env) {
	_, err := e.db.ProxyTag(e.Context(), hub, "v1")
	e.wantErr("find a tag that nobody asked for", err, meta.ErrNotFound)
	now := e.clock.now()
	for _, want := range []meta.ProxyTag{
		{Digest: digest("a"), CheckedAt: now},
		{Digest: digest("b"), CheckedAt: now.Add(time.Second), GoneSince: now},
		{Digest: digest("b"), CheckedAt: now.Add(2 * time.Second)},
		{CheckedAt: now.Add(3 * time.Second)},
		{Digest: digest("c")},
	} {
		e.wantHinted("save a tag", func() error { return e.db.SaveProxyTag(e.Context(), hub, "v1", want) })
		if got := e.proxyTag(hub, "v1"); got != want {
			e.Errorf("found %+v, want %+v", got, want)
		}
	}
	for _, at := range [][2]string{{hub, "v2"}, {hub + "2", "v1"}, {"hub/library", "v1"}} {
		_, err := e.db.ProxyTag(e.Context(), at[0], at[1])
		e.wantErr("find another tag", err, meta.ErrNotFound)
	}
}

// wantHinted runs a step that must not cost a sync.
func (e *env) wantHinted(what string, step func() error) {
	e.Helper()
	e.heard.mu.Lock()
	ops, commits := len(e.heard.ops), e.heard.commits
	e.heard.mu.Unlock()
	if err := step(); err != nil {
		e.Errorf("%s: %v", what, err)
	}
	e.heard.mu.Lock()
	defer e.heard.mu.Unlock()
	for _, op := range e.heard.ops[ops:] {
		if op.Kind != "hint" && op.Kind != "read" {
			e.Errorf("%s is a %s", what, op.Kind)
		}
	}
	if n := e.heard.commits - commits; n != 0 {
		e.Errorf("%s was made durable %d times", what, n)
	}
}

// proxyForgotten: the names are those that a range of strings could mistake for
// another.
func proxyForgotten(e *env) {
	now := e.clock.now()
	repos := []string{"hub/a", "hub/a/b", "hub/a-b", "hub/ab", "hub0/a", "hub-2/a", "hub/a.b"}
	for what, c := range map[string]struct {
		repo, ref string
		want      func(repo, ref string) bool
	}{
		"one":               {"hub/a", "v1", func(repo, ref string) bool { return repo == "hub/a" && ref == "v1" }},
		"a repository":      {"hub/a", "", func(repo, _ string) bool { return repo == "hub/a" }},
		"all":               {"", "", func(repo, _ string) bool { return repo != "hub0/a" && repo != "hub-2/a" }},
		"one that is not":   {"hub/a", "v9", func(string, string) bool { return false }},
		"none of the proxy": {"hub/none", "", func(string, string) bool { return false }},
	} {
		saved := meta.ProxyTag{Digest: digest("a"), CheckedAt: now, GoneSince: now}
		for _, repo := range repos {
			for _, ref := range []string{"v1", "v2"} {
				e.ok(e.db.SaveProxyTag(e.Context(), repo, ref, saved))
			}
		}
		e.wantHinted("forget", func() error { return e.db.ForgetProxyTags(e.Context(), "hub", c.repo, c.ref) })
		for _, repo := range repos {
			for _, ref := range []string{"v1", "v2"} {
				want := saved
				if c.want(repo, ref) {
					want.CheckedAt = time.Time{}
				}
				if got := e.proxyTag(repo, ref); got != want {
					e.Errorf("%s: %s:%s is %+v, want %+v", what, repo, ref, got, want)
				}
			}
		}
	}
}

func proxyForgottenPages(e *env) {
	now := e.clock.now()
	const n = 1001 // two pages and one
	for i := range n {
		e.ok(e.db.SaveProxyTag(e.Context(), hub, fmt.Sprint("v", i), meta.ProxyTag{Digest: digest("a"), CheckedAt: now}))
	}
	e.ok(e.db.ForgetProxyTags(e.Context(), "hub", "", ""))
	for i := range n {
		if t := e.proxyTag(hub, fmt.Sprint("v", i)); !t.CheckedAt.IsZero() {
			e.Fatalf("tag %d was not forgotten", i)
		}
	}
}

func (e *env) proxyReferrers(repo string, subject oci.Digest) meta.ProxyReferrers {
	e.Helper()
	r, err := e.db.ProxyReferrers(e.Context(), repo, subject)
	e.ok(err)
	return r
}

func proxyReferrers(e *env) {
	_, err := e.db.ProxyReferrers(e.Context(), hub, digest("a"))
	e.wantErr("find a list that nobody asked for", err, meta.ErrNotFound)
	now := e.clock.now()
	for _, want := range []meta.ProxyReferrers{{List: []byte("[]"), CheckedAt: now}, {List: []byte("[1]"), CheckedAt: now.Add(time.Second)}} {
		e.wantHinted("save a list", func() error { return e.db.SaveProxyReferrers(e.Context(), hub, digest("a"), want) })
		if got := e.proxyReferrers(hub, digest("a")); !reflect.DeepEqual(got, want) {
			e.Errorf("found %+v, want %+v", got, want)
		}
	}
	list := meta.ProxyReferrers{List: []byte("[]"), CheckedAt: now}
	e.ok(e.db.SaveProxyReferrers(e.Context(), hub, digest("b"), list))
	e.ok(e.db.SaveProxyReferrers(e.Context(), hub+"2", digest("a"), list))
	e.ok(e.db.SaveProxyReferrers(e.Context(), "hub2/app", digest("a"), list))
	ages := func(what string, want ...time.Duration) {
		e.Helper()
		for i, at := range []struct {
			repo   string
			digest oci.Digest
		}{{hub, digest("a")}, {hub, digest("b")}, {hub + "2", digest("a")}, {"hub2/app", digest("a")}} {
			if got := now.Sub(e.proxyReferrers(at.repo, at.digest).CheckedAt); got != want[i] {
				e.Errorf("%s: list %d is %v old, want %v", what, i, got, want[i])
			}
		}
	}
	age := func(repo string, subject oci.Digest, by time.Duration) {
		e.Helper()
		e.wantHinted("age", func() error { return e.db.AgeProxyReferrers(e.Context(), "hub", repo, subject, now.Add(-by)) })
	}
	ages("at first", -time.Second, 0, 0, 0)
	age(hub, digest("a"), time.Minute)
	ages("one", time.Minute, 0, 0, 0)
	age(hub, digest("a"), time.Second)
	age(hub, digest("none"), time.Second)
	ages("one that is older", time.Minute, 0, 0, 0)
	age(hub, "", time.Second)
	ages("a repository", time.Minute, time.Second, 0, 0)
	age("", "", 2*time.Second)
	ages("all", time.Minute, 2*time.Second, 2*time.Second, 0)
}

func proxyPauses(e *env) {
	want := func(proxy string, until time.Time) {
		e.Helper()
		if got, err := e.db.ProxyPause(e.Context(), proxy); err != nil || !got.Equal(until) {
			e.Errorf("%s pauses until %v, %v; want %v", proxy, got, err, until)
		}
	}
	want("hub", time.Time{})
	now := e.clock.now()
	for _, pause := range []struct{ by, want time.Duration }{
		{time.Minute, time.Minute}, {time.Second, time.Minute}, {time.Hour, time.Hour}, {-time.Hour, time.Hour},
	} {
		e.wantHinted("pause", func() error { return e.db.PauseProxy(e.Context(), "hub", now.Add(pause.by)) })
		want("hub", now.Add(pause.want))
	}
	want("quay", time.Time{})
}
