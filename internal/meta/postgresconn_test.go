package meta

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// pair is a patient connection and the other end of it.
func pair(t *testing.T, limit time.Duration) (c *patientConn, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return &patientConn{Conn: client, limit: limit}, server
}

// TestSilentServer: nobody waits for ever for a server that says nothing more,
// and what it says later is not taken for the answer to something else.
func TestSilentServer(t *testing.T) {
	c, server := pair(t, 20*time.Millisecond)
	var timeout net.Error
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, errSilent) || errors.As(err, &timeout) {
		t.Errorf("read from a silent server: %v", err)
	}
	server.Write([]byte("x"))
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("the connection is used again: %d bytes, %v", n, err)
	}
	c, _ = pair(t, 20*time.Millisecond)
	if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, errSilent) {
		t.Errorf("write to a server that takes nothing: %v", err)
	}
}

// TestSlowServer: one that answers in time each time may go on for ever.
func TestSlowServer(t *testing.T) {
	c, server := pair(t, 200*time.Millisecond)
	for range 8 {
		time.Sleep(50 * time.Millisecond)
		server.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOtherDeadline: who waits less, as the driver does while it connects, has
// its own errors.
func TestOtherDeadline(t *testing.T) {
	c, server := pair(t, time.Hour)
	c.SetDeadline(time.Now().Add(time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, errSilent) {
		t.Errorf("read beyond another's deadline: %v", err)
	}
	c.SetDeadline(time.Time{})
	server.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("read after it was taken back: %v", err)
	}
}

// TestSlots: who comes when all connections are in use waits, for a while.
func TestSlots(t *testing.T) {
	s, soon := newSlots(1), func() time.Time { return time.Now().Add(20 * time.Millisecond) }
	if err := s.take(t.Context(), soon()); err != nil {
		t.Fatal(err)
	}
	if err := s.take(t.Context(), soon()); !errors.Is(err, errSilent) || !errors.Is(late(err), ErrUnavailable) || worth(err) != 0 {
		t.Errorf("take one where there is none: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.take(ended, soon()); !errors.Is(err, context.Canceled) {
		t.Errorf("take one for nobody: %v", err)
	}
	s.release()
	if err := s.take(t.Context(), soon()); err != nil {
		t.Errorf("take one that was given back: %v", err)
	}
	if n, long := s.waits.Load(), time.Duration(s.waited.Load()); n != 2 || long < 20*time.Millisecond {
		t.Errorf("%d waits of %v in all", n, long)
	}
}

func TestPositions(t *testing.T) {
	for query, want := range map[string]string{
		`SELECT 1`:                      `SELECT 1`,
		`a = $1 AND b = $2`:             `a = ? AND b = ?`,
		`a = $2 AND b = $1`:             `a = ?2 AND b = ?1`,
		`a = $1 AND (b = $2 OR $2 = 3)`: `a = ?1 AND (b = ?2 OR ?2 = 3)`,
		`$1$2$3$4$5$6$7$8$9$10$11`:      `???????????`,
		`a = $2`:                        `a = ?2`,
	} {
		if got := positions(query); got != want {
			t.Errorf("positions(%q) = %q, want %q", query, got, want)
		}
	}
}
