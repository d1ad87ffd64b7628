package recorder_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/audit/recorder"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
)

// store is a real database whose writes can be held up and made to fail.
type store struct {
	*meta.DB
	mu    sync.Mutex
	calls int
	fails int           // this many writes fail
	gate  chan struct{} // when not nil, each write waits for it
}

func newStore(t testing.TB) *store {
	t.Helper()
	db, err := meta.Open(t.Context(), meta.Options{Path: metatest.File(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &store{DB: db}
}

func (s *store) AppendAudit(ctx context.Context, events []audit.Event) error {
	s.mu.Lock()
	s.calls++
	failing, gate := s.fails > 0, s.gate
	if failing {
		s.fails--
	}
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if failing {
		return errors.New("the disk is full")
	}
	return s.DB.AppendAudit(ctx, events)
}

// trail is everything that was written, the oldest first.
func (s *store) trail(t testing.TB) []audit.Event {
	t.Helper()
	page, next, err := s.ListAudit(t.Context(), meta.AuditFilter{}, "", 10_000)
	if err != nil || next != "" {
		t.Fatalf("list the trail: %v, more: %q", err, next)
	}
	return page
}

func closeIt(t testing.TB, r *recorder.Recorder) {
	t.Helper()
	if err := r.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestCloseWritesEverythingInOrder(t *testing.T) {
	s := newStore(t)
	r := recorder.New(s, recorder.Options{Batch: 10, Delay: time.Hour})
	const many = 1234
	for i := range many {
		r.Record(audit.Event{Action: "login", Reference: fmt.Sprint(i)})
	}
	closeIt(t, r)
	trail := s.trail(t)
	if len(trail) != many || r.Dropped() != 0 {
		t.Fatalf("%d of %d events were written, %d dropped", len(trail), many, r.Dropped())
	}
	for i, e := range trail {
		if e.Reference != fmt.Sprint(i) {
			t.Fatalf("event %d is the one recorded as %s", i, e.Reference)
		}
	}
	if s.calls < many/10 || s.calls > many/5 {
		t.Errorf("%d transactions wrote batches of 10", s.calls)
	}
}

// TestDelay: an event is written though no other comes, at the time it happened.
func TestDelay(t *testing.T) {
	s := newStore(t)
	r := recorder.New(s, recorder.Options{Delay: 10 * time.Millisecond})
	defer closeIt(t, r)
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	r.Record(audit.Event{Time: at, Action: "login"})
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if trail := s.trail(t); len(trail) == 1 {
			if !trail[0].Time.Equal(at) {
				t.Errorf("it happened at %v, and is written as of %v", at, trail[0].Time)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a lone event is never written")
		}
	}
}

// TestFullQueue: while nothing can be written nobody waits, what is lost is
// counted, told to the log once, and then to readers of the trail.
func TestFullQueue(t *testing.T) {
	s := newStore(t)
	s.gate = make(chan struct{})
	var log bytes.Buffer
	r := recorder.New(s, recorder.Options{Queue: 50, Batch: 10, Delay: time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
	began := time.Now()
	const many = 1000
	for range many {
		r.Record(audit.Event{Action: "login"})
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("recording waited %v", took)
	}
	lost := r.Dropped()
	if lost < many-60 || lost > many-50 { // a batch may have left the queue
		t.Errorf("%d of %d events were dropped by a queue of 50", lost, many)
	}
	close(s.gate)
	closeIt(t, r)
	if n := strings.Count(log.String(), "missing in the audit trail"); n != 1 {
		t.Errorf("the log tells %d times of it:\n%s", n, &log)
	}
	written, noted := int64(0), int64(0)
	for _, e := range s.trail(t) {
		if e.Action != "audit.gap" {
			written++
			continue
		}
		var n int64
		if _, err := fmt.Sscanf(e.Reason, "events missing before this one: %d", &n); err != nil {
			t.Errorf("the trail says %q: %v", e.Reason, err)
		}
		noted += n
	}
	if noted != lost || written+lost != many {
		t.Errorf("the trail has %d events and knows of %d missing; %d were dropped", written, noted, lost)
	}
}

// TestFailure: a batch that cannot be written is written later.
func TestFailure(t *testing.T) {
	s := newStore(t)
	s.fails = 2
	var log bytes.Buffer
	r := recorder.New(s, recorder.Options{Delay: time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
	r.Record(audit.Event{Action: "login"})
	closeIt(t, r)
	if got := len(s.trail(t)); got != 1 || s.calls != 3 || r.Dropped() != 0 {
		t.Errorf("%d events after %d writes, %d dropped", got, s.calls, r.Dropped())
	}
	if n := strings.Count(log.String(), "the disk is full"); n != 1 {
		t.Errorf("the log tells %d times why:\n%s", n, &log)
	}
}

// TestCloseDoesNotWaitForEver: what cannot be written in time is counted.
func TestCloseDoesNotWaitForEver(t *testing.T) {
	s := newStore(t)
	s.gate = make(chan struct{})
	r := recorder.New(s, recorder.Options{Batch: 10})
	for range 25 {
		r.Record(audit.Event{Action: "login"})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := r.Close(ctx)
	if err == nil || !strings.Contains(err.Error(), "25 events") || !errors.Is(err, context.DeadlineExceeded) || r.Dropped() != 25 {
		t.Errorf("close: %v; %d dropped", err, r.Dropped())
	}
	r.Record(audit.Event{Action: "login"})
	if r.Dropped() != 26 {
		t.Error("an event after Close is not counted")
	}
}

func TestConcurrentUse(t *testing.T) {
	s := newStore(t)
	r := recorder.New(s, recorder.Options{Queue: 100, Batch: 7, Delay: time.Millisecond})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				r.Record(audit.Event{Action: "login"})
			}
		})
	}
	time.Sleep(5 * time.Millisecond)
	closeIt(t, r) // in the midst of it
	all.Wait()
	written := int64(0)
	for _, e := range s.trail(t) {
		if e.Action == "login" {
			written++
		}
	}
	if written+r.Dropped() != 8*500 {
		t.Errorf("%d written and %d dropped are not all", written, r.Dropped())
	}
}
