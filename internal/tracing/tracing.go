// Package tracing tells what became of a request step by step: to an
// OpenTelemetry collector for a share of them, and from memory for the last ones
// that failed or were slow.
//
// Its one idea: a request's steps are short notes in one record, in the request's
// context, and become spans when it has ended, if anybody wants them. Who is not
// wanted costs that record; where tracing is off there is none.
//
// What leaves the process are words of the code's own, times, statuses, request
// ids and names of repositories, as in log lines: no digests, tags, identities,
// addresses, URLs or texts of errors.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// Options of New; the zero value keeps recent traces and sends nothing.
type Options struct {
	// Endpoint is the URL of a collector that takes OTLP over HTTP; one without
	// a path gets /v1/traces. The standard OTEL_EXPORTER_OTLP_ variables count for
	// headers, certificates, timeouts and compression.
	Endpoint string
	// Sample is the share of requests whose traces are sent, 0 to 1.
	Sample float64
	// Follow says whether the caller's traceparent goes on here and its decision
	// whether to send the trace counts. Of others it becomes a link. nil: never.
	Follow func(*http.Request) bool
	// Version of the server.
	Version string
	Log     *slog.Logger // nil: none
}

// Tracer is safe for concurrent use.
type Tracer struct {
	o        Options
	provider *sdktrace.TracerProvider // nil: nothing is sent
	tracer   oteltrace.Tracer
	sent     sender
	recent   recent
}

// New makes a tracer; the caller closes it after the last request. It asks the
// collector for nothing.
func New(ctx context.Context, o Options) (*Tracer, error) {
	if o.Follow == nil {
		o.Follow = func(*http.Request) bool { return false }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	t := &Tracer{o: o}
	if o.Endpoint == "" {
		return t, nil
	}
	u, err := url.Parse(o.Endpoint)
	if err != nil {
		return nil, errors.New("the endpoint is not a URL") // which may hold a secret
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	t.sent.log = o.Log
	if t.sent.SpanExporter, err = otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String())); err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	about, err := resource.New(ctx, resource.WithHost(), resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "berth"), attribute.String("service.version", o.Version)),
		resource.WithFromEnv()) // last, so that it wins
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithBatcher(&t.sent), sdktrace.WithResource(about),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithIDGenerator(ids{}))
	t.tracer = t.provider.Tracer("github.com/berth-registry/berth")
	return t, nil
}

// Close sends what waits, until ctx ends.
func (t *Tracer) Close(ctx context.Context) error {
	if t.provider == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Handler is next with its requests traced.
func (t *Tracer) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tr := t.begin(r)
		defer t.finish(tr)
		next.ServeHTTP(w, r.WithContext(tr))
	})
}

// finish hands a trace to those who want it. One of a request that no front
// answered is nobody's.
func (t *Tracer) finish(tr *trace) {
	took := tr.end()
	if tr.answer.Status == 0 {
		return
	}
	t.recent.keep(tr, took)
	if tr.sampled {
		t.send(tr, took)
	}
}

// Sent counts the spans that the collector took, and those that it did not.
func (t *Tracer) Sent() (taken, failed int64) { return t.sent.taken.Load(), t.sent.failed.Load() }

// sender counts, and says now and then what is wrong.
type sender struct {
	sdktrace.SpanExporter
	log           *slog.Logger
	taken, failed atomic.Int64
	logged        atomic.Int64 // when it was last said, in Unix seconds
}

// ExportSpans sends a batch. What fails is lost, and no error: nobody hears it.
func (s *sender) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := s.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		s.taken.Add(int64(len(spans)))
		return nil
	}
	s.failed.Add(int64(len(spans)))
	now, last := time.Now().Unix(), s.logged.Load()
	if now-last >= 60 && s.logged.CompareAndSwap(last, now) {
		s.log.Error("the collector of tracing.endpoint does not take traces", "error", err)
	}
	return nil
}

// LogHandler is inner with the trace's id in the lines of requests whose trace is
// sent.
func LogHandler(inner slog.Handler) slog.Handler { return logHandler{inner} }

type logHandler struct{ slog.Handler }

// Handle writes a line.
func (h logHandler) Handle(ctx context.Context, line slog.Record) error {
	if t := of(ctx); t != nil && t.sampled {
		line.AddAttrs(slog.String("trace_id", t.id.String()))
	}
	return h.Handler.Handle(ctx, line)
}

// WithAttrs is slog.Handler's.
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup is slog.Handler's.
func (h logHandler) WithGroup(name string) slog.Handler { return logHandler{h.Handler.WithGroup(name)} }
