package meta

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// errSilent: the server did not answer for longer than it lets a statement take.
var errSilent = errors.New("no answer in time")

// patientConn is a connection whose reads and writes wait for a bounded time,
// for a server that is cut off without a word. A context with a deadline would
// do the same for two goroutines and a timer with each statement.
type patientConn struct {
	net.Conn
	limit time.Duration // that a wait may take; at most an eighth longer

	mu    sync.Mutex
	until time.Time // the deadline that stands, where it is ours
	other bool      // a deadline that somebody else has set stands
}

// Read reads.
func (c *patientConn) Read(p []byte) (int, error) {
	c.arm()
	n, err := c.Conn.Read(p)
	return n, c.silent(err)
}

// Write writes.
func (c *patientConn) Write(p []byte) (int, error) {
	c.arm()
	n, err := c.Conn.Write(p)
	return n, c.silent(err)
}

// arm sets the deadline anew where too little is left of it.
func (c *patientConn) arm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.other || c.until.Sub(now) >= c.limit {
		return
	}
	c.until = now.Add(c.limit + c.limit/8)
	_ = c.Conn.SetDeadline(c.until) // fails on a closed connection alone
}

// silent makes the end of our deadline an error that ends the connection: the
// driver takes timeouts for those of a context.
func (c *patientConn) silent(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.other {
		return err
	}
	return errors.Join(fmt.Errorf("%w: it waited %v", errSilent, c.limit), c.Conn.Close())
}

// SetDeadline is for those who wait less; the zero time ends it.
func (c *patientConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.other, c.until = !t.IsZero(), time.Time{}
	return c.Conn.SetDeadline(t)
}

// slots bounds how many use connections at once, so that who comes later waits
// here, for a bounded time, and nobody waits in the pool.
type slots struct {
	free   chan struct{}
	waits  atomic.Int64 // that there were
	waited atomic.Int64 // nanoseconds in all
}

func newSlots(n int) *slots { return &slots{free: make(chan struct{}, n)} }

// take waits for a slot until end. Its error is ctx's, or errSilent.
func (s *slots) take(ctx context.Context, end time.Time) error {
	select {
	case s.free <- struct{}{}:
		return nil
	default:
	}
	start := time.Now()
	late := time.NewTimer(end.Sub(start))
	defer func() {
		late.Stop()
		s.waits.Add(1)
		s.waited.Add(int64(time.Since(start)))
	}()
	select {
	case s.free <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-late.C:
		return fmt.Errorf("%w: all %d connections are in use", errSilent, cap(s.free))
	}
}

func (s *slots) release() { <-s.free }
