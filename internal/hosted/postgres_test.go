package hosted_test

import (
	"os"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob/fsblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/pgtest"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// TestPostgresConforms runs the suite with the rows on a PostgreSQL server.
func TestPostgresConforms(t *testing.T) {
	open := func(o hosted.Options) func(t *testing.T) registry.Registry {
		return func(t *testing.T) registry.Registry {
			files, err := fsblob.New(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return hosted.New(openDB(t, meta.Options{Postgres: metatest.URL(t)}), files, o)
		}
	}
	sparse := hosted.Options{Sparse: func(name string) bool { return name == repo }}
	registrytest.Run(t, open(hosted.Options{}), registrytest.Options{Sparse: open(sparse)})
}

// TestDatabaseRestart: an upload session outlives the database server; while
// that is away clients are told to try again.
func TestDatabaseRestart(t *testing.T) {
	server := pgtest.Start(t, true)
	files, err := fsblob.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	open := func() registry.Registry {
		return hosted.New(openDB(t, meta.Options{Postgres: server.URL("postgres"), Timeout: 5 * time.Second}), files, hosted.Options{})
	}
	here, there := open(), open()
	content := registrytest.Random(1000)
	u, err := here.StartUpload(t.Context(), repo, registry.UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Append(t.Context(), 0, reader(content[:400])); err != nil {
		t.Fatal(err)
	}
	for _, end := range []func(){server.Stop, server.Kill} {
		end()
		for what, r := range map[string]registry.Registry{"the same replica": here, "another": there} {
			if _, err := r.ResumeUpload(t.Context(), repo, u.ID()); !registry.IsCode(err, registry.Unavailable) {
				t.Errorf("resume on %s without a database: %v", what, err)
			}
			if _, err := r.StartUpload(t.Context(), repo, registry.UploadOptions{}); !registry.IsCode(err, registry.Unavailable) {
				t.Errorf("start on %s without a database: %v", what, err)
			}
		}
		server.Restart(t)
	}
	if u, err = there.ResumeUpload(t.Context(), repo, u.ID()); err != nil {
		t.Fatal(err)
	}
	if u.Offset() != 400 {
		t.Errorf("the session stands at %d, want 400", u.Offset())
	}
	if err := u.Append(t.Context(), 400, reader(content[400:])); err != nil {
		t.Fatal(err)
	}
	d := oci.SHA256.FromBytes(content)
	if _, err := u.Commit(t.Context(), -1, nil, d); err != nil {
		t.Fatal(err)
	}
	if _, err := here.Blob(t.Context(), repo, d); err != nil {
		t.Error(err)
	}
}
