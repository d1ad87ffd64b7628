package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// Resolve has the manifest itself fetched where it is not here: whoever asks for
// its digest pulls it next.
func (p *Registry) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	_, m, err := p.serve(ctx, repo, ref)
	return m.Descriptor(), err
}

func (p *Registry) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	here, m, err := p.serve(ctx, repo, ref)
	if err == nil {
		p.follow(here, m)
	}
	return m, err
}

// serve answers somebody outside.
func (p *Registry) serve(ctx context.Context, repo string, ref oci.Ref) (here string, _ registry.Manifest, _ error) {
	here, there, err := p.names(repo)
	if err != nil {
		p.o.Observe(Event{Kind: "manifest", Result: "negative"})
		return "", registry.Manifest{}, err
	}
	a := p.find(ctx, here, there, ref)
	if a.fresh.Hit || a.fresh.Forward != "" {
		registry.NoteFreshness(ctx, a.fresh)
	}
	p.o.Observe(Event{Kind: "manifest", Result: a.result, Bytes: a.bytes})
	if a.err != nil {
		return here, registry.Manifest{}, a.err
	}
	p.used(here, a.m.Digest)
	return here, a.m, nil
}

// manifest is Manifest for this package: of names that are resolved, and neither
// a use nor an answer that is counted.
func (p *Registry) manifest(ctx context.Context, here, there string, ref oci.Ref) (registry.Manifest, error) {
	a := p.find(ctx, here, there, ref)
	return a.m, a.err
}

// find finds a manifest and lets the blobs that it names be found without asking.
func (p *Registry) find(ctx context.Context, here, there string, ref oci.Ref) answer {
	var a answer
	if ref.IsDigest() {
		a = p.byDigest(ctx, here, there, ref.Digest)
	} else {
		a = p.byTag(ctx, tagName{here, there, ref.Tag})
	}
	if a.err == nil {
		p.announce(here, a.m)
	}
	return a
}

// answer is what was found, and how.
type answer struct {
	m      registry.Manifest
	err    error // what was found is this; m is nothing then
	result string
	fresh  registry.Freshness
	bytes  int64 // that came from the origin
}

func hit(m registry.Manifest, f registry.Freshness) answer {
	f.Hit = true
	return answer{m: m, result: "hit", fresh: f}
}

// absent is the answer that there is no such manifest.
func absent(err error, f registry.Freshness) answer {
	return answer{err: err, result: "negative", fresh: f}
}

func failed(err error, forward string) answer {
	return answer{err: err, result: "error", fresh: registry.Freshness{
		Forward: forward, Status: statusOf(err), Detail: detailOf(err), Age: -1,
	}}
}

// shared is the answer of work that was done for others too, or that came to
// nothing.
func (a answer) shared(joined bool, err error) answer {
	if err != nil {
		return failed(coded(err, ""), "uri-miss")
	}
	if joined {
		a.fresh.Shared, a.bytes = true, 0
	}
	return a
}

// byDigest asks the origin for what is not in the cache.
func (p *Registry) byDigest(ctx context.Context, here, there string, d oci.Digest) answer {
	a, ok, err := p.kept(ctx, here, d)
	if err != nil {
		return failed(err, "")
	}
	if ok {
		return a
	}
	a, joined, err := share(ctx, p, "manifest "+here+"@"+string(d),
		func(ctx context.Context) (answer, bool, error) { return p.kept(ctx, here, d) },
		func(ctx context.Context) (answer, error) { return p.fetch(ctx, here, there, oci.DigestRef(d)), nil })
	return a.shared(joined, err)
}

// kept is what is known here of a digest: its manifest, or that the origin did
// not have it a moment ago.
func (p *Registry) kept(ctx context.Context, here string, d oci.Digest) (_ answer, ok bool, _ error) {
	m, ok, err := p.cached(ctx, here, oci.DigestRef(d))
	if ok || err != nil {
		return hit(m, registry.Freshness{Age: -1}), ok, err
	}
	said, err := p.said(ctx, here, string(d))
	if err != nil {
		return answer{}, false, err
	}
	a, ok := p.missed(here, oci.DigestRef(d), said)
	return a, ok, nil
}

// missed is the answer that the origin did not have a reference a moment ago.
func (p *Registry) missed(here string, ref oci.Ref, said meta.ProxyTag) (_ answer, ok bool) {
	if said.Digest != "" || said.CheckedAt.IsZero() {
		return answer{}, false
	}
	age := p.age(said.CheckedAt)
	err := &registry.Error{Code: registry.ManifestUnknown, Repo: here, Detail: named(ref)}
	return absent(err, registry.Freshness{Hit: true, Age: age}), p.recent(said.CheckedAt, p.stretched(p.o.NegativeTTL))
}

// cached looks into the cache.
func (p *Registry) cached(ctx context.Context, here string, ref oci.Ref) (_ registry.Manifest, ok bool, _ error) {
	m, err := p.cache.Manifest(ctx, here, ref)
	if notThere(err) {
		return registry.Manifest{}, false, nil
	}
	return m, err == nil, err
}

// said is what the origin last said of a reference; the zero value is nothing.
func (p *Registry) said(ctx context.Context, here, ref string) (meta.ProxyTag, error) {
	t, err := p.o.State.ProxyTag(ctx, here, ref)
	if errors.Is(err, meta.ErrNotFound) {
		return meta.ProxyTag{}, nil
	}
	return t, coded(err, here)
}

// came is the note that a manifest came from the origin, if it did.
func (p *Registry) came(ctx context.Context, here string, d oci.Digest) (_ meta.ProxyManifest, ok bool, _ error) {
	m, err := p.o.State.ProxyManifest(ctx, here, d)
	if errors.Is(err, meta.ErrNotFound) {
		return meta.ProxyManifest{}, false, nil
	}
	return m, err == nil, coded(err, here)
}

// save keeps what the origin said. It may be lost: then it is asked again.
func (p *Registry) save(ctx context.Context, here, ref string, t meta.ProxyTag) {
	if err := p.o.State.SaveProxyTag(p.writing(ctx), here, ref, t); err != nil {
		p.o.Log.Warn("what an upstream said of a tag could not be noted; it is asked again", "repo", here, "reference", ref, "error", err)
	}
}

// fetch gets a manifest from the origin and keeps it under its digest and tags.
func (p *Registry) fetch(ctx context.Context, here, there string, ref oci.Ref, tags ...string) answer {
	asked := p.o.Now()
	m, parsed, err := p.get(ctx, there, ref)
	if notThere(err) {
		p.save(ctx, here, ref.String(), meta.ProxyTag{CheckedAt: asked})
		return absent(err, registry.Freshness{Forward: "uri-miss", Status: statusOf(err), Stored: true, Age: -1})
	}
	if err != nil {
		return failed(err, "uri-miss")
	}
	return p.keep(ctx, here, m, parsed, asked, tags...)
}

// keep keeps a manifest of the origin. A cache that fails costs no answer.
func (p *Registry) keep(ctx context.Context, here string, m registry.Manifest, parsed *oci.Manifest, asked time.Time, tags ...string) answer {
	p.expect(here, parsed)
	p.asks.announced.add(useKey{here, m.Digest}, p.o.Now())
	a := answer{m: m, result: "miss", bytes: int64(len(m.Content)), fresh: registry.Freshness{Forward: "uri-miss", Status: statusOK}}
	if err := p.store(ctx, here, m, parsed, tags...); err != nil {
		p.o.Log.Warn("a manifest could not be kept; it is passed on", "repo", here, "digest", m.Digest, "error", err)
		a.result = "passed"
		return a
	}
	for _, tag := range tags {
		p.save(ctx, here, tag, meta.ProxyTag{Digest: m.Digest, CheckedAt: asked})
	}
	a.fresh.Stored = true
	return a
}

// get gets a manifest from the origin and holds it against its digest and the
// rules of manifests: what others send is never believed.
func (p *Registry) get(ctx context.Context, there string, ref oci.Ref) (registry.Manifest, *oci.Manifest, error) {
	m, err := within(ctx, p, func(ctx context.Context) (registry.Manifest, error) { return p.origin.Manifest(ctx, there, ref) })
	if err != nil {
		return registry.Manifest{}, nil, theirs(err, there)
	}
	parsed, err := verify(there, ref, &m)
	return m, parsed, err
}

// Media types of Docker's first kind of manifest, which has no digest of its own
// content and which nobody should run any more.
const (
	schema1       = "application/vnd.docker.distribution.manifest.v1+json"
	schema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

func verify(there string, ref oci.Ref, m *registry.Manifest) (*oci.Manifest, error) {
	switch {
	case len(m.Content) > oci.MaxManifest:
		return nil, registry.Errorf(registry.Faulty, there, "the upstream's manifest %s has %d bytes; at most %d are passed on", ref, len(m.Content), oci.MaxManifest)
	case m.MediaType == schema1 || m.MediaType == schema1Signed:
		return nil, registry.Errorf(registry.Faulty, there, "the upstream has %s only as a manifest of Docker's schema 1, which is not passed on; its owner must push it again with a client of this decade", ref)
	}
	d := ref.Digest
	if d == "" {
		d = m.Digest
	}
	if d == "" {
		d = oci.SHA256.FromBytes(m.Content)
	}
	if _, err := oci.ParseDigest(string(d)); err != nil {
		return nil, &registry.Error{Code: registry.Faulty, Repo: there, Err: err, Detail: "the upstream names a manifest by a digest of no supported kind"}
	}
	if m.Digest = d; !d.Verify(m.Content) {
		return nil, registry.Errorf(registry.Faulty, there, "the upstream sent other content than that of manifest %s; it is not passed on", d)
	}
	parsed, err := oci.ParseManifest(m.MediaType, m.Content)
	if err != nil {
		return nil, &registry.Error{Code: registry.Faulty, Repo: there, Err: err,
			Detail: "the upstream sent for " + ref.String() + " what is no manifest: " + err.Error()}
	}
	m.MediaType = parsed.MediaType
	return parsed, nil
}

// store puts a manifest into the cache. That it came from the origin is noted
// before, so that nothing is ever taken for pushed here that was not.
func (p *Registry) store(ctx context.Context, here string, m registry.Manifest, parsed *oci.Manifest, tags ...string) error {
	ctx = p.writing(ctx)
	now := p.o.Now()
	row := meta.ProxyManifest{Proxy: p.o.Name, Repository: here, Digest: m.Digest, FetchedAt: now, UsedAt: now}
	if parsed.Subject != nil {
		row.Subject = parsed.Subject.Digest
	}
	if err := p.o.State.SaveProxyManifest(ctx, row); err != nil {
		return err
	}
	if _, err := p.cache.PutManifest(ctx, here, m, tags...); err != nil {
		return err
	}
	p.o.Stored(int64(len(m.Content)))
	return nil
}

// named is the detail of an error about a reference.
func named(ref oci.Ref) map[string]string { return map[string]string{"reference": ref.String()} }
