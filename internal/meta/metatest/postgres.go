package metatest

import (
	"context"
	"sync"
	"testing"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/pgtest"
)

// URL is that of a new database on the test binary's PostgreSQL server, a copy
// of one whose schema is made once. The package's TestMain calls pgtest.Main.
func URL(t testing.TB) string {
	t.Helper()
	made.Lock()
	if made.template == "" {
		made.template = pgtest.Template(t, func(url string) error {
			db, err := meta.Open(context.Background(), meta.Options{Postgres: url})
			if err != nil {
				return err
			}
			return db.Close()
		})
	}
	made.Unlock()
	return pgtest.Database(t, made.template)
}

// made is the database that others are copies of.
var made struct {
	sync.Mutex
	template string
}
