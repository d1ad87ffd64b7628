// Package meta keeps what a registry knows in SQL: repositories, links, tags,
// manifests with their bytes, upload sessions. Its methods are the registry's
// steps, one transaction each; there are none per table. Invariants hold inside
// those transactions and nowhere else.
package meta

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/berth-registry/berth/internal/access"
)

// Errors for errors.Is.
var (
	ErrNotFound     = access.ErrNotFound
	ErrExists       = access.ErrExists
	ErrInUse        = access.ErrInUse
	ErrLastAdmin    = access.ErrLastAdmin
	ErrNoRepository = errors.New("repository not found")
	ErrLeased       = errors.New("upload session is in use by another writer")
	ErrFull         = errors.New("no space left for metadata")
	ErrClosed       = errors.New("database is closed")
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options of Open.
type Options struct {
	// Path of the SQLite file; its folder must exist.
	Path string
	// Existing refuses to create the database or to change its schema.
	Existing bool
	// Shared says that other processes write this database too, so that leases
	// of uploads must be visible to them.
	Shared bool
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// DB is the metadata database. It is safe for concurrent use.
type DB struct {
	read   *sql.DB
	write  *sql.DB
	writer *writer
	stmts  statements // of read
	owner  string     // this process in leases
	shared bool
	leases sync.Map // of upload ids, where the database is not shared
	gen    generation
	now    func() time.Time
}

// Open opens the database, creates it where needed and brings its schema up to
// date. The caller closes it.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Existing {
		if _, err := os.Stat(o.Path); err != nil {
			return nil, fmt.Errorf("no database at %s: is this the data folder of a registry? %w", o.Path, err)
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	db := &DB{owner: uuid.NewString(), shared: o.Shared, now: o.Now}
	if err := db.open(ctx, o); err != nil {
		db.Close()
		return nil, fmt.Errorf("database %s: %w", o.Path, err)
	}
	return db, nil
}

func (db *DB) open(ctx context.Context, o Options) (err error) {
	if db.write, err = sql.Open("sqlite", dsn(o.Path, "")); err != nil {
		return err
	}
	db.write.SetMaxOpenConns(1)
	if err := db.migrate(ctx, o.Existing); err != nil {
		return err
	}
	if db.read, err = sql.Open("sqlite", dsn(o.Path, "query_only(1)")); err != nil {
		return err
	}
	readers := max(4, 2*runtime.GOMAXPROCS(0))
	db.read.SetMaxOpenConns(readers)
	db.read.SetMaxIdleConns(readers)
	db.stmts.prepare = db.read.PrepareContext
	if db.writer, err = startWriter(ctx, db.write, o.Path); err != nil {
		return err
	}
	return db.readGeneration(ctx)
}

// dsn holds the settings of every connection. SQLite itself syncs only what a
// loss of power could otherwise corrupt; the writer syncs each commit. The busy
// timeout is for other processes only (an integrity check), as this one has a
// single writer.
func dsn(path, extra string) string {
	q := url.Values{"_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)",
		"foreign_keys(1)", "cache_size(-4096)",
		"wal_autocheckpoint(4096)", "journal_size_limit(67108864)",
	}}
	if extra != "" {
		q.Add("_pragma", extra)
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath(), RawQuery: q.Encode()}).String()
}

func (db *DB) migrate(ctx context.Context, check bool) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db.write, files)
	if err != nil {
		return err
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	switch {
	case have > want:
		return fmt.Errorf("schema version %d is newer than this binary knows (%d): run the newer release", have, want)
	case have < want && check:
		return fmt.Errorf("schema version %d is older than this binary's (%d): start `berth serve` once to bring it up to date", have, want)
	case have == want:
		return nil
	}
	_, err = p.Up(ctx)
	return err
}

// Close waits for running writes and closes the database.
func (db *DB) Close() error {
	if db.writer != nil {
		db.writer.close()
	}
	db.stmts.close()
	var errs []error
	for _, pool := range []*sql.DB{db.read, db.write} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	return errors.Join(errs...)
}

// Ping proves that the database answers.
func (db *DB) Ping(ctx context.Context) error {
	var one int
	return db.queryRow(ctx, `SELECT 1`).Scan(&one)
}

func (db *DB) millis() int64 { return db.now().UnixMilli() }

// queryRow runs a prepared query on a reading connection. Look-ups are short,
// so they are not cut short with ctx: watching it would cost as much again.
func (db *DB) queryRow(ctx context.Context, query string, args ...any) row {
	st, err := db.stmts.get(ctx, query)
	if err != nil {
		return row{err: err}
	}
	return row{row: st.QueryRowContext(context.WithoutCancel(ctx), args...)}
}

func (db *DB) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	st, err := db.stmts.get(ctx, query)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(context.WithoutCancel(ctx), args...)
}

// row is a *sql.Row whose absence is ErrNotFound.
type row struct {
	row *sql.Row
	err error
}

func (r row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	return classify(r.row.Scan(dest...))
}

// classify turns a driver's error into one of this package where it has one.
func classify(err error) error {
	var e *sqlite.Error
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
	case errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.As(err, &e) && (e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY):
		return fmt.Errorf("%w: %w", ErrExists, err)
	case errors.As(err, &e) && e.Code() == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return err
}
