package meta

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// migrate brings the schema up to date, or only looks whether it is where check
// is set. One that a newer release made is left alone.
func migrate(ctx context.Context, dialect goose.Dialect, pool *sql.DB, all fs.FS, check bool) error {
	files, err := fs.Sub(all, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(dialect, pool, files)
	if err != nil {
		return err
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	switch {
	case have > want:
		return fmt.Errorf("%w: version %d, and this one knows up to %d: run the newer release, or restore a backup of before", ErrNewer, have, want)
	case have < want && check:
		return fmt.Errorf("schema version %d is older than this binary's (%d): run `berth migrate`, or start `berth serve` once, to bring it up to date", have, want)
	case have == want:
		return nil
	}
	_, err = p.Up(ctx)
	return err
}
