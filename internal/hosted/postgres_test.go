package hosted_test

import (
	"os"
	"testing"

	"github.com/berth-registry/berth/internal/blob/fsblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
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
