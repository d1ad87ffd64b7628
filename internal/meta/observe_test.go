package meta

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/berth-registry/berth/internal/pgtest"
)

// TestBacklogIsBounded: what is counted ends at the bound, and no count that
// could be of many rows walks more than its queue.
func TestBacklogIsBounded(t *testing.T) {
	db, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "berth.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.update(t.Context(), func(tx *tx) error {
		_, err := tx.exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
			INSERT INTO dead_objects (key, delete_at, bytes) SELECT 'k' || i, i, 0 FROM n`, BacklogBound+50)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := db.Backlog(t.Context())
	if err != nil || b.Dead != BacklogBound || b.Oldest.UnixMilli() != 1 {
		t.Errorf("%+v, %v", b, err)
	}
	found := 0
	for _, text := range db.engine.(*sqliteEngine).stmts.texts() {
		if !strings.HasPrefix(text, "SELECT COUNT(*) FROM (SELECT 1 FROM ") {
			continue
		}
		found++
		plan := strings.Join(db.plan(t, text), "\n")
		if !strings.Contains(text, "LIMIT") || strings.Contains(text, "WHERE") && !strings.Contains(plan, "SEARCH ") {
			t.Errorf("%s\n%s", text, plan)
		}
	}
	if found != 4 {
		t.Errorf("%d counts were prepared", found)
	}
}

// TestRetriesAreHeardOf: each attempt that fails for a reason that may pass is
// told with that reason, and the transaction once.
func TestRetriesAreHeardOf(t *testing.T) {
	var got []string
	db, err := Open(t.Context(), Options{Postgres: pgtest.Database(t), Observe: Observer{
		Done:    func(_ context.Context, op Op) { got = append(got, op.Kind+" "+op.Outcome) },
		Retried: func(why string) { got = append(got, why) },
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	got = nil
	failures := []error{&pgconn.PgError{Code: "57P01"}, errAgain, &pgconn.PgError{Code: "40001"}}
	err = db.update(t.Context(), func(*tx) error {
		if len(failures) == 0 {
			return nil
		}
		err := failures[0]
		failures = failures[1:]
		return err
	})
	if want := "[connection race race write done]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v; want %s", got, err, want)
	}
	got = nil
	err = db.update(t.Context(), func(*tx) error { return &pgconn.PgError{Code: "23505"} })
	if want := "[constraint constraint write refused]"; !errors.Is(err, ErrExists) || fmt.Sprint(got) != want {
		t.Errorf("%v, %v; want %s", got, err, want)
	}
}

func TestOutcome(t *testing.T) {
	for want, errs := range map[string][]error{
		"done":        {nil},
		"refused":     {ErrExists, &QuotaError{}, &MissingError{}, fmt.Errorf("so: %w", ErrLeased)},
		"unavailable": {ErrUnavailable, ErrClosed, classify(&pgconn.PgError{Code: "53300"})},
		"full":        {classify(&pgconn.PgError{Code: "53100"})},
		"canceled":    {context.Canceled},
		"failed":      {errors.New("panic in a transaction"), &pgconn.PgError{Code: "42601"}},
	} {
		for _, err := range errs {
			if got := outcome(err); got != want {
				t.Errorf("%v: %s, want %s", err, got, want)
			}
		}
	}
}
