package meta

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/oci"
)

// eachEngine runs a test on a database of each kind.
func eachEngine(t *testing.T, run func(t *testing.T, db *DB)) {
	t.Run("sqlite", func(t *testing.T) {
		db, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "berth.db")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		run(t, db)
	})
	t.Run("postgres", func(t *testing.T) { run(t, replicas(t, 1)[0]) })
}

// TestCollectPastABadRow: one row that cannot be removed is reported and put
// off, and the others go.
func TestCollectPastABadRow(t *testing.T) {
	eachEngine(t, func(t *testing.T, db *DB) {
		var all []oci.Digest
		for i := range 7 {
			all = append(all, pushTo(t, db, "team/app", fmt.Sprint("blob", i)))
		}
		pushTo(t, db, "crew/app", "other")
		// A miscount: another project is said to have the blob.
		if _, err := db.writeRow(t, `INSERT INTO project_blobs (project_id, digest, links)
			SELECT id, $1, 1 FROM projects WHERE name = 'crew'`, all[3].String()); err != nil {
			t.Fatal(err)
		}
		soon := time.Now().Add(time.Minute)
		removed, seen, err := db.CollectLinks(t.Context(), soon, 100)
		if removed != 7 || seen != 8 || !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), all[3].String()) {
			t.Errorf("%d of %d are removed, %v; want 7 of 8, and the bad one named", removed, seen, err)
		}
		if removed, seen, err := db.CollectLinks(t.Context(), soon, 100); removed != 0 || seen != 0 || err != nil {
			t.Errorf("again at once: %d of %d, %v", removed, seen, err)
		}
		p, err := db.ProjectAccess(t.Context(), "crew")
		if err != nil {
			t.Fatal(err)
		}
		if err := db.RepairUsage(t.Context(), p.ID); err != nil {
			t.Fatal(err)
		}
		if removed, _, err := db.CollectLinks(t.Context(), soon.Add(putOff), 100); removed != 1 || err != nil {
			t.Errorf("after a repair %d are removed, %v; want the one", removed, err)
		}
	})
}

// TestTurns: what look fails at is put off, alone, wherever it stands; what
// would meet all others too ends the run.
func TestTurns(t *testing.T) {
	broken := errors.New("broken")
	eachEngine(t, func(t *testing.T, db *DB) {
		for _, bad := range [][]int{nil, {0}, {9}, {3, 4}, {0, 5, 9}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}} {
			fails := map[int]bool{}
			for _, i := range bad {
				fails[i] = true
			}
			off := map[int]bool{}
			var items []int
			for i := range 10 {
				items = append(items, i)
			}
			sum, err := turns[int]{
				db: db, name: func(i int) string { return fmt.Sprint("item ", i) },
				look: func(_ *tx, i int) (Reviewed, error) {
					if fails[i] {
						return Reviewed{}, broken
					}
					return Reviewed{Seen: 1, Removed: 1}, nil
				},
				putOff: func(_ *tx, i int) error { off[i] = true; return nil },
			}.run(t.Context(), items)
			if sum.Seen != 10 || sum.Removed != 10-len(bad) || len(off) != len(bad) || errors.Is(err, broken) != (len(bad) > 0) {
				t.Errorf("of 10 with %v bad: %+v, %v; put off %v", bad, sum, err, off)
			}
			for i := range off {
				if !fails[i] {
					t.Errorf("%d is put off with others", i)
				}
			}
		}
		sum, err := turns[int]{db: db, look: func(_ *tx, i int) (Reviewed, error) { return Reviewed{Seen: 1}, ErrClosed }}.run(t.Context(), []int{1, 2, 3})
		if !errors.Is(err, ErrClosed) || sum.Seen != 0 {
			t.Errorf("without a database: %+v, %v", sum, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := (turns[int]{db: db}).run(ctx, []int{1}); !errors.Is(err, context.Canceled) {
			t.Errorf("with a cancelled context: %v", err)
		}
	})
}
