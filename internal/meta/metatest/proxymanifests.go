package metatest

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

var proxyManifestCases = []testCase{
	{"proxy/manifests", proxyManifests},
	{"proxy/manifests that were pushed here stay so", proxyLocalManifests},
	{"proxy/manifests are evicted as they were noted", proxyEvicts},
	{"proxy/manifests from upstream", proxyOrigins},
	{"proxy/uses", proxyUses},
	{"proxy/uses of indexes", proxyIndexUses},
	{"proxy/holders and tags", proxyHolders},
}

// fetched notes that a manifest of a repository comes from upstream, and puts it.
func (e *env) fetched(p meta.PutManifest, tags ...string) meta.ProxyManifest {
	e.Helper()
	m := e.noted(p.Repository, p.Digest)
	p.AllowMissing = true
	e.put(p, tags...)
	return m
}

func (e *env) noted(repo string, d oci.Digest) meta.ProxyManifest {
	e.Helper()
	now := e.clock.now()
	m := meta.ProxyManifest{Proxy: "hub", Repository: repo, Digest: d, FetchedAt: now, UsedAt: now}
	e.ok(e.db.SaveProxyManifest(e.Context(), m))
	return m
}

func (e *env) wantNote(want meta.ProxyManifest) {
	e.Helper()
	if got, err := e.db.ProxyManifest(e.Context(), want.Repository, want.Digest); err != nil || got != want {
		e.Errorf("found %+v, %v; want %+v", got, err, want)
	}
}

func (e *env) noNote(repo string, d oci.Digest) {
	e.Helper()
	_, err := e.db.ProxyManifest(e.Context(), repo, d)
	e.wantErr("find a note that is not there", err, meta.ErrNotFound)
}

func proxyManifests(e *env) {
	e.noNote(hub, digest("m"))
	now := e.clock.now()
	for _, want := range []meta.ProxyManifest{
		{Proxy: "hub", Repository: hub, Digest: digest("m"), Subject: digest("s"), FetchedAt: now, UsedAt: now.Add(time.Second)},
		{Proxy: "hub", Repository: hub, Digest: digest("m"), FetchedAt: now.Add(time.Minute), UsedAt: now.Add(time.Hour), Prefetched: true},
	} {
		e.ok(e.db.SaveProxyManifest(e.Context(), want))
		e.wantNote(want)
	}
	m := e.noted(hub, digest("m"))
	e.put(image(hub, "m"))
	m.Prefetched = true
	e.wantHinted("mark", func() error { return e.db.MarkPrefetched(e.Context(), hub, m.Digest) })
	e.wantNote(m)
	e.wantErr("mark what is not there", e.db.MarkPrefetched(e.Context(), hub, digest("none")), meta.ErrNotFound)
	e.noNote(hub+"2", m.Digest)
}

func proxyLocalManifests(e *env) {
	local := e.put(image(hub, "local"))
	m := meta.ProxyManifest{Proxy: "hub", Repository: hub, Digest: local, FetchedAt: e.clock.now(), UsedAt: e.clock.now()}
	e.ok(e.db.SaveProxyManifest(e.Context(), m))
	e.noNote(hub, local)
	e.noted(hub+"2", local) // is not there, but elsewhere
	e.wantNote(meta.ProxyManifest{Proxy: "hub", Repository: hub + "2", Digest: local, FetchedAt: m.FetchedAt, UsedAt: m.UsedAt})

	both := e.fetched(image(hub, "both"))
	e.clock.move(time.Hour)
	e.wantNote(both)
	e.wantNote(e.noted(hub, both.Digest)) // fetched again
	e.ok(e.db.OwnProxyManifest(e.Context(), hub, both.Digest))
	e.noNote(hub, both.Digest)
	e.ok(e.db.OwnProxyManifest(e.Context(), hub, both.Digest))
	e.ok(e.db.SaveProxyManifest(e.Context(), both))
	e.noNote(hub, both.Digest)
	e.ok(e.db.DeleteManifest(e.Context(), hub, both.Digest))
	e.ok(e.db.SaveProxyManifest(e.Context(), both))
	e.wantNote(both)
}

// proxyEvicts: what was pushed or used since it was looked at stays.
func proxyEvicts(e *env) {
	m := e.fetched(image(hub, "m"), "v1")
	evict := func(m meta.ProxyManifest, used bool) error { return e.db.EvictProxyManifest(e.Context(), m, used) }
	there := func(what string, d oci.Digest, want bool) {
		e.Helper()
		if _, err := e.db.Manifest(e.Context(), hub, oci.DigestRef(d)); (err == nil) != want {
			e.Errorf("%s: found the manifest: %v", what, err)
		}
	}
	before := m
	before.UsedAt = m.UsedAt.Add(-time.Hour)
	e.wantErr("evict what was used since", evict(before, false), meta.ErrNotFound)
	there("used since", m.Digest, true)
	e.ok(evict(before, true))
	there("evicted in any case", m.Digest, false)
	_, err := e.db.Manifest(e.Context(), hub, oci.TagRef("v1"))
	e.wantErr("find its tag", err, meta.ErrNotFound)
	e.wantNote(m)
	e.wantErr("evict what is gone", evict(m, false), meta.ErrNotFound)

	child := e.fetched(image(hub, "child"))
	index := e.fetched(index(hub, "index", child.Digest))
	if held := (*meta.ReferencedError)(nil); !errors.As(evict(child, false), &held) {
		e.Errorf("what an index holds was evicted, or not for that reason")
	}
	e.ok(e.db.OwnProxyManifest(e.Context(), hub, index.Digest))
	e.wantErr("evict what was pushed", evict(index, true), meta.ErrNotFound)
	there("pushed", index.Digest, true)
	m.Repository = "hub/none"
	e.wantErr("evict of no repository", evict(m, true), meta.ErrNoRepository)
}

func proxyOrigins(e *env) {
	var asked []oci.Digest
	want := map[oci.Digest]bool{}
	for i := range 120 { // two pages and a part of one
		d := digest(fmt.Sprint("m", i))
		asked = append(asked, d)
		if i%3 == 0 {
			e.noted(hub, d)
			want[d] = true
		} else {
			e.noted(hub+"2", d)
		}
	}
	for _, n := range []int{0, 1, 49, 50, 51, 120} {
		got, err := e.db.FromUpstream(e.Context(), hub, asked[:n])
		e.ok(err)
		some := maps.Clone(want)
		maps.DeleteFunc(some, func(d oci.Digest, _ bool) bool { return !contains(asked[:n], d) })
		if !maps.Equal(got, some) {
			e.Errorf("of %d, %d are from upstream, want %d", n, len(got), len(some))
		}
	}
}

func contains(list []oci.Digest, d oci.Digest) bool {
	for _, l := range list {
		if l == d {
			return true
		}
	}
	return false
}

func (e *env) touch(uses ...meta.ProxyUse) {
	e.Helper()
	e.wantHinted("touch", func() error { return e.db.TouchProxyManifests(e.Context(), uses) })
}

func proxyUses(e *env) {
	var list []meta.ProxyManifest
	for i := range 250 { // more than one transaction
		list = append(list, e.noted(hub, digest(fmt.Sprint("m", i))))
	}
	use := func(m meta.ProxyManifest, after time.Duration) meta.ProxyUse {
		return meta.ProxyUse{Repository: m.Repository, Digest: m.Digest, At: m.UsedAt.Add(after)}
	}
	e.touch()
	e.touch(use(list[0], time.Minute-time.Millisecond), meta.ProxyUse{Repository: hub, Digest: digest("none"), At: e.clock.now()})
	e.wantNote(list[0])
	e.noNote(hub, digest("none"))
	e.touch(use(list[0], -time.Hour))
	e.wantNote(list[0])
	var uses []meta.ProxyUse
	for i := range list {
		uses = append(uses, use(list[i], 2*time.Minute), use(list[i], time.Minute))
		list[i].UsedAt = list[i].UsedAt.Add(2 * time.Minute)
	}
	e.touch(uses...)
	for _, m := range list {
		e.wantNote(m)
	}
}

func proxyIndexUses(e *env) {
	child, other := e.fetched(image(hub, "child")), e.fetched(image(hub, "other child"))
	inner := e.fetched(index(hub, "inner", child.Digest, digest("absent")))
	outer := e.fetched(index(hub, "outer", inner.Digest, other.Digest))
	elsewhere := e.fetched(index(hub+"2", "inner", child.Digest))
	local := e.put(index(hub, "local", child.Digest))
	e.touch(meta.ProxyUse{Repository: hub, Digest: child.Digest, At: child.UsedAt.Add(time.Hour)})
	for _, m := range []*meta.ProxyManifest{&child, &inner, &outer} {
		m.UsedAt = m.UsedAt.Add(time.Hour)
		e.wantNote(*m)
	}
	e.wantNote(other)
	e.wantNote(elsewhere)
	e.noNote(hub, local)
	// Indexes also where the child itself was noted just before.
	grown := e.fetched(index(hub, "grown", child.Digest))
	e.touch(meta.ProxyUse{Repository: hub, Digest: child.Digest, At: child.UsedAt.Add(time.Second)})
	grown.UsedAt = child.UsedAt.Add(time.Second)
	e.wantNote(grown)
	e.wantNote(child)
}

func proxyHolders(e *env) {
	child := e.put(image(hub, "child"), nastyTags...)
	e.put(image(hub, "n"), "elsewhere")
	e.wantPages(nastyTags, func(after string, n int) ([]string, error) {
		return e.db.ManifestTags(e.Context(), hub, child, after, n)
	})
	a, b := e.put(index(hub, "a", child)), e.put(index(hub, "b", child))
	holders, err := e.db.ManifestHolders(e.Context(), hub, child, 10)
	if e.ok(err); len(holders) != 2 || !contains(holders, a) || !contains(holders, b) {
		e.Errorf("held by %v", holders)
	}
	holders, err = e.db.ManifestHolders(e.Context(), hub, child, 1)
	if e.ok(err); len(holders) != 1 {
		e.Errorf("one holder is %v", holders)
	}
	for _, repo := range []string{hub + "2", "hub/none"} {
		holders, err := e.db.ManifestHolders(e.Context(), repo, child, 10)
		if e.ok(err); len(holders) != 0 {
			e.Errorf("elsewhere it is held by %v", holders)
		}
		tags, err := e.db.ManifestTags(e.Context(), repo, child, "", 10)
		if e.ok(err); len(tags) != 0 {
			e.Errorf("elsewhere it is tagged %v", tags)
		}
	}
}
