package proxy

import (
	"cmp"
	"context"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// tagName is a tag of a repository, as it is called here and by the origin.
type tagName struct{ here, there, tag string }

func (t tagName) ref() oci.Ref   { return oci.TagRef(t.tag) }
func (t tagName) String() string { return t.here + ":" + t.tag }

// freshness is how old what is known of something may be: for it not to be asked
// for again (negative: any age), and for it to be served when the origin does not
// answer (0: any age).
type freshness struct{ fresh, stale time.Duration }

// tagRules are those of a tag. What belongs to a manifest by the name of its tag
// has those of referrers.
func (p *Registry) tagRules(there, tag string) freshness {
	if _, _, ok := companionOf(tag); ok {
		return freshness{p.o.ReferrersTTL, p.o.ReferrersStale}
	}
	return freshness{p.o.TagTTL(there, tag), p.o.MaxStale}
}

// known is what is known here of a tag.
type known struct {
	said   meta.ProxyTag // by the origin; the zero value: nothing
	m      registry.Manifest
	cached bool // m is what the cache has under the tag
	pushed bool // by somebody here: the origin has no say
	// since is when the origin last had m under the tag. Of a manifest whose note
	// was lost it is when it came, or the zero Time.
	since time.Time
}

// know looks up a tag in the state and in the cache, which are written one after
// the other: where they disagree, the origin must be asked.
func (p *Registry) know(ctx context.Context, t tagName) (k known, err error) {
	if k.said, err = p.said(ctx, t.here, t.tag); err != nil {
		return k, err
	}
	if k.m, k.cached, err = p.cached(ctx, t.here, t.ref()); err != nil || !k.cached {
		return k, err
	}
	if k.said.Digest == k.m.Digest && !k.said.CheckedAt.IsZero() {
		k.since = k.said.CheckedAt
		if !k.said.GoneSince.IsZero() {
			k.since = k.said.GoneSince
		}
		return k, nil
	}
	came, ok, err := p.came(ctx, t.here, k.m.Digest)
	k.since, k.pushed = came.FetchedAt, err == nil && !ok && k.said.Digest != k.m.Digest
	return k, err
}

// settled is the answer that needs no asking, if there is one. checked says that
// another process has just asked.
func (p *Registry) settled(t tagName, k known, rules freshness, checked bool) (_ answer, ok bool) {
	switch {
	case k.pushed:
		return hit(k.m, registry.Freshness{Age: -1, Detail: "local"}), true
	case k.said.Digest == "":
		return p.missed(t.here, t.ref(), k.said)
	case !k.cached || k.said.Digest != k.m.Digest || k.said.CheckedAt.IsZero() || p.goneForGood(k.said):
		return answer{}, false
	}
	fresh := checked || rules.fresh < 0 || p.recent(k.said.CheckedAt, p.stretched(rules.fresh))
	return hit(k.m, registry.Freshness{Age: p.ageOf(k)}), fresh
}

// goneForGood reports whether a tag has been missing at the origin for longer
// than it is kept here.
func (p *Registry) goneForGood(said meta.ProxyTag) bool {
	return !said.GoneSince.IsZero() && (p.o.Follow || p.age(said.GoneSince) > p.o.KeepDeleted)
}

// byTag asks the origin once what is known for too long, together with all who
// ask for it at that time. While it does not answer, what is known serves.
func (p *Registry) byTag(ctx context.Context, t tagName) answer {
	rules := p.tagRules(t.there, t.tag)
	k, err := p.know(ctx, t)
	if err != nil {
		return failed(err, "")
	}
	if a, ok := p.settled(t, k, rules, false); ok {
		return a
	}
	waiting := ctx
	if k.cached {
		if err := p.asks.silence.of(t, p.o.Now()); err != nil {
			if a, ok := p.stale(k, rules, err); ok {
				return a
			}
		}
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeoutCause(ctx, cmp.Or(p.asks.patience, patience), errSlow)
		defer cancel()
	}
	a, joined, err := p.shareTag(waiting, t, k, rules)
	if err != nil && k.cached && ctx.Err() == nil {
		if cause := context.Cause(waiting); cause != nil {
			err = cause
		}
		return p.unanswered(t, k, rules, err)
	}
	return a.shared(joined, err)
}

func (p *Registry) shareTag(ctx context.Context, t tagName, k known, rules freshness) (answer, bool, error) {
	latest := k // of the one process, and the one goroutine, that does the work
	return share(ctx, p, "tag "+t.String(),
		func(ctx context.Context) (_ answer, ok bool, err error) {
			if latest, err = p.know(ctx, t); err != nil {
				return answer{}, false, err
			}
			a, ok := p.settled(t, latest, rules, !latest.said.CheckedAt.Equal(k.said.CheckedAt))
			return a, ok, nil
		},
		func(ctx context.Context) (answer, error) { return p.check(ctx, t, latest, rules), nil })
}

// check asks the origin what a tag stands for: for the digest alone where the
// manifest may be here.
func (p *Registry) check(ctx context.Context, t tagName, k known, rules freshness) answer {
	if !k.cached {
		return p.fetch(ctx, t.here, t.there, t.ref(), t.tag)
	}
	asked := p.o.Now()
	hurried, cancel := context.WithTimeout(ctx, slowestCheck)
	desc, err := p.origin.Resolve(hurried, t.there, t.ref())
	cancel()
	switch {
	case err == nil && desc.Digest == k.m.Digest:
		p.save(ctx, t.here, t.tag, meta.ProxyTag{Digest: k.m.Digest, CheckedAt: asked})
		return answer{m: k.m, result: "revalidated", fresh: registry.Freshness{Forward: "stale", Status: statusOK}}
	case err == nil:
		return p.moved(ctx, t, k, rules, desc.Digest, asked)
	case plainlyAbsent(err):
		return p.gone(ctx, t, k, err, asked)
	}
	return p.unanswered(t, k, rules, theirs(err, t.there))
}

// moved gets what a tag stands for now: by its digest, for it may be here or on
// its way, or have moved once more.
func (p *Registry) moved(ctx context.Context, t tagName, k known, rules freshness, d oci.Digest, asked time.Time) answer {
	if _, err := oci.ParseDigest(string(d)); err != nil {
		return p.unanswered(t, k, rules, &registry.Error{Code: registry.Faulty, Repo: t.there, Err: err,
			Detail: "the upstream names a manifest by a digest of no supported kind"})
	}
	a := p.byDigest(ctx, t.here, t.there, d)
	switch {
	case notThere(a.err):
		m, parsed, err := p.get(ctx, t.there, t.ref())
		if a.err = err; err == nil {
			a = p.keep(ctx, t.here, m, parsed, asked, t.tag)
		}
	case a.err == nil && a.result != "passed":
		a = p.point(ctx, t, a, asked)
	}
	switch {
	case plainlyAbsent(a.err):
		return p.gone(ctx, t, k, a.err, asked)
	case a.err != nil:
		return p.unanswered(t, k, rules, a.err)
	}
	a.fresh.Forward = "stale"
	return a
}

// point moves a tag of the cache to a manifest that is in it.
func (p *Registry) point(ctx context.Context, t tagName, a answer, asked time.Time) answer {
	if a.result == "hit" {
		a.result, a.fresh = "revalidated", registry.Freshness{Status: statusOK}
	}
	if _, err := p.cache.PutManifest(p.writing(ctx), t.here, a.m, t.tag); err != nil {
		p.o.Log.Warn("a tag could not be moved; it is asked for again", "repo", t.here, "tag", t.tag, "error", err)
		a.result, a.fresh.Stored = "passed", false
		return a
	}
	p.save(ctx, t.here, t.tag, meta.ProxyTag{Digest: a.m.Digest, CheckedAt: asked})
	return a
}

// gone is the answer for a tag of the cache that the origin does not have.
func (p *Registry) gone(ctx context.Context, t tagName, k known, err error, asked time.Time) answer {
	said := meta.ProxyTag{Digest: k.m.Digest, CheckedAt: asked, GoneSince: k.said.GoneSince}
	if said.GoneSince.IsZero() || k.said.Digest != k.m.Digest {
		said.GoneSince = asked
	}
	if !p.goneForGood(said) {
		p.save(ctx, t.here, t.tag, said)
		return answer{m: k.m, result: "stale", fresh: registry.Freshness{
			Forward: "stale", Status: statusOf(err), Detail: "upstream-deleted", Age: p.ageOf(k)}}
	}
	if err := p.cache.DeleteTag(p.writing(ctx), t.here, t.tag); err != nil && !notThere(err) {
		p.o.Log.Warn("a tag that the upstream deleted could not be deleted", "repo", t.here, "tag", t.tag, "error", err)
	}
	p.save(ctx, t.here, t.tag, meta.ProxyTag{CheckedAt: asked})
	return absent(&registry.Error{Code: registry.ManifestUnknown, Repo: t.here, Detail: named(t.ref()), Err: err},
		registry.Freshness{Forward: "stale", Status: statusOf(err), Stored: true, Age: -1})
}

// unanswered is the answer where the origin gave none. It is not asked for the
// same again at once.
func (p *Registry) unanswered(t tagName, k known, rules freshness, err error) answer {
	p.asks.silence.add(t, p.o.Now(), err)
	if a, ok := p.stale(k, rules, err); ok {
		return a
	}
	return failed(err, "stale")
}

// stale is what is known, if it is not too old to serve.
func (p *Registry) stale(k known, rules freshness, err error) (_ answer, ok bool) {
	f := registry.Freshness{Forward: "stale", Status: statusOf(err), Detail: detailOf(err), Age: p.ageOf(k)}
	young := rules.stale == 0 || f.Age >= 0 && f.Age <= rules.stale
	return answer{m: k.m, result: "stale", fresh: f}, k.cached && young
}

// clocksDiffer is how far the clocks of those who share a state may be apart.
const clocksDiffer = time.Minute

// recent reports whether something was heard for less than d. What was heard in
// the future was heard by a clock that was wrong, some time ago.
func (p *Registry) recent(since time.Time, d time.Duration) bool {
	age := p.o.Now().Sub(since)
	return !since.IsZero() && age < d && age >= -clocksDiffer
}

// age is for how long something is so.
func (p *Registry) age(since time.Time) time.Duration { return max(p.o.Now().Sub(since), 0) }

// ageOf is for how long the origin has not confirmed a tag; negative: not known.
func (p *Registry) ageOf(k known) time.Duration {
	if k.since.IsZero() {
		return -1
	}
	return p.age(k.since)
}

func (p *Registry) stretched(d time.Duration) time.Duration {
	return d * time.Duration(max(p.o.Stretch(), 1))
}
