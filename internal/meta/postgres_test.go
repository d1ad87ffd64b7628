package meta_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestPostgresConforms(t *testing.T) {
	metatest.RunShared(t, func(t *testing.T, o meta.Options) *meta.DB {
		o.Postgres = metatest.URL(t)
		return open(t, o)
	})
}

// postgres connects to a database beside package meta.
func postgres(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// TestPostgresOpenedByManyAtOnce: of replicas that start together, one makes
// the schema.
func TestPostgresOpenedByManyAtOnce(t *testing.T) {
	url := pgtest.Database(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			db, err := meta.Open(t.Context(), meta.Options{Postgres: url, Connections: 2})
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			defer db.Close()
			err = db.PutManifest(t.Context(), meta.PutManifest{Repository: fmt.Sprint("team/app", i), Digest: oci.SHA256.FromBytes(nil), Parsed: &oci.Manifest{}, Content: []byte{}})
			if err != nil {
				t.Errorf("put: %v", err)
			}
		})
	}
	all.Wait()
	db := open(t, meta.Options{Postgres: url, Existing: true})
	if list, err := db.Repositories(t.Context(), "", 10); err != nil || len(list) != 8 {
		t.Errorf("repositories %v, %v", list, err)
	}
}

func TestPostgresNewerSchemaIsRefused(t *testing.T) {
	url := pgtest.Database(t)
	if err := open(t, meta.Options{Postgres: url}).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres(t, url).Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, TRUE)`); err != nil {
		t.Fatal(err)
	}
	for _, existing := range []bool{false, true} {
		_, err := meta.Open(t.Context(), meta.Options{Postgres: url, Existing: existing})
		if err == nil || !strings.Contains(err.Error(), "99999") || !strings.Contains(err.Error(), "newer release") {
			t.Errorf("open a database of a newer release: %v", err)
		}
	}
}

func TestPostgresExistingNeverMigrates(t *testing.T) {
	url := pgtest.Database(t)
	_, err := meta.Open(t.Context(), meta.Options{Postgres: url, Existing: true})
	if err == nil || !strings.Contains(err.Error(), "berth serve") {
		t.Errorf("open an empty database: %v", err)
	}
	var tables int
	if err := postgres(t, url).QueryRow(`SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'`).Scan(&tables); err != nil || tables != 0 {
		t.Errorf("Existing has made %d tables: %v", tables, err)
	}
}

// TestPostgresSortsBytewise: in a database that sorts as English does, names
// come in the order of their bytes, and a column that does not is refused.
func TestPostgresSortsBytewise(t *testing.T) {
	url := pgtest.Database(t)
	db := open(t, meta.Options{Postgres: url})
	tags := []string{"_a", "B", "a", "A-1", "A.1", "b", "Z", "1", "a_b", "aB"}
	err := db.PutManifest(t.Context(), meta.PutManifest{Repository: "team/app", Digest: oci.SHA256.FromBytes(nil), Parsed: &oci.Manifest{}, Content: []byte{}, Tags: tags})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(tags)
	for i := range tags {
		after := ""
		if i > 0 {
			after = tags[i-1]
		}
		if got, err := db.Tags(t.Context(), "team/app", after, 100); err != nil || !slices.Equal(got, tags[i:]) {
			t.Errorf("tags after %q are %v, %v; want %v", after, got, err, tags[i:])
		}
	}
	var plain string
	err = postgres(t, url).QueryRow(`SELECT string_agg(name, ' ' ORDER BY name COLLATE "default") FROM tags`).Scan(&plain)
	if err != nil || plain == strings.Join(tags, " ") {
		t.Errorf("the database itself sorts %s, %v: this test shows nothing", plain, err)
	}
	if _, err := postgres(t, url).Exec(`ALTER TABLE tags ALTER COLUMN name TYPE TEXT COLLATE "default"`); err != nil {
		t.Fatal(err)
	}
	_, err = meta.Open(t.Context(), meta.Options{Postgres: url})
	if err == nil || !strings.Contains(err.Error(), "tags.name") || !strings.Contains(err.Error(), "bytewise") {
		t.Errorf("open a database whose tags sort otherwise: %v", err)
	}
}

// TestPostgresAbsent: errors of opening say where, and do not tell the password.
func TestPostgresAbsent(t *testing.T) {
	for _, url := range []string{"postgres://berth:hunter2@127.0.0.1:1/registry", "postgres://berth:hunter2@127.0.0.1:1:2/registry", "host=127.0.0.1 port=1 password=hunter2 dbname=registry"} {
		_, err := meta.Open(t.Context(), meta.Options{Postgres: url})
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "PostgreSQL") {
			t.Errorf("open a database that is not there: %v", err)
		}
	}
}

func TestPostgresClosed(t *testing.T) {
	db := open(t, meta.Options{Postgres: metatest.URL(t)})
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if err := db.Ping(t.Context()); !errors.Is(err, meta.ErrClosed) {
		t.Errorf("read of a closed database: %v", err)
	}
	if err := db.DeleteTag(t.Context(), "team/app", "x"); !errors.Is(err, meta.ErrClosed) {
		t.Errorf("write to a closed database: %v", err)
	}
}

// TestPostgresOddText: what no row can have is not found rather than an error.
func TestPostgresOddText(t *testing.T) {
	db := open(t, meta.Options{Postgres: metatest.URL(t)})
	for _, odd := range []string{"a\x00b", "\xff"} {
		if _, err := db.Upload(t.Context(), "team/app", odd); !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("look for %q: %v", odd, err)
		}
	}
}

// TestPostgresSlow: what waits for others for too long can be tried again.
func TestPostgresSlow(t *testing.T) {
	url := metatest.URL(t)
	db := open(t, meta.Options{Postgres: url, Timeout: 200 * time.Millisecond})
	put(t, db, "team/app")
	tx, err := postgres(t, url).Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec(`LOCK TABLE tags, repositories IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Tags(t.Context(), "team/app", "", 1); !errors.Is(err, meta.ErrUnavailable) {
		t.Errorf("a read that takes too long: %v", err)
	}
	if err := db.DeleteTag(t.Context(), "team/app", "x"); !errors.Is(err, meta.ErrUnavailable) {
		t.Errorf("a write that takes too long: %v", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteTag(t.Context(), "team/app", "x"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("a write afterwards: %v", err)
	}
}

// TestPostgresReadOnly: a server that takes no writes is not available.
func TestPostgresReadOnly(t *testing.T) {
	url := pgtest.Database(t)
	if err := open(t, meta.Options{Postgres: url}).Close(); err != nil {
		t.Fatal(err)
	}
	db := open(t, meta.Options{Postgres: url + "&default_transaction_read_only=on"})
	err := db.PutManifest(t.Context(), meta.PutManifest{Repository: "team/app", Digest: oci.SHA256.FromBytes(nil), Parsed: &oci.Manifest{}, Content: []byte{}})
	if !errors.Is(err, meta.ErrUnavailable) {
		t.Errorf("write to a server that is read-only: %v", err)
	}
	if err := db.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestPostgresRestart restarts and crashes the server under pushes: clients see
// nothing but errors that they may try again for, and all that was acknowledged
// is there.
func TestPostgresRestart(t *testing.T) {
	endUnderPushes(t, 8, (*pgtest.Server).Stop, (*pgtest.Server).Kill, (*pgtest.Server).Stop)
}

// TestPostgresCrash: many that push to one project at once share the wait for
// the disk, and nobody is answered before it.
func TestPostgresCrash(t *testing.T) {
	endUnderPushes(t, 32, (*pgtest.Server).Kill, (*pgtest.Server).Kill, (*pgtest.Server).Kill)
}

func endUnderPushes(t *testing.T, n int, ends ...func(*pgtest.Server)) {
	s := pgtest.Start(t, true)
	db := open(t, meta.Options{Postgres: s.URL("postgres"), Timeout: 5 * time.Second})
	put(t, db, "team/app")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var done sync.Map
	var pushed, refused atomic.Int64
	var clients sync.WaitGroup
	for c := range n {
		clients.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprintf("%d-%d", c, i)
				switch err := pushAgain(t.Context(), db, name); {
				case err == nil:
					done.Store(name, true)
					pushed.Add(1)
				case errors.Is(err, meta.ErrUnavailable), errors.Is(err, meta.ErrLeased), errors.Is(err, meta.ErrNotFound):
					refused.Add(1)
					time.Sleep(5 * time.Millisecond)
				default:
					t.Errorf("push %s: %v", name, err)
				}
			}
		})
	}
	for _, end := range ends {
		before := pushed.Load()
		for limit := time.Now().Add(20 * time.Second); pushed.Load() < before+20; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("nothing is pushed any more")
			}
		}
		end(s)
		time.Sleep(100 * time.Millisecond)
		if _, err := db.Repositories(t.Context(), "", 1); !errors.Is(err, meta.ErrUnavailable) {
			t.Errorf("read while the server is down: %v", err)
		}
		s.Restart(t)
	}
	time.Sleep(200 * time.Millisecond)
	stop()
	clients.Wait()
	t.Logf("%d pushed, %d refused", pushed.Load(), refused.Load())
	if refused.Load() == 0 {
		t.Error("nothing was refused: the server was not down")
	}
	done.Range(func(name, _ any) bool {
		if _, err := db.Manifest(t.Context(), "team/app", oci.TagRef("t"+name.(string))); err != nil {
			t.Errorf("what was acknowledged as %s: %v", name, err)
		}
		return true
	})
}

// pushAgain pushes an image of one blob.
func pushAgain(ctx context.Context, db *meta.DB, name string) error {
	id := uuid.NewString()
	if err := db.CreateUpload(ctx, meta.Upload{ID: id, Repository: "team/app", Algorithm: oci.SHA256, Size: 1, Hash: []byte{}}); err != nil {
		return err
	}
	u, err := db.LeaseUpload(ctx, "team/app", id, time.Minute)
	if err != nil {
		return err
	}
	d := oci.SHA256.FromBytes([]byte(name))
	if _, err := db.CommitBlob(ctx, u, d); err != nil {
		return err
	}
	return db.PutManifest(ctx, meta.PutManifest{Repository: "team/app", Digest: oci.SHA256.FromBytes([]byte(name + "m")), Content: []byte(name),
		Parsed: &oci.Manifest{Blobs: []oci.Descriptor{{Digest: d, Size: 1}}}, Tags: []string{"t" + name}})
}

// TestPostgresGeneration: what one replica changes shows at another within half
// a second, or at once where it asks.
func TestPostgresGeneration(t *testing.T) {
	url := metatest.URL(t)
	a, b := open(t, meta.Options{Postgres: url}), open(t, meta.Options{Postgres: url})
	before, err := b.Generation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := a.CreateUser(t.Context(), meta.Change{}, meta.UserSpec{Name: fmt.Sprint("user", i)}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := b.CatchUp(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else {
			time.Sleep(500 * time.Millisecond)
		}
		if g, err := b.Generation(t.Context()); err != nil || g != before+int64(i)+1 {
			t.Errorf("generation %d after %d changes from %d, %v", g, i+1, before, err)
		}
	}
}
