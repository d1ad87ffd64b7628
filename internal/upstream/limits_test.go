package upstream

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// enter wants a place at once.
func enter(t *testing.T, g *gate, bulk bool) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	leave, err := g.enter(ctx, bulk)
	if err != nil {
		t.Fatalf("no place for bulk %v: %v", bulk, err)
	}
	return leave
}

// TestGate: as many as there are places get in, the others in their order when
// somebody leaves; what is long leaves room for what is short.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(16, &queue{most: 100})
		var leave []func()
		for range 14 {
			leave = append(leave, enter(t, g, true))
		}
		var order []string
		come := func(name string, bulk bool) {
			go func() {
				l, err := g.enter(t.Context(), bulk)
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				order = append(order, name)
				leave = append(leave, l)
			}()
			synctest.Wait()
		}
		want := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			if len(order) != len(want) {
				t.Fatalf("%s: in are %q, want %q", what, order, want)
			}
			for i := range want {
				if order[i] != want[i] {
					t.Fatalf("%s: in are %q, want %q", what, order, want)
				}
			}
			order = nil
		}
		come("long 1", true)
		come("long 2", true)
		want("places for the short are left")
		come("short 1", false)
		come("short 2", false)
		want("the short take them", "short 1", "short 2")
		come("short 3", false)
		want("all are taken")
		if n := g.queue.waiting.Load(); n != 3 {
			t.Errorf("%d wait", n)
		}
		once := leave[0]
		once()
		once() // counts once
		want("who came first", "long 1")
		leave[14]() // of a short one: the long are at their bound
		want("who may", "short 3")
		leave[1]()
		want("the last", "long 2")
		for _, l := range leave {
			l()
		}
		if g.in != 0 || g.inBulk != 0 || len(g.waiting) != 0 || g.queue.waiting.Load() != 0 {
			t.Errorf("in the end: %+v", g)
		}
	})
}

// TestGateOfOne: even then both kinds get in.
func TestGateOfOne(t *testing.T) {
	g := newGate(1, &queue{most: 1})
	enter(t, g, true)()
	enter(t, g, false)()
}

// TestFullQueue: who is too many is told, and who leaves makes room.
func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1, &queue{most: 2})
		leave := enter(t, g, false)
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		var wait sync.WaitGroup
		for range 2 {
			wait.Go(func() {
				if _, err := g.enter(ctx, false); !errors.Is(err, gone) {
					t.Errorf("who left gets %v", err)
				}
			})
		}
		synctest.Wait()
		_, err := g.enter(t.Context(), false)
		registrytest.WantCode(t, "one too many", err, registry.TooManyRequests)
		var coded *registry.Error
		if errors.As(err, &coded); coded.Limit == nil || coded.Limit.RetryAfter <= 0 {
			t.Errorf("%+v does not say when to come back", coded)
		}
		cancel(gone)
		wait.Wait()
		wait.Go(func() {
			l, err := g.enter(t.Context(), false)
			if err != nil {
				t.Errorf("there is room again: %v", err)
				return
			}
			l()
		})
		synctest.Wait()
		leave()
		wait.Wait()
		if g.in != 0 || len(g.waiting) != 0 || g.queue.waiting.Load() != 0 {
			t.Errorf("in the end: %+v", g)
		}
	})
}

// TestLeavingAtTheGate: who leaves just when it gets its place gives it back.
func TestLeavingAtTheGate(t *testing.T) {
	for range 20 {
		g := newGate(1, &queue{most: 1})
		enter(t, g, false)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan bool)
		go func() {
			if leave, err := g.enter(ctx, false); err == nil {
				leave()
			}
			close(done)
		}()
		for g.queue.waiting.Load() == 0 {
			runtime.Gosched()
		}
		g.mu.Lock()
		cancel()
		time.Sleep(time.Millisecond) // it has heard, and waits for the lock
		g.free(false)
		g.mu.Unlock()
		<-done
		if g.count() != 0 || g.queue.waiting.Load() != 0 {
			t.Fatalf("in the end: %+v", g)
		}
	}
}

// TestRequestRate: within no time of the length are more let through than are
// allowed, however they come, and no fewer than that when many come.
func TestRequestRate(t *testing.T) {
	for _, n := range []int{1, 2, 10, 100, 2500} {
		synctest.Test(t, func(t *testing.T) {
			const per = time.Minute
			b := requestRate(n, per, &queue{most: 1 << 40})
			var mu sync.Mutex
			var passed []time.Time
			var wait sync.WaitGroup
			for range 3 * n {
				wait.Go(func() {
					if err := b.wait(t.Context(), 1); err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					passed = append(passed, time.Now())
				})
			}
			start := time.Now()
			wait.Wait()
			for i := n; i < len(passed); i++ {
				if gap := passed[i].Sub(passed[i-n]); gap < per-time.Millisecond {
					t.Fatalf("%d of %d passed within %v", n+1, n, gap)
				}
			}
			if took := time.Since(start); took > 3*per+per/2 {
				t.Errorf("%d took %v", 3*n, took)
			}
		})
	}
}

// TestRateQueue: the queue of those who wait for their time is bounded too, and
// who leaves it does not use the time up.
func TestRateQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := requestRate(1, time.Minute, &queue{most: 2})
		if err := b.wait(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		for range 2 {
			wait.Go(func() {
				if err := b.wait(ctx, 1); !errors.Is(err, context.Canceled) {
					t.Errorf("who left gets %v", err)
				}
			})
		}
		synctest.Wait()
		err := b.wait(t.Context(), 1)
		registrytest.WantCode(t, "one too many", err, registry.TooManyRequests)
		var coded *registry.Error
		if errors.As(err, &coded); coded.Limit == nil || coded.Limit.RetryAfter < 2*time.Minute {
			t.Errorf("%+v does not say when it is its turn", coded)
		}
		cancel()
		wait.Wait()
		start := time.Now()
		if err := b.wait(t.Context(), 1); err != nil || time.Since(start) > time.Minute {
			t.Errorf("waited %v for those who left: %v", time.Since(start), err)
		}
	})
}

func TestByteRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		b := byteRate(rate)
		start := time.Now()
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				for range 10 * rate / portion / 4 {
					if err := b.wait(t.Context(), portion); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wait.Wait()
		if took := time.Since(start); took < 9800*time.Millisecond || took > 10*time.Second {
			t.Errorf("10 MiB at 1 MiB a second took %v", took)
		}
	})
	var none *bucket
	if err := none.wait(t.Context(), 1<<40); err != nil || byteRate(0) != nil || requestRate(0, time.Second, nil) != nil {
		t.Error("no bound is one")
	}
}
