package metrics

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/berth-registry/berth/internal/registry"
)

// None is the class of a request that is for no repository.
const None = "none"

// Request is one that was answered. The caller knows that its texts are of a few
// values.
type Request struct {
	Front, Route, Method string
	Status               int
	Class                string // of the repository: public, internal, private, unknown, or None
	Took                 time.Duration
}

func (m *Metrics) countRequests() {
	m.requests = m.counters("berth_http_requests_total", "Requests that were answered, by the front they came to and the class of the repository they were for.",
		"front", "route", "method", "status", "class")
	m.duration = m.histograms("berth_http_request_duration_seconds", "Time from a request's header to the end of its answer.",
		[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800}, "front", "route", "method")
	m.content = m.counters("berth_content_bytes_total", "Bytes of manifests and blobs that were transferred by this process; what clients fetch from S3 is not.", "direction")
	running := m.gauges("berth_http_requests_running", "Requests that are being answered.")
	m.running = running.WithLabelValues()
}

// Request counts an answer.
func (m *Metrics) Request(r Request) {
	m.requests.WithLabelValues(r.Front, r.Route, r.Method, strconv.Itoa(r.Status), r.Class).Inc()
	m.duration.WithLabelValues(r.Front, r.Route, r.Method).Observe(r.Took.Seconds())
}

// Running is h with its requests counted while they run.
func (m *Metrics) Running(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.running.Inc()
		defer m.running.Dec()
		h.ServeHTTP(w, r)
	})
}

// Counted is h with its answers counted under one route, and told to answered.
func (m *Metrics) Counted(front string, h http.Handler, answered func(*http.Request, Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, counted := time.Now(), &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			done := Request{Front: front, Route: front, Method: method(r.Method), Status: counted.status, Class: None, Took: time.Since(start)}
			m.Request(done)
			answered(r, done)
		}()
		h.ServeHTTP(counted, r)
	})
}

// method keeps what clients make up out of the labels.
func method(name string) string {
	switch name {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return name
	}
	return "other"
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// countOperations makes the counters of all operations and outcomes, so that
// counting one looks nothing up.
func (m *Metrics) countOperations() {
	ops := m.counters("berth_operations_total", "Operations on repositories, by what came of them.", "action", "outcome")
	for a := range registry.Actions {
		for c := range registry.Codes {
			m.ops[a][c] = ops.WithLabelValues(a.String(), c.String())
		}
		m.ops[a][registry.Codes] = ops.WithLabelValues(a.String(), "done")
	}
}

// Observer counts operations and their bytes.
func (m *Metrics) Observer() registry.Observer {
	in, out := m.content.WithLabelValues("in"), m.content.WithLabelValues("out")
	return func(_ context.Context, op registry.Op) func(int64, error) {
		return func(n int64, err error) {
			outcome := registry.Codes
			if err != nil {
				outcome = registry.CodeOf(err)
			}
			m.ops[op.Action][outcome].Inc()
			switch {
			case n <= 0:
			case op.Action.Reads():
				out.Add(float64(n))
			default:
				in.Add(float64(n))
			}
		}
	}
}
