package hosted

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/meta"
)

// How much of each queue is looked at before the next pause. Rows are changed
// in transactions that are shorter still.
const (
	rowBatch  = 25
	planBatch = 200 // which one statement changes
	deadBatch = 250
)

// Collected counts what a collection removed.
type Collected struct {
	Projects  int   `json:"projects"`  // deleted projects, with all that they had
	Uploads   int   `json:"uploads"`   // expired upload sessions
	Manifests int   `json:"manifests"` // without a tag
	Referrers int   `json:"referrers"` // manifests whose subject is absent
	Links     int   `json:"links"`     // blobs taken out of repositories that held them for nothing
	Objects   int   `json:"objects"`   // whose bytes were freed
	Swept     int   `json:"swept"`     // pieces that crashes left in the blob store
	Bytes     int64 `json:"bytes"`     // of the objects
}

// Add counts what another run, or a part of one, removed.
func (c *Collected) Add(o Collected) {
	c.Projects += o.Projects
	c.Uploads += o.Uploads
	c.Manifests += o.Manifests
	c.Referrers += o.Referrers
	c.Links += o.Links
	c.Objects += o.Objects
	c.Swept += o.Swept
	c.Bytes += o.Bytes
}

// Collect removes what is due: projects that cannot be restored any more,
// expired upload sessions, manifests and links that nothing holds, and the bytes
// of dead objects. It goes from queue to queue, by turns, never over the store, in short
// transactions beside running requests, and no faster than Options.Rate. What
// fails by itself is put off and does not stop the rest. Several at a time, in
// one process or more, are safe, and no faster.
func (r *Registry) Collect(ctx context.Context) (Collected, error) {
	c := &collection{Registry: r, pace: pace{rate: r.o.Rate, began: time.Now()}}
	err := errors.Join(c.drain(ctx, []*queue{
		{batch: rowBatch, step: c.projects},
		{batch: rowBatch, step: c.uploads},
		{batch: planBatch, step: c.plan},
		{batch: rowBatch, step: c.manifests},
		{batch: rowBatch, step: c.links},
		{batch: deadBatch, step: c.objects},
	}), c.sweep(ctx))
	return c.sum, err
}

// collection is one run of Collect.
type collection struct {
	*Registry
	sum  Collected
	pace pace
}

// queue is what is collected in batches: step looks at up to n rows.
type queue struct {
	batch int
	step  func(ctx context.Context, n int) (rows int, got Collected, err error)
	errs  []error
	empty bool // when it was last looked at
}

const (
	// turnBatches is how much of one queue is done before the next has its turn: a
	// long one must not keep the others waiting, least of all where runs are often
	// cut off.
	turnBatches = 4
	// maxFailures bounds how often one queue may fail in a run.
	maxFailures = 10
)

// drain takes the queues by turns until all are empty: what one removes may be
// due in the next.
func (c *collection) drain(ctx context.Context, queues []*queue) error {
	for busy := true; busy; {
		busy = false
		for _, q := range queues {
			if err := c.turn(ctx, q); err != nil {
				return errors.Join(append(failures(queues), err)...)
			}
			busy = busy || !q.empty
		}
	}
	return errors.Join(failures(queues)...)
}

func failures(queues []*queue) (errs []error) {
	for _, q := range queues {
		errs = append(errs, q.errs...)
	}
	return errs
}

// turn does some batches of a queue, up to one that is not full. Its error is
// that of ctx.
func (c *collection) turn(ctx context.Context, q *queue) error {
	q.empty = len(q.errs) == maxFailures
	for n := 0; n < turnBatches && !q.empty; n++ {
		if err := c.pace.wait(ctx); err != nil {
			return err
		}
		began := time.Now()
		rows, got, err := q.step(ctx, q.batch)
		c.pace.spent(rows, time.Since(began))
		c.count(got)
		if err != nil {
			q.errs = append(q.errs, err)
		}
		q.empty = rows < q.batch || len(q.errs) == maxFailures
	}
	return nil
}

func (c *collection) count(got Collected) {
	if got == (Collected{}) {
		return
	}
	c.sum.Add(got)
	if c.o.OnCollect != nil {
		c.o.OnCollect(got)
	}
}

func (c *collection) projects(ctx context.Context, n int) (int, Collected, error) {
	purged, rows, err := c.db.PurgeProjects(ctx, time.Now().Add(-c.o.ProjectRetention), n)
	return rows, Collected{Projects: purged}, err
}

func (c *collection) uploads(ctx context.Context, n int) (int, Collected, error) {
	expired, err := c.db.ExpireUploads(ctx, time.Now().Add(-c.o.UploadExpiry), n)
	return expired, Collected{Uploads: expired}, err
}

func (c *collection) plan(ctx context.Context, n int) (int, Collected, error) {
	rows, err := c.db.PlanManifests(ctx, c.o.Policy, n)
	return rows, Collected{}, err
}

func (c *collection) manifests(ctx context.Context, n int) (int, Collected, error) {
	got, err := c.db.CollectManifests(ctx, c.o.Retention, time.Now(), n)
	return got.Seen, Collected{Manifests: got.Removed - got.Referrers, Referrers: got.Referrers}, err
}

func (c *collection) links(ctx context.Context, n int) (int, Collected, error) {
	removed, seen, err := c.db.CollectLinks(ctx, time.Now().Add(-c.o.UnreferencedAge), n)
	return seen, Collected{Links: removed}, err
}

func (c *collection) objects(ctx context.Context, n int) (int, Collected, error) {
	dead, err := c.db.DeadObjects(ctx, time.Now().Add(-c.o.DeadAfter), n) // what has just died too
	if err != nil {
		return 0, Collected{}, err
	}
	got, err := c.free(ctx, dead...)
	return len(dead), got, err
}

// sweep removes what crashes left in the blob store, now and then.
func (c *collection) sweep(ctx context.Context) error {
	store, ok := c.blobs.(blob.Sweeper)
	if !ok || ctx.Err() != nil {
		return nil
	}
	mine, err := c.db.ClaimSweep(ctx, c.o.SweepEvery)
	if err != nil || !mine {
		return err
	}
	n, err := store.Sweep(ctx, time.Now().Add(-c.o.SweepAge), func(key string) (bool, error) {
		if err := c.pace.wait(ctx); err != nil {
			return true, err
		}
		c.pace.spent(1, 0)
		return c.beingWritten(ctx, key)
	})
	c.count(Collected{Swept: n})
	if err != nil {
		err = fmt.Errorf("sweep the blob store: %w", err)
	}
	return err
}

// beingWritten reports whether a session writes the object, or one that has
// ended is still to be cleaned up after. Rows come before bytes: a key without
// a row will never have one.
func (r *Registry) beingWritten(ctx context.Context, key string) (bool, error) {
	kind, _, err := r.db.KeyOwner(ctx, key)
	switch {
	case errors.Is(err, meta.ErrNotFound):
		return false, nil
	case err != nil:
		return true, err
	}
	return kind != "blob", nil
}

// restShare is how much longer than it works collection rests: where all are
// slow, it slows down more than they do. A run that goes on for longShift has much
// to catch up with, and rests no longer than it works.
const (
	restShare = 3
	longShift = time.Minute
)

// pace spreads work over time: so many rows a second, and rests in between. A
// rate of 0 is no bound, and no rest.
type pace struct {
	rate  int
	began time.Time
	next  time.Time
}

// wait until more may be done.
func (p *pace) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d := time.Until(p.next)
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (p *pace) spent(rows int, took time.Duration) {
	if p.rate > 0 {
		rest := restShare * took
		if time.Since(p.began) > longShift {
			rest = took
		}
		p.next = time.Now().Add(max(time.Duration(rows)*time.Second/time.Duration(p.rate), rest))
	}
}

// retryDead is when an object that could not be deleted is tried again: it must
// not stand in the way of others.
const retryDead = time.Hour

// retryStore is when that is where the whole blob store does not answer.
const retryStore = time.Minute

// free deletes the bytes of dead objects and then the notes of them. What
// fails stays noted for a later collection.
func (r *Registry) free(ctx context.Context, dead ...meta.DeadObject) (got Collected, err error) {
	if len(dead) == 0 {
		return got, nil
	}
	ctx = context.WithoutCancel(ctx)
	f := freeing{r: r, ctx: ctx}
	var sealed []meta.DeadObject
	for _, o := range dead {
		switch {
		case len(f.later) > 0: // the store does not answer
			f.later = append(f.later, o)
		case o.Unsealed:
			f.each([]meta.DeadObject{o}, r.blobs.Abort(ctx, o.Key, blob.State{Size: o.Size, Opaque: o.State}))
		default:
			sealed = append(sealed, o)
		}
	}
	f.sealed(sealed)
	for _, o := range f.gone {
		got.Objects++
		got.Bytes += o.Bytes
	}
	return got, errors.Join(f.first, r.db.ForgetDead(ctx, keysOf(f.gone)...),
		r.db.DeferDead(ctx, retryDead, keysOf(f.failed)...), r.db.DeferDead(ctx, retryStore, keysOf(f.later)...))
}

// freeing sorts dead objects by what became of them.
type freeing struct {
	r                   *Registry
	ctx                 context.Context
	gone, failed, later []meta.DeadObject
	first               error // one of them says enough
}

// sealed deletes objects with one request or few. Where that fails, some may be
// gone: each is tried by itself, unless the store does not answer at all.
func (f *freeing) sealed(list []meta.DeadObject) {
	if len(list) == 0 {
		return
	}
	if len(f.later) > 0 {
		f.later = append(f.later, list...)
		return
	}
	err := f.r.blobs.Delete(f.ctx, keysOf(list)...)
	if err == nil || len(list) == 1 || errors.Is(err, blob.ErrUnavailable) {
		f.each(list, err)
		return
	}
	for i := range list {
		err := f.r.blobs.Delete(f.ctx, list[i].Key)
		f.each(list[i:i+1], err)
		if errors.Is(err, blob.ErrUnavailable) {
			f.later = append(f.later, list[i+1:]...)
			return
		}
	}
}

func (f *freeing) each(list []meta.DeadObject, err error) {
	switch {
	case err == nil:
		f.gone = append(f.gone, list...)
	case errors.Is(err, blob.ErrUnavailable):
		f.later = append(f.later, list...)
	default:
		f.failed = append(f.failed, list...)
	}
	if err != nil && f.first == nil {
		f.first = fmt.Errorf("free the bytes of object %s: %w", list[0].Key, err)
	}
}

func keysOf(list []meta.DeadObject) (keys []string) {
	for _, o := range list {
		keys = append(keys, o.Key)
	}
	return keys
}
