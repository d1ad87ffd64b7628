// Package metrics counts what a registry does, for Prometheus. Every label has
// few values that are known beforehand: nothing that a client sends is one.
package metrics

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/berth-registry/berth/internal/registry"
)

// Metrics are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	content  *prometheus.CounterVec
	ops      [registry.Actions][registry.Codes + 1]prometheus.Counter // by action and outcome; the last: done
}

// New returns metrics of this process, with those of Go and the process.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "berth_http_requests_total", Help: "Requests that were answered.",
		}, []string{"front", "route", "method", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "berth_http_request_duration_seconds", Help: "Time from a request's header to the end of its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800},
		}, []string{"front", "route"}),
		content: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "berth_content_bytes_total", Help: "Bytes of manifests and blobs that were transferred.",
		}, []string{"direction"}),
	}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "berth_build_info", Help: "1, of this version."}, []string{"version"})
	info.WithLabelValues(version).Set(1)
	m.registry.MustRegister(m.requests, m.duration, m.content, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.countOperations()
	return m
}

// countOperations makes the counters of all operations and outcomes, so that
// counting one looks nothing up.
func (m *Metrics) countOperations() {
	ops := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "berth_operations_total", Help: "Operations on repositories, by what came of them.",
	}, []string{"action", "outcome"})
	m.registry.MustRegister(ops)
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

// Request counts an answer. The caller knows that front, route and method are
// of a few values.
func (m *Metrics) Request(front, route, method string, status int, took time.Duration) {
	m.requests.WithLabelValues(front, route, method, strconv.Itoa(status)).Inc()
	m.duration.WithLabelValues(front, route).Observe(took.Seconds())
}

// Counted is h with its answers counted under one route.
func (m *Metrics) Counted(front string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, counted := time.Now(), &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() { m.Request(front, front, method(r.Method), counted.status, time.Since(start)) }()
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

// Counter adds a counter that f knows.
func (m *Metrics) Counter(name, help string, f func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, f))
}

// Handler answers Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}
