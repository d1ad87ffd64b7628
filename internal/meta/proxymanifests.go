package meta

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/oci"
)

// SaveProxyManifest notes that a manifest is about to come from upstream. What is
// there without such a note was pushed here, and stays so.
//
// The note is on the disk when the manifest is, which this process puts when this
// has returned: no crash leaves the manifest without it, to be taken for pushed
// here for ever. In SQLite that costs no sync.
func (db *DB) SaveProxyManifest(ctx context.Context, m ProxyManifest) error {
	return db.write(ctx, db.engine.preceding(), func(t *tx) error {
		_, err := t.exec(`INSERT INTO proxy_manifests (repository, digest, proxy, subject, fetched_at, used_at, prefetched)
			SELECT $1, $2, $3, $4, CAST($5 AS BIGINT), CAST($6 AS BIGINT), CAST($7 AS BOOLEAN)
			WHERE NOT EXISTS (SELECT 1 FROM repositories r JOIN manifests m ON m.repository_id = r.id AND m.digest = $2 WHERE r.name = $1)
				OR EXISTS (SELECT 1 FROM proxy_manifests WHERE repository = $1 AND digest = $2)
			ON CONFLICT (repository, digest) DO UPDATE SET proxy = excluded.proxy, subject = excluded.subject,
				fetched_at = excluded.fetched_at, used_at = excluded.used_at, prefetched = excluded.prefetched`,
			m.Repository, m.Digest.String(), m.Proxy, m.Subject.String(), millisOf(m.FetchedAt), millisOf(m.UsedAt), m.Prefetched)
		return err
	})
}

const selectProxyManifest = `SELECT repository, digest, proxy, subject, fetched_at, used_at, prefetched FROM proxy_manifests `

func scanProxyManifest(r interface{ Scan(...any) error }) (m ProxyManifest, err error) {
	var fetched, used int64
	err = r.Scan(&m.Repository, &m.Digest, &m.Proxy, &m.Subject, &fetched, &used, &m.Prefetched)
	m.FetchedAt, m.UsedAt = unlessZero(fetched), unlessZero(used)
	return m, err
}

// ProxyManifest finds the note of a manifest. Errors: ErrNotFound.
func (db *DB) ProxyManifest(ctx context.Context, repo string, d oci.Digest) (ProxyManifest, error) {
	return scanProxyManifest(db.queryRow(ctx, selectProxyManifest+`WHERE repository = $1 AND digest = $2`, repo, d.String()))
}

// originPage is how many manifests one statement of FromUpstream asks for: one
// text, so that it is prepared once.
const originPage = 50

var selectOrigins = func() string {
	args := make([]string, originPage)
	for i := range args {
		args[i] = "$" + strconv.Itoa(i+2)
	}
	return `SELECT digest FROM proxy_manifests WHERE repository = $1 AND digest IN (` + strings.Join(args, ", ") + `)`
}()

// FromUpstream says which of some manifests of a repository came from upstream.
func (db *DB) FromUpstream(ctx context.Context, repo string, digests []oci.Digest) (map[oci.Digest]bool, error) {
	all := map[oci.Digest]bool{}
	for part := range slices.Chunk(digests, originPage) {
		args := make([]any, 0, originPage+1)
		args = append(args, repo)
		for i := range originPage {
			args = append(args, part[min(i, len(part)-1)].String())
		}
		rows, err := db.query(ctx, selectOrigins, args...)
		if err != nil {
			return nil, err
		}
		found, err := collect(rows, scanString)
		if err != nil {
			return nil, err
		}
		for _, d := range found {
			all[oci.Digest(d)] = true
		}
	}
	return all, nil
}

// MarkPrefetched notes that what belongs to a manifest has come.
// Errors: ErrNotFound.
func (db *DB) MarkPrefetched(ctx context.Context, repo string, d oci.Digest) error {
	return db.hintRow(ctx, `UPDATE proxy_manifests SET prefetched = TRUE WHERE repository = $1 AND digest = $2 RETURNING used_at`,
		repo, d.String()).Scan(new(int64))
}

// OwnProxyManifest notes that a manifest that came from upstream was pushed here
// too: from now on it is as if it had only been pushed.
func (db *DB) OwnProxyManifest(ctx context.Context, repo string, d oci.Digest) error {
	return db.update(ctx, func(t *tx) error {
		_, err := t.exec(`DELETE FROM proxy_manifests WHERE repository = $1 AND digest = $2`, repo, d.String())
		return err
	})
}

// EvictProxyManifest removes a manifest that came from upstream, as DeleteManifest
// does, if it has not been pushed here and, unless used, was last used when m says.
// The note stays; see ForgetProxyManifest. Errors: ErrNoRepository, *ReferencedError;
// ErrNotFound of what is gone, or not as m says any more.
func (db *DB) EvictProxyManifest(ctx context.Context, m ProxyManifest, used bool) error {
	return db.deleteManifest(ctx, m.Repository, m.Digest, func(t *tx) error {
		var at int64
		err := t.lockedRow(`SELECT used_at FROM proxy_manifests WHERE repository = $1 AND digest = $2`,
			m.Repository, m.Digest.String()).Scan(&at)
		if err == nil && !used && at != millisOf(m.UsedAt) {
			err = ErrNotFound
		}
		return err
	})
}

const (
	useStep    = time.Minute // between two notes of a use
	useTurn    = 100         // uses that are noted together
	maxIndexes = 100         // that hold one manifest and are touched with it
	maxTouched = 1000        // manifests, with indexes, that one transaction touches
)

// TouchProxyManifests notes uses, also as those of the indexes that hold them. A
// manifest whose last use was noted less than a minute before is left alone.
func (db *DB) TouchProxyManifests(ctx context.Context, uses []ProxyUse) error {
	for part := range slices.Chunk(uses, useTurn) {
		all, err := db.withIndexes(ctx, part)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			continue
		}
		if err := db.hint(ctx, func(t *tx) error {
			for _, u := range all {
				if _, err := t.exec(`UPDATE proxy_manifests SET used_at = $3 WHERE repository = $1 AND digest = $2 AND used_at <= $4`,
					u.Repository, u.Digest.String(), u.At.UnixMilli(), u.At.Add(-useStep).UnixMilli()); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// manifestKey names a manifest.
type manifestKey struct {
	repo   string
	digest oci.Digest
}

// withIndexes adds to uses those of the indexes above, and leaves out what was
// noted just before. It sorts them, so that transactions do not wait in a circle.
func (db *DB) withIndexes(ctx context.Context, uses []ProxyUse) ([]ProxyUse, error) {
	last, queue := map[manifestKey]time.Time{}, []ProxyUse{}
	see := func(u ProxyUse) {
		key := manifestKey{u.Repository, u.Digest}
		if was, seen := last[key]; !seen || u.At.After(was) {
			last[key] = u.At
			if !seen {
				queue = append(queue, u)
			}
		}
	}
	for _, u := range uses {
		see(u)
	}
	for i := 0; i < len(queue) && len(queue) < maxTouched; i++ {
		above, err := db.ManifestHolders(ctx, queue[i].Repository, queue[i].Digest, maxIndexes)
		if err != nil {
			return nil, err
		}
		for _, index := range above {
			see(ProxyUse{queue[i].Repository, index, queue[i].At})
		}
	}
	return db.notNoted(ctx, last)
}

// notNoted lists the uses that the rows do not tell of already.
func (db *DB) notNoted(ctx context.Context, last map[manifestKey]time.Time) (list []ProxyUse, err error) {
	for key, at := range last {
		var used int64
		err := db.queryRow(ctx, `SELECT used_at FROM proxy_manifests WHERE repository = $1 AND digest = $2`, key.repo, key.digest.String()).Scan(&used)
		if ignoreNotFound(err) != nil {
			return nil, err
		}
		if err == nil && used <= at.Add(-useStep).UnixMilli() {
			list = append(list, ProxyUse{key.repo, key.digest, at})
		}
	}
	slices.SortFunc(list, func(a, b ProxyUse) int {
		return cmp.Or(strings.Compare(a.Repository, b.Repository), strings.Compare(a.Digest.String(), b.Digest.String()))
	})
	return list, nil
}

// ManifestHolders lists up to n indexes of a repository that hold a manifest.
func (db *DB) ManifestHolders(ctx context.Context, repo string, d oci.Digest, n int) ([]oci.Digest, error) {
	rows, err := db.query(ctx, `SELECT h.manifest FROM repositories r JOIN manifest_references h ON h.repository_id = r.id AND h.digest = $2
		WHERE r.name = $1 ORDER BY h.manifest LIMIT $3`, repo, d.String(), n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (d oci.Digest, err error) { return d, r.Scan(&d) })
}

// ManifestTags lists up to n tags behind the given one that point at a manifest.
func (db *DB) ManifestTags(ctx context.Context, repo string, d oci.Digest, after string, n int) ([]string, error) {
	rows, err := db.query(ctx, `SELECT t.name FROM repositories r JOIN tags t ON t.repository_id = r.id AND t.digest = $2
		WHERE r.name = $1 AND t.name > $3 ORDER BY t.name LIMIT $4`, repo, d.String(), after, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, scanString)
}
