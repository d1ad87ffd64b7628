package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/berth-registry/berth/internal/blob/fsblob"
	"github.com/berth-registry/berth/internal/config"
	"github.com/berth-registry/berth/internal/meta"
)

// ErrNewer says that a newer release made the database's schema.
var ErrNewer = meta.ErrNewer

// ErrOutdated says that the database's schema must be brought up to date.
var ErrOutdated = errors.New("the schema is not up to date")

// Migrate brings the database's schema up to date without serving, or only looks
// whether it is where check is set.
func Migrate(ctx context.Context, c *config.Config, check bool, s Streams) error {
	o := databaseOf(c)
	have, want, err := meta.Schema(ctx, o)
	if err != nil {
		return err
	}
	switch {
	case have > want:
		return fmt.Errorf("%w: version %d, and this one knows up to %d: run the newer release, or restore a backup of before", ErrNewer, have, want)
	case have == want:
		fmt.Fprintf(s.Out, "the schema has version %d and is up to date\n", have)
		return nil
	case check:
		fmt.Fprintf(s.Out, "the schema has version %d, this release needs %d\n", have, want)
		return fmt.Errorf("%w: run `berth migrate`, or start this release's `berth serve`, which does it by itself", ErrOutdated)
	}
	release, err := own(c)
	if err != nil {
		return err
	}
	defer release()
	from, to, err := meta.Migrate(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "the schema went from version %d to %d\n", from, to)
	return nil
}

// databaseOf is the database that c names.
func databaseOf(c *config.Config) meta.Options {
	return meta.Options{Path: c.Metadata.SQLite.Path, Postgres: c.Metadata.Postgres.URL}
}

// own makes this process the one that uses a database file, which is no more
// shared than its folder. A server sees to that by itself.
func own(c *config.Config) (release func(), err error) {
	if c.Metadata.Postgres.URL != "" {
		return func() {}, nil
	}
	dir := filepath.Dir(c.Metadata.SQLite.Path)
	if err := fsblob.MakeFolder(dir); err != nil {
		return nil, err
	}
	held, err := lockFolders(dir)
	return held.release, err
}
