package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// slow are the buckets of what another registry takes.
var slow = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800}

// Proxies counts what pull-through caches do. Their names are those that
// administrators gave.
type Proxies struct {
	answers, requests, bytes *prometheus.CounterVec
	duration                 *prometheus.HistogramVec
	state                    atomic.Pointer[func() []ProxyState]
	usage                    atomic.Pointer[map[string]int64]
}

// ProxyState is how a proxy does now.
type ProxyState struct {
	Name      string
	Budget    int64 // bytes that it may keep; 0: no bound
	Remaining int64 // requests that the upstream allows still; negative: not known
	Paused    bool  // the upstream asked to be left alone
	Hosts     []ProxyHost
}

// ProxyHost is a host of an upstream; Role is registry, token or storage. Host is of
// the configuration: what others name would be ever more, or no text at all.
type ProxyHost struct {
	Host, Role string
	Open       bool // it is not asked for now
}

// Proxies adds the counters of pull-through caches.
func (m *Metrics) Proxies() *Proxies {
	p := &Proxies{
		answers:  m.counters("berth_proxy_answers_total", "Answers of pull-through caches, by what they were about and where they came from: hit (the cache), revalidated (the upstream said that nothing changed), miss, stale (the upstream does not answer), negative, error, passed (not kept).", "proxy", "kind", "result"),
		requests: m.counters("berth_proxy_upstream_requests_total", "Requests that were sent for pull-through caches, by what they were about, to what, and the class of the status; failed, where no whole answer came.", "proxy", "kind", "role", "class"),
		bytes:    m.counters("berth_proxy_upstream_bytes_total", "Bytes that came from upstreams.", "proxy"),
		duration: m.histograms("berth_proxy_upstream_seconds", "Time of a request to an upstream, its body included.", slow, "proxy", "kind"),
	}
	m.registry.MustRegister(&proxyStates{p,
		prometheus.NewDesc("berth_proxy_breaker_open", "1 while a host of an upstream is not asked because it failed again and again; else 0.", []string{"proxy", "host", "role"}, nil),
		prometheus.NewDesc("berth_proxy_upstream_remaining", "Requests that the upstream allows still, as it last said.", []string{"proxy"}, nil),
		prometheus.NewDesc("berth_proxy_paused", "1 while an address of the upstream is not asked because it said when to come back; else 0.", []string{"proxy"}, nil),
		prometheus.NewDesc("berth_proxy_cache_bytes", "Bytes that a cache keeps, counted a moment ago.", []string{"proxy"}, nil),
		prometheus.NewDesc("berth_proxy_cache_budget_bytes", "Bytes that a cache may keep; 0: no bound.", []string{"proxy"}, nil),
	})
	return p
}

// Answered counts an answer of a proxy, whose kind and result are the code's.
func (p *Proxies) Answered(proxy, kind, result string) {
	p.answers.WithLabelValues(proxy, kind, result).Inc()
}

// Called counts a request to an upstream; all but the proxy's name are the code's.
func (p *Proxies) Called(proxy, kind, role, class string, took time.Duration, bytes int64) {
	p.requests.WithLabelValues(proxy, kind, role, class).Inc()
	p.duration.WithLabelValues(proxy, kind).Observe(took.Seconds())
	p.bytes.WithLabelValues(proxy).Add(float64(bytes))
}

// Show has f asked for the state of all proxies at each scrape: it must not wait.
func (p *Proxies) Show(f func() []ProxyState) { p.state.Store(&f) }

// Usage shows how many bytes each cache keeps; nil, for what cannot be counted,
// nothing.
func (p *Proxies) Usage(bytes map[string]int64) { p.usage.Store(&bytes) }

// Forget stops showing a proxy that is no more.
func (p *Proxies) Forget(proxy string) {
	is := prometheus.Labels{"proxy": proxy}
	p.answers.DeletePartialMatch(is)
	p.requests.DeletePartialMatch(is)
	p.bytes.DeletePartialMatch(is)
	p.duration.DeletePartialMatch(is)
}

type proxyStates struct {
	p                                        *Proxies
	open, remaining, paused, bytes, budgeted *prometheus.Desc
}

// Describe names the metrics.
func (s *proxyStates) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.open, s.remaining, s.paused, s.bytes, s.budgeted} {
		to <- d
	}
}

// Collect shows what is so now.
func (s *proxyStates) Collect(to chan<- prometheus.Metric) {
	list := s.p.state.Load()
	if list == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	var usage map[string]int64
	if u := s.p.usage.Load(); u != nil {
		usage = *u
	}
	for _, state := range (*list)() {
		for _, h := range state.Hosts {
			gauge(s.open, yes(h.Open), state.Name, h.Host, h.Role)
		}
		if state.Remaining >= 0 {
			gauge(s.remaining, float64(state.Remaining), state.Name)
		}
		if bytes, known := usage[state.Name]; known {
			gauge(s.bytes, float64(bytes), state.Name)
		}
		gauge(s.paused, yes(state.Paused), state.Name)
		gauge(s.budgeted, float64(state.Budget), state.Name)
	}
}

func yes(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
