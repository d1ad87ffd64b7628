package hosted

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

// objects holds the objects of the store against the rows that name them: one
// walk over both, in the order of keys, that reads no bytes. The two are read at
// different moments, so that each difference is looked at again.
func (c *Checker) objects(ctx context.Context) error {
	next, stop := iter.Pull2(c.Blobs.List(ctx, ""))
	defer stop()
	rows := keyRows{db: c.DB}
	object, err, there := next()
	row, more, failed := rows.next(ctx)
	for there || more {
		if err := errors.Join(err, failed, ctx.Err()); err != nil {
			return err
		}
		switch {
		case !more || there && object.Key < row.Key:
			if err := c.unnamed(ctx, object); err != nil {
				return err
			}
			object, err, there = next()
		case !there || row.Key < object.Key:
			if err := c.absent(ctx, row); err != nil {
				return err
			}
			row, more, failed = rows.next(ctx)
		default:
			if err := c.sized(ctx, row, object); err != nil {
				return err
			}
			object, err, there = next()
			row, more, failed = rows.next(ctx)
		}
	}
	return errors.Join(err, failed, ctx.Err())
}

// keyRows goes over the rows that name objects, page by page.
type keyRows struct {
	db    CheckedMetadata
	page  []meta.CheckedKey
	after string
	ended bool
}

func (r *keyRows) next(ctx context.Context) (k meta.CheckedKey, more bool, err error) {
	if len(r.page) == 0 && !r.ended {
		if r.page, err = r.db.CheckKeys(ctx, r.after, checkPage); err != nil {
			return k, false, err
		}
		r.ended = len(r.page) == 0
	}
	if r.ended {
		return k, false, nil
	}
	k, r.page = r.page[0], r.page[1:]
	r.after = k.Key
	return k, true, nil
}

// absent looks at a row whose object was not listed.
func (c *Checker) absent(ctx context.Context, k meta.CheckedKey) error {
	if k.Kind != "blob" {
		return nil // being written, or gone; sessions are looked at by themselves
	}
	defer c.step(meta.Totals{Blobs: 1})
	if k.Damaged {
		return c.damaged(ctx, k)
	}
	rc, err := c.Blobs.Open(ctx, k.Key, 0, min(k.Size, 1))
	switch {
	case err == nil:
		return rc.Close() // sealed since, or listed late
	case errors.Is(err, blob.ErrNotFound):
		return c.blob(ctx, k.Blob(), "its bytes are missing", true)
	}
	return c.blob(ctx, k.Blob(), fmt.Sprintf("its bytes cannot be read: %v", err), false)
}

// sized looks at a row and its object.
func (c *Checker) sized(ctx context.Context, k meta.CheckedKey, o blob.Object) error {
	if k.Kind != "blob" {
		return nil
	}
	defer c.step(meta.Totals{Blobs: 1})
	if _, err := oci.ParseDigest(k.Digest.String()); err != nil {
		return c.blob(ctx, k.Blob(), fmt.Sprintf("its row is corrupt: %v", err), false)
	}
	switch {
	case k.Damaged:
		return c.damaged(ctx, k)
	case o.Size < k.Size && c.endsAt(ctx, k.Key, o.Size):
		return c.blob(ctx, k.Blob(), fmt.Sprintf("%d bytes are stored, not %d", o.Size, k.Size), true)
	case o.Size > k.Size:
		return c.blob(ctx, k.Blob(), fmt.Sprintf("object %s has %d bytes, its blob %d", k.Key, o.Size, k.Size), false)
	}
	return ctx.Err()
}

func (c *Checker) damaged(ctx context.Context, k meta.CheckedKey) error {
	return c.blob(ctx, k.Blob(), "its bytes were found damaged earlier; push it again", false)
}

// unnamed looks at an object that no row was listed for.
func (c *Checker) unnamed(ctx context.Context, o blob.Object) error {
	if time.Since(o.Modified) < orphanAge {
		return nil
	}
	_, _, err := c.DB.KeyOwner(ctx, o.Key)
	if !errors.Is(err, meta.ErrNotFound) {
		return err // its row came, or moved from one table to another
	}
	return c.orphan(ctx, o)
}
