package main

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

func startFleet(t *testing.T, n int) fleet {
	t.Helper()
	f, err := newFleet(t.Context(), startLimit(t).addr, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

func TestFleetSharesEachNumberOnce(t *testing.T) {
	var counts [100]atomic.Int32
	err := startFleet(t, 7).share(len(counts), func(_ *worker, i int) error {
		counts[i].Add(1)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range counts {
		if n := counts[i].Load(); n != 1 {
			t.Errorf("number %d was done %d times", i, n)
		}
	}
}

func TestFleetRepeatsAtLeastOnce(t *testing.T) {
	f := startFleet(t, 3)
	if _, _, err := f.repeat(0, func(*worker) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for _, w := range f {
		if w.done != 1 {
			t.Errorf("worker %d did %d operations in no time, not 1", w.id, w.done)
		}
	}
}

func TestFleetStopsAtAnError(t *testing.T) {
	broken := errors.New("broken")
	_, _, err := startFleet(t, 2).repeat(time.Hour, func(w *worker) error {
		if w.id == 0 {
			return broken
		}
		return nil
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestFillStore(t *testing.T) {
	c := startLimit(t)
	s := store{repos: []string{"a", "b"}, blobs: newSource().blobs(2, 2<<10), tags: 25, tagsPerPush: 10}
	if got := s.pushes(); got != 3 {
		t.Errorf("%d pushes, not 3", got)
	}
	if err := fillStore(t.Context(), &target{addr: c.addr}, s); err != nil {
		t.Fatal(err)
	}
	for tag := range s.tags {
		push := tag / s.tagsPerPush
		m := newImage(tagName(push*s.tagsPerPush), s.blobs)
		if err := c.verify(manifestPath(s.repos[push%2], tagName(tag)), m.digest); err != nil {
			t.Error(fmt.Errorf("tag %d: %w", tag, err))
		}
	}
}
