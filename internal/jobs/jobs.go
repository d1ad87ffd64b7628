// Package jobs does work again and again, once in the whole fleet at a time:
// every replica runs a Runner, and a leased row says whose turn it is. Leases
// keep replicas from doing the same twice; they protect no data. What a job
// does must stand being done by two for a moment, and being cut off anywhere.
package jobs

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/meta"
)

// Job is work that is done again and again.
type Job struct {
	Name  string
	Every time.Duration // between the end of a run and the next one
	// Run does the work. Its context ends when the lease is lost, or the runner
	// stops; Run then soon returns an error. The result is kept as JSON, also
	// beside an error. Report tells of progress meanwhile.
	Run func(context.Context) (result any, err error)
}

// Store keeps the jobs' rows; *meta.DB is one.
type Store interface {
	Jobs(ctx context.Context) ([]meta.Job, error)
	LeaseJob(ctx context.Context, name string, every, ttl time.Duration) (meta.JobLease, error)
	RenewJob(ctx context.Context, name string, version int64, ttl time.Duration, progress string) error
	FinishJob(ctx context.Context, name string, version int64, end meta.JobEnd) error
	ReleaseJob(ctx context.Context, name string, version int64) error
	RequestJob(ctx context.Context, name string) (version int64, err error)
}

// Options of New. Store and Jobs are required.
type Options struct {
	Store Store
	Jobs  []Job
	Log   *slog.Logger // nil: none
	// OnRun is told of each run that came to an end here, or was lost; nil: nobody.
	OnRun func(name string, took time.Duration, err error)
	// Lease is how long a run that is not heard of counts as under way. 0: 30 s.
	Lease time.Duration
	// Poll is how often the rows are looked at, about. 0: 2 s.
	Poll time.Duration
	// Stop is how long the end of Run waits for those under way. 0: 10 s.
	Stop time.Duration
}

// Runner does jobs when they are due and no other replica does.
type Runner struct {
	o    Options
	wake chan struct{}

	mu      sync.Mutex
	running map[string]chan struct{} // by name; closed at the end
}

// New returns a Runner. The caller runs it, and closes the store after that.
func New(o Options) *Runner {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OnRun == nil {
		o.OnRun = func(string, time.Duration, error) {}
	}
	for _, d := range []struct {
		of    *time.Duration
		value time.Duration
	}{{&o.Lease, 30 * time.Second}, {&o.Poll, 2 * time.Second}, {&o.Stop, 10 * time.Second}} {
		if *d.of == 0 {
			*d.of = d.value
		}
	}
	return &Runner{o: o, wake: make(chan struct{}, 1), running: map[string]chan struct{}{}}
}

// Run does jobs until ctx ends. Those under way may then stop for a while; their
// leases are given back at once, for another replica to go on.
func (r *Runner) Run(ctx context.Context) {
	blind := false
	for ctx.Err() == nil {
		rows, err := r.o.Store.Jobs(ctx)
		if failed := err != nil && ctx.Err() == nil; failed != blind {
			if blind = failed; failed {
				r.o.Log.Warn("no background jobs are done until the database answers again", "error", err)
			} else {
				r.o.Log.Info("background jobs are done again")
			}
		}
		if err == nil {
			r.startDue(ctx, rows)
		}
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-time.After(r.o.Poll*3/4 + rand.N(r.o.Poll/2)): // replicas do not ask in step
		}
	}
	r.await()
}

// Request has a job done now, and once more where it is under way: a run whose
// version is above the one returned.
func (r *Runner) Request(ctx context.Context, name string) (version int64, err error) {
	version, err = r.o.Store.RequestJob(ctx, name)
	r.poke()
	return version, err
}

// Try does one of the runner's jobs now if it is due and nobody else does it,
// and reports whether it did.
func (r *Runner) Try(ctx context.Context, name string) (done bool, err error) {
	i := slices.IndexFunc(r.o.Jobs, func(j Job) bool { return j.Name == name })
	if i < 0 {
		return false, errors.New("no such job: " + name)
	}
	ended, err := r.start(ctx, r.o.Jobs[i])
	if ended == nil {
		return false, err
	}
	<-ended
	return true, nil
}

func (r *Runner) poke() {
	select {
	case r.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// startDue leases and starts the jobs that are due as their rows say.
func (r *Runner) startDue(ctx context.Context, rows []meta.Job) {
	byName := map[string]meta.Job{}
	for _, row := range rows {
		byName[row.Name] = row
	}
	for _, j := range r.o.Jobs {
		row, known := byName[j.Name]
		if known && !due(row, j.Every, time.Now()) {
			continue
		}
		if _, err := r.start(ctx, j); err != nil && ctx.Err() == nil {
			r.o.Log.Warn("a background job could not be begun and will be tried again", "job", j.Name, "error", err)
		}
	}
}

// due is meta.DB.LeaseJob's condition: what it would refuse need not be asked for.
func due(row meta.Job, every time.Duration, now time.Time) bool {
	early := row.Finished > 0 && row.Failures == 0 && !now.Before(row.FinishedAt.Add(every))
	return !now.Before(row.LeaseUntil) && (!now.Before(row.DueAt) || early)
}

// start leases a job and runs it beside the caller, until ended is closed. That
// is nil where the job is not due or under way.
func (r *Runner) start(ctx context.Context, j Job) (ended chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running[j.Name] != nil {
		return nil, nil
	}
	asked := time.Now()
	l, err := r.o.Store.LeaseJob(ctx, j.Name, j.Every, r.o.Lease)
	if errors.Is(err, meta.ErrJobLeased) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ended = make(chan struct{})
	r.running[j.Name] = ended
	go func() {
		r.run(ctx, j, l, asked)
		r.mu.Lock()
		delete(r.running, j.Name)
		r.mu.Unlock()
		close(ended)
		r.poke() // another run may have been asked for meanwhile
	}()
	return ended, nil
}

// await waits for the runs under way, for as long as the end may take.
func (r *Runner) await() {
	r.mu.Lock()
	under := maps.Clone(r.running)
	r.mu.Unlock()
	limit := time.After(r.o.Stop)
	for _, name := range slices.Sorted(maps.Keys(under)) {
		select {
		case <-under[name]:
		case <-limit:
			r.o.Log.Error("a background job did not stop; another replica takes it over when its lease ends", "job", name, "waited", r.o.Stop)
			return
		}
	}
}
