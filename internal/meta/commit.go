package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// maxBatch bounds how many writes share one commit, and so how long the first
// of them waits for the others.
const maxBatch = 64

// writer serialises all writes on one connection. Writes that arrive while a
// commit is being synced share the next one: each runs in a savepoint of its
// own, so that its failure undoes nothing but itself, and none is answered
// before the sync that covers it.
type writer struct {
	conn  *sql.Conn
	stmts statements
	queue chan *write
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	relaxed bool // what the connection is set to
}

// write is one unit of work and its outcome.
type write struct {
	ctx     context.Context
	fn      func(*tx) error
	relaxed bool
	err     error
	done    chan struct{}
}

// tx is the transaction that a write runs in.
type tx struct {
	ctx context.Context
	w   *writer
}

func startWriter(ctx context.Context, pool *sql.DB) (*writer, error) {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{conn: conn, queue: make(chan *write, maxBatch), stop: make(chan struct{}), done: make(chan struct{})}
	w.stmts.prepare = conn.PrepareContext
	go w.run()
	return w, nil
}

// update runs fn in a transaction that is durable when update returns nil. fn
// may run beside other writes of the same commit, never concurrently.
func (db *DB) update(ctx context.Context, fn func(*tx) error) error {
	return db.writer.do(&write{ctx: ctx, fn: fn, done: make(chan struct{})})
}

// hint is update for rows whose loss in a power cut nobody would notice: it
// outlives the process, but is synced only with the next update.
func (db *DB) hint(ctx context.Context, fn func(*tx) error) error {
	return db.writer.do(&write{ctx: ctx, fn: fn, relaxed: true, done: make(chan struct{})})
}

func (w *writer) do(wr *write) error {
	select {
	case w.queue <- wr:
	case <-wr.ctx.Done():
		return wr.ctx.Err()
	case <-w.stop:
		return ErrClosed
	}
	select {
	case <-wr.done:
		return classify(wr.err)
	case <-w.done: // closed; the write may still have been the last one
		select {
		case <-wr.done:
			return classify(wr.err)
		default:
			return ErrClosed
		}
	}
}

func (w *writer) close() {
	w.once.Do(func() { close(w.stop) })
	<-w.done
}

func (w *writer) run() {
	defer close(w.done)
	defer w.conn.Close()
	defer w.stmts.close()
	for {
		select {
		case wr := <-w.queue:
			w.batch(wr)
		case <-w.stop:
			for {
				select {
				case wr := <-w.queue:
					w.batch(wr)
				default:
					return
				}
			}
		}
	}
}

// batch runs first and whatever is queued behind it in one commit.
func (w *writer) batch(first *write) {
	group := append(make([]*write, 0, 8), first)
	for len(group) < maxBatch {
		select {
		case wr := <-w.queue:
			group = append(group, wr)
			continue
		default:
		}
		break
	}
	if err := w.commit(group); err != nil {
		for _, wr := range group {
			wr.err = errors.Join(wr.err, err)
		}
	}
	for _, wr := range group {
		close(wr.done)
	}
}

// commit runs the group. Its error is the whole group's; a single write's own
// error is left in that write.
func (w *writer) commit(group []*write) (err error) {
	relaxed := true
	for _, wr := range group {
		relaxed = relaxed && wr.relaxed
	}
	if err := w.setRelaxed(relaxed); err != nil {
		return err
	}
	if err := w.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			w.exec("ROLLBACK") // best effort: SQLite may have rolled back already
		}
	}()
	for _, wr := range group {
		if wr.err = wr.ctx.Err(); wr.err != nil {
			continue
		}
		if err := w.savepoint(wr); err != nil {
			return err
		}
	}
	return w.exec("COMMIT")
}

// savepoint runs one write. Its error means that the transaction is broken.
func (w *writer) savepoint(wr *write) error {
	if err := w.exec("SAVEPOINT w"); err != nil {
		return err
	}
	if wr.err = w.protect(wr); wr.err != nil {
		if err := w.exec("ROLLBACK TO w"); err != nil {
			return errors.Join(wr.err, err)
		}
	}
	return w.exec("RELEASE w")
}

// protect keeps a panic of one write from ending the only writer.
func (w *writer) protect(wr *write) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a transaction: %v\n%s", p, debug.Stack())
		}
	}()
	return wr.fn(&tx{ctx: context.WithoutCancel(wr.ctx), w: w})
}

func (w *writer) setRelaxed(relaxed bool) error {
	if w.relaxed == relaxed {
		return nil
	}
	level := "FULL"
	if relaxed {
		level = "NORMAL"
	}
	// Not a prepared statement: this pragma acts when it is compiled.
	if _, err := w.conn.ExecContext(context.Background(), "PRAGMA synchronous="+level); err != nil {
		return err
	}
	w.relaxed = relaxed
	return nil
}

func (w *writer) exec(query string) error {
	st, err := w.stmts.get(context.Background(), query)
	if err != nil {
		return err
	}
	_, err = st.ExecContext(context.Background())
	return err
}

// exec runs a statement and counts the rows it changed.
func (t *tx) exec(query string, args ...any) (int64, error) {
	st, err := t.w.stmts.get(t.ctx, query)
	if err != nil {
		return 0, err
	}
	res, err := st.ExecContext(t.ctx, args...)
	if err != nil {
		return 0, classify(err)
	}
	return res.RowsAffected()
}

func (t *tx) queryRow(query string, args ...any) row {
	st, err := t.w.stmts.get(t.ctx, query)
	if err != nil {
		return row{err: err}
	}
	return row{row: st.QueryRowContext(t.ctx, args...)}
}

// strings reads a query of one text column whole; its LIMIT bounds it.
func (t *tx) strings(query string, args ...any) ([]string, error) {
	st, err := t.w.stmts.get(t.ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := st.QueryContext(t.ctx, args...)
	if err != nil {
		return nil, err
	}
	return collect(rows, scanString)
}

// collect scans and closes rows.
func collect[T any](rows *sql.Rows, scan func(*sql.Rows) (T, error)) ([]T, error) {
	defer rows.Close()
	var list []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, classify(rows.Err())
}
