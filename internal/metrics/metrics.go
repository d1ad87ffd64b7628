// Package metrics counts what a registry does, for Prometheus. Every label has
// few values that are known beforehand: nothing that a client sends is one.
package metrics

import (
	"net/http"

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
	running  prometheus.Gauge
	content  *prometheus.CounterVec
	ops      [registry.Actions][registry.Codes + 1]prometheus.Counter // by action and outcome; the last: done
	caches   *prometheus.CounterVec
	jobs     jobs
}

// New returns metrics of this process, with those of Go and the process.
func New() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.countRequests()
	m.countOperations()
	m.countJobs()
	m.caches = m.counters("berth_cache_lookups_total", "Look-ups in what is remembered in memory, by whether it was there.", "cache", "result")
	return m
}

// Version tells which one runs.
func (m *Metrics) Version(version string) {
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "berth_build_info", Help: "1, of this version."}, []string{"version"})
	m.registry.MustRegister(info)
	info.WithLabelValues(version).Set(1)
}

// Counter adds a counter that f knows.
func (m *Metrics) Counter(name, help string, f func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, f))
}

// Gauge adds a value that f knows; it is asked at each scrape, so it must not wait.
func (m *Metrics) Gauge(name, help string, f func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
}

// Handler answers Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Cache is for who answers from memory where it can. The name is the code's.
func (m *Metrics) Cache(name string) (look func(hit bool)) {
	hits, misses := m.caches.WithLabelValues(name, "hit"), m.caches.WithLabelValues(name, "miss")
	return func(hit bool) {
		if hit {
			hits.Inc()
		} else {
			misses.Inc()
		}
	}
}

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(v)
	return v
}

// table is a counter of each pair, so that counting looks little up and all are
// shown from the beginning.
func table(v *prometheus.CounterVec, first, second []string) map[string]map[string]prometheus.Counter {
	all := map[string]map[string]prometheus.Counter{}
	for _, a := range first {
		all[a] = map[string]prometheus.Counter{}
		for _, b := range second {
			all[a][b] = v.WithLabelValues(a, b)
		}
	}
	return all
}
