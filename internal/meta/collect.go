package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/oci"
)

// DeadObject is an object of the blob store that no row names any more.
type DeadObject struct {
	Key string
	// Unsealed objects were being written: Size and State say how far.
	Unsealed bool
	Size     int64
	State    []byte
	Bytes    int64 // that are won by deleting it
	At       int64 // when it died, or is to be tried again, in ms
}

// bury notes a dead object whose bytes may go at the given time.
func bury(t *tx, o DeadObject, at int64) error {
	var size *int64
	if o.Unsealed {
		size = &o.Size
	}
	_, err := t.exec(`INSERT INTO dead_objects (key, delete_at, size, state, bytes) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (key) DO NOTHING`, o.Key, at, size, o.State, o.Bytes)
	return err
}

const selectDead = `SELECT key, delete_at, size, state, bytes FROM dead_objects `

func scanDead(r *sql.Rows) (o DeadObject, err error) {
	var size sql.NullInt64
	err = r.Scan(&o.Key, &o.At, &size, &o.State, &o.Bytes)
	o.Unsealed, o.Size = size.Valid, size.Int64
	return o, err
}

// DeadObjects lists up to n objects that died before the given time. That they
// did outlasts a loss of power, so that their bytes may go.
//
// What others commit can be read here before it is on the disk. It is there when
// a later transaction is, which must be one that writes.
func (db *DB) DeadObjects(ctx context.Context, before time.Time, n int) ([]DeadObject, error) {
	rows, err := db.query(ctx, selectDead+`WHERE delete_at <= $1 ORDER BY delete_at, key LIMIT $2`, before.UnixMilli(), n)
	if err != nil {
		return nil, err
	}
	list, err := collect(rows, scanDead)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list, db.update(ctx, func(t *tx) error {
		_, err := t.exec(`INSERT INTO collection (name, value) VALUES ('freed', $1)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value`, strconv.FormatInt(db.millis(), 10))
		return err
	})
}

// DeadQueue lists up to n dead objects, due or not, behind the one that died at
// the given time.
func (db *DB) DeadQueue(ctx context.Context, at int64, key string, n int) ([]DeadObject, error) {
	rows, err := db.query(ctx, selectDead+`WHERE (delete_at, key) > ($1, $2) ORDER BY delete_at, key LIMIT $3`, at, key, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, scanDead)
}

// ForgetDead drops the notes of dead objects whose bytes are gone.
func (db *DB) ForgetDead(ctx context.Context, keys ...string) error {
	return db.eachDead(ctx, keys, func(t *tx, key string) error {
		_, err := t.exec(`DELETE FROM dead_objects WHERE key = $1`, key)
		return err
	})
}

// DeferDead puts off dead objects whose bytes could not be deleted.
func (db *DB) DeferDead(ctx context.Context, by time.Duration, keys ...string) error {
	return db.eachDead(ctx, keys, func(t *tx, key string) error {
		_, err := t.exec(`UPDATE dead_objects SET delete_at = $2 WHERE key = $1`, key, db.millis()+by.Milliseconds())
		return err
	})
}

// deadTurn bounds the keys of one transaction.
const deadTurn = 100

func (db *DB) eachDead(ctx context.Context, keys []string, fn func(*tx, string) error) error {
	for part := range slices.Chunk(keys, deadTurn) {
		err := db.hint(ctx, func(t *tx) error {
			for _, key := range part {
				if err := fn(t, key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// LooseLink is a link that no manifest may hold any more.
type LooseLink struct {
	RepositoryID string
	Repository   string
	Digest       oci.Digest
	Size         int64 // of the blob
	SeenAt       int64 // when a client was last told of it, in ms
	ReviewAt     int64 // when it is looked at
	Held         bool  // by a manifest after all
}

// LooseLinks lists up to n links behind the one given, in the order in which
// they are looked at.
func (db *DB) LooseLinks(ctx context.Context, after LooseLink, n int) ([]LooseLink, error) {
	rows, err := db.query(ctx, `SELECT l.repository_id, r.name, l.digest, b.size, l.seen_at, l.review_at,
		EXISTS (SELECT 1 FROM blob_references h WHERE h.repository_id = l.repository_id AND h.digest = l.digest)
		FROM links l JOIN repositories r ON r.id = l.repository_id JOIN blobs b ON b.digest = l.digest
		WHERE l.review_at IS NOT NULL AND (l.review_at, l.repository_id, l.digest) > ($1, $2, $3)
		ORDER BY l.review_at, l.repository_id, l.digest LIMIT $4`,
		after.ReviewAt, after.RepositoryID, after.Digest.String(), n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (l LooseLink, err error) {
		err = r.Scan(&l.RepositoryID, &l.Repository, &l.Digest, &l.Size, &l.SeenAt, &l.ReviewAt, &l.Held)
		l.Repository = shown(l.Repository)
		return l, err
	})
}

// CollectLinks looks at up to n links whose review was planned before the
// given time. One that a manifest holds is left; one that nothing holds and no
// client was told of since is removed, with its blob if it was the last; the
// others are looked at again. It returns how many it removed and looked at.
func (db *DB) CollectLinks(ctx context.Context, before time.Time, n int) (removed, seen int, err error) {
	rows, err := db.query(ctx, `SELECT l.repository_id, r.project_id, l.digest, l.seen_at,
		EXISTS (SELECT 1 FROM blob_references h WHERE h.repository_id = l.repository_id AND h.digest = l.digest)
		FROM links l JOIN repositories r ON r.id = l.repository_id
		WHERE l.review_at <= $1 ORDER BY l.review_at LIMIT $2`, before.UnixMilli(), n)
	if err != nil {
		return 0, 0, err
	}
	due, err := collect(rows, func(r *sql.Rows) (l linkRow, err error) {
		return l, r.Scan(&l.id, &l.project, &l.digest, &l.seenAt, &l.held)
	})
	if err != nil {
		return 0, 0, err
	}
	var stay, goes []linkRow
	for _, l := range due {
		if l.held || l.seenAt > before.UnixMilli() {
			stay = append(stay, l)
		} else {
			goes = append(goes, l)
		}
	}
	sum, err := db.linkTurns(nil, before, false).run(ctx, stay)
	slices.SortStableFunc(goes, func(a, b linkRow) int { return strings.Compare(a.project, b.project) })
	for _, part := range runs(goes, func(l linkRow) string { return l.project }) {
		if err != nil && (hopeless(err) || ctx.Err() != nil) {
			break
		}
		lock := func(t *tx) error { return mayLack(lockUsage(t, part[0].project)) }
		got, failed := db.linkTurns(lock, before, true).run(ctx, part)
		sum.add(got)
		err = errors.Join(err, failed)
	}
	return sum.Removed, sum.Seen, err
}

func (db *DB) linkTurns(begin func(*tx) error, before time.Time, remove bool) turns[linkRow] {
	return turns[linkRow]{
		db: db, begin: begin,
		look: func(t *tx, l linkRow) (Reviewed, error) {
			gone, err := db.reviewLink(t, l, before.UnixMilli(), remove)
			if gone {
				return Reviewed{Seen: 1, Removed: 1}, err
			}
			return Reviewed{Seen: 1}, err
		},
		putOff: func(t *tx, l linkRow) error {
			_, err := t.exec(`UPDATE links SET review_at = $3 WHERE repository_id = $1 AND digest = $2`,
				l.id, l.digest.String(), db.millis()+putOff.Milliseconds())
			return err
		},
		name: func(l linkRow) string { return fmt.Sprintf("blob %s in repository %s", l.digest, l.id) },
	}
}

type linkRow struct {
	place  // without its quotas
	digest oci.Digest
	seenAt int64
	held   bool // when it was read
}

// reviewLink looks at a link. One that is due is left so unless it may be
// removed here, in a transaction that has locked what its project uses.
func (db *DB) reviewLink(t *tx, l linkRow, before int64, remove bool) (gone bool, err error) {
	// Who deletes its holders waits for the end of this look, or is seen by it.
	err = t.lockedRow(`SELECT seen_at FROM links WHERE repository_id = $1 AND digest = $2`, l.id, l.digest.String()).Scan(&l.seenAt)
	if errors.Is(err, ErrNotFound) {
		return false, nil // gone
	}
	if err != nil {
		return false, err
	}
	// A link that a manifest holds needs no look until that manifest goes.
	var next *int64
	err = unheld(t, "blob_references", l.id, l.digest)
	if held := (*ReferencedError)(nil); err != nil && !errors.As(err, &held) {
		return false, err
	}
	if err == nil {
		if l.seenAt <= before {
			if !remove {
				return false, nil
			}
			err = db.unlink(t, l.place, l.digest, before)
			return err == nil, err
		}
		next = &l.seenAt
	}
	_, err = t.exec(`UPDATE links SET review_at = $3 WHERE repository_id = $1 AND digest = $2`,
		l.id, l.digest.String(), next)
	return false, err
}

// ClaimSweep reports whether a sweep is the caller's to do: none was begun for
// so long, by any process.
func (db *DB) ClaimSweep(ctx context.Context, every time.Duration) (mine bool, err error) {
	now := db.millis()
	var last string
	err = db.queryRow(ctx, `SELECT value FROM collection WHERE name = 'swept'`).Scan(&last)
	if at, bad := strconv.ParseInt(last, 10, 64); err == nil && bad == nil && at > now-every.Milliseconds() {
		return false, nil
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	err = db.hint(ctx, func(t *tx) error {
		n, err := t.exec(`INSERT INTO collection (name, value) VALUES ('swept', $1)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE collection.value = $2`, strconv.FormatInt(now, 10), last)
		mine = n == 1
		return err
	})
	return mine, err
}
