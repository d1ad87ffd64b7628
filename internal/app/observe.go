package app

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/blob/s3blob"
	"github.com/berth-registry/berth/internal/clientaddr"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/metrics"
	"github.com/berth-registry/berth/internal/ocihttp"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/requestid"
	"github.com/berth-registry/berth/internal/tracing"
)

// sampleEvery is what Prometheus mostly asks in.
const sampleEvery = 15 * time.Second

// databaseHooks counts what the database does and adds it to the traces of the
// requests that it is done for.
func databaseHooks(m *metrics.Metrics) meta.Observer {
	db := m.Database(meta.Kinds(), meta.Outcomes(), meta.Retries())
	return meta.Observer{
		Done: func(ctx context.Context, op meta.Op) {
			db.Done(op.Kind, op.Outcome, op.Took)
			tracing.Note(ctx, "sql", op.Kind, op.Outcome, op.Start, op.Took)
		},
		Retried: db.Retried, Committed: db.Committed,
	}
}

// s3Hook is the same for calls of an S3 service.
func s3Hook(m *metrics.Metrics) func(context.Context, s3blob.Call) {
	s3 := m.S3()
	return func(ctx context.Context, c s3blob.Call) {
		s3.Call(metrics.S3Call{
			Operation: c.Operation, Outcome: c.Outcome, Took: c.Took,
			Attempts: c.Attempts, Sent: c.Sent, Received: c.Received,
		})
		tracing.Note(ctx, "s3", c.Operation, c.Outcome, c.Start, c.Took)
	}
}

func (st *store) showPools() {
	st.metrics.Pools(func() (all []metrics.Pool) {
		for _, p := range st.db.Pool() {
			all = append(all, metrics.Pool{Name: p.Name, DBStats: p.DBStats})
		}
		return all
	})
}

// collected counts what a batch of garbage collection has removed.
func (st *store) collected(c hosted.Collected) {
	st.tally.add(c)
	st.metrics.Removed(map[string]int{
		"projects": c.Projects, "uploads": c.Uploads, "manifests": c.Manifests, "referrers": c.Referrers,
		"links": c.Links, "objects": c.Objects, "swept": c.Swept,
	}, c.Bytes)
}

// trace begins to trace requests where anybody could see it.
func (s *site) trace(ctx context.Context) (err error) {
	s.observers = []registry.Observer{s.metrics.Observer()}
	c := s.config
	if c.Tracing.Endpoint == "" && c.Admin.Listen == "" {
		return nil
	}
	o := tracing.Options{Endpoint: c.Tracing.Endpoint, Sample: c.Tracing.Sample, Version: s.server, Log: s.log}
	if c.Tracing.FromProxies {
		o.Follow = clientaddr.New(c.TrustedProxies()).Trusted
	}
	if s.tracer, err = tracing.New(ctx, o); err != nil {
		return err
	}
	s.observers = slices.Clip(append(s.observers, tracing.Observer())) // requests append to it
	if c.Tracing.Endpoint != "" {
		s.log = slog.New(tracing.LogHandler(s.log.Handler()))
	}
	return nil
}

// traced is h with its requests traced, if any are. It must see who the
// connection is from.
func (s *site) traced(h http.Handler) http.Handler {
	if s.tracer == nil {
		return h
	}
	return s.tracer.Handler(h)
}

func (s *site) endTraces(ctx context.Context) {
	if s.tracer == nil {
		return
	}
	if err := s.tracer.Close(ctx); err != nil {
		s.log.Warn("the last traces could not be sent", "error", err)
	}
}

// answered counts a request to the registry's front.
func (s *site) answered(ctx context.Context, a ocihttp.Answer) {
	s.metrics.Request(metrics.Request{
		Front: "oci", Route: a.Route, Method: a.Method, Status: a.Status, Class: s.classOf(a.Repository), Took: a.Took,
	})
	tracing.Answered(ctx, tracing.Answer{
		Front: "oci", Route: a.Route, Method: a.Method, Status: a.Status,
		Repository: audit.Hide(a.Repository), RequestID: a.RequestID, Bytes: a.Sent + a.Received,
	})
}

// answeredElsewhere is told of requests to the other fronts.
func answeredElsewhere(r *http.Request, a metrics.Request) {
	tracing.Answered(r.Context(), tracing.Answer{
		Front: a.Front, Route: a.Route, Method: a.Method, Status: a.Status, RequestID: requestid.Of(r),
	})
}

// classOf is how visible a repository is, as far as memory has it: counting asks
// the database nothing.
func (s *site) classOf(repo string) string {
	if repo == "" {
		return metrics.None
	}
	p := s.directory.Remembered(access.ProjectOf(repo))
	if p == nil || p.Deleted {
		return "unknown"
	}
	return string(p.Visibility)
}

// showState adds what is known without asking anybody else.
func (s *site) showState() {
	m := s.metrics
	m.Version(s.server)
	m.Gauge("berth_ready", "1 if the last check of the database and the folders went well, at most 15 seconds ago; else 0. A bucket does not count.",
		func() float64 { return number(s.ready.good.Load() && !s.ready.stopping.Load()) })
	m.Counter("berth_audit_dropped_total", "Events that are missing in the audit trail, which could not keep up.",
		func() float64 { return float64(s.trail.Dropped()) })
	m.Gauge("berth_audit_queue", "Events that wait to be written to the audit trail.",
		func() float64 { n, _ := s.trail.Queued(); return float64(n) })
	m.Gauge("berth_audit_queue_max", "Events that can wait; what comes then is dropped.",
		func() float64 { _, most := s.trail.Queued(); return float64(most) })
	m.Gauge("berth_limit_buckets", "Callers and projects whose rates are counted in memory.",
		func() float64 { return float64(s.limits.Held()) })
	if s.config.Tracing.Endpoint != "" {
		m.Counter("berth_tracing_spans_total", "Spans that the collector took.", func() float64 { n, _ := s.tracer.Sent(); return float64(n) })
		m.Counter("berth_tracing_spans_failed_total", "Spans that the collector did not take, and that are lost.", func() float64 { _, n := s.tracer.Sent(); return float64(n) })
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// showCertificate tells when the certificate that is served runs out.
func (s *site) showCertificate(c *tls.Config) {
	if c == nil {
		return
	}
	s.metrics.Gauge("berth_tls_certificate_expiry_timestamp_seconds", "When the TLS certificate that is served runs out.", func() float64 {
		pair, err := c.GetCertificate(nil)
		if err != nil || pair.Leaf == nil {
			return 0
		}
		return float64(pair.Leaf.NotAfter.Unix())
	})
}

// sample counts what waits in the database and checks whether this process can
// serve, now and then: a scrape must not wait for what has failed.
func (s *site) sample(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		s.ready.check()
		s.sampleBacklog(ctx)
		s.proxies.sampleUsage(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *site) sampleBacklog(ctx context.Context) {
	b, err := s.store.db.Backlog(ctx)
	if err != nil {
		s.metrics.Backlog(nil)
		return
	}
	s.metrics.Backlog(&metrics.Backlog{Uploads: b.Uploads, Dead: b.Dead, Links: b.Links, Manifests: b.Manifests, Oldest: b.Oldest})
}
