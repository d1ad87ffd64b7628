package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// bench is one run.
type bench struct {
	opts    options
	work    string // folder for everything it makes
	servers []server
}

// result is what a load measured.
type result struct {
	rows []row
	// values by server, then by round: a number for each row, and target.perOp. A
	// server that failed or takes no part in this load is absent.
	values map[string][][]float64
}

// entry is a server's part in a load.
type entry struct {
	server
	dir      string
	prepared bool
	failed   bool
}

// run takes one load after the other. A server that fails a load is left out of
// the rest of it; the failures come back joined, beside what was measured.
func (b *bench) run(ctx context.Context, all []load) ([]result, error) {
	var results []result
	var failures []error
	for _, l := range all {
		r, err := b.runLoad(ctx, l)
		results = append(results, r)
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return results, errors.Join(failures...)
}

// runLoad lets the servers take turns, so that whatever else the machine does
// in the meantime meets them all alike.
func (b *bench) runLoad(ctx context.Context, l load) (result, error) {
	r := result{rows: l.rows, values: make(map[string][][]float64)}
	var failures []error
	entries := b.entries(l)
	for round := range l.rounds {
		for _, e := range entries {
			if e.failed || ctx.Err() != nil {
				continue
			}
			values, err := b.turn(ctx, l, e)
			if err != nil || round == l.rounds-1 { // the next server needs the room
				err = errors.Join(err, os.RemoveAll(e.dir))
			}
			if err != nil {
				e.failed = true
				delete(r.values, e.name)
				err = fmt.Errorf("%s: %s: %w", l.name(), e.name, err)
				if ctx.Err() == nil {
					fmt.Fprintln(os.Stderr, err)
				}
				failures = append(failures, err)
				continue
			}
			r.values[e.name] = append(r.values[e.name], values)
			fmt.Fprintf(os.Stderr, "%s, round %d of %d, %s: %s\n", l.name(), round+1, l.rounds, e.name, describe(l.rows, values))
		}
	}
	return r, errors.Join(failures...)
}

func (b *bench) entries(l load) []*entry {
	var entries []*entry
	for _, s := range b.servers {
		if !l.berthOnly || s.name == berthName {
			entries = append(entries, &entry{server: s, dir: filepath.Join(b.work, s.name)})
		}
	}
	return entries
}

// turn measures a load on one freshly started server.
func (b *bench) turn(ctx context.Context, l load, e *entry) ([]float64, error) {
	if l.prepare == nil {
		if err := os.RemoveAll(e.dir); err != nil {
			return nil, err
		}
	}
	if l.prepare != nil && !e.prepared {
		err := b.serve(ctx, l, e, l.prepare)
		if err != nil {
			return nil, fmt.Errorf("filling the store: %w", err)
		}
		e.prepared = true
	}
	var values []float64
	err := b.serve(ctx, l, e, func(ctx context.Context, t *target) (err error) {
		values, err = l.measure(ctx, t)
		values = append(values, t.perOp[:]...)
		return err
	})
	if l.prepare == nil {
		err = errors.Join(err, os.RemoveAll(e.dir))
	}
	return values, err
}

// serve runs do while the server is up. What earlier turns left to the disk is
// written before.
func (b *bench) serve(ctx context.Context, l load, e *entry, do func(context.Context, *target) error) error {
	if err := os.MkdirAll(e.dir, 0o755); err != nil {
		return err
	}
	syscall.Sync()
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	t, err := e.start(ctx, e.dir)
	if err != nil {
		return err
	}
	err = do(ctx, t)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("not done within %s", l.timeout) // broken connections say less
	}
	return errors.Join(err, t.stop())
}

// describe is a turn's outcome on one line.
func describe(rows []row, values []float64) string {
	var parts []string
	for i, r := range rows {
		parts = append(parts, number(values[i])+" "+r.unit)
	}
	if cpu := values[len(rows):]; cpu[0] > 0 {
		parts = append(parts, fmt.Sprintf("%s µs of CPU (+%s) an operation", number(cpu[0]), number(cpu[1])))
	}
	return strings.Join(parts, ", ")
}
