package meta

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// generationAge is how old the number may be that other processes raise.
const generationAge = 500 * time.Millisecond

// generation is the newest access generation that this process knows.
type generation struct {
	value atomic.Int64
	asked atomic.Int64 // when the database was last asked, in its milliseconds
	mu    sync.Mutex
	now   *asking // nil: nobody asks
}

// asking is one question to the database, for all who wait for its answer. One
// after the other they would wait for ever longer while none comes.
type asking struct {
	done chan struct{}
	err  error
}

// Generation is raised by every change that access depends on: what was read
// after asking for it holds while it stays the same. Changes of this process
// show at once, those of others within half a second.
func (db *DB) Generation(ctx context.Context) (int64, error) {
	if db.shared && db.stale() {
		if err := db.askTogether(ctx); err != nil {
			return 0, err
		}
	}
	return db.gen.value.Load(), nil
}

// askTogether asks for the generation, or waits for who does.
func (db *DB) askTogether(ctx context.Context) error {
	db.gen.mu.Lock()
	if !db.stale() {
		db.gen.mu.Unlock()
		return nil
	}
	a := db.gen.now
	if a == nil {
		a = &asking{done: make(chan struct{})}
		db.gen.now = a
		go func() { // for all: not cut short with the first that leaves
			a.err = db.readGeneration(context.WithoutCancel(ctx))
			db.gen.mu.Lock()
			defer db.gen.mu.Unlock()
			db.gen.now = nil
			close(a.done)
		}()
	}
	db.gen.mu.Unlock()
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// CatchUp asks for the generation now, so that look-ups that begin when it has
// returned see all that was changed before, also by other processes.
func (db *DB) CatchUp(ctx context.Context) error { return db.readGeneration(ctx) }

func (db *DB) stale() bool {
	age := db.millis() - db.gen.asked.Load()
	return age < 0 || age >= generationAge.Milliseconds()
}

func (db *DB) readGeneration(ctx context.Context) error {
	asked := db.millis()
	var value int64
	if err := db.queryRow(ctx, `SELECT value FROM access_generation WHERE id = 1`).Scan(&value); err != nil {
		return err
	}
	db.gen.raise(value)
	db.gen.asked.Store(asked)
	return nil
}

// raise never goes back: an answer may be older than a change made meanwhile.
func (g *generation) raise(value int64) {
	for have := g.value.Load(); have < value; have = g.value.Load() {
		if g.value.CompareAndSwap(have, value) {
			return
		}
	}
}

// change is update for what access depends on. fn calls t.raise when it has
// changed something; this process sees it when change returns. No two changes
// run at once: what one reads, no other changes before its end.
func (db *DB) change(ctx context.Context, fn func(*tx) error) error {
	return db.raising(ctx, alone, fn)
}

// content is change for what is pushed, which makes projects in passing: it
// runs beside others, as update does.
func (db *DB) content(ctx context.Context, fn func(*tx) error) error {
	return db.raising(ctx, durable, fn)
}

func (db *DB) raising(ctx context.Context, k kind, fn func(*tx) error) error {
	var raised *int64
	err := db.write(ctx, k, func(t *tx) error {
		t.raised = nil
		err := fn(t)
		raised = t.raised
		return err
	})
	switch {
	case raised == nil:
	case err == nil:
		db.gen.raise(*raised)
	default:
		// Undone, or done and not known to be durable: the table tells. Where
		// it does not, nothing is written or read any more either.
		if failed := db.readGeneration(context.WithoutCancel(ctx)); failed != nil {
			err = errors.Join(err, failed)
		}
	}
	return err
}

// raise raises the generation with this transaction. Only within change and content.
func (t *tx) raise() error {
	if t.raised != nil {
		return nil
	}
	var value int64
	if err := t.queryRow(`UPDATE access_generation SET value = value + 1 WHERE id = 1 RETURNING value`).Scan(&value); err != nil {
		return err
	}
	t.raised = &value
	return nil
}
