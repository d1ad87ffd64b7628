package hosted

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/meta"
)

// collectBatch bounds one transaction of collection.
const collectBatch = 200

// Collected counts what one run of Collect removed.
type Collected struct {
	Projects int // deleted projects, with all that they had
	Uploads  int // expired upload sessions
	Links    int // blobs taken out of repositories that held them for nothing
	Objects  int // objects whose bytes were freed
}

// Collect removes what is due: projects that cannot be restored any more,
// expired upload sessions, links that nothing holds, and the bytes of dead
// objects. It goes from queue to queue, never over the store, in short
// transactions beside running requests.
func (r *Registry) Collect(ctx context.Context) (c Collected, err error) {
	now := time.Now()
	err = errors.Join(
		drain(ctx, func() (int, error) {
			purged, rows, err := r.db.PurgeProjects(ctx, now.Add(-r.o.ProjectRetention), collectBatch)
			c.Projects += purged
			return rows, err
		}),
		drain(ctx, func() (int, error) {
			n, err := r.db.ExpireUploads(ctx, now.Add(-r.o.UploadExpiry), collectBatch)
			c.Uploads += n
			return n, err
		}),
		drain(ctx, func() (int, error) {
			removed, seen, err := r.db.CollectLinks(ctx, now.Add(-r.o.UnreferencedAge), collectBatch)
			c.Links += removed
			return seen, err
		}),
		drain(ctx, func() (int, error) {
			dead, err := r.db.DeadObjects(ctx, time.Now(), collectBatch) // what has just died too
			if err != nil {
				return 0, err
			}
			freed, err := r.free(ctx, dead...)
			c.Objects += freed
			return freed, err
		}),
	)
	return c, err
}

// drain repeats a step until it finds less than a batch to do.
func drain(ctx context.Context, step func() (int, error)) error {
	for {
		n, err := step()
		if err != nil || n < collectBatch {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// retryDead is when an object that could not be deleted is tried again: it must
// not stand in the way of others.
const retryDead = time.Hour

// free deletes the bytes of dead objects and then the notes of them. What
// fails stays noted for a later collection.
func (r *Registry) free(ctx context.Context, dead ...meta.DeadObject) (freed int, err error) {
	ctx = context.WithoutCancel(ctx)
	var gone, left []string
	var errs []error
	for _, o := range dead {
		var failure error
		if o.Unsealed {
			failure = r.blobs.Abort(ctx, o.Key, blob.State{Size: o.Size, Opaque: o.State})
		} else {
			failure = r.blobs.Delete(ctx, o.Key)
		}
		if failure == nil {
			gone = append(gone, o.Key)
			continue
		}
		left = append(left, o.Key)
		if len(errs) == 0 { // one of them says enough
			errs = append(errs, fmt.Errorf("free the bytes of object %s: %w", o.Key, failure))
		}
	}
	errs = append(errs, r.db.ForgetDead(ctx, gone...), r.db.DeferDead(ctx, retryDead, left...))
	return len(gone), errors.Join(errs...)
}
