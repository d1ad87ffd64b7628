package meta

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func openAlone(t *testing.T) *DB {
	t.Helper()
	db, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "berth.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// inOneBatch runs writes in one commit: the first holds the writer up until
// the others stand in its queue.
func inOneBatch(t *testing.T, db *DB, writes ...func(*tx) error) []error {
	t.Helper()
	running, finish := make(chan struct{}), make(chan struct{})
	errs := make([]error, len(writes))
	var all sync.WaitGroup
	all.Go(func() {
		if err := db.update(t.Context(), func(*tx) error { close(running); <-finish; return nil }); err != nil {
			t.Errorf("the write that holds the others up: %v", err)
		}
	})
	<-running
	for i, fn := range writes {
		queued := len(db.engine.(*sqliteEngine).writer.queue)
		all.Go(func() { errs[i] = db.update(t.Context(), fn) })
		for len(db.engine.(*sqliteEngine).writer.queue) == queued {
		}
	}
	close(finish)
	all.Wait()
	return errs
}

func burying(name string) func(*tx) error {
	return func(t *tx) error { return bury(t, DeadObject{Key: name}, 0) }
}

func keys(t *testing.T, db *DB) string {
	t.Helper()
	list, err := db.DeadObjects(t.Context(), db.now(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, o := range list {
		all = append(all, o.Key)
	}
	return strings.Join(all, " ")
}

func TestOneWriteFailsAlone(t *testing.T) {
	db := openAlone(t)
	failure := errors.New("no")
	errs := inOneBatch(t, db,
		burying("first"),
		func(t *tx) error { return errors.Join(burying("second")(t), failure) },
		func(t *tx) error { burying("third")(t); panic("at the disco") },
		func(t *tx) error { _, err := t.exec(`INSERT INTO no_such_table VALUES (1)`); return err },
		func(t *tx) error {
			_, err := t.exec(`INSERT INTO links (repository_id, digest, seen_at) VALUES ('no', 'no', 0)`)
			return err
		},
		burying("last"),
	)
	for i, want := range []string{"", "no", "panic in a transaction: at the disco", "no such table", "FOREIGN KEY", ""} {
		if (errs[i] == nil) != (want == "") || errs[i] != nil && !strings.Contains(errs[i].Error(), want) {
			t.Errorf("write %d: %v, want %q", i, errs[i], want)
		}
	}
	if got := keys(t, db); got != "first last" {
		t.Errorf("written were %q, want the first and the last", got)
	}
}

func TestBatchSeesItsOwnWrites(t *testing.T) {
	db := openAlone(t)
	errs := inOneBatch(t, db, burying("a"), func(t *tx) error {
		var key string
		return t.queryRow(`SELECT key FROM dead_objects WHERE key = $1`, "a").Scan(&key)
	})
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

func TestMoreWritesThanABatch(t *testing.T) {
	db := openAlone(t)
	var all sync.WaitGroup
	for i := range 3*maxBatch + 1 {
		all.Go(func() {
			if err := db.update(t.Context(), burying(fmt.Sprint(i))); err != nil {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	all.Wait()
	if n := len(strings.Fields(keys(t, db))); n != 3*maxBatch+1 {
		t.Errorf("%d rows, want %d", n, 3*maxBatch+1)
	}
}

func TestCancelledWriteIsNotRun(t *testing.T) {
	db := openAlone(t)
	ctx, cancel := context.WithCancel(t.Context())
	running, finish := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() { done <- db.update(t.Context(), func(*tx) error { close(running); <-finish; return nil }) }()
	<-running
	go func() { done <- db.update(ctx, burying("a")) }()
	for len(db.engine.(*sqliteEngine).writer.queue) == 0 {
	}
	cancel()
	close(finish)
	var cancelled int
	for range 2 {
		if err := <-done; errors.Is(err, context.Canceled) {
			cancelled++
		} else if err != nil {
			t.Error(err)
		}
	}
	if got := keys(t, db); cancelled != 1 || got != "" {
		t.Errorf("%d writes cancelled, written %q", cancelled, got)
	}
}

// TestFailedSync: what could not be synced is not acknowledged, nor is anything
// after it, for nobody knows what the log holds.
func TestFailedSync(t *testing.T) {
	db := openAlone(t)
	if err := db.update(t.Context(), burying("a")); err != nil {
		t.Fatal(err)
	}
	if err := db.engine.(*sqliteEngine).writer.wal.Close(); err != nil {
		t.Fatal(err)
	}
	for _, write := range []func(context.Context, func(*tx) error) error{db.update, db.update, db.hint} {
		if err := write(t.Context(), burying("b")); err == nil || !strings.Contains(err.Error(), "berth check") {
			t.Errorf("write when the log cannot be synced: %v", err)
		}
	}
	if err := db.Ping(t.Context()); err != nil {
		t.Errorf("read when the log cannot be synced: %v", err)
	}
}

func TestClosedDatabase(t *testing.T) {
	db := openAlone(t)
	if err := db.update(t.Context(), burying("a")); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			if err := db.update(t.Context(), burying(fmt.Sprint(i))); err != nil && !errors.Is(err, ErrClosed) {
				t.Errorf("write while closing: %v", err)
			}
		})
	}
	if err := db.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	all.Wait()
	if err := db.update(t.Context(), burying("b")); !errors.Is(err, ErrClosed) {
		t.Errorf("write to a closed database: %v", err)
	}
}
