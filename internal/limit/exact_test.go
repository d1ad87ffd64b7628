package limit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/registry"
)

// race lets each server be asked by several callers until they are refused, the
// first one most times at the most, and counts what passes.
func race(t *testing.T, servers []*Limiter, most int64) int64 {
	var passed atomic.Int64
	var all sync.WaitGroup
	for i, l := range servers {
		var asked atomic.Int64
		for range 4 {
			all.Go(func() {
				for i > 0 || asked.Add(1) <= most {
					err := ask(t.Context(), l, nobody, "acme/app")
					if err != nil {
						if !registry.IsCode(err, registry.TooManyRequests) {
							t.Error(err)
						}
						return
					}
					passed.Add(1)
				}
			})
		}
	}
	all.Wait()
	return passed.Load()
}

// TestExactly: servers that race for one rate pass as many as it allows. One
// that stops early keeps no more than a hundredth from the others.
func TestExactly(t *testing.T) {
	for _, n := range []int64{1, 10, 100, 1000, 10_000} {
		for name, most := range map[string]int64{"all": 1 << 40, "one stops": n / 3} {
			t.Run(fmt.Sprint(n, " ", name), func(t *testing.T) {
				w := newWorld(t, perProject(n))
				servers := []*Limiter{w.server(), w.server()}
				got := race(t, servers, most)
				if got > n || got < n-n/100 {
					t.Errorf("%d of %d pass", got, n)
				}
				for _, l := range servers {
					l.Close(t.Context())
				}
				if used := w.used(); used != got {
					t.Errorf("%d are counted, %d have passed", used, got)
				}
				w.move(1100 * time.Millisecond) // refusals are remembered for a second
				got += race(t, servers, 1<<40)
				if got != n {
					t.Errorf("%d of %d pass after all was given back", got, n)
				}
			})
		}
	}
}

// TestNoPeriodHasMore runs two servers for hours of a clock of its own under a
// load that comes and goes, lets them crash and restart, and holds every period
// of the window's length against the amount.
func TestNoPeriodHasMore(t *testing.T) {
	for _, n := range []int{3, 50, 1000} {
		for _, window := range []time.Duration{time.Minute, time.Hour} {
			t.Run(fmt.Sprint(n, " per ", window), func(t *testing.T) {
				w := newWorld(t, rate(access.PerProject, access.Requests, window, int64(n)))
				passed := load(t, w, n, window)
				for i := range passed[:max(0, len(passed)-n)] {
					if d := passed[i+n].Sub(passed[i]); d < window {
						t.Fatalf("%d requests within %v, from number %d", n+1, d, i)
					}
				}
				took := w.now().Sub(passed[0])
				if least := int(took/(window+window/windowSlots)) * n * 9 / 10; len(passed) < least {
					t.Errorf("only %d pass in %v, want %d or more", len(passed), took, least)
				}
			})
		}
	}
}

// load asks for more than passes and returns when requests passed.
func load(t *testing.T, w *world, n int, window time.Duration) (passed []time.Time) {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	databases := []*Limiter{w.server(), w.server()}
	servers := []*Limiter{databases[0], databases[1]}
	for len(passed) < 3*n+100 {
		i := random.IntN(len(servers))
		switch random.IntN(300) {
		case 0: // restart
			servers[i].Close(t.Context())
			fallthrough
		case 1: // crash
			if n >= 1000 || random.IntN(20) == 0 { // a crash costs a lease, of few much
				servers[i] = w.over(nil, servers[i].store)
				servers[i].dir = databases[i].dir
			}
		case 2:
			if random.IntN(10) == 0 {
				w.move(time.Duration(random.Int64N(int64(window) / 2)))
			}
		default:
			w.move(time.Duration(random.Int64N(int64(window) / int64(n))))
		}
		if random.IntN(10) == 0 {
			servers[i].settle(t.Context())
		}
		for range 1 + random.IntN(4) {
			if refusedBy(t, ask(t.Context(), servers[i], nobody, "acme/app")) == nil {
				passed = append(passed, w.now())
			}
		}
	}
	return passed
}

// TestRestart: what was used is known to the next server.
func TestRestart(t *testing.T) {
	const n = 1000
	for _, crash := range []bool{false, true} {
		w := newWorld(t, perProject(n))
		first := w.server()
		w.want("first", passing(t, first, nobody, "acme/app", 333), 333)
		if !crash {
			first.Close(t.Context())
		}
		second := w.server()
		got := passing(t, second, nobody, "acme/app", n)
		if least := n - 333 - n/200; got > n-333 || got < least || !crash && got != n-333 {
			t.Errorf("crash %v: %d pass after the restart", crash, got)
		}
		w.move(61 * time.Second)
		w.want("in a new window", passing(t, w.server(), nobody, "acme/app", 2*n), n)
	}
}

// TestRetryAfter: who waits as long as it was told is let pass.
func TestRetryAfter(t *testing.T) {
	w := newWorld(t, perProject(7),
		rate(access.PerProject, access.Requests, time.Hour, 40),
		rate(access.PerAddress, access.Requests, 24*time.Hour, 300),
		rate(access.PerOrganization, access.Requests, time.Minute, 6))
	random := rand.New(rand.NewPCG(2, 2))
	l := w.server()
	for refusals := 0; refusals < 300; {
		if random.IntN(50) == 0 {
			l.Close(t.Context())
			l = w.server()
		}
		e := refusedBy(t, ask(t.Context(), l, nobody, "acme/app"))
		if e == nil {
			w.move(time.Duration(random.Int64N(int64(10 * time.Second))))
			continue
		}
		refusals++
		if wait, most := e.Limit.RetryAfter, e.Limit.Window+e.Limit.Window/windowSlots; wait > most {
			t.Fatalf("%v: wait for %v", e, wait)
		}
		w.move(e.Limit.RetryAfter)
		for e2 := refusedBy(t, ask(t.Context(), l, nobody, "acme/app")); e2 != nil; {
			// It may only be another side of the guard that is in the way now.
			if e2.Limit.Window == e.Limit.Window && e2.Limit.Amount == e.Limit.Amount {
				t.Fatalf("refused again after %v: %v", e.Limit.RetryAfter, e2)
			}
			w.move(e2.Limit.RetryAfter)
			e, e2 = e2, refusedBy(t, ask(t.Context(), l, nobody, "acme/app"))
		}
	}
}

// TestRefusedUsesNothing: a request that one limit refuses is not counted by
// those that were asked together with it.
func TestRefusedUsesNothing(t *testing.T) {
	w := newWorld(t, perProject(50), rate(access.PerProject, access.Requests, time.Hour, 3))
	l := w.server()
	for range 20 {
		passing(t, l, nobody, "acme/app", 100)
		w.move(900 * time.Millisecond)
		l.settle(t.Context())
	}
	l.Close(t.Context())
	if used := w.used(); used != 2*3 {
		t.Errorf("%d are counted, want 3 of each rate", used)
	}
}

// TestIdleLease: what a server does not use any more comes back.
func TestIdleLease(t *testing.T) {
	w := newWorld(t, rate(access.PerProject, access.Requests, 24*time.Hour, 20_000))
	idle, busy := w.server(), w.server()
	passing(t, idle, nobody, "acme/app", 1000)
	if used := w.used(); used <= 1000 {
		t.Fatalf("%d are leased", used)
	}
	w.move(time.Minute)
	idle.settle(t.Context())
	if used := w.used(); used <= 1000 {
		t.Errorf("a lease is given back after a minute of a slot of 24: %d", used)
	}
	w.move(6 * time.Minute)
	idle.settle(t.Context())
	if used := w.used(); used != 1000 {
		t.Errorf("%d are counted while the server is idle, want 1000", used)
	}
	w.want("of the rest", passing(t, busy, nobody, "acme/app", 20_000), 19_000)
}

// TestSlotEnds: a lease is not used in another slot than its own.
func TestSlotEnds(t *testing.T) {
	w := newWorld(t, perProject(2000))
	l := w.server()
	passing(t, l, nobody, "acme/app", 100)
	w.move(time.Second)
	l.settle(t.Context())
	if used := w.used(); used != 100 {
		t.Errorf("%d are counted after the slot, want 100", used)
	}
	w.want("of the rest", passing(t, l, nobody, "acme/app", 2000), 1900)
	w.move(59 * time.Second) // the first 100 still lie within a minute and a slot
	w.want("before the first are free", passing(t, l, nobody, "acme/app", 2000), 0)
	w.move(time.Second)
	w.want("when the first are free", passing(t, l, nobody, "acme/app", 2000), 100)
}

// TestRaceOverTime asks two servers from many callers while the clock moves on
// and buckets are settled, and counts what surely lies within any one window.
func TestRaceOverTime(t *testing.T) {
	const n = 300
	w := newWorld(t, perProject(n))
	servers := []*Limiter{w.server(), w.server()}
	type pass struct{ from, to time.Time } // the clock before and after it
	lists := make([][]pass, 6)
	var callers, settler sync.WaitGroup
	stop := make(chan struct{})
	for i := range lists {
		callers.Go(func() {
			for l := servers[i%2]; ; {
				select {
				case <-stop:
					return
				default:
				}
				from := w.now()
				if refusedBy(t, ask(t.Context(), l, nobody, "acme/app")) == nil {
					lists[i] = append(lists[i], pass{from, w.now()})
				} else {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	settler.Go(func() {
		for range 1000 { // of 200 ms: more than three windows
			time.Sleep(2 * time.Millisecond)
			w.move(200 * time.Millisecond)
			for _, l := range servers {
				l.settle(t.Context())
			}
		}
		close(stop)
	})
	settler.Wait()
	callers.Wait()
	all := slices.Concat(lists...)
	for _, first := range all {
		end, count := first.from.Add(time.Minute), 0
		for _, p := range all {
			if !p.from.Before(first.from) && p.to.Before(end) {
				count++
			}
		}
		if count > n {
			t.Fatalf("%d pass within a minute", count)
		}
	}
	if least := 3 * n * 9 / 10; len(all) < least {
		t.Errorf("%d pass in more than three minutes, want %d or more", len(all), least)
	}
}
