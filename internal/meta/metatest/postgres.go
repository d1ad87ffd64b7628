package metatest

import (
	"context"
	"testing"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/pgtest"
)

// URL is that of a new database on the test binary's PostgreSQL server, with
// the schema that is made once. The package's TestMain calls pgtest.Main.
func URL(t testing.TB) string {
	t.Helper()
	return schema.Database(t)
}

var schema = pgtest.Template{Fill: func(url string) error {
	db, err := meta.Open(context.Background(), meta.Options{Postgres: url})
	if err != nil {
		return err
	}
	return db.Close()
}}
