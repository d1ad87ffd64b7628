package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
)

// engine keeps the rows: SQLite within this process, or a PostgreSQL server.
// Both take one text of each statement, with $1 for its first argument.
type engine interface {
	// query reads. What it reads is not cut short with ctx.
	query(ctx context.Context, query string, args []any) (*rows, error)
	// write runs fn in a transaction: all of it or nothing. It may run fn again
	// where others were in the way, so that fn begins anew with what it returns.
	// Its errors went through classify.
	write(ctx context.Context, k kind, fn func(*tx) error) error
	// hint is a relaxed write of a single statement, which returns rows. It may run
	// again where it is not known to have run: the second must do no harm.
	hint(ctx context.Context, query string, args []any) row
	// preceding is the kind of what must be on the disk when a durable write is that
	// this process begins later.
	preceding() kind
	// check looks for damage of the engine's own structures.
	check(ctx context.Context) (findings []string, err error)
	// pools tells of the connections.
	pools() []Pool
	// close waits for running writes; those that come later fail with ErrClosed.
	close() error
}

// kind is what a transaction asks for besides being one.
type kind int

const (
	durable kind = iota // survives a loss of power when it has succeeded
	relaxed             // outlives the process; a loss of power may undo it
	alone               // durable, and no other of this kind runs beside it in any process
)

// errAgain ends a transaction that lost a race, to be run again. SQLite's one
// writer leaves no room for it.
var errAgain = errors.New("rows were changed by another transaction meanwhile")

// session runs the statements of a transaction.
type session interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	// lock keeps others from changing the rows that the query finds until the
	// transaction ends, and fails with errAgain where it finds none any more.
	// Rows that are locked may still be named by new foreign keys. An engine
	// where no two transactions run at once has nothing to do.
	lock(ctx context.Context, query string, args ...any) error
	// locking is what makes a SELECT lock as lock does the row that it finds.
	locking() string
}

// tx is the transaction that a write runs in.
type tx struct {
	ctx    context.Context
	on     session
	raised *int64 // the generation, where this transaction raised it
	// wanted: others wait for a row that this transaction has changed or locked.
	// It is to be free before the disk has everything, not after.
	wanted bool
}

// exec runs a statement and counts the rows it changed.
func (t *tx) exec(query string, args ...any) (int64, error) {
	res, err := t.on.ExecContext(t.ctx, query, args...)
	if err != nil {
		return 0, classify(err)
	}
	return res.RowsAffected()
}

func (t *tx) query(query string, args ...any) (*rows, error) {
	list, err := t.on.QueryContext(t.ctx, query, args...)
	if err != nil {
		return nil, classify(err)
	}
	return &rows{Rows: list}, nil
}

func (t *tx) queryRow(query string, args ...any) row {
	list, err := t.query(query, args...)
	return row{rows: list, err: err}
}

// lock is session.lock.
func (t *tx) lock(query string, args ...any) error { return t.on.lock(t.ctx, query, args...) }

// lockedRow reads a row, as of after the lock on it that it takes.
func (t *tx) lockedRow(query string, args ...any) row {
	return t.queryRow(query+t.on.locking(), args...)
}

// strings reads a query of one text column whole; its LIMIT bounds it.
func (t *tx) strings(query string, args ...any) ([]string, error) {
	list, err := t.query(query, args...)
	if err != nil {
		return nil, err
	}
	return collect(list, scanString)
}

// protect turns a panic of fn into an error, so that it ends nothing but fn's
// transaction.
func protect(t *tx, fn func(*tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a transaction: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(t)
}

// rows are sql.Rows with what ends with them.
type rows struct {
	*sql.Rows
	done func() // may be nil
}

// Close may be called more than once.
func (r *rows) Close() error {
	err := r.Rows.Close()
	if r.done != nil {
		r.done()
		r.done = nil
	}
	return err
}

// collect scans and closes rows.
func collect[T any](list *rows, scan func(*sql.Rows) (T, error)) ([]T, error) {
	defer list.Close()
	var all []T
	for list.Next() {
		v, err := scan(list.Rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, classify(list.Err())
}

// row is the first of rows, whose absence is ErrNotFound.
type row struct {
	rows *rows
	err  error
	scan func(dest []any) error // instead of these two, where it is set
}

// Scan reads the row and ends the query.
func (r row) Scan(dest ...any) error {
	if r.scan != nil {
		return r.scan(dest)
	}
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return classify(err)
		}
		return ErrNotFound
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	return classify(r.rows.Close())
}
