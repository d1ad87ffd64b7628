package proxy

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// ours finds what a repository is called in the cache, whether or not it may be
// had from the origin.
func (p *Registry) ours(repo string) (here string, err error) {
	there, ok := strings.CutPrefix(repo, p.o.Name+"/")
	if !ok {
		return "", &registry.Error{Code: registry.NameUnknown, Repo: repo}
	}
	if p.o.Library && !strings.Contains(there, "/") {
		there = "library/" + there
	}
	return p.o.Name + "/" + there, nil
}

// Refresh has the origin asked again, with the next pull, for what is known of a
// reference, or with an empty one of all of a repository, or with an empty
// repository too of all that this proxy has: for tags, for what was absent and for
// lists of referrers. Where the origin does not answer then, what is known serves.
func (p *Registry) Refresh(ctx context.Context, repo, ref string) error {
	if repo == "" {
		return p.refresh(ctx, "", "", "")
	}
	here, err := p.ours(repo)
	if err != nil {
		return err
	}
	if ref == "" {
		return p.refresh(ctx, here, "", "")
	}
	parsed, err := oci.ParseRef(ref)
	if err != nil {
		return err
	}
	d := parsed.Digest
	if !parsed.IsDigest() {
		m, err := p.cache.Resolve(ctx, here, parsed)
		if err != nil && !notThere(err) {
			return err
		}
		d = m.Digest
	}
	err = p.refresh(ctx, here, ref, d)
	if d == "" {
		return err
	}
	for _, tag := range companionTags(d) {
		err = errors.Join(err, p.refresh(ctx, here, tag, ""))
	}
	for _, absence := range [...]string{string(d), blobRef(d)} {
		err = errors.Join(err, coded(p.o.State.ForgetProxyTags(ctx, p.o.Name, here, absence), here))
	}
	return err
}

// refresh has a reference be asked for again, and the list of a manifest's
// referrers, which is as old then as one may be that is still served.
func (p *Registry) refresh(ctx context.Context, here, ref string, subject oci.Digest) error {
	p.asks.silence.forget(here)
	err := p.o.State.ForgetProxyTags(ctx, p.o.Name, here, ref)
	if ref == "" || subject != "" {
		old := p.o.Now().Add(-max(p.o.ReferrersTTL, p.o.ReferrersStale/2))
		err = errors.Join(err, p.o.State.AgeProxyReferrers(ctx, p.o.Name, here, subject, old))
	}
	return coded(err, here)
}

// Purge takes an image out of the cache, or with an empty reference all of a
// repository, or with an empty repository too all that this proxy has, whoever
// uses it. What was pushed here stays, with what it refers to. What the origin did
// not have is asked for again.
// Errors: Denied of what was pushed here; Referenced of what an index holds.
func (p *Registry) Purge(ctx context.Context, repo, ref string) (Freed, error) {
	here := ""
	var err error
	if repo != "" {
		here, err = p.ours(repo)
	}
	if err != nil {
		return Freed{}, err
	}
	e := eviction{p: p, began: p.o.Now(), force: true}
	var sum Freed
	if here != "" && ref != "" {
		sum, err = e.purge(ctx, here, ref)
	} else {
		sum, err = e.run(ctx, e.all(here), func(meta.ProxyManifest) (bool, error) { return true, nil })
	}
	return sum, errors.Join(err, p.Refresh(ctx, repo, ref))
}

func (e *eviction) all(here string) notes {
	return func(ctx context.Context, after meta.ProxyManifest) ([]meta.ProxyManifest, error) {
		return e.p.o.State.ProxyManifests(ctx, e.p.o.Name, here, after, coldPage)
	}
}

// purge takes one image out.
func (e *eviction) purge(ctx context.Context, here, ref string) (Freed, error) {
	parsed, err := oci.ParseRef(ref)
	if err != nil {
		return Freed{}, err
	}
	m, err := e.p.cache.Resolve(ctx, here, parsed)
	if notThere(err) {
		return Freed{}, nil
	}
	if err != nil {
		return Freed{}, err
	}
	note, ok, err := e.p.came(ctx, here, m.Digest)
	if err != nil {
		return Freed{}, err
	}
	if !ok {
		return Freed{}, registry.Errorf(registry.Denied, here, "%s was pushed here and cannot be fetched again; delete it as any other manifest", ref)
	}
	root, err := e.node(ctx, note)
	if root == nil || err != nil {
		return Freed{}, err
	}
	if len(root.holders) > 0 {
		return Freed{}, &registry.Error{Code: registry.Referenced, Repo: here, Detail: map[string]any{
			"heldBy": root.holders, "hint": "purge the index that holds it"}}
	}
	i, err := e.around(ctx, root)
	if err != nil {
		return Freed{}, err
	}
	if i.pinned {
		return Freed{Pinned: 1}, nil
	}
	return e.remove(e.p.writing(ctx), i)
}

// Stats is what a cache has; each count goes up to meta.ProxyStatsBound.
type Stats struct {
	Bytes     int64     `json:"bytes"`     // with what was pushed here
	Manifests int       `json:"manifests"` // that came from the origin
	Images    int       `json:"images"`    // of these, those that no index holds and that have no subject
	Pinned    int       `json:"pinned"`    // of these, those with a tag that is pinned
	OldestUse time.Time `json:"oldestUse,omitzero"`
	NewestUse time.Time `json:"newestUse,omitzero"`
}

// Stats counts, at a price that does not grow with the cache. pinned is that of
// Budget.
func (p *Registry) Stats(ctx context.Context, pinned func(name, tag string) bool) (s Stats, err error) {
	if s.Bytes, err = p.o.State.ProxyUsage(ctx, p.o.Name); err != nil {
		return Stats{}, coded(err, p.o.Name)
	}
	counted, err := p.o.State.ProxyStats(ctx, p.o.Name)
	if err != nil {
		return Stats{}, coded(err, p.o.Name)
	}
	s.Manifests, s.Images, s.OldestUse, s.NewestUse = counted.Manifests, counted.Images, counted.Oldest, counted.Newest
	if pinned == nil {
		return s, nil
	}
	tagged, err := p.o.State.TaggedProxyManifests(ctx, p.o.Name, meta.ProxyStatsBound)
	if err != nil {
		return Stats{}, coded(err, p.o.Name)
	}
	seen := map[useKey]bool{}
	for _, t := range tagged {
		key := useKey{t.Repository, t.Digest}
		if !seen[key] && pinned(p.there(t.Repository), t.Tag) {
			seen[key] = true
			s.Pinned++
		}
	}
	return s, nil
}
