package tracing_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/tracing"
)

const (
	parentTrace = "0af7651916cd43dd8448eb211c80319c"
	parentSpan  = "b7ad6b7169203331"
)

// sink is a collector that remembers spans.
type sink struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	paths  []string
	spans  []*tracev1.Span
	about  map[string]string
}

func newSink(t *testing.T) *sink {
	s := &sink{status: http.StatusOK, about: map[string]string{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths = append(s.paths, r.URL.Path)
	body, err := io.ReadAll(r.Body)
	var batch collector.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(body, &batch) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, resource := range batch.ResourceSpans {
		for _, a := range resource.Resource.Attributes {
			s.about[a.Key] = a.Value.GetStringValue()
		}
		for _, scope := range resource.ScopeSpans {
			s.spans = append(s.spans, scope.Spans...)
		}
	}
	w.WriteHeader(s.status)
}

func (s *sink) find(t *testing.T, name string) *tracev1.Span {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range s.spans {
		if span.Name == name {
			return span
		}
	}
	t.Fatalf("no span %q", name)
	return nil
}

func attributes(s *tracev1.Span) map[string]string {
	all := map[string]string{}
	for _, a := range s.Attributes {
		all[a.Key] = a.Value.GetStringValue()
		if a.Value.GetIntValue() != 0 {
			all[a.Key] = fmt.Sprint(a.Value.GetIntValue())
		}
	}
	return all
}

func newTracer(t *testing.T, o tracing.Options) *tracing.Tracer {
	t.Helper()
	tr, err := tracing.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// ask sends a request through a tracer to serve.
func ask(tr *tracing.Tracer, header map[string]string, serve func(ctx context.Context)) {
	r := httptest.NewRequest(http.MethodGet, "/v2/team/app/manifests/v1", nil)
	for key, value := range header {
		r.Header.Set(key, value)
	}
	tr.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { serve(r.Context()) })).ServeHTTP(httptest.NewRecorder(), r)
}

func answer(status int) tracing.Answer {
	return tracing.Answer{Front: "oci", Route: "manifest", Method: "GET", Repository: "team/app", RequestID: "r1", Status: status, Bytes: 100}
}

// pull is a request that reads a manifest with one read of the database.
func pull(status int) func(context.Context) {
	return func(ctx context.Context) {
		done := tracing.Observer()(ctx, registry.Op{Action: registry.ManifestRead, Repo: "team/app"})
		tracing.Note(context.WithoutCancel(ctx), "sql", "read", "done", time.Now(), time.Millisecond)
		done(100, nil)
		tracing.Note(ctx, "sql", "hint", "failed", time.Now(), time.Millisecond)
		tracing.Answered(ctx, answer(status))
	}
}

func TestSpansReachTheCollector(t *testing.T) {
	s := newSink(t)
	tr := newTracer(t, tracing.Options{Endpoint: s.URL, Sample: 1, Version: "v9"})
	ask(tr, nil, pull(200))
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	request, op, read, hint := s.find(t, "GET manifest"), s.find(t, "registry manifest.read"), s.find(t, "sql read"), s.find(t, "sql hint")
	if len(request.ParentSpanId) != 0 || request.Kind != tracev1.Span_SPAN_KIND_SERVER {
		t.Errorf("the request is %v", request)
	}
	for child, parent := range map[*tracev1.Span]*tracev1.Span{op: request, read: op, hint: request} {
		if !bytes.Equal(child.ParentSpanId, parent.SpanId) || !bytes.Equal(child.TraceId, request.TraceId) {
			t.Errorf("%s is not a part of %s", child.Name, parent.Name)
		}
		if child.StartTimeUnixNano < request.StartTimeUnixNano || child.EndTimeUnixNano < child.StartTimeUnixNano {
			t.Errorf("%s has the times %d to %d, its request %d", child.Name, child.StartTimeUnixNano, child.EndTimeUnixNano, request.StartTimeUnixNano)
		}
	}
	if hint.Status.GetCode() != tracev1.Status_STATUS_CODE_ERROR || read.Status.GetCode() == tracev1.Status_STATUS_CODE_ERROR {
		t.Errorf("statuses: %v, %v", hint.Status, read.Status)
	}
	got := attributes(request)
	for key, want := range map[string]string{
		"http.route": "manifest", "http.response.status_code": "200", "berth.request_id": "r1", "berth.repository": "team/app",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
	if s.about["service.name"] != "berth" || s.about["service.version"] != "v9" || s.paths[0] != "/v1/traces" {
		t.Errorf("%v to %v", s.about, s.paths)
	}
	if taken, failed := tr.Sent(); taken != 4 || failed != 0 {
		t.Errorf("%d spans taken, %d failed", taken, failed)
	}
}

// TestWhoDecides: a stranger's traceparent changes nothing but a link, however it
// chooses the id; one that is followed decides.
func TestWhoDecides(t *testing.T) {
	for _, tt := range []struct {
		name   string
		sample float64
		follow bool
		flags  string
		sent   bool
	}{
		{"a stranger wants it sent", 0, false, "01", false},
		{"a stranger wants it not sent", 1, false, "00", true},
		{"followed, sent", 0, true, "01", true},
		{"followed, not sent", 1, true, "00", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSink(t)
			tr := newTracer(t, tracing.Options{Endpoint: s.URL, Sample: tt.sample, Follow: func(*http.Request) bool { return tt.follow }})
			for _, id := range []string{parentTrace, "00000000000000000000000000000001"} {
				ask(tr, map[string]string{"Traceparent": "00-" + id + "-" + parentSpan + "-" + tt.flags}, pull(200))
			}
			if err := tr.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if sent := len(s.spans) > 0; sent != tt.sent {
				t.Fatalf("%d spans were sent", len(s.spans))
			}
			if !tt.sent {
				return
			}
			request := s.find(t, "GET manifest")
			if same := fmt.Sprintf("%x", request.TraceId) == parentTrace; same != tt.follow {
				t.Errorf("the trace is %x", request.TraceId)
			}
			if linked := len(request.Links) == 1 && fmt.Sprintf("%x", request.Links[0].TraceId) == parentTrace; linked == tt.follow {
				t.Errorf("links: %v", request.Links)
			}
			if tt.follow && fmt.Sprintf("%x", request.ParentSpanId) != parentSpan {
				t.Errorf("the parent is %x", request.ParentSpanId)
			}
		})
	}
}

func TestShare(t *testing.T) {
	s := newSink(t)
	tr := newTracer(t, tracing.Options{Endpoint: s.URL, Sample: 0.25})
	for range 400 {
		ask(tr, nil, func(ctx context.Context) { tracing.Answered(ctx, answer(200)) })
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(s.spans); n < 40 || n > 180 {
		t.Errorf("of 400 requests %d were sent", n)
	}
}

// TestBrokenCollector: what it does not take is counted and logged once, without
// what its URL may hold.
func TestBrokenCollector(t *testing.T) {
	s := newSink(t)
	s.status = http.StatusBadRequest
	var log bytes.Buffer
	tr := newTracer(t, tracing.Options{Endpoint: s.URL, Sample: 1, Log: slog.New(slog.NewTextHandler(&log, nil))})
	for range 3 {
		ask(tr, nil, pull(200))
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if taken, failed := tr.Sent(); taken != 0 || failed != 12 {
		t.Errorf("%d taken, %d failed", taken, failed)
	}
	if got := log.String(); strings.Count(got, "tracing.endpoint") != 1 {
		t.Errorf("logged: %s", got)
	}
}

func TestLogLinesHaveTheTrace(t *testing.T) {
	s := newSink(t)
	for sample, want := range map[float64]bool{0: false, 1: true} {
		tr := newTracer(t, tracing.Options{Endpoint: s.URL, Sample: sample})
		var text bytes.Buffer
		log := slog.New(tracing.LogHandler(slog.NewTextHandler(&text, nil))).With("a", 1).WithGroup("g")
		ask(tr, nil, func(ctx context.Context) {
			log.InfoContext(ctx, "request", "b", 2)
			pull(200)(ctx)
		})
		if err := tr.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(text.String(), "trace_id="); got != want {
			t.Errorf("share %v: %s", sample, text.String())
		}
		if want && !strings.Contains(text.String(), fmt.Sprintf("%x", s.find(t, "GET manifest").TraceId)) {
			t.Errorf("another trace: %s", text.String())
		}
	}
}

// recentOf is what a tracer shows.
func recentOf(t *testing.T, tr *tracing.Tracer) (all struct{ Failed, Slow []shown }, size int) {
	t.Helper()
	w := httptest.NewRecorder()
	tr.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/traces", nil))
	size = w.Body.Len()
	if err := json.Unmarshal(w.Body.Bytes(), &all); err != nil {
		t.Fatal(err)
	}
	return all, size
}

type shown struct {
	RequestID  string `json:"request_id"`
	Repository string
	Status     int
	Steps      []struct {
		Layer, Name, Outcome string
		Within               *int
	}
	LeftOut int `json:"steps_left_out"`
}

// TestRecent works without a collector: what failed is kept with its steps, what
// went well and quickly is not, and nothing pushes memory beyond its bound.
func TestRecent(t *testing.T) {
	tr := newTracer(t, tracing.Options{})
	ask(tr, nil, pull(200))
	ask(tr, nil, pull(404))
	if all, _ := recentOf(t, tr); len(all.Failed)+len(all.Slow) != 0 {
		t.Errorf("kept: %+v", all)
	}
	ask(tr, nil, pull(503))
	all, _ := recentOf(t, tr)
	if len(all.Failed) != 1 {
		t.Fatalf("kept: %+v", all)
	}
	got := all.Failed[0]
	if got.RequestID != "r1" || got.Status != 503 || got.Repository != "team/app" || len(got.Steps) != 3 {
		t.Errorf("kept: %+v", got)
	}
	if read := got.Steps[1]; read.Layer != "sql" || read.Name != "read" || read.Within == nil || *read.Within != 0 {
		t.Errorf("its read: %+v", read)
	}
	for i := range 500 {
		ask(tr, nil, func(ctx context.Context) {
			for range 1000 {
				tracing.Note(ctx, "s3", "UploadPart", "busy", time.Now(), time.Millisecond)
			}
			a := answer(500)
			a.RequestID = fmt.Sprint("r", i)
			tracing.Answered(ctx, a)
		})
	}
	all, size := recentOf(t, tr)
	if len(all.Failed) != 64 || all.Failed[0].RequestID != "r499" || len(all.Failed[0].Steps) != 64 || all.Failed[0].LeftOut != 936 {
		t.Errorf("%d are kept, the newest with %d steps, %d left out", len(all.Failed), len(all.Failed[0].Steps), all.Failed[0].LeftOut)
	}
	if size > 2<<20 {
		t.Errorf("%d bytes are shown", size)
	}
}

// TestSlow: a second is slow, but not where the bytes took it.
func TestSlow(t *testing.T) {
	tr := newTracer(t, tracing.Options{})
	var running sync.WaitGroup
	for id, bytes := range map[string]int64{"slow": 100, "large": 100 << 20} {
		running.Go(func() {
			ask(tr, nil, func(ctx context.Context) {
				time.Sleep(1100 * time.Millisecond)
				a := answer(200)
				a.RequestID, a.Bytes = id, bytes
				tracing.Answered(ctx, a)
			})
		})
	}
	running.Wait()
	if all, _ := recentOf(t, tr); len(all.Slow) != 1 || all.Slow[0].RequestID != "slow" {
		t.Errorf("kept: %+v", all)
	}
}

// TestAtOnceAndAfterwards: parts of an upload end side by side, some of them when
// the request has long been answered.
func TestAtOnceAndAfterwards(t *testing.T) {
	tr := newTracer(t, tracing.Options{})
	var working sync.WaitGroup
	ask(tr, nil, func(ctx context.Context) {
		for range 8 {
			working.Go(func() {
				for range 200 {
					done := tracing.Observer()(ctx, registry.Op{Action: registry.BlobWrite})
					tracing.Note(ctx, "s3", "UploadPart", "done", time.Now(), 0)
					done(0, errors.New("no"))
				}
			})
		}
		tracing.Answered(ctx, answer(500))
	})
	recentOf(t, tr)
	working.Wait()
	if all, _ := recentOf(t, tr); len(all.Failed) != 1 || len(all.Failed[0].Steps) > 64 {
		t.Errorf("kept: %+v", all)
	}
}

// TestPanics: the request that breaks off is traced too.
func TestPanics(t *testing.T) {
	tr := newTracer(t, tracing.Options{})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is lost")
			}
		}()
		ask(tr, nil, func(ctx context.Context) {
			pull(500)(ctx)
			panic(http.ErrAbortHandler)
		})
	}()
	if all, _ := recentOf(t, tr); len(all.Failed) != 1 {
		t.Errorf("kept: %+v", all)
	}
}

// TestOutsideOfRequests nobody is told.
func TestOutsideOfRequests(t *testing.T) {
	pull(500)(t.Context())
	tr := newTracer(t, tracing.Options{})
	ask(tr, nil, func(context.Context) {}) // and no front has answered this
	if all, _ := recentOf(t, tr); len(all.Failed)+len(all.Slow) != 0 {
		t.Errorf("kept: %+v", all)
	}
}

// TestNoSecretInTheError: a URL may hold a password.
func TestNoSecretInTheError(t *testing.T) {
	_, err := tracing.New(t.Context(), tracing.Options{Endpoint: "http://user:hunter2@[::1"})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

// TestStandardVariables: what comes from the environment wins over our own name.
func TestStandardVariables(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "registry-eu")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
	s := newSink(t)
	tr := newTracer(t, tracing.Options{Endpoint: s.URL + "/custom/path", Sample: 1})
	ask(tr, nil, pull(200))
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.about["service.name"] != "registry-eu" || s.about["deployment.environment"] != "test" || !slices.Equal(s.paths, []string{"/custom/path"}) {
		t.Errorf("%v to %v", s.about, s.paths)
	}
}

func BenchmarkRequest(b *testing.B) {
	next := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { pull(200)(r.Context()) })
	tr, err := tracing.New(b.Context(), tracing.Options{})
	if err != nil {
		b.Fatal(err)
	}
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v2/a/manifests/v1", nil)
	for name, h := range map[string]http.Handler{"off": next, "recent": tr.Handler(next)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
}
