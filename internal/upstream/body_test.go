package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// journeyOf makes a journey whose answer has begun.
func journeyOf(t *testing.T, u *Registry) (*journey, context.Context, *[]Call) {
	var seen []Call
	u.o = withDefaults(u.o)
	u.o.Observe = func(c Call) { seen = append(seen, c) }
	ctx, cancel := context.WithCancelCause(t.Context())
	return &journey{trip: &trip{upstream: u}, breaker: &breaker{most: 1, open: time.Second}, ctx: t.Context(), cancel: cancel, leave: func() {}, started: time.Now()}, ctx, &seen
}

// TestSlowedDownIsNotStalled: the time that a body waits for the bandwidth is not
// its own.
func TestSlowedDownIsNotStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &Registry{o: Options{Transport: Transport{Idle: time.Second}}, bandwidth: byteRate(portion / 4)}
		j, ctx, seen := journeyOf(t, u)
		b := newBody(io.NopCloser(bytes.NewReader(make([]byte, 10*portion))), ctx, j)
		start := time.Now()
		if n, err := io.Copy(io.Discard, b); n != 10*portion || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		if took := time.Since(start); took < 35*time.Second || took > 40*time.Second {
			t.Errorf("it took %v", took)
		}
		b.Close()
		if len(*seen) != 1 || (*seen)[0].Bytes != 10*portion || (*seen)[0].Err != nil || j.breaker.failures != 0 {
			t.Errorf("observed %+v", *seen)
		}
	})
}

// TestStalled: a body that brings nothing is given up, which is a failure of its
// host; one that brings a little now and then is not.
func TestStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &Registry{o: Options{Transport: Transport{Idle: 10 * time.Second}}}
		j, ctx, seen := journeyOf(t, u)
		r, w := io.Pipe()
		go func() {
			for range 5 {
				time.Sleep(9 * time.Second)
				w.Write([]byte("x"))
			}
			<-ctx.Done() // as a transport ends a body
			w.CloseWithError(ctx.Err())
		}()
		b := newBody(r, ctx, j)
		got, err := io.ReadAll(b)
		if string(got) != "xxxxx" || !errors.Is(err, errIdle) {
			t.Errorf("read %q, %v", got, err)
		}
		b.Close()
		b.Close()
		if len(*seen) != 1 || (*seen)[0].Bytes != 5 || !errors.Is((*seen)[0].Err, errIdle) || j.breaker.failures != 1 {
			t.Errorf("observed %+v, %d failures", *seen, j.breaker.failures)
		}
	})
}

// TestReadersMayBeSlow: the time between two reads is not the body's either.
func TestReadersMayBeSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &Registry{o: Options{Transport: Transport{Idle: time.Second}}}
		j, ctx, _ := journeyOf(t, u)
		b := newBody(io.NopCloser(bytes.NewReader([]byte("xx"))), ctx, j)
		for range 2 {
			if n, err := b.Read(make([]byte, 1)); n != 1 || err != nil {
				t.Errorf("read %d, %v", n, err)
			}
			time.Sleep(time.Minute)
		}
		if ctx.Err() != nil {
			t.Error("it was given up")
		}
		b.Close()
	})
}

// TestClosedWhileRead: who closes a body leaves, and its host has not failed.
func TestClosedWhileRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &Registry{}
		j, ctx, seen := journeyOf(t, u)
		r, _ := io.Pipe()
		b := newBody(r, ctx, j)
		done := make(chan error)
		go func() {
			_, err := b.Read(make([]byte, 1))
			done <- err
		}()
		synctest.Wait()
		b.Close()
		if err := <-done; err == nil {
			t.Error("read from a closed body")
		}
		if j.breaker.failures != 0 || len(*seen) != 1 {
			t.Errorf("%d failures, observed %+v", j.breaker.failures, *seen)
		}
	})
}

// TestWhoLeavesABody: that it ends then says nothing of its host.
func TestWhoLeavesABody(t *testing.T) {
	j, ctx, _ := journeyOf(t, &Registry{})
	left, leave := context.WithCancel(t.Context())
	j.ctx = left
	r, w := io.Pipe()
	b := newBody(r, ctx, j)
	leave()
	w.CloseWithError(left.Err()) // as a transport ends a body
	if _, err := io.ReadAll(b); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	b.Close()
	if j.breaker.failures != 0 {
		t.Errorf("%d failures", j.breaker.failures)
	}
}

// TestManyHosts: a registry that redirects to ever new hosts does not fill the
// memory, and those that are not well are remembered longest.
func TestManyHosts(t *testing.T) {
	s := breakers{o: withDefaults(Options{})}
	ill := s.of("ill.example", RoleStorage)
	ill.fail(time.Now(), errIdle)
	for range 3 * maxBreakers {
		s.of(time.Now().String(), RoleStorage)
	}
	if len(s.byHost) > maxBreakers || s.of("ill.example", RoleStorage) != ill {
		t.Errorf("%d hosts are remembered", len(s.byHost))
	}
	for range 3 * maxBreakers {
		s.of(time.Now().String(), RoleStorage).fail(time.Now(), errIdle)
	}
	if len(s.byHost) > maxBreakers {
		t.Errorf("%d ill hosts are remembered", len(s.byHost))
	}
	if s.of("a", RoleToken) == s.of("a", RoleRegistry) {
		t.Error("two roles share a breaker")
	}
}
