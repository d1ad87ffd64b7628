package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/pressly/goose/v3"
)

// ErrNewer says that a newer release made the schema: this one must not touch it.
var ErrNewer = errors.New("the schema is of a newer release")

// Schema is the version of a database's schema, 0 where there is none yet, and
// the one that this release needs. It changes nothing.
func Schema(ctx context.Context, o Options) (have, want int64, err error) {
	if want, err = newestMigration(); err != nil {
		return 0, 0, err
	}
	driver, where, exists := "pgx", o.Postgres, `SELECT to_regclass('goose_db_version') IS NOT NULL`
	if o.Postgres == "" {
		if _, err := os.Stat(o.Path); errors.Is(err, os.ErrNotExist) {
			return 0, want, nil
		}
		driver, where, exists = "sqlite", dsn(o.Path, "query_only(1)"), `SELECT COUNT(*) > 0 FROM sqlite_schema WHERE name = 'goose_db_version'`
	}
	pool, err := sql.Open(driver, where)
	if err != nil {
		return 0, want, err
	}
	defer pool.Close()
	var made bool
	if err := pool.QueryRowContext(ctx, exists).Scan(&made); err != nil || !made {
		return 0, want, classify(err)
	}
	err = pool.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&have)
	return have, want, classify(err)
}

// Migrate brings a schema up to date, as Open does, and says from which version
// it came and to which it went.
func Migrate(ctx context.Context, o Options) (from, to int64, err error) {
	from, to, err = Schema(ctx, o)
	if err != nil || from == to {
		return from, to, err
	}
	o.Existing = false
	db, err := Open(ctx, o)
	if err != nil {
		return from, to, err
	}
	return from, to, db.Close()
}

// newestMigration is the version of this release's schema.
func newestMigration() (newest int64, err error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	for _, name := range files {
		n, err := goose.NumericComponent(name)
		if err != nil {
			return 0, fmt.Errorf("migration %s: %w", name, err)
		}
		newest = max(newest, n)
	}
	return newest, err
}
