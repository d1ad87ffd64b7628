package test

import "testing"

// What every cache must do, each by its number. They run side by side: each has
// upstreams and proxies of its own. 30 is TestProxyDiskFull; 32, real registries
// and real clients, is TestProxyClients, TestProxyPrefetch, TestProxyMirrors and
// TestProxyOfOurs.
var cacheChecks = map[string]func(*cacheCheck){
	"01 fifty cold readers are one request":      fiftyReaders,
	"02 the first reader leaves":                 firstReaderLeaves,
	"03 a broken body is resumed":                brokenBody,
	"04 wrong bytes are never whole":             wrongBytes,
	"05 HEAD of a blob brings nothing":           headOfBlob,
	"06 ranges, cold and warm":                   ranges,
	"07 a manifest comes exactly":                exactManifest,
	"08 no request while a tag is fresh":         freshTag,
	"09 an old tag is asked for once":            oldTag,
	"10 twenty at once ask once":                 twentyAtOnce,
	"11 stale when the upstream fails":           staleTag,
	"12 nothing cached and the upstream fails":   nothingCached,
	"13 a digest needs no upstream":              digestOffline,
	"14 an index without its children":           sparseIndex,
	"15 absence is believed":                     absence,
	"16 deleted upstream":                        deletedUpstream,
	"17 one registry by many names":              manyNames,
	"18 what the filter keeps out":               filtered,
	"19 credentials stay with the upstream":      ownCredential,
	"20 a realm elsewhere is refused":            foreignRealm,
	"21 pages and local referrers are one list":  mergedReferrers,
	"22 filtered here where the upstream cannot": filteredReferrers,
	"23 referrers by their tag":                  referrersByTag,
	"24 no referrers at all":                     noReferrers,
	"25 referrers without the upstream":          referrersOffline,
	"26 a subject that is no digest":             badSubject,
	"27 a local referrer shows at once":          localReferrer,
	"28 one entry for any query":                 oneEntry,
	"29 the least used image goes":               evicted,
	"31 a deleted subject takes its referrers":   deletedSubject,
	"33 answers that are none":                   nonsense,
	"34 an allowance is kept in reserve":         allowance,
	"35 manifests with nothing but content":      bareManifests,
	"36 addresses that nobody named":             forbiddenAddresses,
	"37 mirrors, in their order":                 mirrors,
	"38 for those who may read the project":      rights,
	"39 added while the server runs":             managedProxy,
	"40 one name over own and foreign":           virtualProject,
	"41 what no quota has room for":              fullQuota,
}

// What 40 needs, and the second half of 31.
const (
	virtuals   = "virtual:\n  - {name: c40-all, sources: [c40-own, c40]}\n"
	shortGrace = virtuals + "gc:\n  orphans_after: 1s\n  interval: 200ms\n"
)

func TestProxyOneProcess(t *testing.T) {
	runChecks(t, oneProcess, virtuals, shortGrace, cacheChecks)
}

func TestProxyReplicas(t *testing.T) {
	runChecks(t, twoReplicas, virtuals, shortGrace, cacheChecks)
}
