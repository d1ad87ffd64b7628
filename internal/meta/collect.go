package meta

import (
	"context"
	"database/sql"
	"errors"
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
}

// bury notes a dead object whose bytes may go at the given time.
func bury(t *tx, o DeadObject, at int64) error {
	var size *int64
	if o.Unsealed {
		size = &o.Size
	}
	_, err := t.exec(`INSERT INTO dead_objects (key, delete_at, size, state) VALUES ($1, $2, $3, $4)
		ON CONFLICT (key) DO NOTHING`, o.Key, at, size, o.State)
	return err
}

// DeadObjects lists up to n objects that died before the given time.
func (db *DB) DeadObjects(ctx context.Context, before time.Time, n int) ([]DeadObject, error) {
	rows, err := db.query(ctx, `SELECT key, size, state FROM dead_objects
		WHERE delete_at <= $1 ORDER BY delete_at LIMIT $2`, before.UnixMilli(), n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (o DeadObject, err error) {
		var size sql.NullInt64
		err = r.Scan(&o.Key, &size, &o.State)
		o.Unsealed, o.Size = size.Valid, size.Int64
		return o, err
	})
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

func (db *DB) eachDead(ctx context.Context, keys []string, fn func(*tx, string) error) error {
	if len(keys) == 0 {
		return nil
	}
	return db.hint(ctx, func(t *tx) error {
		for _, key := range keys {
			if err := fn(t, key); err != nil {
				return err
			}
		}
		return nil
	})
}

// CollectLinks looks at up to n links whose review was planned before the
// given time. One that a manifest holds is left; one that nothing holds and no
// client was told of since is removed, with its blob if it was the last; the
// others are looked at again. It returns how many it removed and looked at.
func (db *DB) CollectLinks(ctx context.Context, before time.Time, n int) (removed, seen int, err error) {
	err = db.update(ctx, func(t *tx) error {
		removed, seen = 0, 0
		rows, err := t.query(`SELECT l.repository_id, r.project_id, l.digest, l.seen_at
			FROM links l JOIN repositories r ON r.id = l.repository_id
			WHERE l.review_at <= $1 ORDER BY l.review_at LIMIT $2`, before.UnixMilli(), n)
		if err != nil {
			return err
		}
		due, err := collect(rows, func(r *sql.Rows) (l linkRow, err error) { return l, r.Scan(&l.id, &l.project, &l.digest, &l.seenAt) })
		if err != nil {
			return err
		}
		for _, l := range due {
			gone, err := db.reviewLink(t, l, before.UnixMilli())
			if err != nil {
				return err
			}
			if gone {
				removed++
			}
			seen++
		}
		return nil
	})
	return removed, seen, err
}

type linkRow struct {
	place  // without its quotas
	digest oci.Digest
	seenAt int64
}

func (db *DB) reviewLink(t *tx, l linkRow, before int64) (gone bool, err error) {
	// Who deletes its holders waits for the end of this look, or is seen by it.
	err = t.lock(`SELECT digest FROM links WHERE repository_id = $1 AND digest = $2`, l.id, l.digest.String())
	if errors.Is(err, errAgain) {
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
			err = db.unlink(t, l.place, l.digest, before)
			if errors.Is(err, ErrNotFound) {
				return false, nil // a client was told of it just now: it stays due
			}
			return err == nil, err
		}
		next = &l.seenAt
	}
	_, err = t.exec(`UPDATE links SET review_at = $3 WHERE repository_id = $1 AND digest = $2`,
		l.id, l.digest.String(), next)
	return false, err
}
