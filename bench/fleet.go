package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// worker is one concurrent client of a load.
type worker struct {
	*client
	id   int
	done int // operations so far
}

// repo is a repository of the worker's own.
func (w *worker) repo(name string) string { return fmt.Sprintf("bench/%s-%d", name, w.id) }

// fleet is the clients of a load; each holds one open connection.
type fleet []*worker

func newFleet(ctx context.Context, addr string, n int) (fleet, error) {
	f := make(fleet, 0, n)
	for i := range n {
		c, err := dial(ctx, addr)
		if err != nil {
			f.close()
			return nil, err
		}
		f = append(f, &worker{client: c, id: i})
	}
	return f, nil
}

func (f fleet) close() {
	for _, w := range f {
		w.close()
	}
}

// each runs fn on every worker at once and returns all errors. The first one
// stops the others, if they look at stopped between operations.
func (f fleet) each(fn func(w *worker, stopped *atomic.Bool) error) error {
	var wg sync.WaitGroup
	var stopped atomic.Bool
	errs := make([]error, len(f))
	for i, w := range f {
		wg.Go(func() {
			if errs[i] = fn(w, &stopped); errs[i] != nil {
				stopped.Store(true)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// rate runs op over and over on every worker, at least once each, until d has
// passed, and returns how many a second were done. It warms up first.
func (f fleet) rate(d time.Duration, op func(*worker) error) (perSecond float64, err error) {
	if _, _, err := f.repeat(d/5, op); err != nil {
		return 0, err
	}
	ops, took, err := f.repeat(d, op)
	return float64(ops) / took.Seconds(), err
}

// timed is rate, and notes what t used of the processors meanwhile.
func (f fleet) timed(t *target, d time.Duration, op func(*worker) error) (perSecond float64, err error) {
	if _, _, err := f.repeat(d/5, op); err != nil {
		return 0, err
	}
	before, err := t.cpu()
	if err != nil {
		return 0, err
	}
	ops, took, err := f.repeat(d, op)
	if err != nil {
		return 0, err
	}
	after, err := t.cpu()
	for i := range after {
		t.perOp[i] = float64((after[i] - before[i]).Microseconds()) / float64(ops)
	}
	return float64(ops) / took.Seconds(), err
}

func (f fleet) repeat(d time.Duration, op func(*worker) error) (count int64, took time.Duration, err error) {
	var ops atomic.Int64
	start := time.Now()
	err = f.each(func(w *worker, stopped *atomic.Bool) error {
		n := int64(0)
		for n == 0 || time.Since(start) < d && !stopped.Load() {
			if err := op(w); err != nil {
				return err
			}
			w.done++
			n++
		}
		ops.Add(n)
		return nil
	})
	return ops.Load(), time.Since(start), err
}

// share runs op for 0 … n-1, each number on whichever worker is free.
func (f fleet) share(n int, op func(w *worker, i int) error) error {
	var next atomic.Int64
	return f.each(func(w *worker, stopped *atomic.Bool) error {
		for !stopped.Load() {
			i := int(next.Add(1)) - 1
			if i >= n {
				return nil
			}
			if err := op(w, i); err != nil {
				return err
			}
		}
		return nil
	})
}
