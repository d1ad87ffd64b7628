package proxy

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// gauge is a cache whose size a test sets, and a clock that goes by hand.
type gauge struct {
	*OverBudget
	ticks  chan time.Time
	asked  chan time.Duration // what was waited for
	mu     sync.Mutex
	used   int64
	err    error
	looks  int
	told   int
	ending sync.WaitGroup
}

func newGauge(t *testing.T, budget int64) *gauge {
	g := &gauge{ticks: make(chan time.Time), asked: make(chan time.Duration)}
	g.OverBudget = NewOverBudget(Budget{Bytes: budget}, func(context.Context) (int64, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.looks++
		return g.used, g.err
	}, func(context.Context) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.told++
	})
	g.after = func(d time.Duration) <-chan time.Time {
		g.asked <- d
		return g.ticks
	}
	ctx, cancel := context.WithCancel(t.Context())
	g.ending.Go(func() { g.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		go func() { // who waits to be asked for a time
			for range g.asked {
			}
		}()
		g.ending.Wait()
		close(g.asked)
	})
	return g
}

// rests waits until it has looked, and lets the time pass in which it does not.
func (g *gauge) rests(t *testing.T) {
	t.Helper()
	if d := <-g.asked; d != lookAfter {
		t.Errorf("it rests for %v", d)
	}
	g.ticks <- time.Time{}
	if d := <-g.asked; d != lookEvery-lookAfter {
		t.Errorf("it looks again after %v", d)
	}
}

func (g *gauge) set(used int64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used, g.err = used, err
}

func (g *gauge) want(t *testing.T, what string, looks, told int) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.looks != looks || g.told != told {
		t.Errorf("%s: %d looks, and told %d times; want %d and %d", what, g.looks, g.told, looks, told)
	}
}

func TestOverBudget(t *testing.T) {
	g := newGauge(t, 1000)
	g.rests(t)
	g.want(t, "at first", 1, 0)
	g.Stored(900)
	g.want(t, "as much as may be", 1, 0)
	g.set(700, nil) // some of it was there already
	g.Stored(1)
	g.rests(t)
	g.want(t, "more, as it seems", 2, 0)
	g.Stored(200)
	g.want(t, "less, as is known now", 2, 0)
	g.set(901, nil)
	g.Stored(1)
	g.rests(t)
	g.want(t, "more", 3, 1)
	for i := range tellAgain - 1 {
		g.Stored(1)
		g.rests(t)
		g.want(t, "no less", 4+i, 1)
	}
	g.Stored(1)
	g.rests(t)
	g.want(t, "no less for a while", 3+tellAgain, 2)
	g.set(912, nil)
	g.Stored(1)
	g.rests(t)
	g.want(t, "grown", 4+tellAgain, 3)
	g.set(800, nil)
	g.Stored(1)
	g.rests(t)
	g.set(912, nil)
	g.ticks <- time.Time{} // others have stored
	g.rests(t)
	g.want(t, "grown again", 6+tellAgain, 4)
	g.set(0, errors.New("not now"))
	g.Stored(1)
	g.rests(t)
	g.set(2000, nil)
	g.Stored(1)
	g.rests(t)
	g.want(t, "after a failure", 8+tellAgain, 5)
}

func TestNoBudget(t *testing.T) {
	o := NewOverBudget(Budget{MaxIdle: time.Hour}, nil, nil)
	o.Stored(1 << 60)
	o.Run(t.Context()) // has nothing to do
}
