package metatest

import (
	"fmt"
	"slices"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

var proxyCollectCases = []testCase{
	{"proxy/cold manifests", proxyCold},
	{"proxy/manifests of a repository", proxyListed},
	{"proxy/usage and statistics", proxyFigures},
	{"proxy/tagged manifests", proxyTagged},
	{"proxy/forgotten manifests", proxyForgets},
	{"proxy/pruned absences", proxyPruneAbsences},
	{"proxy/pruned lists of referrers", proxyPruneReferrers},
	{"proxy/pruned notes", proxyPruneNotes},
	{"proxy/pruned leases", proxyPruneLeases},
}

// walkNotes reads a list of notes in pages of several sizes.
func (e *env) walkNotes(what string, page func(after meta.ProxyManifest, n int) ([]meta.ProxyManifest, error), want ...meta.ProxyManifest) {
	e.Helper()
	for _, n := range []int{1, 2, len(want) + 1} {
		var got []meta.ProxyManifest
		for after := (meta.ProxyManifest{}); ; after = got[len(got)-1] {
			list, err := page(after, n)
			e.ok(err)
			if len(list) == 0 {
				break
			}
			if got = append(got, list...); len(list) > n || len(got) > 2*len(want)+10 {
				e.Fatalf("%s: a page of %d has %d, %d in all", what, n, len(list), len(got))
			}
		}
		if !slices.Equal(got, want) {
			e.Errorf("%s in pages of %d: %+v, want %+v", what, n, got, want)
		}
	}
}

func proxyCold(e *env) {
	var all []meta.ProxyManifest
	for i := range 6 {
		if i%2 == 0 { // pairs are of one moment
			e.clock.move(time.Minute)
		}
		all = append(all, e.noted(hub, digest(fmt.Sprint("m", i))))
	}
	other := meta.ProxyManifest{Proxy: "quay", Repository: "quay/app", Digest: digest("m0"), FetchedAt: all[0].FetchedAt, UsedAt: all[0].UsedAt}
	e.ok(e.db.SaveProxyManifest(e.Context(), other))
	for pair := range slices.Chunk(all, 2) {
		slices.SortFunc(pair, func(a, b meta.ProxyManifest) int { return slices.Compare([]byte(a.Digest), []byte(b.Digest)) })
	}
	cold := func(proxy string, before time.Time) func(meta.ProxyManifest, int) ([]meta.ProxyManifest, error) {
		return func(after meta.ProxyManifest, n int) ([]meta.ProxyManifest, error) {
			return e.db.ColdProxyManifests(e.Context(), proxy, before, after, n)
		}
	}
	end := e.clock.now().Add(time.Hour)
	e.walkNotes("all", cold("hub", end), all...)
	e.walkNotes("those that are old", cold("hub", all[4].UsedAt), all[:4]...)
	e.walkNotes("of another", cold("quay", end), other)
	e.walkNotes("of none", cold("none", end))
	e.touch(meta.ProxyUse{Repository: hub, Digest: all[0].Digest, At: end})
	all[0].UsedAt = end
	e.walkNotes("without what was used", cold("hub", end), all[1:]...)
	e.walkNotes("with it", cold("hub", end.Add(1)), all[1:]...)
	e.walkNotes("with it", cold("hub", end.Add(time.Millisecond)), append(slices.Clone(all[1:]), all[0])...)
}

func proxyListed(e *env) {
	of := map[string][]meta.ProxyManifest{}
	for _, repo := range []string{"hub/a", "hub/a/b", "hub/a-b", "hub0/a", "hub/ab"} {
		for i := range 3 {
			of[repo] = append(of[repo], e.noted(repo, digest(fmt.Sprint("m", i))))
		}
		slices.SortFunc(of[repo], func(a, b meta.ProxyManifest) int { return slices.Compare([]byte(a.Digest), []byte(b.Digest)) })
	}
	list := func(repo string) func(meta.ProxyManifest, int) ([]meta.ProxyManifest, error) {
		return func(after meta.ProxyManifest, n int) ([]meta.ProxyManifest, error) {
			return e.db.ProxyManifests(e.Context(), "hub", repo, after, n)
		}
	}
	e.walkNotes("one", list("hub/a"), of["hub/a"]...)
	e.walkNotes("another", list("hub/a/b"), of["hub/a/b"]...)
	e.walkNotes("all", list(""), slices.Concat(of["hub/a"], of["hub/a-b"], of["hub/a/b"], of["hub/ab"])...)
}

func proxyFigures(e *env) {
	want := func(bytes int64, s meta.ProxyStats) {
		e.Helper()
		if got, err := e.db.ProxyUsage(e.Context(), "hub"); err != nil || got != bytes {
			e.Errorf("%d bytes are used, %v; want %d", got, err, bytes)
		}
		if got, err := e.db.ProxyStats(e.Context(), "hub"); err != nil || got != s {
			e.Errorf("statistics %+v, %v; want %+v", got, err, s)
		}
	}
	want(0, meta.ProxyStats{})
	start := e.clock.now()
	child := e.fetched(image(hub, "child"))
	e.clock.move(time.Minute)
	e.fetched(index(hub, "index", child.Digest))
	signature := meta.ProxyManifest{Proxy: "hub", Repository: hub, Digest: digest("signature"), Subject: child.Digest, UsedAt: e.clock.now()}
	e.ok(e.db.SaveProxyManifest(e.Context(), signature))
	e.put(image(hub, "local"))
	e.push(hub, "blob")
	e.ok(e.db.SaveProxyManifest(e.Context(), meta.ProxyManifest{Proxy: "quay", Repository: "quay/app", Digest: digest("m"), UsedAt: start.Add(-time.Hour)}))
	e.push("quay/app", "other blob")
	want(int64(len("child"+"index"+"local"+"blob")), meta.ProxyStats{Manifests: 3, Images: 1, Oldest: start, Newest: e.clock.now()})
}

func proxyTagged(e *env) {
	m := e.fetched(image(hub, "m"), "v1", "v2")
	other := e.fetched(image("hub/other", "m"), "v1")
	e.fetched(image(hub, "untagged"))
	e.put(image(hub, "local"), "local")
	e.ok(e.db.SaveProxyManifest(e.Context(), meta.ProxyManifest{Proxy: "quay", Repository: "quay/app", Digest: m.Digest}))
	e.put(image("quay/app", "m"), "v1")
	want := []meta.TaggedProxyManifest{
		{Repository: hub, Tag: "v1", Digest: m.Digest}, {Repository: hub, Tag: "v2", Digest: m.Digest}, {Repository: "hub/other", Tag: "v1", Digest: other.Digest},
	}
	for _, n := range []int{1, 3, 10} {
		got, err := e.db.TaggedProxyManifests(e.Context(), "hub", n)
		if e.ok(err); len(got) != min(n, len(want)) {
			e.Errorf("%d of %d are %v", n, len(want), got)
		}
		for _, g := range got {
			if !slices.Contains(want, g) {
				e.Errorf("%v is listed", g)
			}
		}
	}
}

func proxyForgets(e *env) {
	tag := func(name string, d oci.Digest) {
		e.Helper()
		e.ok(e.db.SaveProxyTag(e.Context(), hub, name, meta.ProxyTag{Digest: d, CheckedAt: e.clock.now()}))
	}
	list := meta.ProxyReferrers{List: []byte("[]"), CheckedAt: e.clock.now()}
	m := e.fetched(image(hub, "m"), "v1", "v2", "moved")
	tag("v1", m.Digest)
	tag("v2", m.Digest)
	tag("moved", digest("other"))
	e.ok(e.db.SaveProxyReferrers(e.Context(), hub, m.Digest, list))
	e.ok(e.db.SaveProxyReferrers(e.Context(), hub, digest("other"), list))
	e.clock.move(time.Hour)
	forget := func() {
		e.Helper()
		e.wantHinted("forget", func() error {
			return e.db.ForgetProxyManifest(e.Context(), m, []string{"v1", "v2", "moved", "none"})
		})
	}
	forget()
	e.wantNote(m) // it is there
	e.ok(e.db.DeleteManifest(e.Context(), hub, m.Digest))
	m = e.noted(hub, m.Digest)
	e.clock.move(10*time.Minute - time.Millisecond)
	forget()
	e.wantNote(m) // it may be coming
	e.clock.move(time.Millisecond)
	forget()
	e.noNote(hub, m.Digest)
	for _, name := range []string{"v1", "v2"} {
		_, err := e.db.ProxyTag(e.Context(), hub, name)
		e.wantErr("find a tag of what is forgotten", err, meta.ErrNotFound)
	}
	e.proxyTag(hub, "moved")
	_, err := e.db.ProxyReferrers(e.Context(), hub, m.Digest)
	e.wantErr("find the referrers of what is forgotten", err, meta.ErrNotFound)
	e.proxyReferrers(hub, digest("other"))
}

// prune goes on until the end, n rows at a time.
func (e *env) prune(n, want int) {
	e.Helper()
	sum := 0
	for more := true; more; {
		e.wantHinted("prune", func() error {
			pruned, rest, err := e.db.PruneProxy(e.Context(), e.clock.now(), n)
			sum += pruned
			more = rest && err == nil
			return err
		})
	}
	if sum != want {
		e.Errorf("%d rows were pruned, want %d", sum, want)
	}
}

func proxyPruneAbsences(e *env) {
	save := func(ref string, t meta.ProxyTag) {
		e.Helper()
		t.CheckedAt = e.clock.now()
		e.ok(e.db.SaveProxyTag(e.Context(), hub, ref, t))
	}
	for i := range 5 {
		save(fmt.Sprint("absent", i), meta.ProxyTag{})
	}
	save("there", meta.ProxyTag{Digest: digest("m")})
	save("gone", meta.ProxyTag{Digest: digest("m"), GoneSince: e.clock.now()})
	e.clock.move(time.Hour)
	save("new", meta.ProxyTag{})
	e.prune(2, 0)
	e.clock.move(time.Millisecond)
	e.prune(2, 5)
	for _, ref := range []string{"there", "gone", "new"} {
		e.proxyTag(hub, ref)
	}
	_, err := e.db.ProxyTag(e.Context(), hub, "absent0")
	e.wantErr("find an old absence", err, meta.ErrNotFound)
}

func proxyPruneReferrers(e *env) {
	save := func(repo string, subject oci.Digest) {
		e.Helper()
		e.ok(e.db.SaveProxyReferrers(e.Context(), repo, subject, meta.ProxyReferrers{List: []byte("[]"), CheckedAt: e.clock.now()}))
	}
	m := e.fetched(image(hub, "m"))
	hidden := e.fetched(image("quay/app", "m"))
	save(hub, m.Digest)
	save("quay/app", hidden.Digest)
	e.deleteProject(e.findProject("quay"))
	for i := range 5 {
		save(hub, digest(fmt.Sprint("gone", i)))
	}
	e.clock.move(time.Hour - time.Millisecond)
	save(hub, digest("asked for of late"))
	e.prune(2, 0)
	e.clock.move(time.Millisecond)
	e.prune(2, 5)
	e.proxyReferrers(hub, m.Digest)
	e.proxyReferrers("quay/app", hidden.Digest)
	e.proxyReferrers(hub, digest("asked for of late"))
	e.clock.move(60*24*time.Hour - time.Hour)
	e.prune(2, 1)
	e.proxyReferrers(hub, m.Digest)
	e.clock.move(time.Millisecond)
	e.prune(1, 2)
	_, err := e.db.ProxyReferrers(e.Context(), hub, m.Digest)
	e.wantErr("find a list of old", err, meta.ErrNotFound)
}

func proxyPruneNotes(e *env) {
	there := e.fetched(image(hub, "there"))
	deleted := e.fetched(image("quay/app", "m"))
	e.deleteProject(e.findProject("quay")) // and can be had back
	for i := range 5 {
		e.noted(hub, digest(fmt.Sprint("gone", i)))
	}
	e.clock.move(10*time.Minute - time.Millisecond)
	coming := e.noted(hub, digest("coming"))
	e.prune(2, 0)
	e.clock.move(time.Millisecond)
	e.prune(2, 5)
	for _, m := range []meta.ProxyManifest{there, deleted, coming} {
		e.wantNote(m)
	}
	e.noNote(hub, digest("gone0"))
	// It begins again: what has gone since is found.
	e.ok(e.db.DeleteManifest(e.Context(), hub, there.Digest))
	e.prune(1, 1)
	e.noNote(hub, there.Digest)
}

func proxyPruneLeases(e *env) {
	for i := range 3 {
		e.leaseProxy(fmt.Sprint("killed", i))
	}
	e.clock.move(ttl + time.Hour)
	version := e.leaseProxy("held")
	e.prune(2, 0)
	e.clock.move(time.Millisecond)
	e.prune(2, 3)
	e.ok(e.db.RenewProxy(e.Context(), "held", version, ttl))
}
