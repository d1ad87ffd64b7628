package meta

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"github.com/berth-registry/berth/internal/oci"
)

// ProxyUsage is how many bytes a proxy's project uses: those of its manifests
// and of its blobs, each once.
func (db *DB) ProxyUsage(ctx context.Context, proxy string) (bytes int64, err error) {
	err = db.queryRow(ctx, `SELECT u.storage FROM projects p JOIN project_usage u ON u.project_id = p.id WHERE p.name = $1`, proxy).Scan(&bytes)
	return bytes, ignoreNotFound(err)
}

// ColdProxyManifests lists up to n manifests of a proxy that were last used
// before the given time, the longest ago first, behind the one given.
func (db *DB) ColdProxyManifests(ctx context.Context, proxy string, before time.Time, after ProxyManifest, n int) ([]ProxyManifest, error) {
	rows, err := db.query(ctx, selectProxyManifest+`WHERE proxy = $1 AND used_at < $2 AND (used_at, repository, digest) > ($3, $4, $5)
		ORDER BY used_at, repository, digest LIMIT $6`,
		proxy, before.UnixMilli(), millisOf(after.UsedAt), after.Repository, after.Digest.String(), n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (ProxyManifest, error) { return scanProxyManifest(r) })
}

// ProxyManifests lists up to n manifests of a repository, or with an empty one of
// all of a proxy, that came from upstream, behind the one given, by repository
// and digest.
func (db *DB) ProxyManifests(ctx context.Context, proxy, repo string, after ProxyManifest, n int) ([]ProxyManifest, error) {
	from, to := proxyRange(proxy, repo)
	rows, err := db.query(ctx, selectProxyManifest+`WHERE (repository, digest) > ($1, $2) AND repository < $3
		ORDER BY repository, digest LIMIT $4`, max(from, after.Repository), after.Digest.String(), to, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (ProxyManifest, error) { return scanProxyManifest(r) })
}

// noteGrace is how long after its note a manifest may come at the latest. The two
// are consecutive statements, each of which the database bounds to seconds.
const noteGrace = 10 * time.Minute

// A manifest that a note stands for may also be that of a project that is
// deleted and can be restored.
const (
	noteHolds = `EXISTS (SELECT 1 FROM repositories r JOIN manifests m ON m.repository_id = r.id AND m.digest = proxy_manifests.digest
		WHERE r.name IN (proxy_manifests.repository, '` + hidden + `' || proxy_manifests.repository))`
	deleteNote = `DELETE FROM proxy_manifests WHERE repository = $1 AND digest = $2 AND fetched_at <= $3 AND NOT ` + noteHolds
)

// ForgetProxyManifest forgets a manifest that is gone: its note, unless it may be
// coming again, its list of referrers, and what its tags stood for.
func (db *DB) ForgetProxyManifest(ctx context.Context, m ProxyManifest, tags []string) error {
	return db.hint(ctx, func(t *tx) error {
		for _, tag := range tags {
			if _, err := t.exec(`DELETE FROM proxy_tags WHERE repository = $1 AND reference = $2 AND digest = $3`,
				m.Repository, tag, m.Digest.String()); err != nil {
				return err
			}
		}
		if _, err := t.exec(`DELETE FROM proxy_referrers WHERE repository = $1 AND subject = $2 AND NOT `+subjectThere, m.Repository, m.Digest.String()); err != nil {
			return err
		}
		_, err := t.exec(deleteNote, m.Repository, m.Digest.String(), db.now().Add(-noteGrace).UnixMilli())
		return err
	})
}

// For how long rows are kept that nobody asks for.
const (
	keepAbsence   = time.Hour
	keepReferrers = 60 * 24 * time.Hour
)

// PruneProxy removes what no proxy needs any more: that something was absent
// upstream an hour ago, lists of referrers that are older than 60 days or whose
// subject is gone, notes of manifests that are gone, leases that ended. It looks
// at up to n rows of each kind, in short transactions, and goes on where it
// stopped the last time. more is false when it has looked at all of them.
func (db *DB) PruneProxy(ctx context.Context, now time.Time, n int) (pruned int, more bool, err error) {
	for _, old := range []struct {
		query  string
		before time.Time
	}{
		{`DELETE FROM proxy_tags WHERE digest = '' AND checked_at < $1 AND (repository, reference) IN
			(SELECT repository, reference FROM proxy_tags WHERE digest = '' AND checked_at < $1 ORDER BY checked_at LIMIT $2)`, now.Add(-keepAbsence)},
		{`DELETE FROM proxy_referrers WHERE checked_at < $1 AND (repository, subject) IN
			(SELECT repository, subject FROM proxy_referrers WHERE checked_at < $1 ORDER BY checked_at LIMIT $2)`, now.Add(-keepReferrers)},
		{`DELETE FROM proxy_leases WHERE lease_until < $1 AND key IN
			(SELECT key FROM proxy_leases WHERE lease_until < $1 ORDER BY lease_until LIMIT $2)`, now.Add(-keepAbsence)},
	} {
		var gone int64
		if err := db.hint(ctx, func(t *tx) (err error) {
			gone, err = t.exec(old.query, old.before.UnixMilli(), n)
			return err
		}); err != nil {
			return pruned, more, err
		}
		pruned += int(gone)
		more = more || int(gone) == n
	}
	gone, rest, err := db.walkProxies(ctx, now, n)
	return pruned + gone, more || rest, err
}

// proxyWalk goes over a table and removes rows that stand for nothing.
type proxyWalk struct {
	page   string
	remove string        // one row that is old enough, if it still stands for nothing
	grace  time.Duration // that makes a row old enough
}

const subjectThere = `EXISTS (SELECT 1 FROM repositories r JOIN manifests m ON m.repository_id = r.id AND m.digest = proxy_referrers.subject
	WHERE r.name IN (proxy_referrers.repository, '` + hidden + `' || proxy_referrers.repository))`

// proxyWalks are done one after the other.
var proxyWalks = [...]proxyWalk{
	{`SELECT repository, digest, ` + noteHolds + ` FROM proxy_manifests WHERE (repository, digest) > ($1, $2)
		ORDER BY repository, digest LIMIT $3`, deleteNote, noteGrace},
	{`SELECT repository, subject, ` + subjectThere + ` FROM proxy_referrers WHERE (repository, subject) > ($1, $2)
		ORDER BY repository, subject LIMIT $3`,
		`DELETE FROM proxy_referrers WHERE repository = $1 AND subject = $2 AND checked_at <= $3 AND NOT ` + subjectThere, keepAbsence},
}

// proxyWalked is how far the walks came.
type proxyWalked struct {
	Walk       int    `json:"walk"`
	Repository string `json:"repository"`
	Second     string `json:"second"`
}

// walkProxies takes the next step of the walks. more is false when they have come
// to an end; then they begin anew.
func (db *DB) walkProxies(ctx context.Context, now time.Time, n int) (gone int, more bool, err error) {
	at, err := db.proxyWalked(ctx)
	if err != nil {
		return 0, false, err
	}
	w := proxyWalks[at.Walk%len(proxyWalks)]
	rows, err := db.query(ctx, w.page, at.Repository, at.Second, n)
	if err != nil {
		return 0, false, err
	}
	type item struct {
		repo, second string
		held         bool
	}
	list, err := collect(rows, func(r *sql.Rows) (i item, err error) { return i, r.Scan(&i.repo, &i.second, &i.held) })
	if err != nil {
		return 0, false, err
	}
	if len(list) > 0 && len(list) == n {
		at.Repository, at.Second = list[n-1].repo, list[n-1].second
	} else {
		at = proxyWalked{Walk: (at.Walk + 1) % len(proxyWalks)}
	}
	text, err := json.Marshal(at)
	if err != nil {
		return 0, false, err
	}
	err = db.hint(ctx, func(t *tx) error {
		gone = 0
		for _, i := range list {
			if i.held {
				continue
			}
			removed, err := t.exec(w.remove, i.repo, i.second, now.Add(-w.grace).UnixMilli())
			if err != nil {
				return err
			}
			gone += int(removed)
		}
		_, err := t.exec(`INSERT INTO collection (name, value) VALUES ('proxies', $1)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value`, string(text))
		return err
	})
	return gone, at != proxyWalked{}, err
}

func (db *DB) proxyWalked(ctx context.Context) (at proxyWalked, err error) {
	var text string
	err = db.queryRow(ctx, `SELECT value FROM collection WHERE name = 'proxies'`).Scan(&text)
	if err == nil {
		err = fromJSON(text, &at)
	}
	return at, ignoreNotFound(err)
}

// ProxyStatsBound is where ProxyStats stops counting.
const ProxyStatsBound = 10_000

// ProxyStats is what a proxy has from upstream; each count goes up to
// ProxyStatsBound.
type ProxyStats struct {
	Manifests int
	Images    int // of these, those that no index holds and that have no subject
	// Oldest and Newest are when one was last used that was used the longest ago,
	// and one that was used last; the zero Time where there is none.
	Oldest, Newest time.Time
}

// ProxyStats counts, at a price that does not grow with what is stored.
func (db *DB) ProxyStats(ctx context.Context, proxy string) (s ProxyStats, err error) {
	var oldest, newest int64
	for _, q := range []struct {
		text string
		args []any
		dest []any
	}{
		{`SELECT COUNT(*), COALESCE(SUM(CASE WHEN held OR subject <> '' THEN 0 ELSE 1 END), 0) FROM (SELECT n.subject AS subject,
			EXISTS (SELECT 1 FROM repositories r JOIN manifest_references h ON h.repository_id = r.id AND h.digest = n.digest WHERE r.name = n.repository) AS held
			FROM proxy_manifests n WHERE n.proxy = $1 LIMIT $2) AS counted`, []any{proxy, ProxyStatsBound}, []any{&s.Manifests, &s.Images}},
		{`SELECT used_at FROM proxy_manifests WHERE proxy = $1 ORDER BY used_at LIMIT 1`, []any{proxy}, []any{&oldest}},
		{`SELECT used_at FROM proxy_manifests WHERE proxy = $1 ORDER BY used_at DESC LIMIT 1`, []any{proxy}, []any{&newest}},
	} {
		if err := ignoreNotFound(db.queryRow(ctx, q.text, q.args...).Scan(q.dest...)); err != nil {
			return ProxyStats{}, err
		}
	}
	s.Oldest, s.Newest = unlessZero(oldest), unlessZero(newest)
	return s, nil
}

// TaggedProxyManifest is a tag of a manifest that came from upstream.
type TaggedProxyManifest struct {
	Repository, Tag string
	Digest          oci.Digest
}

// TaggedProxyManifests lists up to n of the tags that manifests of a proxy have.
func (db *DB) TaggedProxyManifests(ctx context.Context, proxy string, n int) ([]TaggedProxyManifest, error) {
	rows, err := db.query(ctx, `SELECT n.repository, t.name, n.digest FROM proxy_manifests n
		JOIN repositories r ON r.name = n.repository JOIN tags t ON t.repository_id = r.id AND t.digest = n.digest
		WHERE n.proxy = $1 LIMIT $2`, proxy, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (m TaggedProxyManifest, err error) {
		return m, r.Scan(&m.Repository, &m.Tag, &m.Digest)
	})
}
