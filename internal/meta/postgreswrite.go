package meta

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// How often a transaction is tried, by what is in its way.
const (
	maxRaces = 12 // others, that took a row first
	maxAsked = 3  // a constraint: perhaps another transaction's doing
	maxLost  = 24 // a connection that ended, or none to be had: a second or two
)

// begin is how a kind of transaction begins, in one message to the server.
// Connections are set up for relaxed ones. Those that are alone queue for the row
// that nearly all of them change at their end.
func (e *postgresEngine) begin(k kind) string {
	switch k {
	case relaxed:
		return `BEGIN`
	case alone:
		return `BEGIN; ` + e.waits + `; SELECT value FROM access_generation WHERE id = 1 FOR UPDATE`
	}
	return `BEGIN; ` + e.waits
}

// write runs fn in a transaction that sees, with each statement, what others
// have committed before. A row that fn changes or locks stays as it is for
// others until the end; all else is held by foreign keys and unique indexes: a
// transaction that one of them refuses runs again, to see why, and only then
// fails for it.
func (e *postgresEngine) write(ctx context.Context, k kind, fn func(*tx) error) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.closed {
		return ErrClosed
	}
	end := e.limit()
	for try := 1; ; try++ {
		if err := e.enter(ctx, end); err != nil {
			return err
		}
		start := e.outage.now()
		again, err := e.attempt(ctx, end, k, fn)
		e.slots.release()
		last := err == nil || try >= again || time.Now().After(end) || !pause(ctx, try)
		e.outage.heard(start, err, last, e.ask)
		if last {
			return classify(err)
		}
		e.hear.retried(err)
	}
}

// hint runs the statement in a transaction of its own, which saves the messages
// that begin and end one.
func (e *postgresEngine) hint(ctx context.Context, query string, args []any) row {
	return row{scan: func(dest []any) error {
		for end, try := e.limit(), 1; ; try++ {
			list, err := e.query(ctx, query, args)
			again := 0 // lost connections were tried already
			if err == nil {
				err = row{rows: list}.Scan(dest...)
				again = worth(err)
			} else if worth(err) == maxRaces {
				again = maxRaces
			}
			if err == nil || errors.Is(err, ErrNotFound) || try >= again || time.Now().After(end) || !pause(ctx, try) {
				return classify(err)
			}
			e.hear.retried(err)
		}
	}}
}

// pause waits longer each time, and reports whether ctx still stands.
func pause(ctx context.Context, try int) bool {
	most := min(time.Millisecond<<try, 200*time.Millisecond)
	select {
	case <-ctx.Done():
		return false
	case <-time.After(rand.N(most)):
		return true
	}
}

// attempt runs fn once. again is how many attempts its error is worth, 0 for
// none: a commit without an answer may have been done. No statement begins after
// end.
func (e *postgresEngine) attempt(ctx context.Context, end time.Time, k kind, fn func(*tx) error) (again int, err error) {
	conn, err := e.pool.Conn(ctx)
	if err == nil {
		defer conn.Close()
	}
	switch {
	case ctx.Err() != nil: // nothing has begun
		return 0, ctx.Err()
	case err != nil:
		return worth(err), late(err)
	}
	// Once begun, it is not cut short with ctx.
	ctx = context.WithoutCancel(ctx)
	if _, err := conn.ExecContext(ctx, e.begin(k), pgx.QueryExecModeSimpleProtocol); err != nil {
		return rollback(ctx, conn, err)
	}
	s := &postgresSession{Conn: conn, until: end}
	t := &tx{ctx: ctx, on: s}
	if err := protect(t, fn); err != nil || s.failed != nil {
		if s.failed == nil {
			return rollback(ctx, conn, err)
		}
		again, _ := rollback(ctx, conn, s.failed)
		if err == nil { // fn went on regardless; nothing of it has happened
			err = s.failed
		}
		return again, late(err)
	}
	committed := func(error) {}
	if k != relaxed {
		committed = e.hear.committing()
	}
	_, err = conn.ExecContext(ctx, e.commit(k, t), pgx.QueryExecModeSimpleProtocol)
	if committed(err); err != nil {
		if again = worth(err); again == maxLost {
			again = 0
		}
		return again, late(err)
	}
	return 0, nil
}

// commitFreeing commits in two steps, with one message to the server and one
// answer. The first frees what the transaction holds and does not wait for the
// disk. The second is a transaction of its own that only adds to the log: it is
// durable when the answer comes, and with it all that the log has before it.
// Transactions that queue for one row so share their syncs. Both run on one
// connection, which ends with the server process: where the server crashes in
// between, there is no answer.
func (e *postgresEngine) commitFreeing() string {
	return `SET LOCAL synchronous_commit = off; COMMIT; ` + e.waits + `, pg_logical_emit_message(true, 'berth', ''::text)`
}

// mayEmit asks whether that function is there and may be called.
const mayEmit = `SELECT COALESCE(bool_or(has_function_privilege(oid, 'EXECUTE')), FALSE) FROM pg_proc WHERE proname = 'pg_logical_emit_message'`

// commit is how a transaction of that kind ends. A generation must not be seen
// before it is durable: a crash would give the same number to another change, and
// who has seen the first would take the second for known.
func (e *postgresEngine) commit(k kind, t *tx) string {
	if k == durable && t.wanted && t.raised == nil && e.emits {
		return e.commitFreeing()
	}
	return `COMMIT`
}

// late makes the end of this package's own time limits what it means.
func late(err error) error {
	switch {
	case errors.Is(err, errSilent):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w: %w", ErrUnavailable, errSilent, err)
	}
	return err
}

// rollback ends a transaction that failed. Where that fails too, the connection
// is not used again, and the server ends the transaction with it.
func rollback(ctx context.Context, conn *sql.Conn, err error) (again int, _ error) {
	if _, failed := conn.ExecContext(ctx, `ROLLBACK`, pgx.QueryExecModeSimpleProtocol); failed != nil {
		conn.Raw(func(any) error { return driver.ErrBadConn })
	}
	return worth(err), late(err)
}

// worth is how many attempts an error is worth, before the commit.
func worth(err error) int {
	var e *pgconn.PgError
	switch {
	case errors.Is(err, errAgain):
		return maxRaces
	case lost(err):
		return maxLost
	case !errors.As(err, &e):
		return 0
	}
	switch e.Code {
	case "53300": // too many connections: perhaps others give theirs back
		return maxLost
	case "40001", "40P01": // serialization failure, deadlock
		return maxRaces
	case "23503", "23505": // foreign key, unique
		return maxAsked
	}
	return 0
}

// lost reports whether an error says that there is no connection any more, or
// none to be had now, rather than what the server says of a statement.
func lost(err error) bool {
	var e *pgconn.PgError
	if errors.Is(err, errSilent) {
		return false
	}
	if errors.As(err, &e) {
		switch e.Code {
		case "57P01", "57P02", "57P03", "57P05", "25P03": // shutting down, crashed, starting, idle for too long
			return true
		}
		return e.Code[:2] == "08"
	}
	var network net.Error
	var connect *pgconn.ConnectError
	return errors.As(err, &connect) || errors.As(err, &network) && !errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || pgconn.SafeToRetry(err)
}

// postgresKind is the error of this package that one of PostgreSQL's, or of the
// way to it, is; nil: none.
func postgresKind(err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		if lost(err) || errors.Is(err, errAgain) || isLate(err) {
			return ErrUnavailable
		}
		return nil
	}
	switch e.Code {
	case "23505":
		return ErrExists
	case "23503":
		return ErrInUse
	case "22021": // text with a zero byte or not UTF-8, which no row has
		return ErrNotFound
	case "53100":
		return ErrFull
	case "40001", "40P01", "55P03", // in the way of others for too long
		"57014",                   // the time for a statement is over
		"25006",                   // a standby, or read-only
		"53200", "53300", "53400": // memory, connections
		return ErrUnavailable
	}
	if lost(err) {
		return ErrUnavailable
	}
	return nil
}

// postgresSession is the transaction on a connection. After a statement has
// failed there is nothing left to commit, whatever fn makes of it.
type postgresSession struct {
	*sql.Conn
	until  time.Time // no statement begins later
	failed error     // the first that did
}

// begin ends a transaction that takes so long that others wait in vain.
func (s *postgresSession) begin() error {
	if s.failed == nil && time.Now().After(s.until) {
		s.failed = fmt.Errorf("%w: the transaction takes too long", errSilent)
	}
	return s.failed
}

// ExecContext runs a statement that changes rows.
func (s *postgresSession) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	res, err := s.Conn.ExecContext(ctx, query, args...)
	s.note(err)
	return res, err
}

// QueryContext runs a statement that returns rows.
func (s *postgresSession) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	list, err := s.Conn.QueryContext(ctx, query, args...)
	s.note(err)
	return list, err
}

func (s *postgresSession) note(err error) {
	if s.failed == nil {
		s.failed = err
	}
}

func (s *postgresSession) lock(ctx context.Context, query string, args ...any) error {
	res, err := s.ExecContext(ctx, query+s.locking(), args...)
	if err != nil {
		return classify(err)
	}
	n, err := res.RowsAffected()
	return unchanged(n, err)
}

func (s *postgresSession) locking() string { return ` FOR NO KEY UPDATE` }
