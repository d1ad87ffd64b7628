package app

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestAdminListener: what runs is counted, and shown to those who ask there.
func TestAdminListener(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	s := siteOf(t, map[string]string{"admin.listen": addr})
	stop, err := serveAdmin(t.Context(), s.config, s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	ask := asking(t, s)
	ask("GET", "127.0.0.1:5000", "/v2/none/tags/list", "", "")
	ask("BREW", "127.0.0.1:5000", "/v2/none/tags/list", "", "")
	ask("GET", "127.0.0.1:5000", "/api/v1/projects", "", "")
	ask("GET", "127.0.0.1:5000", "/auth/token", "", "")
	for path, lines := range map[string][]string{
		"/healthz": {`{"status":"ok"}`},
		"/readyz":  {`{"status":"ready"}`},
		"/metrics": {
			`berth_http_requests_total{class="unknown",front="oci",method="GET",route="tags",status="404"} 1`,
			`berth_http_requests_total{class="unknown",front="oci",method="other",route="tags",status="405"} 1`,
			`berth_http_requests_total{class="none",front="api",method="GET",route="api",status="200"} 1`,
			`berth_http_requests_total{class="none",front="token",method="GET",route="token",status="200"} 1`,
			`berth_operations_total{action="tags.list",outcome="repository name unknown"} 1`,
			`berth_audit_dropped_total 0`,
			`berth_build_info{version="test"} 1`,
		},
	} {
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s, %v", path, resp.Status, err)
		}
		for _, line := range lines {
			if !strings.Contains(string(body), line+"\n") {
				t.Errorf("%s does not say %s", path, line)
			}
		}
	}
	if got := ask("GET", "127.0.0.1:5000", "/metrics", "", ""); got.Code != http.StatusNotFound {
		t.Errorf("clients get /metrics: %d", got.Code)
	}
	if _, err := serveAdmin(t.Context(), s.config, s, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a second listener on the address is no error")
	}
}
