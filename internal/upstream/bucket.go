package upstream

import (
	"context"
	"math"
	"sync"
	"time"
)

// portion is how many bytes of a body are read at once where the bandwidth is
// bounded.
const portion = 32 << 10

// bucket bounds what is used in any time. Who uses more than is in it waits
// until it has come in.
type bucket struct {
	queue *queue // nil: anybody may wait

	mu     sync.Mutex
	rate   float64 // that come in, a second
	most   float64 // that it holds
	level  float64 // below 0: what those who wait are owed
	filled time.Time
}

// requestRate lets n requests through in any time of per: some at once, and the
// others as time goes by. nil for no bound.
func requestRate(n int, per time.Duration, q *queue) *bucket {
	if n <= 0 {
		return nil
	}
	most := max(1, n/10)
	return &bucket{queue: q, rate: float64(n-most+1) / per.Seconds(), most: float64(most), level: float64(most), filled: time.Now()}
}

// byteRate lets n bytes through in a second. nil for no bound.
func byteRate(n int64) *bucket {
	if n <= 0 {
		return nil
	}
	most := max(portion, n/10)
	return &bucket{rate: float64(n), most: float64(most), level: float64(most), filled: time.Now()}
}

// wait uses n, and waits until it has come in. Errors: TooManyRequests where too
// many wait, and ctx's, for which nothing is used.
func (b *bucket) wait(ctx context.Context, n int64) error {
	if b == nil || n == 0 {
		return nil
	}
	joined := false
	b.mu.Lock()
	now := time.Now()
	b.level = min(b.most, b.level+b.rate*now.Sub(b.filled).Seconds())
	b.filled = now
	owed := float64(n) - b.level
	delay := time.Duration(math.Ceil(owed / b.rate * float64(time.Second)))
	if owed > 0 && b.queue != nil {
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
