package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/berth-registry/berth/internal/disk"
)

// maxBatch bounds how many writes share one commit, and so how long the first
// of them waits for the others.
const maxBatch = 64

// writer serialises all writes on one connection. Writes that arrive while a
// transaction runs share the next one: each has a savepoint of its own, so that
// its failure undoes nothing but itself. Commits are made durable behind the
// writer's back: one sync of the write-ahead log serves all commits made before
// it begins, and no write is answered before the sync that covers it.
type writer struct {
	conn  *sql.Conn
	stmts statements
	wal   *os.File
	queue chan *write
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	hear     Observer
	unsynced chan []*write         // from the writer to the syncer
	broken   atomic.Pointer[error] // a sync failed: what the log holds is unknown
}

// write is one unit of work and its outcome.
type write struct {
	ctx     context.Context
	fn      func(*tx) error
	relaxed bool
	err     error
	done    chan struct{}
}

// startWriter takes over the one connection of pool. path is the database's.
func startWriter(ctx context.Context, pool *sql.DB, path string, hear Observer) (*writer, error) {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{
		conn: conn, queue: make(chan *write, maxBatch),
		stop: make(chan struct{}), done: make(chan struct{}),
		unsynced: make(chan []*write, maxBatch), hear: hear,
	}
	w.stmts.prepare = conn.PrepareContext
	if w.wal, err = openWAL(ctx, conn, path); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go w.run()
	return w, nil
}

// openWAL opens the write-ahead log, which exists from the first transaction on
// and as long as a connection is open.
func openWAL(ctx context.Context, conn *sql.Conn, path string) (*os.File, error) {
	for _, query := range []string{"BEGIN IMMEDIATE", "COMMIT"} {
		if _, err := conn.ExecContext(ctx, query); err != nil {
			return nil, err
		}
	}
	wal, err := os.OpenFile(path+"-wal", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("write-ahead log: %w", err)
	}
	// Its name must be durable before what it holds can be.
	if err := disk.SyncFolder(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, wal.Close())
	}
	return wal, nil
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
	synced := make(chan struct{})
	go w.syncForever(synced)
	defer close(w.done)
	defer w.conn.Close()
	defer w.stmts.close()
	defer func() {
		close(w.unsynced)
		<-synced
		w.wal.Close()
	}()
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

// batch runs first and whatever is queued behind it in one commit, and answers
// those who need not wait for a sync.
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
	failed := w.commit(group)
	waiting := group[:0]
	for _, wr := range group {
		wr.err = errors.Join(wr.err, failed)
		if wr.err != nil || wr.relaxed {
			close(wr.done)
		} else {
			waiting = append(waiting, wr)
		}
	}
	if len(waiting) > 0 {
		w.unsynced <- waiting
	}
}

// syncForever makes commits durable and answers their writes.
func (w *writer) syncForever(done chan<- struct{}) {
	defer close(done)
	for group := range w.unsynced {
		groups := [][]*write{group}
		for more := true; more; {
			select {
			case group, more = <-w.unsynced:
				groups = append(groups, group)
			default:
				more = false
			}
		}
		synced := w.hear.committing()
		err := w.sync()
		synced(err)
		for _, group := range groups {
			for _, wr := range group {
				wr.err = err
				close(wr.done)
			}
		}
	}
}

// sync makes every commit so far durable. After a failure the kernel may have
// dropped what it could not write, so that nothing more is accepted.
func (w *writer) sync() error {
	if broken := w.broken.Load(); broken != nil {
		return *broken
	}
	err := disk.SyncData(w.wal)
	if err != nil {
		err = fmt.Errorf("the database could not be synced, restart berth and run `berth check`: %w", err)
		w.broken.Store(&err)
	}
	return err
}

// commit runs the group. Its error is the whole group's; a single write's own
// error is left in that write.
func (w *writer) commit(group []*write) (err error) {
	if broken := w.broken.Load(); broken != nil {
		return *broken
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
	t := &tx{ctx: context.WithoutCancel(wr.ctx), on: &w.stmts}
	if wr.err = protect(t, wr.fn); wr.err != nil {
		if err := w.exec("ROLLBACK TO w"); err != nil {
			return errors.Join(wr.err, err)
		}
	}
	return w.exec("RELEASE w")
}

func (w *writer) exec(query string) error {
	st, err := w.stmts.get(context.Background(), query)
	if err != nil {
		return err
	}
	_, err = st.ExecContext(context.Background())
	return err
}
