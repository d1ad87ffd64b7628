// Package recorder writes the part of the audit trail that no transaction
// writes along with what it does: pulls, refusals, log-ins. Nobody waits for
// it: what it cannot keep up with is left out of the trail, counted, and noted
// in the trail itself.
package recorder

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/registry"
)

// Store keeps events; all of a call or none.
type Store interface {
	AppendAudit(ctx context.Context, events []audit.Event) error
}

// Options of New. Zero values are replaced by defaults.
type Options struct {
	Log *slog.Logger // nil: nothing is logged
	// Status is the HTTP status that a refusal's code is answered with.
	// Required by Observer.
	Status func(registry.Code) int
	Queue  int           // events that may wait; 8192
	Batch  int           // events of one transaction at most; 512
	Delay  time.Duration // how long an event may wait for others; 250 ms
}

// Statuses of HTTP, which this package does not speak.
const (
	statusOK              = 200
	statusTooManyRequests = 429
	statusUnavailable     = 503
)

// logEvery is the pause between two log lines about one trouble.
const logEvery = time.Minute

// Recorder takes events and writes them in batches. It is safe for concurrent
// use.
type Recorder struct {
	store Store
	o     Options
	queue chan audit.Event

	mu     sync.RWMutex // held for reading while something is queued
	closed bool

	dropped atomic.Int64 // in all
	unnoted atomic.Int64 // of them, those that the trail does not mention yet
	logged  atomic.Int64 // when the log last told of it, in Unix nanoseconds

	repeats repeats
	stop    chan struct{}
	giveUp  context.CancelFunc
	done    chan struct{}
	given   int64 // up, by the writing goroutine, before done
}

// New starts a recorder; Close ends it.
func New(store Store, o Options) *Recorder {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Queue <= 0 {
		o.Queue = 8192
	}
	if o.Batch <= 0 {
		o.Batch = 512
	}
	if o.Delay <= 0 {
		o.Delay = 250 * time.Millisecond
	}
	ctx, giveUp := context.WithCancel(context.Background())
	r := &Recorder{
		store: store, o: o, queue: make(chan audit.Event, o.Queue),
		stop: make(chan struct{}), giveUp: giveUp, done: make(chan struct{}),
	}
	go r.run(ctx)
	return r
}

// Record takes an event; one without a time happened now. It never waits: where
// the queue is full, or after Close, the event is dropped.
func (r *Recorder) Record(e audit.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.closed {
		r.drop(1, "the registry is ending")
		return
	}
	select {
	case r.queue <- e:
	default:
		r.drop(1, "the queue is full")
	}
}

// Dropped counts the events that are missing in the trail.
func (r *Recorder) Dropped() int64 { return r.dropped.Load() }

// Queued tells how many events wait, and how many could.
func (r *Recorder) Queued() (n, most int) { return len(r.queue), cap(r.queue) }

func (r *Recorder) drop(n int64, why string) {
	r.unnoted.Add(n)
	total := r.dropped.Add(n)
	now, last := time.Now().UnixNano(), r.logged.Load()
	if now-last >= int64(logEvery) && r.logged.CompareAndSwap(last, now) {
		r.o.Log.Error("events are missing in the audit trail", "why", why, "missing", total)
	}
}

// Close writes what is queued and ends the recorder. When ctx ends before that,
// the rest is dropped, and the error says how much. Close once.
func (r *Recorder) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	close(r.stop)
	defer context.AfterFunc(ctx, r.giveUp)()
	<-r.done
	r.giveUp()
	if r.given > 0 {
		return fmt.Errorf("%d events could not be written to the audit trail: %w", r.given, context.Cause(ctx))
	}
	return nil
}
