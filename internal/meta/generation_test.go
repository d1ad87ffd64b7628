package meta

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func openShared(t *testing.T, path string, now func() time.Time) *DB {
	t.Helper()
	db, err := Open(t.Context(), Options{Path: path, Shared: true, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func raise(t *tx) error { return t.raise() }

func wantGeneration(t *testing.T, db *DB, want int64) {
	t.Helper()
	if got, err := db.Generation(t.Context()); err != nil || got != want {
		t.Errorf("generation %d, %v; want %d", got, err, want)
	}
}

func TestGenerationIsRaisedOncePerChange(t *testing.T) {
	db := openAlone(t)
	wantGeneration(t, db, 1)
	if err := db.change(t.Context(), func(t *tx) error { return errors.Join(t.raise(), t.raise()) }); err != nil {
		t.Fatal(err)
	}
	wantGeneration(t, db, 2)
	if err := db.change(t.Context(), burying("a")); err != nil {
		t.Fatal(err)
	}
	wantGeneration(t, db, 2)
}

// TestGenerationOfUndoneChange: a change that is undone leaves the number where
// the table has it. One that ran ahead would hide the next change.
func TestGenerationOfUndoneChange(t *testing.T) {
	db := openAlone(t)
	failure := errors.New("no")
	err := db.change(t.Context(), func(t *tx) error { return errors.Join(t.raise(), failure) })
	if !errors.Is(err, failure) {
		t.Errorf("change: %v", err)
	}
	wantGeneration(t, db, 1)
	if err := db.change(t.Context(), raise); err != nil {
		t.Fatal(err)
	}
	wantGeneration(t, db, 2)
}

// TestGenerationOfUnsyncedChange: a change that is there, though nobody knows
// whether it outlives a loss of power, is followed.
func TestGenerationOfUnsyncedChange(t *testing.T) {
	db := openAlone(t)
	if err := db.engine.(*sqliteEngine).writer.wal.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.change(t.Context(), raise); err == nil {
		t.Error("a change that cannot be synced succeeds")
	}
	var stored int64
	if err := db.queryRow(t.Context(), `SELECT value FROM access_generation`).Scan(&stored); err != nil {
		t.Fatal(err)
	}
	wantGeneration(t, db, stored)
	if stored != 2 {
		t.Errorf("the table has %d", stored)
	}
}

// TestGenerationOfOthers: what another process changes shows within half a
// second, and is not asked for more often than that.
func TestGenerationOfOthers(t *testing.T) {
	path, at := filepath.Join(t.TempDir(), "berth.db"), time.Now()
	now := func() time.Time { return at }
	a, b := openShared(t, path, now), openShared(t, path, now)
	wantGeneration(t, b, 1)
	if err := a.change(t.Context(), raise); err != nil {
		t.Fatal(err)
	}
	wantGeneration(t, a, 2)
	wantGeneration(t, b, 1)
	at = at.Add(generationAge)
	wantGeneration(t, b, 2)
	// A clock that is set back is no reason to trust an old answer.
	if err := a.change(t.Context(), raise); err != nil {
		t.Fatal(err)
	}
	at = at.Add(-time.Hour)
	wantGeneration(t, b, 3)
}

func TestGenerationNeverGoesBack(t *testing.T) {
	db := openShared(t, filepath.Join(t.TempDir(), "berth.db"), time.Now)
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	for range 4 {
		watching.Go(func() {
			for last := int64(0); ctx.Err() == nil; {
				g, err := db.Generation(t.Context())
				if err != nil || g < last {
					t.Errorf("generation %d follows %d, %v", g, last, err)
					return
				}
				last = g
			}
		})
	}
	for i := range 50 {
		if err := db.change(t.Context(), raise); err != nil {
			t.Error(err)
		}
		if g, err := db.Generation(t.Context()); err != nil || g < int64(i)+2 {
			t.Errorf("generation %d after %d changes, %v", g, i+1, err)
		}
	}
	stop()
	watching.Wait()
}
