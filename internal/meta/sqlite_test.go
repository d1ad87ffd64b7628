package meta_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
)

// open opens a database that ends with the test.
func open(t *testing.T, o meta.Options) *meta.DB {
	t.Helper()
	db, err := meta.Open(t.Context(), o)
	if err != nil {
		t.Fatalf("open a database: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestSQLiteConforms(t *testing.T) {
	metatest.Run(t, func(t *testing.T, o meta.Options) *meta.DB {
		o.Path = metatest.File(t)
		return open(t, o)
	})
}

var update = flag.Bool("update", false, "rewrite golden files")

// TestSchema shows every change of the schema in a review.
func TestSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berth.db")
	open(t, meta.Options{Path: path})
	var got strings.Builder
	rows, err := sqlite(t, path).Query(`SELECT sql FROM sqlite_schema
		WHERE sql IS NOT NULL AND tbl_name NOT LIKE 'sqlite_%' AND tbl_name <> 'goose_db_version' ORDER BY type DESC, name`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		got.WriteString(text + ";\n\n")
	}
	const golden = "testdata/schema.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("the schema is not that of %s; if that is meant, run the test with -update:\n%s", golden, got.String())
	}
}

// sqlite opens a database file beside package meta.
func sqlite(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestReopen(t *testing.T) {
	o := meta.Options{Path: filepath.Join(t.TempDir(), "berth.db")}
	for i := range 3 {
		db, err := meta.Open(t.Context(), o)
		if err != nil {
			t.Fatalf("open for the %d. time: %v", i+1, err)
		}
		put(t, db, fmt.Sprint("team/app", i))
		list, err := db.Repositories(t.Context(), "", 10)
		if err != nil || len(list) != i+1 {
			t.Errorf("repositories %v, %v; want %d", list, err, i+1)
		}
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

// put stores a manifest without content, which makes the repository.
func put(t *testing.T, db *meta.DB, repo string) {
	t.Helper()
	err := db.PutManifest(t.Context(), meta.PutManifest{Repository: repo, Digest: oci.SHA256.FromBytes(nil), Parsed: &oci.Manifest{}, Content: []byte{}})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berth.db")
	db := open(t, meta.Options{Path: path})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite(t, path).Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`); err != nil {
		t.Fatal(err)
	}
	for _, existing := range []bool{false, true} {
		_, err := meta.Open(t.Context(), meta.Options{Path: path, Existing: existing})
		if err == nil || !strings.Contains(err.Error(), "99999") || !strings.Contains(err.Error(), "newer release") || !strings.Contains(err.Error(), path) {
			t.Errorf("open a database of a newer release: %v", err)
		}
	}
}

func TestExisting(t *testing.T) {
	dir := t.TempDir()
	absent := filepath.Join(dir, "absent.db")
	_, err := meta.Open(t.Context(), meta.Options{Path: absent, Existing: true})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), absent) {
		t.Errorf("open a database that is not there: %v", err)
	}
	if _, err := os.Stat(absent); err == nil {
		t.Error("Existing has created a database")
	}
	other := filepath.Join(dir, "other.db")
	if err := os.WriteFile(other, []byte(strings.Repeat("this is no database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, existing := range []bool{false, true} {
		if _, err := meta.Open(t.Context(), meta.Options{Path: other, Existing: existing}); err == nil {
			t.Error("a file that is no database is opened")
		}
	}
}

func TestExistingNeverMigrates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "empty.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := meta.Open(t.Context(), meta.Options{Path: path, Existing: true})
	if err == nil || !strings.Contains(err.Error(), "berth serve") {
		t.Errorf("open an empty file: %v", err)
	}
	var tables int
	if err := sqlite(t, path).QueryRow(`SELECT COUNT(*) FROM sqlite_schema WHERE name = 'repositories'`).Scan(&tables); err != nil || tables != 0 {
		t.Errorf("Existing has made %d tables: %v", tables, err)
	}
}

func TestOddPaths(t *testing.T) {
	for _, name := range []string{"a b.db", "100%.db", "%41.db", "a?mode=memory.db", "a#b.db", "ü&x=y.db", "file:x.db"} {
		path := filepath.Join(t.TempDir(), name)
		put(t, open(t, meta.Options{Path: path}), "team/app")
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the database is not at its path: %v", err)
		}
		open(t, meta.Options{Path: path, Existing: true})
	}
}

func TestMissingFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "berth.db")
	if _, err := meta.Open(t.Context(), meta.Options{Path: path}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("open a database in a folder that is not there: %v", err)
	}
}

// TestSecondProcess opens a database a second time while the first one writes.
func TestSecondProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berth.db")
	first := open(t, meta.Options{Path: path})
	put(t, first, "team/app")
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				put(t, first, fmt.Sprint("team/app", i%5))
			}
		}
	})
	for i := range 5 {
		second, err := meta.Open(t.Context(), meta.Options{Path: path, Existing: true})
		if err != nil {
			t.Fatalf("open beside a writer: %v", err)
		}
		if list, err := second.Repositories(t.Context(), "", 10); err != nil || len(list) == 0 {
			t.Errorf("the second process sees %v, %v", list, err)
		}
		if findings, err := second.CheckDatabase(t.Context()); err != nil || len(findings) != 0 {
			t.Errorf("the second process finds %v, %v", findings, err)
		}
		if err := second.BuryOrphan(t.Context(), fmt.Sprint("orphan", i)); err != nil {
			t.Errorf("the second process cannot write: %v", err)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	writing.Wait()
	if _, _, err := first.KeyOwner(t.Context(), "orphan4"); err != nil {
		t.Errorf("the first process does not see what the second wrote: %v", err)
	}
}

// TestLeaseAcrossProcesses: a shared lease holds elsewhere; one that was not
// shared ends with its process.
func TestLeaseAcrossProcesses(t *testing.T) {
	for _, shared := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "berth.db")
		first := open(t, meta.Options{Path: path, Shared: shared})
		u := meta.Upload{ID: "session", Repository: "team/app", Algorithm: oci.SHA256, Hash: []byte{}}
		if err := first.CreateUpload(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		if _, err := first.LeaseUpload(t.Context(), "team/app", "session", time.Hour); err != nil {
			t.Fatal(err)
		}
		second := open(t, meta.Options{Path: path, Shared: shared})
		_, err := second.LeaseUpload(t.Context(), "team/app", "session", time.Hour)
		if shared != errors.Is(err, meta.ErrLeased) || !shared && err != nil {
			t.Errorf("lease from another process (shared: %v): %v", shared, err)
		}
	}
}

// TestDatabaseDamage checks that a broken foreign key is found.
func TestDatabaseDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berth.db")
	db := open(t, meta.Options{Path: path})
	if _, err := sqlite(t, path).Exec(`INSERT INTO links (repository_id, digest, seen_at) VALUES ('none', 'none', 0)`); err != nil {
		t.Fatal(err)
	}
	findings, err := db.CheckDatabase(t.Context())
	if err != nil || len(findings) != 2 || !strings.HasPrefix(findings[0], "links names a missing row") {
		t.Errorf("findings %q, %v; want the two broken keys of a link", findings, err)
	}
}

// TestNotesCostNoSync: that a manifest comes from upstream is on the disk when the
// manifest is, with the same sync.
func TestNotesCostNoSync(t *testing.T) {
	var kinds []string
	synced := 0
	db := open(t, meta.Options{Path: metatest.File(t), Observe: meta.Observer{
		Done:      func(_ context.Context, op meta.Op) { kinds = append(kinds, op.Kind) },
		Committed: func(time.Duration) { synced++ },
	}})
	kinds = nil
	if err := db.SaveProxyManifest(t.Context(), meta.ProxyManifest{Proxy: "hub", Repository: "hub/app", Digest: oci.SHA256.FromBytes(nil)}); err != nil {
		t.Fatal(err)
	}
	if len(kinds) != 1 || kinds[0] != "hint" || synced != 0 {
		t.Errorf("a note is %v, with %d syncs", kinds, synced)
	}
}
