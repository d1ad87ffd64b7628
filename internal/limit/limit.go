// Package limit enforces the rates of plans: so many requests or bytes within a
// minute, an hour or a day. All servers on one database share what may be used,
// and it outlives them. Its one idea: a server leases a slice of a rate from
// the database, which counts as used from that moment on, and hands it out from
// memory; what is over it gives back.
//
// # What holds
//
// A window is cut in 60 slots (of 1 s, 1 min, 24 min). What the current slot and
// the 60 before it used never exceeds the rate's amount, whoever used it. Any
// period of a window's length lies within 61 slots, so that none has more than
// the amount; what was used comes free up to one slot later than it could.
//
//   - Requests: never more than the amount, with any number of servers, also
//     across crashes and restarts. Fewer by at most what idle leases of other
//     servers hold: a lease is no more than 1/200 of the amount (or one request)
//     and an eighth of what is left, so two servers that race pass at least 99 %.
//   - Bytes are charged when they were transferred, and nothing new begins once
//     the amount is used up. It is exceeded by what is under way at that moment,
//     and by what other servers finished within the last second.
//   - A lease is used in its own slot only. What is left is given back to that
//     slot when the slot ends, when nobody has used it for a quarter of a slot
//     (but a second), when its bucket must make room, and by Close. What a
//     server held that was killed stays counted until its slot slides out of
//     the window.
//   - A refused caller who waits as long as it was told is let pass, unless
//     somebody else uses the same bucket meanwhile. Between refusals the database
//     is asked at most once a second, so that what another server gives back is
//     seen a second late.
//   - A database that fails, or does not answer within five seconds, lets
//     requests pass for a second before it is asked again: limits must not take
//     down a registry whose pulls need no writes. What passed is charged when it
//     answers again. It is logged once a minute.
//   - Usage is not synced to disk: a power cut may forget the last second. Clocks
//     of servers must agree within a slot; a difference widens the bounds by it.
//   - At most 65 536 buckets are held in memory.
package limit

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/directory"
	"github.com/berth-registry/berth/internal/registry"
)

const (
	maxBuckets = 1 << 16
	patience   = 5 * time.Second // with the database
	breather   = time.Second     // between two questions that it failed, or refused, to grant
	quiet      = time.Minute     // between log lines, and until an unused bucket is forgotten
)

// Store keeps usage; *meta.DB is one.
type Store interface {
	// RateUsage returns what SwapRateUsage has stored; version 0: nothing yet.
	RateUsage(ctx context.Context, bucket string) (slots []byte, version int64, err error)
	// SwapRateUsage reports whether the row still had the version and now has
	// slots and another version.
	SwapRateUsage(ctx context.Context, bucket string, slots []byte, version int64) (bool, error)
	// PruneRates removes up to n rows that nobody has changed since before.
	PruneRates(ctx context.Context, before time.Time, n int) (int, error)
}

// Options of New.
type Options struct {
	Log *slog.Logger     // nil: none
	Now func() time.Time // nil: time.Now
}

// Limiter counts what callers use. It is safe for concurrent use.
type Limiter struct {
	dir   *directory.Directory
	store Store
	log   *slog.Logger
	now   func() time.Time

	mu      sync.RWMutex
	buckets map[key]*bucket

	most     int           // of buckets
	patience time.Duration // with the store
	broken   atomic.Int64  // until when the store is left alone, in milliseconds
	logged   atomic.Int64  // when a failure was last logged, in milliseconds
}

// New makes a limiter of the plans that dir knows. Somebody must call Run, and
// Close when the last request has ended.
func New(dir *directory.Directory, store Store, o Options) *Limiter {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Limiter{
		dir: dir, store: store, log: o.Log, now: o.Now,
		buckets: map[key]*bucket{}, most: maxBuckets, patience: patience,
	}
}

// For gives the checks and the observer of one HTTP request by id. However
// often they are asked, they count it once: before, which belongs in front of
// the policy, by address, identity and key; after, which belongs behind it, by
// project and organization. The project is that of the first repository that
// after is asked for; a list of repositories is no project's. A request is also
// refused while a budget of bytes is used up; bytes charges what it transfers.
//
// A refusal is a *registry.Error with the code TooManyRequests and its Limit.
// It does not use anything of the limits that were asked together with it. A
// request that before let pass and the policy refused counts.
func (l *Limiter) For(id auth.Identity) (before, after registry.Check, bytes registry.Observer) {
	r := &request{limiter: l, id: id}
	return r.before, r.after, r.observe
}

// Held tells how many buckets are in memory.
func (l *Limiter) Held() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.buckets)
}

// fail leaves the store alone for a moment, and says so now and then.
func (l *Limiter) fail(err error) {
	l.broken.Store(l.now().Add(breather).UnixMilli())
	l.warn("limits cannot be counted: requests pass and are charged later", err)
}

// resting reports whether the store has failed just now.
func (l *Limiter) resting(now time.Time) bool {
	wait := l.broken.Load() - now.UnixMilli()
	return wait > 0 && wait <= breather.Milliseconds()
}

func (l *Limiter) warn(text string, err error) {
	now, last := l.now().UnixMilli(), l.logged.Load()
	if (last == 0 || now-last >= quiet.Milliseconds()) && l.logged.CompareAndSwap(last, now) {
		l.log.Error(text, "error", err)
	}
}
