package metrics_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/metrics"
	"github.com/berth-registry/berth/internal/registry"
)

func scrape(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestMetrics(t *testing.T) {
	m := metrics.New()
	m.Version("v1.2.3")
	observe := m.Observer()
	for _, op := range []struct {
		action registry.Action
		n      int64
		err    error
	}{
		{registry.ManifestRead, 100, nil}, {registry.BlobRead, 1000, errors.New("the client is gone")},
		{registry.ManifestWrite, 7, nil}, {registry.ManifestWrite, 0, &registry.Error{Code: registry.Denied}},
	} {
		observe(context.Background(), registry.Op{Action: op.action})(op.n, op.err)
	}
	m.Request(metrics.Request{Front: "oci", Route: "manifest", Method: "GET", Status: 200, Class: "public", Took: 3 * time.Millisecond})
	m.Counter("berth_test_total", "For this test.", func() float64 { return 42 })
	counted := m.Counted("api", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }),
		func(*http.Request, metrics.Request) {})
	counted.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("BREW", "/", nil))

	got := scrape(t, m)
	for _, line := range []string{
		`berth_build_info{version="v1.2.3"} 1`,
		`berth_operations_total{action="manifest.read",outcome="done"} 1`,
		`berth_operations_total{action="blob.read",outcome="internal error"} 1`,
		`berth_operations_total{action="manifest.write",outcome="access denied"} 1`,
		`berth_operations_total{action="tag.delete",outcome="done"} 0`,
		`berth_content_bytes_total{direction="out"} 1100`,
		`berth_content_bytes_total{direction="in"} 7`,
		`berth_http_requests_total{class="public",front="oci",method="GET",route="manifest",status="200"} 1`,
		`berth_http_requests_total{class="none",front="api",method="other",route="api",status="418"} 1`,
		`berth_http_request_duration_seconds_bucket{front="oci",method="GET",route="manifest",le="0.005"} 1`,
		`berth_test_total 42`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("%s is missing", line)
		}
	}
}

func BenchmarkObserver(b *testing.B) {
	observe := metrics.New().Observer()
	op := registry.Op{Action: registry.ManifestRead}
	b.ReportAllocs()
	for b.Loop() {
		observe(b.Context(), op)(100, nil)
	}
}
