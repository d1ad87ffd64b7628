package metrics

import (
	"database/sql"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// quick are the buckets of what should take milliseconds.
var quick = []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// Database counts what a database does.
type Database struct {
	ops      map[string]map[string]prometheus.Counter
	duration map[string]prometheus.Observer
	commits  prometheus.Observer
	retries  map[string]prometheus.Counter
}

// Database adds counters for a database with these kinds of operations, their
// outcomes, and reasons to run one again.
func (m *Metrics) Database(kinds, outcomes, retries []string) *Database {
	d := &Database{duration: map[string]prometheus.Observer{}, retries: map[string]prometheus.Counter{}}
	d.ops = table(m.counters("berth_db_operations_total", "Transactions by kind, and reads outside of one, by what came of them.", "kind", "outcome"), kinds, outcomes)
	duration := m.histograms("berth_db_operation_duration_seconds", "Time of a transaction, or until a read's first row, waiting included.", quick, "kind")
	for _, kind := range kinds {
		d.duration[kind] = duration.WithLabelValues(kind)
	}
	d.commits = m.histograms("berth_db_commit_duration_seconds", "Time to make changes durable: of SQLite one sync, for many transactions; of PostgreSQL a COMMIT.", quick).WithLabelValues()
	again := m.counters("berth_db_retries_total", "Attempts at a transaction or read that failed and were made again, by why.", "why")
	for _, why := range retries {
		d.retries[why] = again.WithLabelValues(why)
	}
	return d
}

// Done counts one operation.
func (d *Database) Done(kind, outcome string, took time.Duration) {
	d.ops[kind][outcome].Inc()
	d.duration[kind].Observe(took.Seconds())
}

// Committed counts one commit.
func (d *Database) Committed(took time.Duration) { d.commits.Observe(took.Seconds()) }

// Retried counts one attempt that failed.
func (d *Database) Retried(why string) { d.retries[why].Inc() }

// Pool is a pool of connections to a database.
type Pool struct {
	Name string // the code's
	sql.DBStats
}

// Pools shows what f knows at each scrape.
func (m *Metrics) Pools(f func() []Pool) {
	m.registry.MustRegister(&pools{
		ask:   f,
		open:  prometheus.NewDesc("berth_db_connections", "Connections to the database, by pool and whether one is in use.", []string{"pool", "state"}, nil),
		most:  prometheus.NewDesc("berth_db_connections_max", "Connections that a pool may have.", []string{"pool"}, nil),
		waits: prometheus.NewDesc("berth_db_connection_waits_total", "Times that somebody had to wait for a connection.", []string{"pool"}, nil),
		wait:  prometheus.NewDesc("berth_db_connection_wait_seconds_total", "Time spent waiting for connections.", []string{"pool"}, nil),
	})
}

type pools struct {
	ask                     func() []Pool
	open, most, waits, wait *prometheus.Desc
}

// Describe names the metrics.
func (p *pools) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{p.open, p.most, p.waits, p.wait} {
		to <- d
	}
}

// Collect asks for the values.
func (p *pools) Collect(to chan<- prometheus.Metric) {
	for _, s := range p.ask() {
		to <- prometheus.MustNewConstMetric(p.open, prometheus.GaugeValue, float64(s.InUse), s.Name, "in_use")
		to <- prometheus.MustNewConstMetric(p.open, prometheus.GaugeValue, float64(s.Idle), s.Name, "idle")
		to <- prometheus.MustNewConstMetric(p.most, prometheus.GaugeValue, float64(s.MaxOpenConnections), s.Name)
		to <- prometheus.MustNewConstMetric(p.waits, prometheus.CounterValue, float64(s.WaitCount), s.Name)
		to <- prometheus.MustNewConstMetric(p.wait, prometheus.CounterValue, s.WaitDuration.Seconds(), s.Name)
	}
}

// S3 counts calls of an S3 service.
type S3 struct {
	calls, retries *prometheus.CounterVec
	duration       *prometheus.HistogramVec
	in, out        prometheus.Counter
}

// S3 adds the counters.
func (m *Metrics) S3() *S3 {
	bytes := m.counters("berth_s3_bytes_total", "Bytes of the bodies of calls of the S3 service, with those of attempts that failed.", "direction")
	return &S3{
		calls:    m.counters("berth_s3_calls_total", "Calls of the S3 service, by what came of them.", "operation", "outcome"),
		retries:  m.counters("berth_s3_retries_total", "Attempts at a call of the S3 service beyond the first.", "operation"),
		duration: m.histograms("berth_s3_call_duration_seconds", "Time of a call of the S3 service with all its attempts; of GetObject until the body begins.", []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}, "operation"),
		in:       bytes.WithLabelValues("in"), out: bytes.WithLabelValues("out"),
	}
}

// S3Call is a call that has ended. Its texts are the code's.
type S3Call struct {
	Operation, Outcome string
	Took               time.Duration
	Attempts           int
	Sent, Received     int64
}

// Call counts one.
func (s *S3) Call(c S3Call) {
	s.calls.WithLabelValues(c.Operation, c.Outcome).Inc()
	s.duration.WithLabelValues(c.Operation).Observe(c.Took.Seconds())
	s.retries.WithLabelValues(c.Operation).Add(float64(max(0, c.Attempts-1)))
	s.out.Add(float64(c.Sent))
	s.in.Add(float64(c.Received))
}
