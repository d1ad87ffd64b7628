package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// sqliteEngine keeps the rows in a file of this process: many readers, and one
// writer that groups commits.
type sqliteEngine struct {
	read, pool *sql.DB // pool has the writer's one connection
	stmts      statements
	writer     *writer
}

func openSQLite(ctx context.Context, o Options) (*sqliteEngine, error) {
	if o.Existing {
		if _, err := os.Stat(o.Path); err != nil {
			return nil, fmt.Errorf("no database at %s: is this the data folder of a registry? %w", o.Path, err)
		}
	}
	e := &sqliteEngine{}
	if err := e.open(ctx, o); err != nil {
		e.close()
		return nil, fmt.Errorf("database %s: %w", o.Path, err)
	}
	return e, nil
}

func (e *sqliteEngine) open(ctx context.Context, o Options) (err error) {
	if e.pool, err = sql.Open("sqlite", dsn(o.Path, "")); err != nil {
		return err
	}
	e.pool.SetMaxOpenConns(1)
	if err := migrate(ctx, goose.DialectSQLite3, e.pool, migrations, o.Existing); err != nil {
		return err
	}
	if e.read, err = sql.Open("sqlite", dsn(o.Path, "query_only(1)")); err != nil {
		return err
	}
	readers := max(4, 2*runtime.GOMAXPROCS(0))
	e.read.SetMaxOpenConns(readers)
	e.read.SetMaxIdleConns(readers)
	e.stmts.prepare = e.read.PrepareContext
	e.writer, err = startWriter(ctx, e.pool, o.Path, o.Observe)
	return err
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

// query runs a prepared query on a reading connection. Look-ups are short, so
// they are not cut short with ctx: watching it would cost as much again.
func (e *sqliteEngine) query(ctx context.Context, query string, args []any) (*rows, error) {
	list, err := e.stmts.QueryContext(context.WithoutCancel(ctx), query, args...)
	if err != nil {
		return nil, err
	}
	return &rows{Rows: list}, nil
}

// write runs fn once, beside other writes of the same commit, never
// concurrently. All are alone.
func (e *sqliteEngine) write(ctx context.Context, k kind, fn func(*tx) error) error {
	return e.writer.do(&write{ctx: ctx, fn: fn, relaxed: k == relaxed, done: make(chan struct{})})
}

// hint reads the row within the transaction, for the connection is another's
// after it.
func (e *sqliteEngine) hint(ctx context.Context, query string, args []any) row {
	return row{scan: func(dest []any) error {
		return e.write(ctx, relaxed, func(t *tx) error { return t.queryRow(query, args...).Scan(dest...) })
	}}
}

// preceding: there is one log, and who loses the end of it loses this process too.
func (e *sqliteEngine) preceding() kind { return relaxed }

func (e *sqliteEngine) check(ctx context.Context) (findings []string, err error) {
	for _, query := range []string{
		`PRAGMA quick_check(20)`,
		`SELECT "table" || ' names a missing row of ' || parent FROM pragma_foreign_key_check LIMIT 20`,
	} {
		list, err := e.query(ctx, query, nil)
		if err != nil {
			return findings, err
		}
		lines, err := collect(list, scanString)
		for _, line := range lines {
			if line != "ok" {
				findings = append(findings, line)
			}
		}
		if err != nil {
			return findings, err
		}
	}
	return findings, nil
}

func (e *sqliteEngine) close() error {
	if e.writer != nil {
		e.writer.close()
	}
	e.stmts.close()
	var errs []error
	for _, pool := range []*sql.DB{e.read, e.pool} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	return errors.Join(errs...)
}

// sqliteKind is the error of this package that one of SQLite's is; nil: none.
func sqliteKind(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return nil
	}
	switch {
	case e.Code()&0xff == sqlite3.SQLITE_FULL:
		return ErrFull
	case e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return ErrExists
	case e.Code() == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		return ErrInUse
	}
	return nil
}
