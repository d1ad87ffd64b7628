package meta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	probeEvery   = 250 * time.Millisecond // while the server does not answer
	probeTimeout = 3 * time.Second
	probeWait    = probeEvery + 150*time.Millisecond // of a call, for the outage to end
)

// outage is what this process knows of a server that does not answer. While it
// stands, calls fail after one more probe rather than each waiting until its own
// time is over: clients learn soon that they must come back, and those that wait
// do not pile up. One connection tries whether it has ended.
type outage struct {
	answered atomic.Int64             // when the server last said something, in nanoseconds since began
	began    time.Time                // a clock that never goes back
	silence  time.Duration            // that no statement needs
	standing atomic.Pointer[standing] // nil: none
	probing  sync.WaitGroup
	ctx      context.Context // ends with the engine
	end      context.CancelFunc
}

func newOutage(silence time.Duration) *outage {
	o := &outage{began: time.Now(), silence: silence}
	o.ctx, o.end = context.WithCancel(context.Background())
	return o
}

func (o *outage) now() int64 { return int64(time.Since(o.began)) }

type standing struct {
	err  error
	over chan struct{} // closed at its end
}

// wait is why a call fails now; nil: it need not.
func (o *outage) wait(ctx context.Context) error {
	s := o.standing.Load()
	if s == nil {
		return nil
	}
	timer := time.NewTimer(probeWait)
	defer timer.Stop()
	select {
	case <-s.over:
		return nil
	case <-ctx.Done():
	case <-timer.C:
	}
	return s.err
}

// err is why a call fails that will not wait; nil: it need not fail.
func (o *outage) err() error {
	if s := o.standing.Load(); s != nil {
		return s.err
	}
	return nil
}

// isLate reports that the server did not answer at all.
func isLate(err error) bool { return errors.Is(err, errSilent) }

// heard takes how an attempt ended that began at start; last says that it will
// not be made again. An outage begins if the server has said nothing to anybody
// since, or for as long as a statement may take: a single connection may break,
// or be slow.
func (o *outage) heard(start int64, err error, last bool, probe func(context.Context) error) {
	silent := err != nil && (lost(err) || isLate(err))
	switch {
	case err != nil && !isLate(err) && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		// The caller has left.
		return
	case !silent:
		o.answered.Store(o.now())
		return
	case !last && !isLate(err), o.ctx.Err() != nil:
		return
	case o.answered.Load() >= start && time.Duration(o.now()-o.answered.Load()) < o.silence:
		return
	}
	err = fmt.Errorf("%w: it has not answered for %v, and is asked again every %v: %w",
		ErrUnavailable, time.Duration(o.now()-o.answered.Load()).Round(time.Millisecond), probeEvery, err)
	if s := (&standing{err, make(chan struct{})}); o.standing.CompareAndSwap(nil, s) {
		o.probing.Go(func() { o.probe(s, probe) })
	}
}

// probe ends the outage when the server answers again.
func (o *outage) probe(s *standing, ask func(context.Context) error) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-o.ctx.Done():
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(o.ctx, probeTimeout)
		err := ask(ctx)
		cancel()
		if !lost(err) && !isLate(err) && o.ctx.Err() == nil {
			o.answered.Store(o.now())
			o.standing.Store(nil)
			close(s.over)
			return
		}
	}
}

// close ends the probe. Calls must have ended.
func (o *outage) close() {
	o.end()
	o.probing.Wait()
}

// ask connects anew, and forgets the connections that nobody uses: they may have
// died with the outage, which a first statement on each would have to find out.
func (e *postgresEngine) ask(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, e.config.Copy())
	if err != nil {
		return late(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, `SELECT 1`); err != nil {
		return late(err)
	}
	e.pool.SetMaxIdleConns(-1)
	e.pool.SetMaxIdleConns(e.connections)
	return nil
}
