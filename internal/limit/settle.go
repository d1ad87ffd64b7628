package limit

import (
	"context"
	"time"
)

const (
	settleEvery = time.Second
	settlers    = 16 // exchanges at once: the database commits them together
	pruneEvery  = time.Hour
	pruneAge    = 25 * time.Hour // when a row counts for no window any more
	pruneBatch  = 500
)

// Run settles what is due, forgets what is not used any more and removes stale
// rows, until ctx ends.
func (l *Limiter) Run(ctx context.Context) {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for pruned := (time.Time{}); ; {
		if now := l.now(); now.Sub(pruned) >= pruneEvery {
			pruned = now
			l.prune(ctx, now.Add(-pruneAge))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.settle(ctx)
		}
	}
}

func (l *Limiter) prune(ctx context.Context, before time.Time) {
	for ctx.Err() == nil {
		n, err := l.store.PruneRates(ctx, before, pruneBatch)
		if err != nil && ctx.Err() == nil {
			l.warn("stale usage stays for another hour", err)
		}
		if err != nil || n < pruneBatch {
			return
		}
	}
}

// settle tells the store what is due of all buckets, and waits for it.
func (l *Limiter) settle(ctx context.Context) {
	if l.resting(l.now()) {
		return
	}
	l.each(ctx, func(b *bucket) {
		now := l.now()
		b.roll(now)
		idle := b.idle(now)
		switch {
		case b.trip != nil: // it takes what is due along
		case b.owing(idle):
			l.begin(b, nil, idle)
		case b.left == 0 && now.Sub(b.asked) >= quiet && !now.Before(b.refused.until):
			b.gone = true
		}
	})
}

// Close gives back all that is left and waits until the store has taken it, or
// ctx ends. Requests that come later find everything as after a crash.
func (l *Limiter) Close(ctx context.Context) {
	l.each(ctx, func(b *bucket) {
		for b.trip != nil && ctx.Err() == nil {
			trip := b.trip
			b.mu.Unlock()
			wait(ctx, trip)
			b.mu.Lock()
		}
		b.roll(l.now())
		if b.trip == nil && b.owing(true) {
			l.begin(b, nil, true)
		}
	})
}

// each calls do with every bucket, which is locked, waits for the exchanges
// that are under way then and takes the buckets that are gone out of the table.
func (l *Limiter) each(ctx context.Context, do func(*bucket)) {
	var trips []<-chan struct{}
	for _, b := range l.list() {
		b.mu.Lock()
		do(b)
		trip, gone := b.trip, b.gone
		b.mu.Unlock()
		if gone {
			l.forget(b)
		}
		if trip == nil {
			continue
		}
		if trips = append(trips, trip); len(trips) > settlers {
			wait(ctx, trips[0])
			trips = trips[1:]
		}
	}
	for _, trip := range trips {
		wait(ctx, trip)
	}
}

// wait waits for an exchange, if there is one.
func wait(ctx context.Context, trip <-chan struct{}) {
	if trip == nil {
		return
	}
	select {
	case <-trip:
	case <-ctx.Done():
	}
}
