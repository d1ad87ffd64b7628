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
	"sync"
	"time"

	"github.com/google/uuid"

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
	ErrJobLeased    = errors.New("the job is not due, or is done by another process")
	ErrFull         = errors.New("no space left for metadata")
	// ErrUnavailable: the server cannot be reached, is shutting down, is read-only,
	// or took too long. What was asked for may be tried again.
	ErrUnavailable = access.ErrUnavailable
	// ErrClosed is an ErrUnavailable: another replica, or the next process, answers.
	ErrClosed = fmt.Errorf("%w: it is closed", ErrUnavailable)
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options of Open.
type Options struct {
	// Path of the SQLite file; its folder must exist.
	Path string
	// Postgres is the URL of a PostgreSQL database to use instead of a file:
	// postgres://user:password@host:port/database?sslmode=…, or libpq's
	// key=value form. The PG… variables of the environment count as for psql.
	Postgres string
	// Connections bounds those to the PostgreSQL server; 0 is 4 for each
	// processor, and 16 at least.
	Connections int
	// Timeout bounds each statement on the PostgreSQL server, and with two
	// seconds more each read or transaction, the wait for a connection and all
	// attempts at it included. 0 is 10 s, or 10 min where Existing is set, for a
	// check walks whole tables.
	Timeout time.Duration
	// Existing refuses to create the database or to change its schema.
	Existing bool
	// Shared says that other processes write this database too, so that leases
	// of uploads must be visible to them. With PostgreSQL it goes without saying.
	Shared bool
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Observe hears of what the database does; the zero value of nothing.
	Observe Observer
}

// DB is the metadata database. It is safe for concurrent use.
type DB struct {
	engine engine
	owner  string // this process in leases
	shared bool
	leases sync.Map // of upload ids, where the database is not shared
	gen    generation
	now    func() time.Time
	hear   Observer
}

// Open opens the database, creates its schema where needed and brings it up to
// date. The caller closes it.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	db := &DB{owner: uuid.NewString(), shared: o.Shared || o.Postgres != "", now: o.Now, hear: o.Observe}
	var err error
	if o.Postgres != "" {
		db.engine, err = openPostgres(ctx, o)
	} else {
		db.engine, err = openSQLite(ctx, o)
	}
	if err != nil {
		return nil, err
	}
	if err := db.readGeneration(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// Close waits for running writes and closes the database.
func (db *DB) Close() error { return db.engine.close() }

// Ping proves that the database answers.
func (db *DB) Ping(ctx context.Context) error {
	var one int
	return db.queryRow(ctx, `SELECT 1`).Scan(&one)
}

func (db *DB) millis() int64 { return db.now().UnixMilli() }

// update runs fn in a transaction that is durable when update returns nil. Two
// that change the same rows run one after the other, others side by side; what
// was read may change before the end, unless a foreign key or a lock holds it.
func (db *DB) update(ctx context.Context, fn func(*tx) error) error {
	return db.write(ctx, durable, fn)
}

// hint is update for rows whose loss in a power cut nobody would notice: it
// outlives the process, but is synced only with the next update.
func (db *DB) hint(ctx context.Context, fn func(*tx) error) error {
	return db.write(ctx, relaxed, fn)
}

// write is the engine's, heard of.
func (db *DB) write(ctx context.Context, k kind, fn func(*tx) error) error {
	if db.hear.Done == nil {
		return db.engine.write(ctx, k, fn)
	}
	start := time.Now()
	err := db.engine.write(ctx, k, fn)
	db.hear.done(ctx, k.String(), start, err)
	return err
}

// hintRow is hint for one statement, which returns a row; it may run twice.
func (db *DB) hintRow(ctx context.Context, query string, args ...any) row {
	r := db.engine.hint(ctx, query, args)
	if db.hear.Done == nil {
		return r
	}
	return row{scan: func(dest []any) error {
		start := time.Now()
		err := r.Scan(dest...)
		db.hear.done(ctx, relaxed.String(), start, err)
		return err
	}}
}

// queryRow reads one row.
func (db *DB) queryRow(ctx context.Context, query string, args ...any) row {
	list, err := db.query(ctx, query, args...)
	return row{rows: list, err: err}
}

func (db *DB) query(ctx context.Context, query string, args ...any) (*rows, error) {
	if db.hear.Done == nil {
		list, err := db.engine.query(ctx, query, args)
		return list, classify(err)
	}
	start := time.Now()
	list, err := db.engine.query(ctx, query, args)
	err = classify(err)
	db.hear.done(ctx, "read", start, err)
	return list, err
}

// classify turns a driver's error into one of this package where it has one.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	known := sqliteKind(err)
	if known == nil {
		known = postgresKind(err)
	}
	if known == nil || errors.Is(err, known) {
		return err
	}
	return fmt.Errorf("%w: %w", known, err)
}
