package tracing

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// send makes spans of a trace that has ended. They wait in a bounded queue for
// the collector; what finds no room there is lost.
func (t *Tracer) send(tr *trace, took time.Duration) {
	a := &tr.answer
	ctx := context.WithValue(context.Background(), contextKey{}, tr) // for ids
	options := []oteltrace.SpanStartOption{
		oteltrace.WithTimestamp(tr.start), oteltrace.WithSpanKind(oteltrace.SpanKindServer),
		oteltrace.WithAttributes(
			attribute.String("http.request.method", a.Method), attribute.String("http.route", a.Route),
			attribute.Int("http.response.status_code", a.Status),
			attribute.String("berth.front", a.Front), attribute.String("berth.request_id", a.RequestID),
			attribute.String("berth.repository", a.Repository), attribute.Int64("berth.bytes", a.Bytes),
			attribute.Int("berth.spans_left_out", tr.left),
		),
	}
	switch {
	case tr.follow:
		ctx = oteltrace.ContextWithRemoteSpanContext(ctx, tr.caller)
	case tr.caller.IsValid():
		options = append(options, oteltrace.WithLinks(oteltrace.Link{SpanContext: tr.caller}))
	}
	ctx, request := t.tracer.Start(ctx, a.Method+" "+a.Route, options...)
	if a.Status >= 500 {
		request.SetStatus(codes.Error, "")
	}
	t.sendSteps(ctx, tr)
	request.End(oteltrace.WithTimestamp(tr.start.Add(took)))
}

func (t *Tracer) sendSteps(ctx context.Context, tr *trace) {
	outer := make([]context.Context, len(tr.spans))
	for i, s := range tr.spans {
		parent, kind := ctx, oteltrace.SpanKindClient
		if s.within >= 0 {
			parent = outer[s.within] // which came before it
		}
		if s.layer == "registry" {
			kind = oteltrace.SpanKindInternal
		}
		start := tr.start.Add(s.after)
		inner, step := t.tracer.Start(parent, s.layer+" "+s.name, oteltrace.WithTimestamp(start), oteltrace.WithSpanKind(kind),
			oteltrace.WithAttributes(attribute.String("berth.outcome", s.outcome)))
		if s.outcome != "done" {
			step.SetStatus(codes.Error, s.outcome)
		}
		step.End(oteltrace.WithTimestamp(start.Add(s.took)))
		outer[i] = inner
	}
}

// ids gives a trace the id that log lines have shown.
type ids struct{}

// NewIDs is for the span of a request that goes on from nobody's.
func (ids) NewIDs(ctx context.Context) (oteltrace.TraceID, oteltrace.SpanID) {
	id := newTraceID()
	if t := of(ctx); t != nil {
		id = t.id
	}
	return id, newSpanID()
}

// NewSpanID is for all others.
func (ids) NewSpanID(context.Context, oteltrace.TraceID) oteltrace.SpanID { return newSpanID() }

func newSpanID() (id oteltrace.SpanID) {
	for !id.IsValid() {
		fill(id[:])
	}
	return id
}
