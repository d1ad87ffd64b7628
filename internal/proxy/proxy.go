// Package proxy is a pull-through cache: a registry made of an origin, which is
// read, and a cache, which keeps what was read. Its one idea: content is named by
// its digest, so what is in the cache is right for ever and is served without
// asking; only what a name stands for can be old, and the proxy remembers when
// the origin last said it.
package proxy

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// State is what a proxy remembers, across restarts and for all replicas.
// *meta.DB is one. Errors: meta.ErrNotFound of what is not known.
type State interface {
	// ProxyTag is what upstream last said of a reference of a repository here.
	ProxyTag(ctx context.Context, repo, ref string) (meta.ProxyTag, error)
	// SaveProxyTag keeps it. It may be lost with the power: it is asked for again.
	SaveProxyTag(ctx context.Context, repo, ref string, t meta.ProxyTag) error
	// ForgetProxyTags makes references be asked for again: one, or with an empty
	// ref all of a repository, or with an empty repo too all of a proxy.
	ForgetProxyTags(ctx context.Context, proxy, repo, ref string) error

	// SaveProxyManifest notes that a manifest is about to come from upstream. What
	// is there without such a note was pushed here, and stays so.
	SaveProxyManifest(ctx context.Context, m meta.ProxyManifest) error
	// ProxyManifest finds such a note.
	ProxyManifest(ctx context.Context, repo string, d oci.Digest) (meta.ProxyManifest, error)
	// FromUpstream says which of some manifests of a repository came from upstream.
	FromUpstream(ctx context.Context, repo string, digests []oci.Digest) (map[oci.Digest]bool, error)
	// OwnProxyManifest notes that a manifest was pushed here, whatever came from
	// upstream before: it is not evicted from now on.
	OwnProxyManifest(ctx context.Context, repo string, d oci.Digest) error
	// MarkPrefetched notes that what belongs to a manifest has come.
	MarkPrefetched(ctx context.Context, repo string, d oci.Digest) error
	// TouchProxyManifests notes uses, also as those of the indexes that hold them.
	TouchProxyManifests(ctx context.Context, uses []meta.ProxyUse) error

	// ProxyReferrers is what upstream last listed.
	ProxyReferrers(ctx context.Context, repo string, subject oci.Digest) (meta.ProxyReferrers, error)
	SaveProxyReferrers(ctx context.Context, repo string, subject oci.Digest, r meta.ProxyReferrers) error
	// AgeProxyReferrers makes lists count as last checked at that time, where they
	// were later: of one subject, or of a repository, or of all, as in
	// ForgetProxyTags.
	AgeProxyReferrers(ctx context.Context, proxy, repo string, subject oci.Digest, at time.Time) error

	// ProxyUsage is how many bytes the cache of a proxy has.
	ProxyUsage(ctx context.Context, proxy string) (bytes int64, err error)
	// ColdProxyManifests lists manifests that were last used before a time, the
	// longest ago first, behind the one given; ProxyManifests those of a
	// repository, or with an empty one of a proxy, by repository and digest.
	ColdProxyManifests(ctx context.Context, proxy string, before time.Time, after meta.ProxyManifest, n int) ([]meta.ProxyManifest, error)
	ProxyManifests(ctx context.Context, proxy, repo string, after meta.ProxyManifest, n int) ([]meta.ProxyManifest, error)
	// EvictProxyManifest takes a manifest out of the cache, with its tags. Errors:
	// *meta.ReferencedError; meta.ErrNotFound or ErrNoRepository where it is gone,
	// was pushed here meanwhile or, unless used, has been used.
	EvictProxyManifest(ctx context.Context, m meta.ProxyManifest, used bool) error
	// ForgetProxyManifest forgets a manifest that is gone, unless it may be coming
	// again, and what its tags stood for.
	ForgetProxyManifest(ctx context.Context, m meta.ProxyManifest, tags []string) error
	// ProxyStats counts what a proxy has, and TaggedProxyManifests lists up to n of
	// the tags that its manifests have.
	ProxyStats(ctx context.Context, proxy string) (meta.ProxyStats, error)
	TaggedProxyManifests(ctx context.Context, proxy string, n int) ([]meta.TaggedProxyManifest, error)
	// ManifestHolders lists up to n indexes that hold a manifest of a repository.
	ManifestHolders(ctx context.Context, repo string, d oci.Digest, n int) ([]oci.Digest, error)
	// ManifestTags lists up to n tags behind the given one that point at it.
	ManifestTags(ctx context.Context, repo string, d oci.Digest, after string, n int) ([]string, error)
}

// Leases keep several processes from asking an origin for the same at once.
// *meta.DB is one.
type Leases interface {
	// LeaseProxy takes a lease that nobody holds. ok is false where somebody does.
	LeaseProxy(ctx context.Context, key string, ttl time.Duration) (version int64, ok bool, err error)
	// RenewProxy prolongs it. Errors: meta.ErrNotFound where it was lost.
	RenewProxy(ctx context.Context, key string, version int64, ttl time.Duration) error
	ReleaseProxy(ctx context.Context, key string, version int64) error
}

var (
	_ State  = (*meta.DB)(nil)
	_ Leases = (*meta.DB)(nil)
)

// Options of New. Name and State are required.
type Options struct {
	// Name is that of the proxy and of the project whose repositories are its
	// cache: the repository a/b of the origin is NAME/a/b here.
	Name  string
	State State
	// Leases are for several processes on one State; nil: this one is alone.
	Leases Leases
	// Spool is a folder for what is under way, which other proxies and processes
	// may use too. Required.
	Spool string
	// Abandon is the share, in percent, that must have come of a blob for its
	// fetch to go on when nobody reads it any more. 0: it always goes on.
	Abandon int

	// Library says that the origin keeps what has a name of one part under
	// library/, as Docker Hub does.
	Library bool
	// Allow says which repositories, as the origin names them, may be had; those
	// that may not do not exist. nil: all may.
	Allow func(name string) bool

	// TagTTL is for how long a tag is not asked for again; negative: for ever.
	// nil: a minute.
	TagTTL func(name, tag string) time.Duration
	// MaxStale bounds how old what was heard of a tag may be when the origin does
	// not answer. 0: no bound.
	MaxStale time.Duration
	// NegativeTTL is for how long absence is believed. 0: 30 seconds.
	NegativeTTL time.Duration
	// Follow has a tag vanish as soon as the origin does not have it any more;
	// else it stays for KeepDeleted. 0: 7 days.
	Follow      bool
	KeepDeleted time.Duration
	// Stretch is by how much the times above are multiplied for now, because the
	// origin allows few requests more. nil: by 1.
	Stretch func() int

	// ReferrersTTL is for how long a list of referrers is not asked for again.
	// 0: 5 minutes. ReferrersStale bounds how old it may be when the origin does
	// not answer. 0: 30 days.
	ReferrersTTL, ReferrersStale time.Duration
	// LocalReferrers lets manifests with a subject be pushed here.
	LocalReferrers bool
	// ShortReferrers has what was pushed here stand for all referrers where
	// nothing is known of the origin's. Else that is an error: a short list reads
	// as "not signed".
	ShortReferrers bool
	// Prefetch are the artifact types that are fetched with an image, so that it
	// can be verified when the origin is gone. "*" is all.
	Prefetch []string

	// Own is what takes pushes of people: unlike the cache it wants what a
	// manifest names to be there. nil: the cache.
	Own registry.Registry
	// Writing makes the context in which the cache is written from that of a
	// request; nil: as it is. The proxy itself takes care that it does not end.
	Writing func(context.Context) context.Context
	// Stored is told of bytes that were added to the cache; nil: nobody is.
	Stored func(bytes int64)
	// Observe is told of each answer; nil: nobody is.
	Observe func(Event)
	// Log is for what nobody else is told of. nil: none.
	Log *slog.Logger
	// Now is the clock. nil: time.Now.
	Now func() time.Time
}

// Event is an answer, as metrics count it; or the end of fetching a blob, which
// many answers may have waited for, or none.
type Event struct {
	Kind   string // "manifest", "blob", "referrers", "tags"; "fetch"
	Result string // "hit", "miss", "stale", "revalidated", "negative", "error", "passed" (not kept)
	Bytes  int64  // that came from the origin for it
}

// Registry is a pull-through cache.
type Registry struct {
	origin registry.Reader
	cache  registry.Registry
	o      Options

	calls   calls // under way, by key
	flights flights
	sizes   sizes
	uses    uses
	fetcher fetcher
	asks    asks
	running sync.WaitGroup
	ctx     context.Context // ends with Close
	stop    context.CancelFunc
}

var _ registry.Registry = (*Registry)(nil)

// New joins an origin and a cache, in which manifests may name what is not there.
// The caller closes it before the two.
func New(origin registry.Reader, cache registry.Registry, o Options) (*Registry, error) {
	o = withDefaults(o)
	if o.Own == nil {
		o.Own = cache
	}
	p := &Registry{origin: origin, cache: cache, o: o}
	p.ctx, p.stop = context.WithCancel(context.Background())
	if err := p.flights.open(o.Spool); err != nil {
		return nil, err
	}
	p.running.Go(func() { p.keepUses(p.ctx) })
	p.running.Go(func() { p.keepFetching(p.ctx) })
	return p, nil
}

// Close ends what is under way and waits for it.
func (p *Registry) Close() {
	p.stop()
	p.running.Wait()
}

func withDefaults(o Options) Options {
	if o.Allow == nil {
		o.Allow = func(string) bool { return true }
	}
	if o.TagTTL == nil {
		o.TagTTL = func(string, string) time.Duration { return time.Minute }
	}
	if o.Stretch == nil {
		o.Stretch = func() int { return 1 }
	}
	if o.Writing == nil {
		o.Writing = func(ctx context.Context) context.Context { return ctx }
	}
	if o.Stored == nil {
		o.Stored = func(int64) {}
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, d := range []struct {
		of    *time.Duration
		value time.Duration
	}{
		{&o.NegativeTTL, 30 * time.Second}, {&o.KeepDeleted, 7 * 24 * time.Hour},
		{&o.ReferrersTTL, 5 * time.Minute}, {&o.ReferrersStale, 30 * 24 * time.Hour},
	} {
		if *d.of == 0 {
			*d.of = d.value
		}
	}
	return o
}

// names finds what a repository is called in the cache and by the origin.
// Errors: NameUnknown of what is not this proxy's, or not allowed.
func (p *Registry) names(repo string) (here, there string, err error) {
	there, ok := strings.CutPrefix(repo, p.o.Name+"/")
	if ok && p.o.Library && !strings.Contains(there, "/") {
		there = "library/" + there
	}
	if !ok || !p.o.Allow(there) {
		return "", "", &registry.Error{Code: registry.NameUnknown, Repo: repo}
	}
	return p.o.Name + "/" + there, there, nil
}

// writing is the context for what is written into the cache: it does not end
// with the request that caused it.
func (p *Registry) writing(ctx context.Context) context.Context {
	return p.o.Writing(context.WithoutCancel(ctx))
}
