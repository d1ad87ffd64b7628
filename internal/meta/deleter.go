package meta

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/oci"
)

// ReferencedError says who holds what was to be deleted.
type ReferencedError struct{ By []oci.Digest }

func (e *ReferencedError) Error() string {
	return fmt.Sprintf("held by manifest %s", e.By[0])
}

// maxHolders bounds how many holders a ReferencedError names.
const maxHolders = 10

// DeleteTag removes a tag. Errors: ErrNoRepository, ErrNotFound.
func (db *DB) DeleteTag(ctx context.Context, repo, tag string) error {
	return db.remove(ctx, repo, audit.Event{Action: "tag.delete", Reference: tag}, func(t *tx, p place, e *audit.Event) error {
		err := t.queryRow(`DELETE FROM tags WHERE repository_id = $1 AND name = $2 RETURNING digest`, p.id, tag).Scan(&e.Digest)
		if err != nil {
			return err
		}
		return db.planManifest(t, p.id, oci.Digest(e.Digest))
	})
}

// DeleteManifest removes a manifest with its tags and lets go of what it held.
// Errors: ErrNoRepository, ErrNotFound, *ReferencedError.
func (db *DB) DeleteManifest(ctx context.Context, repo string, d oci.Digest) error {
	return db.deleteManifest(ctx, repo, d, func(*tx) error { return nil })
}

// deleteManifest removes a manifest if may does not fail, which looks at what the
// transaction sees and locks.
func (db *DB) deleteManifest(ctx context.Context, repo string, d oci.Digest, may func(*tx) error) error {
	return db.remove(ctx, repo, audit.Event{Action: "manifest.delete", Digest: d.String()}, func(t *tx, p place, e *audit.Event) error {
		// The order of locks that collection has: what the project uses comes first.
		if err := mayLack(lockUsage(t, p.project)); err != nil {
			return err
		}
		if err := may(t); err != nil {
			return err
		}
		if _, err := t.exec(`DELETE FROM tags WHERE repository_id = $1 AND digest = $2`, p.id, d.String()); err != nil {
			return err
		}
		var err error
		e.Bytes, err = db.takeOut(t, p, d)
		return err
	})
}

// takeOut removes a manifest without tags, lets go of what it held, and plans
// the look at its referrers. The caller has locked the project's usage, which
// keeps new referrers away until the end. Errors: ErrNotFound, *ReferencedError.
func (db *DB) takeOut(t *tx, p place, d oci.Digest) (size int64, err error) {
	if err := forgetReview(t, p.id, d); err != nil {
		return 0, err
	}
	if err := unheld(t, "manifest_references", p.id, d); err != nil {
		return 0, err
	}
	if err := db.letGo(t, p.id, d); err != nil {
		return 0, err
	}
	err = t.queryRow(`DELETE FROM manifests WHERE repository_id = $1 AND digest = $2 RETURNING size`, p.id, d.String()).Scan(&size)
	if err != nil {
		return 0, err
	}
	if err := db.planReferrers(t, p.id, d); err != nil {
		return 0, err
	}
	return size, shrink(t, p.project, size)
}

// letGo drops a manifest's references and plans the look at what it held.
func (db *DB) letGo(t *tx, repo string, manifest oci.Digest) error {
	// Also those that are planned: a look that is under way must wait for this.
	if _, err := t.exec(`UPDATE links SET review_at = COALESCE(review_at, $3) WHERE repository_id = $1
		AND digest IN (SELECT digest FROM blob_references WHERE repository_id = $1 AND manifest = $2)`,
		repo, manifest.String(), db.millis()); err != nil {
		return err
	}
	if err := db.planChildren(t, repo, manifest); err != nil {
		return err
	}
	for _, query := range [...]string{
		`DELETE FROM blob_references WHERE repository_id = $1 AND manifest = $2`,
		`DELETE FROM manifest_references WHERE repository_id = $1 AND manifest = $2`,
		`DELETE FROM pending_references WHERE repository_id = $1 AND manifest = $2`,
	} {
		if _, err := t.exec(query, repo, manifest.String()); err != nil {
			return err
		}
	}
	return nil
}

// DeleteBlob removes a repository's link to a blob, and the blob with its last
// link. Errors: ErrNoRepository, ErrNotFound, *ReferencedError.
func (db *DB) DeleteBlob(ctx context.Context, repo string, d oci.Digest) error {
	return db.remove(ctx, repo, audit.Event{Action: "blob.delete", Digest: d.String()}, func(t *tx, p place, _ *audit.Event) error {
		if err := mayLack(lockUsage(t, p.project)); err != nil {
			return err
		}
		if err := unheld(t, "blob_references", p.id, d); err != nil {
			return err
		}
		return db.unlink(t, p, d, math.MaxInt64)
	})
}

// unlink removes a link that nothing holds and no client was told of since the
// given time; with the last one the blob goes and its bytes become a dead
// object. Errors: ErrNotFound.
func (db *DB) unlink(t *tx, p place, d oci.Digest, unseen int64) error {
	if err := found(t.exec(`DELETE FROM links WHERE repository_id = $1 AND digest = $2 AND seen_at <= $3`, p.id, d.String(), unseen)); err != nil {
		return err
	}
	if err := dropBlob(t, p.project, d); err != nil {
		return err
	}
	// Of two that remove the last two links at once, one must see both gone.
	if err := t.lock(`SELECT digest FROM blobs WHERE digest = $1`, d.String()); err != nil {
		return err
	}
	var o DeadObject
	err := t.queryRow(`DELETE FROM blobs WHERE digest = $1
		AND NOT EXISTS (SELECT 1 FROM links WHERE digest = $1) RETURNING key, size`, d.String()).Scan(&o.Key, &o.Bytes)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return bury(t, o, db.millis())
}

// remove runs fn in a transaction with an existing repository, without its
// quotas, and records it as the event, which fn may complete.
func (db *DB) remove(ctx context.Context, repo string, e audit.Event, fn func(t *tx, p place, e *audit.Event) error) error {
	return db.update(ctx, func(t *tx) error {
		var p place
		err := t.queryRow(`SELECT id, project_id FROM repositories WHERE name = $1`, repo).Scan(&p.id, &p.project)
		if errors.Is(err, ErrNotFound) {
			return ErrNoRepository
		}
		if err != nil {
			return err
		}
		if err := fn(t, p, &e); err != nil {
			return err
		}
		return db.record(t, ctx, func(to *audit.Event) {
			to.Action, to.Repository, to.Status = e.Action, repo, 202
			to.Reference, to.Digest, to.Bytes = e.Reference, e.Digest, e.Bytes
		})
	})
}

// unheld fails when rows of table say that a manifest holds d.
func unheld(t *tx, table, repo string, d oci.Digest) error {
	holders, err := t.strings(`SELECT manifest FROM `+table+`
		WHERE repository_id = $1 AND digest = $2 ORDER BY manifest LIMIT $3`, repo, d.String(), maxHolders)
	if err != nil || len(holders) == 0 {
		return err
	}
	by := make([]oci.Digest, len(holders))
	for i, h := range holders {
		by[i] = oci.Digest(h)
	}
	return &ReferencedError{by}
}

// found turns "no row was deleted" into ErrNotFound.
func found(n int64, err error) error {
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}
