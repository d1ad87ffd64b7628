package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/berth-registry/berth/internal/meta"
)

// ErrLost ends the context of a run whose lease was lost, or could not be
// renewed in time: another replica may be at it.
var ErrLost = errors.New("the job's lease was lost")

const (
	maxProgress = 16 << 10        // bytes of a result or of progress
	firstRetry  = 5 * time.Second // after a failure; doubled with each one more
)

// progressKey is the key of what a run reports.
type progressKey struct{}

// Report notes how far the run is that ctx belongs to, as JSON, for those who
// look at the job's row. Elsewhere it does nothing.
func Report(ctx context.Context, progress any) {
	if p, ok := ctx.Value(progressKey{}).(*atomic.Pointer[string]); ok {
		if text, err := encode(progress); err == nil {
			p.Store(&text)
		}
	}
}

func encode(v any) (string, error) {
	if v == nil {
		return "", nil
	}
	text, err := json.Marshal(v)
	if err == nil && len(text) > maxProgress {
		err = fmt.Errorf("it has %d bytes, at most %d are kept", len(text), maxProgress)
	}
	return string(text), err
}

// run does a job under a lease that was asked for at a time, and gives it back.
func (r *Runner) run(ctx context.Context, j Job, l meta.JobLease, asked time.Time) {
	began := time.Now()
	h := r.hold(ctx, j.Name, l.Version, asked)
	result, err := protect(h.ctx, j.Run)
	cut := h.ctx.Err() != nil && err != nil
	lost := errors.Is(context.Cause(h.ctx), ErrLost)
	h.stop()
	if cut {
		r.release(j.Name, l.Version)
		if !lost {
			return // the runner stops; the job is due elsewhere
		}
		err = fmt.Errorf("%w: %w", ErrLost, err)
		r.o.Log.Warn("a background job lost its lease; another replica may have taken it over", "job", j.Name, "error", err)
	} else {
		err = r.finish(h, j, l, result, err)
	}
	r.o.OnRun(j.Name, time.Since(began), err)
}

// protect makes a panic of a job its error.
func protect(ctx context.Context, run func(context.Context) (any, error)) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a background job: %v\n%s", p, debug.Stack())
		}
	}()
	return run(ctx)
}

// finish notes how a run ended and returns why it failed, nil where it did not.
func (r *Runner) finish(h *holding, j Job, l meta.JobLease, result any, failure error) error {
	end := meta.JobEnd{Next: j.Every}
	var err error
	if end.Result, err = encode(result); err != nil {
		end.Result = ""
		failure = errors.Join(failure, fmt.Errorf("the job's result: %w", err))
	}
	if failure != nil {
		r.o.Log.Error("a background job failed and will be tried again", "job", j.Name, "error", failure)
		end.Failure = failure.Error()
		end.Next = min(j.Every, firstRetry<<min(l.Failures, 20))
	}
	if err := r.note(h, j.Name, l.Version, end); err != nil {
		r.o.Log.Warn("the end of a background job could not be noted; it will be done again", "job", j.Name, "error", err)
	}
	return failure
}

// note writes down how a run ended. What fails is tried again for as long as
// the lease stands, and for a moment more: the row itself knows who holds it.
func (r *Runner) note(h *holding, name string, version int64, end meta.JobEnd) error {
	until := h.until()
	if soon := time.Now().Add(r.o.Stop / 2); until.Before(soon) {
		until = soon
	}
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	for {
		err := r.o.Store.FinishJob(ctx, name, version, end)
		if err == nil || errors.Is(err, meta.ErrJobLeased) || errors.Is(err, meta.ErrClosed) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(r.o.Lease / 30):
		}
	}
}

// release gives a lease back that may be lost. If that fails it runs out.
func (r *Runner) release(name string, version int64) {
	ctx, cancel := context.WithTimeout(context.Background(), r.o.Stop/2)
	defer cancel()
	err := r.o.Store.ReleaseJob(ctx, name, version)
	if err != nil && !errors.Is(err, meta.ErrJobLeased) {
		r.o.Log.Warn("the lease of a background job could not be given back and runs out by itself", "job", name, "error", err)
	}
}

// holding is a lease that renews itself until it is stopped or lost. Its
// holder's own clock ends it too: a process that was frozen, or a database that
// is slow to answer, must not go on where another may have taken over.
type holding struct {
	r        *Runner
	name     string
	version  int64
	ctx      context.Context // of the run
	end      context.CancelCauseFunc
	expiry   *time.Timer
	asked    atomic.Pointer[time.Time] // when the lease was last prolonged
	progress atomic.Pointer[string]
	quit     chan struct{}
}

// hold keeps a lease that was asked for at a time.
func (r *Runner) hold(ctx context.Context, name string, version int64, asked time.Time) *holding {
	h := &holding{r: r, name: name, version: version, quit: make(chan struct{})}
	h.progress.Store(new(string))
	h.asked.Store(&asked)
	h.ctx, h.end = context.WithCancelCause(context.WithValue(ctx, progressKey{}, &h.progress))
	h.expiry = time.AfterFunc(time.Until(h.until()), func() { h.end(ErrLost) })
	go h.keep()
	return h
}

// until is when the run ends unless its lease is prolonged: well before others
// may take over, so that it has ended by then.
func (h *holding) until() time.Time { return h.asked.Load().Add(h.r.o.Lease * 5 / 6) }

func (h *holding) stop() {
	close(h.quit)
	h.expiry.Stop()
	h.end(nil)
}

// keep prolongs the lease when a third of it is over, or there is progress to
// tell of; what fails is tried again.
func (h *holding) keep() {
	lease, said := h.r.o.Lease, ""
	tick := time.NewTicker(lease / 15)
	defer tick.Stop()
	for {
		select {
		case <-h.quit:
			return
		case <-h.ctx.Done(): // what is left of the lease is for the end
			return
		case <-tick.C:
		}
		asked, progress := time.Now(), *h.progress.Load()
		if progress == said && asked.Sub(*h.asked.Load()) < lease/3 {
			continue
		}
		err := h.r.o.Store.RenewJob(h.ctx, h.name, h.version, lease, progress)
		switch {
		case err == nil:
			said = progress
			h.asked.Store(&asked)
			h.expiry.Reset(time.Until(h.until()))
		case errors.Is(err, meta.ErrJobLeased):
			h.end(ErrLost)
			return
		}
	}
}
