package upstream

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/registry"
)

// portion is how many bytes of a body are read at once where the bandwidth is
// bounded.
const portion = 32 << 10

// longestWait is for how long a request waits for its turn. Whose turn is later
// is told when to come back, as is who has no time for it.
const longestWait = 30 * time.Second

// bucket bounds what is used in any time. Who uses more than is in it waits
// until it has come in.
type bucket struct {
	queue   *queue           // nil: anybody may wait, for any time
	longest time.Duration    // that is waited for
	now     func() time.Time // the clock

	mu     sync.Mutex
	rate   float64 // that come in, a second
	most   float64 // that it holds
	level  float64 // below 0: what those who wait are owed
	filled time.Time
}

// requestRate lets n requests through in any time of per: some at once, and the
// others as time goes by. nil for no bound.
func requestRate(n int, per time.Duration, q *queue, now func() time.Time) *bucket {
	if n <= 0 {
		return nil
	}
	most := max(1, n/10)
	return &bucket{queue: q, longest: longestWait, now: now, rate: float64(n-most+1) / per.Seconds(), most: float64(most), level: float64(most), filled: now()}
}

// byteRate lets n bytes through in a second. nil for no bound.
func byteRate(n int64, now func() time.Time) *bucket {
	if n <= 0 {
		return nil
	}
	most := max(portion, n/10)
	return &bucket{now: now, rate: float64(n), most: float64(most), level: float64(most), filled: now()}
}

// wait uses n, and waits until it has come in. Errors: TooManyRequests where too
// many wait, or it would take longer than longestWait or ctx lasts; and ctx's. For
// them nothing is used.
func (b *bucket) wait(ctx context.Context, n int64) error {
	if b == nil || n == 0 {
		return nil
	}
	joined := false
	b.mu.Lock()
	b.fill()
	owed := float64(n) - b.level
	delay := time.Duration(math.Ceil(owed / b.rate * float64(time.Second)))
	if owed > 0 && b.queue != nil {
		if delay > b.patience(ctx) {
			b.mu.Unlock()
			return b.tooLong(delay)
		}
		if joined = b.queue.join(); !joined {
			b.mu.Unlock()
			return b.queue.full(delay)
		}
	}
	b.level -= float64(n)
	b.mu.Unlock()
	if owed <= 0 {
		return nil
	}
	if joined {
		defer b.queue.leave()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	b.level += float64(n)
	b.mu.Unlock()
	return context.Cause(ctx)
}

// fill lets come in what is due; the caller holds mu.
func (b *bucket) fill() {
	now := b.now()
	b.level = min(b.most, b.level+b.rate*now.Sub(b.filled).Seconds())
	b.filled = now
}

// patience is for how long a request may wait for its turn.
func (b *bucket) patience(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return min(b.longest, time.Until(deadline))
	}
	return b.longest
}

func (b *bucket) tooLong(delay time.Duration) error {
	e := registry.Errorf(registry.TooManyRequests, "", "the upstream registry may be asked again in %s only, by the limits set for it; wait and try again", delay.Round(time.Second))
	e.Limit = &registry.Limit{RetryAfter: delay}
	return e
}

// stretch grows from 1 to maxStretch as the second half is used up: what can be
// asked for later is to leave some for what cannot.
func (b *bucket) stretch() int {
	if b == nil {
		return 1
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill()
	left := max(0, 2*b.level/b.most)
	return max(1, int(math.Ceil(maxStretch*(1-left))))
}
