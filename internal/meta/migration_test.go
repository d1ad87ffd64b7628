package meta

import (
	"database/sql"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pressly/goose/v3"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/oci"
)

// oldDatabase makes a database of the release before projects and fills it.
func oldDatabase(t *testing.T, fill ...string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "berth.db")
	db, err := sql.Open("sqlite", dsn(path, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for _, query := range fill {
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	return path
}

// TestMigration brings an old database up to date: each first segment becomes a
// project that nobody has claimed, and what it uses is counted.
func TestMigration(t *testing.T) {
	d, held := oci.SHA256.FromBytes([]byte("a")), oci.SHA256.FromBytes([]byte("b"))
	m := oci.SHA256.FromBytes([]byte("m"))
	blobs := strings.NewReplacer("DIGEST", d.String(), "HELD", held.String(), "MANIFEST", m.String())
	path := oldDatabase(t,
		`INSERT INTO repositories (id, name, created_at) VALUES ('r1', 'team/app', 1), ('r2', 'team/app/deep', 1),
			('r3', 'app', 1), ('r4', 'app-two/x', 1), ('r5', 'a', 1), ('r6', 'a/a/a', 1), ('r7', 'te', 1), ('r8', 'x.y__z/1', 1)`,
		blobs.Replace(`INSERT INTO blobs (digest, size, key, created_at) VALUES ('DIGEST', 100, 'k1', 1), ('HELD', 1000, 'k2', 1)`),
		blobs.Replace(`INSERT INTO links (repository_id, digest, seen_at) VALUES
			('r1', 'DIGEST', 1), ('r2', 'DIGEST', 1), ('r1', 'HELD', 1), ('r3', 'HELD', 1)`),
		blobs.Replace(`INSERT INTO manifests (repository_id, digest, media_type, size, artifact_type, created_at, annotations, content)
			VALUES ('r1', 'MANIFEST', 'x', 7, '', 1, '', x'00010203040506'), ('r2', 'MANIFEST', 'x', 7, '', 1, '', x'00010203040506')`),
		blobs.Replace(`INSERT INTO tags (repository_id, name, digest, updated_at) VALUES ('r1', 'v1', 'MANIFEST', 1)`),
		`INSERT INTO uploads (id, repository, algorithm, size, version, lease_owner, lease_until, updated_at, hash)
			VALUES ('s1', 'team/app', 'sha256', 5, 0, '', 0, 1, x'00')`,
	)
	db, err := Open(t.Context(), Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })

	type usage struct{ storage, repositories int64 }
	for name, want := range map[string]usage{
		"team": {100 + 1000 + 14, 2}, "app": {1000, 1}, "app-two": {0, 1}, "a": {0, 2}, "te": {0, 1}, "x.y__z": {0, 1},
	} {
		p, err := db.Project(t.Context(), name)
		if err != nil || p.Claimed || p.Visibility != access.Private || p.Newcomers != "" || p.Organization != "default" ||
			(usage{p.Storage, p.Repositories}) != want {
			t.Errorf("project %s is %+v, %v; want %+v", name, p, err, want)
		}
	}
	if list, err := db.Projects(t.Context(), View{Everything: true}, ProjectFilter{}, "", 100); err != nil || len(list) != 6 {
		t.Errorf("%d projects, %v; want 6", len(list), err)
	}
	wantAllCounted(t, db)
	names, err := db.Repositories(t.Context(), "", 100)
	if want := []string{"a", "a/a/a", "app", "app-two/x", "te", "team/app", "team/app/deep", "x.y__z/1"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("repositories %v, %v", names, err)
	}
	if _, err := db.Manifest(t.Context(), "team/app", oci.TagRef("v1")); err != nil {
		t.Errorf("the manifest: %v", err)
	}
	if u, err := db.LeaseUpload(t.Context(), "team/app", "s1", 0); err != nil || u.Size != 5 {
		t.Errorf("the open session is %+v, %v", u, err)
	}
	if err := db.DeleteBlob(t.Context(), "app", held); err != nil {
		t.Error(err)
	}
	if err := db.DeleteManifest(t.Context(), "team/app", m); err != nil {
		t.Error(err)
	}
	wantAllCounted(t, db)
}

func wantAllCounted(t *testing.T, db *DB) {
	t.Helper()
	for c, err := db.CheckUsage(t.Context(), ""); !errors.Is(err, ErrNotFound); c, err = db.CheckUsage(t.Context(), c.ProjectID) {
		if err != nil {
			t.Fatal(err)
		}
		if !c.Agrees() {
			t.Errorf("miscounted: %+v", c)
		}
	}
	if findings, err := db.CheckDatabase(t.Context()); err != nil || len(findings) != 0 {
		t.Errorf("findings %v, %v", findings, err)
	}
}

// TestMigrationOfNothing: an empty registry has no project.
func TestMigrationOfNothing(t *testing.T) {
	db, err := Open(t.Context(), Options{Path: oldDatabase(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if list, err := db.Projects(t.Context(), View{Everything: true}, ProjectFilter{}, "", 100); err != nil || len(list) != 0 {
		t.Errorf("projects %v, %v", list, err)
	}
	if g, err := db.Generation(t.Context()); err != nil || g != 1 {
		t.Errorf("generation %d, %v", g, err)
	}
}
