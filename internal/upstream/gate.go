package upstream

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-registry/berth/internal/registry"
)

// queueRetry is when to come back for who finds the queue full.
const queueRetry = 5 * time.Second

// queue counts who waits, whatever for.
type queue struct {
	most    int64
	waiting atomic.Int64
}

// join reports false where too many wait. Who joined leaves.
func (q *queue) join() bool {
	if q.waiting.Add(1) > q.most {
		q.leave()
		return false
	}
	return true
}

func (q *queue) leave() { q.waiting.Add(-1) }

func (q *queue) full(wait time.Duration) error {
	e := registry.Errorf(registry.TooManyRequests, "", "%d requests for the upstream registry are waiting already; wait and try again", q.most)
	e.Limit = &registry.Limit{RetryAfter: max(wait, queueRetry)}
	return e
}

// gate bounds the requests under way. Those that may be long, the bulk, never
// take all places: a look at a tag is not to wait for a layer.
type gate struct {
	queue *queue

	mu       sync.Mutex
	most     int
	mostBulk int
	in       int
	inBulk   int
	waiting  []*waiter // in order of arrival
}

type waiter struct {
	bulk  bool
	enter chan struct{} // closed when it has its place
}

func newGate(most int, q *queue) *gate {
	return &gate{queue: q, most: most, mostBulk: max(1, most-max(1, most/8))}
}

// enter waits for a place, in order of arrival. leave gives it back. Errors:
// TooManyRequests where too many wait, and ctx's.
func (g *gate) enter(ctx context.Context, bulk bool) (leave func(), err error) {
	g.mu.Lock()
	leave = sync.OnceFunc(func() { g.leave(bulk) })
	if g.fits(bulk) { // and so would any who waits: it has been let in
		g.take(bulk)
		g.mu.Unlock()
		return leave, nil
	}
	if !g.queue.join() {
		g.mu.Unlock()
		return nil, g.queue.full(0)
	}
	defer g.queue.leave()
	w := &waiter{bulk: bulk, enter: make(chan struct{})}
	g.waiting = append(g.waiting, w)
	g.mu.Unlock()
	select {
	case <-w.enter:
		return leave, nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	i := slices.Index(g.waiting, w)
	if i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
	}
	g.mu.Unlock()
	if i < 0 { // it got its place meanwhile
		leave()
	}
	return nil, context.Cause(ctx)
}

func (g *gate) fits(bulk bool) bool {
	return g.in < g.most && (!bulk || g.inBulk < g.mostBulk)
}

func (g *gate) take(bulk bool) {
	g.in++
	if bulk {
		g.inBulk++
	}
}

func (g *gate) leave(bulk bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free(bulk)
}

// free gives a place to who has waited longest of those who may have it.
func (g *gate) free(bulk bool) {
	g.in--
	if bulk {
		g.inBulk--
	}
	g.waiting = slices.DeleteFunc(g.waiting, func(w *waiter) bool {
		if !g.fits(w.bulk) {
			return false
		}
		g.take(w.bulk)
		close(w.enter)
		return true
	})
}

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.in
}
