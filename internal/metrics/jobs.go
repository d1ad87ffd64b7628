package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// jobs are those that run again and again beside requests.
type jobs struct {
	runs           *prometheus.CounterVec
	duration       *prometheus.HistogramVec
	ended, success *prometheus.GaugeVec
	removed        map[string]prometheus.Counter
	freed          prometheus.Counter
	backlog        atomic.Pointer[Backlog]
}

// kinds are what collection removes: deleted projects, expired upload sessions,
// manifests that nothing holds, referrers whose subject is gone, blobs out of
// repositories, objects, and objects and parts that no row knew.
var kinds = []string{"projects", "uploads", "manifests", "referrers", "links", "objects", "swept"}

func (m *Metrics) countJobs() {
	j := &m.jobs
	j.runs = m.counters("berth_job_runs_total", "Runs of background jobs by this process, by what came of them.", "name", "outcome")
	j.duration = m.histograms("berth_job_duration_seconds", "Time of a run of a background job.", []float64{.01, .1, 1, 10, 60, 300, 1800, 7200, 36000}, "name")
	j.ended = m.gauges("berth_job_last_run_timestamp_seconds", "When this process last ended a run of a background job.", "name")
	j.success = m.gauges("berth_job_last_success_timestamp_seconds", "When this process last ended a run of a background job without an error.", "name")
	j.removed = map[string]prometheus.Counter{}
	removed := m.counters("berth_gc_removed_total", "What garbage collection removed, by kind.", "kind")
	for _, kind := range kinds {
		j.removed[kind] = removed.WithLabelValues(kind)
	}
	j.freed = m.counter("berth_gc_freed_bytes_total", "Bytes of the objects that garbage collection deleted.")
	m.showBacklog()
}

// Job counts a run of a background job, whose name is the code's.
func (m *Metrics) Job(name string, took time.Duration, err error) {
	now, outcome := float64(time.Now().UnixMilli())/1000, "done"
	if err != nil {
		outcome = "failed"
	}
	m.jobs.runs.WithLabelValues(name, outcome).Inc()
	m.jobs.duration.WithLabelValues(name).Observe(took.Seconds())
	m.jobs.ended.WithLabelValues(name).Set(now)
	if err == nil {
		m.jobs.success.WithLabelValues(name).Set(now)
	}
}

// Removed counts what garbage collection removed, by kind and number, with the
// bytes that it freed. Kinds that are not known are not counted.
func (m *Metrics) Removed(what map[string]int, bytes int64) {
	for kind, n := range what {
		if c := m.jobs.removed[kind]; c != nil {
			c.Add(float64(n))
		}
	}
	m.jobs.freed.Add(float64(bytes))
}

// Backlog is what is open and what waits, as somebody counted it.
type Backlog struct {
	Uploads, Dead, Links, Manifests int
	Oldest                          time.Time // since when the first dead object is due; zero: none is
}

// Backlog shows b from now on; nil, for what cannot be counted, nothing.
func (m *Metrics) Backlog(b *Backlog) { m.jobs.backlog.Store(b) }

func (m *Metrics) showBacklog() {
	m.registry.MustRegister(&backlog{
		get:     m.jobs.backlog.Load,
		uploads: prometheus.NewDesc("berth_uploads_open", "Open upload sessions in the database, counted up to 10000.", nil, nil),
		queue:   prometheus.NewDesc("berth_gc_queue", "Rows in the database that wait for garbage collection, by queue, each counted up to 10000.", []string{"queue"}, nil),
		overdue: prometheus.NewDesc("berth_gc_overdue_seconds", "How long ago the first object that still waits for its deletion was due; 0 where none is.", nil, nil),
	})
}

type backlog struct {
	get                     func() *Backlog
	uploads, queue, overdue *prometheus.Desc
}

// Describe names the metrics.
func (b *backlog) Describe(to chan<- *prometheus.Desc) {
	to <- b.uploads
	to <- b.queue
	to <- b.overdue
}

// Collect shows the last counts.
func (b *backlog) Collect(to chan<- prometheus.Metric) {
	c := b.get()
	if c == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(b.uploads, float64(c.Uploads))
	gauge(b.queue, float64(c.Dead), "dead_objects")
	gauge(b.queue, float64(c.Links), "links")
	gauge(b.queue, float64(c.Manifests), "manifests")
	late := 0.0
	if !c.Oldest.IsZero() {
		late = max(0, time.Since(c.Oldest).Seconds())
	}
	gauge(b.overdue, late)
}
