package meta

import (
	"context"

	"github.com/berth-registry/berth/internal/oci"
)

// callProxies is callEveryVerb of what pull-through caches remember.
func callProxies(ctx context.Context, db *DB) {
	const repo = "hub/app"
	d, now := oci.SHA256.FromBytes([]byte("proxied")), db.now()
	db.SaveProxyTag(ctx, repo, "v1", ProxyTag{Digest: d, CheckedAt: now})
	db.ProxyTag(ctx, repo, "v1")
	for _, ref := range []string{"v1", ""} {
		db.ForgetProxyTags(ctx, "hub", repo, ref)
	}
	db.SaveProxyReferrers(ctx, repo, d, ProxyReferrers{List: []byte("[]"), CheckedAt: now})
	db.ProxyReferrers(ctx, repo, d)
	for _, subject := range []oci.Digest{d, ""} {
		db.AgeProxyReferrers(ctx, "hub", repo, subject, now)
	}
	db.PauseProxy(ctx, "hub", now)
	db.ProxyPause(ctx, "hub")
	version, _, _ := db.LeaseProxy(ctx, "x", 0)
	db.RenewProxy(ctx, "x", version, 0)
	db.ReleaseProxy(ctx, "x", version)
	db.SaveProxyManifest(ctx, ProxyManifest{Proxy: "hub", Repository: repo, Digest: d, FetchedAt: now})
	db.ProxyManifest(ctx, repo, d)
	db.FromUpstream(ctx, repo, []oci.Digest{d})
	db.MarkPrefetched(ctx, repo, d)
	db.TouchProxyManifests(ctx, []ProxyUse{{Repository: repo, Digest: d, At: now.AddDate(0, 0, 1)}})
	db.ManifestHolders(ctx, repo, d, 10)
	db.ManifestTags(ctx, repo, d, "", 10)
	db.ColdProxyManifests(ctx, "hub", now, ProxyManifest{}, 10)
	db.ProxyManifests(ctx, "hub", repo, ProxyManifest{}, 10)
	db.ProxyUsage(ctx, "hub")
	db.ProxyStats(ctx, "hub")
	db.TaggedProxyManifests(ctx, "hub", 10)
	db.PruneProxy(ctx, now.AddDate(1, 0, 0), 10)
	db.SaveProxyReferrers(ctx, repo, d, ProxyReferrers{List: []byte("[]"), CheckedAt: now.AddDate(1, 0, 0)})
	db.SaveProxyManifest(ctx, ProxyManifest{Proxy: "hub", Repository: repo, Digest: d, FetchedAt: now})
	db.PruneProxy(ctx, now.AddDate(1, 0, 1), 10)
	db.ForgetProxyManifest(ctx, ProxyManifest{Repository: repo, Digest: d}, []string{"v1"})
	db.EvictProxyManifest(ctx, ProxyManifest{Repository: repo, Digest: d}, true)
	db.OwnProxyManifest(ctx, repo, d)
	db.PutProxy(ctx, Change{}, Proxy{Name: "hub"})
	db.Proxy(ctx, "hub")
	db.Proxies(ctx, "", 10)
	db.DeleteProxy(ctx, Change{}, "hub")
}
