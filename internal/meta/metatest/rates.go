package metatest

import (
	"errors"
	"fmt"
	"time"
)

var rateCases = []testCase{
	{"rates/swap", func(e *env) {
		e.wantUsage("a", "", 0)
		e.swap(true, "a", "one", 0)
		slots, version, err := e.db.RateUsage(e.Context(), "a")
		if e.ok(err); string(slots) != "one" || version <= 0 {
			e.Fatalf("usage %q of version %d", slots, version)
		}
		e.swap(false, "a", "again", 0)
		e.swap(false, "a", "old", version-1)
		e.swap(true, "a", "two", version)
		e.swap(false, "a", "twice", version)
		e.wantUsage("a", "two", version+1)
		e.swap(false, "b", "of no row", version)
		e.wantUsage("b", "", 0)
	}},
	{"rates/one wins", func(e *env) {
		for round := range 5 {
			_, version, err := e.db.RateUsage(e.Context(), "a")
			e.ok(err)
			won := make([]bool, 16)
			errs := together(len(won), func(i int) (err error) {
				won[i], err = e.db.SwapRateUsage(e.Context(), "a", []byte(fmt.Sprint(round, i)), version)
				return err
			})
			e.ok(errors.Join(errs...))
			winners := ""
			for i, w := range won {
				if w {
					winners += fmt.Sprint(round, i)
				}
			}
			slots, _, err := e.db.RateUsage(e.Context(), "a")
			if e.ok(err); string(slots) != winners {
				e.Errorf("row %q, winners %q", slots, winners)
			}
		}
	}},
	{"rates/pruned", func(e *env) {
		for _, bucket := range []string{"a", "b", "c"} {
			e.swap(true, bucket, bucket, 0)
			e.clock.move(time.Minute)
		}
		_, version, err := e.db.RateUsage(e.Context(), "a")
		e.ok(err)
		e.swap(true, "a", "late", version)
		late := e.clock.now()
		e.wantPruned(1, late, 1)
		e.wantUsage("b", "", 0) // the oldest now
		e.wantPruned(1, late, 10)
		e.wantPruned(0, late, 10)
		e.wantUsage("a", "late", version+1)
		e.clock.move(time.Minute)
		e.wantPruned(1, e.clock.now(), 10)
		e.swap(true, "a", "new", 0)
		e.swap(false, "a", "by who read the pruned row", version)
		e.swap(false, "a", "by who read the pruned row", version+1)
	}},
}

func (e *env) swap(want bool, bucket, slots string, version int64) {
	e.Helper()
	swapped, err := e.db.SwapRateUsage(e.Context(), bucket, []byte(slots), version)
	if e.ok(err); swapped != want {
		e.Errorf("swap to %q of version %d: %v, want %v", slots, version, swapped, want)
	}
}

func (e *env) wantUsage(bucket, slots string, version int64) {
	e.Helper()
	s, v, err := e.db.RateUsage(e.Context(), bucket)
	if e.ok(err); string(s) != slots || v != version {
		e.Errorf("usage %q of version %d, want %q of %d", s, v, slots, version)
	}
}

func (e *env) wantPruned(want int, before time.Time, n int) {
	e.Helper()
	if got, err := e.db.PruneRates(e.Context(), before, n); err != nil || got != want {
		e.Errorf("pruned %d, %v; want %d", got, err, want)
	}
}
