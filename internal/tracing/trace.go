package tracing

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/berth-registry/berth/internal/registry"
)

// Limits on what is kept of one request.
const (
	maxSpans   = 64
	firstSpans = 6 // as many as a pull has
)

// Answer is what a request was and came to, in words of the code's own. Of what
// a client sent it has the repository alone, which log lines show too.
type Answer struct {
	Front, Route, Method  string
	Repository, RequestID string
	Status                int
	Bytes                 int64 // of both bodies
}

// trace is a request under way. It is the context of all that is done for it.
type trace struct {
	context.Context
	start   time.Time
	sampled bool
	id      oteltrace.TraceID     // where sampled
	caller  oteltrace.SpanContext // of the caller's trace, if it told of one
	follow  bool                  // the caller's trace goes on here

	mu     sync.Mutex
	ended  bool
	answer Answer
	spans  []span
	left   int // spans that found no room
	within int // the operation that runs, and those before it; -1: none
	first  [firstSpans]span
}

// span is a step of a trace.
type span struct {
	layer, name, outcome string
	after, took          time.Duration // after the trace began
	within               int           // index of the span that it is a part of, -1: the request
}

type contextKey struct{}

// Value finds the trace without another context around it.
func (t *trace) Value(key any) any {
	if _, ok := key.(contextKey); ok {
		return t
	}
	return t.Context.Value(key)
}

func of(ctx context.Context) *trace {
	t, _ := ctx.Value(contextKey{}).(*trace)
	return t
}

// Note adds a step to the trace that ctx belongs to, if any. Texts are the
// code's own: layer and name say what it was, outcome is "done" if it went well.
func Note(ctx context.Context, layer, name, outcome string, start time.Time, took time.Duration) {
	t := of(ctx)
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(span{layer: layer, name: name, outcome: outcome, after: start.Sub(t.start), took: took, within: t.within})
}

// Answered tells what the request that ctx belongs to came to.
func Answered(ctx context.Context, a Answer) {
	t := of(ctx)
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answer = a
}

// Observer makes each operation on a registry a step, and what is done for it a
// part of that.
func Observer() registry.Observer {
	return func(ctx context.Context, op registry.Op) func(int64, error) {
		t := of(ctx)
		if t == nil {
			return ignore
		}
		return t.operation(op.Action)
	}
}

func ignore(int64, error) {}

func (t *trace) operation(action registry.Action) func(int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	start, outer := time.Now(), t.within
	i := t.add(span{layer: "registry", name: action.String(), after: start.Sub(t.start), within: outer})
	if i >= 0 {
		t.within = i
	}
	return func(_ int64, err error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if i < 0 || t.ended {
			return
		}
		t.spans[i].took, t.spans[i].outcome = time.Since(start), "done"
		if err != nil {
			t.spans[i].outcome = registry.CodeOf(err).String()
		}
		if t.within == i {
			t.within = outer
		}
	}
}

// add returns the index of the new span, -1 where there is no room.
func (t *trace) add(s span) int {
	switch {
	case t.ended:
		return -1
	case len(t.spans) == maxSpans:
		t.left++
		return -1
	}
	t.spans = append(t.spans, s)
	return len(t.spans) - 1
}

// begin makes the trace of a request.
func (t *Tracer) begin(r *http.Request) *trace {
	tr := &trace{Context: r.Context(), start: time.Now(), within: -1}
	tr.spans = tr.first[:0]
	if t.provider == nil {
		return tr
	}
	if r.Header["Traceparent"] != nil {
		ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(r.Header))
		tr.caller = oteltrace.SpanContextFromContext(ctx)
	}
	if tr.follow = tr.caller.IsValid() && t.o.Follow(r); tr.follow {
		tr.sampled, tr.id = tr.caller.IsSampled(), tr.caller.TraceID()
		return tr
	}
	// By a number of our own: a share of the ids would be for callers to choose.
	if tr.sampled = rand.Float64() < t.o.Sample; tr.sampled {
		tr.id = newTraceID()
	}
	return tr
}

func newTraceID() (id oteltrace.TraceID) {
	for !id.IsValid() {
		fill(id[:])
	}
	return id
}

func fill(b []byte) {
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
}

// end freezes the trace, so that it can be read without the lock.
func (t *trace) end() (took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	return time.Since(t.start)
}
