package app

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/berth-registry/berth/internal/config"
	"github.com/berth-registry/berth/internal/oci"
)

// another is another registry, as a server that counts what it is asked.
type another struct {
	*httptest.Server
	asked, down atomic.Int64
}

func anotherRegistry(t *testing.T) *another {
	t.Helper()
	s := siteOf(t, nil)
	a := &another{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked.Add(1)
		if a.down.Load() > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		s.handler.ServeHTTP(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

// push puts an image of one layer into a repository of a server.
func push(t *testing.T, url, repo, tag, layer string) (manifest []byte) {
	t.Helper()
	config := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`
	for _, blob := range []string{config, layer} {
		send(t, "POST", url+"/v2/"+repo+"/blobs/uploads/?digest="+oci.SHA256.FromBytes([]byte(blob)).String(), "application/octet-stream", []byte(blob), 201)
	}
	manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		oci.MediaTypeManifest, oci.SHA256.FromBytes([]byte(config)), len(config), oci.SHA256.FromBytes([]byte(layer)), len(layer))
	send(t, "PUT", url+"/v2/"+repo+"/manifests/"+tag, oci.MediaTypeManifest, manifest, 201)
	return manifest
}

func send(t *testing.T, method, url, kind string, body []byte, want int) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		t.Fatalf("%s %s: %s %s, %v; want %d", method, url, resp.Status, answer, err, want)
	}
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	return resp
}

// proxyConfig is a configuration whose file holds text.
func proxyConfig(t *testing.T, text string, flags map[string]string) *config.Config {
	t.Helper()
	name := filepath.Join(t.TempDir(), "berth.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"data": filepath.Join(t.TempDir(), "data")}
	for key, value := range flags {
		all[key] = value
	}
	c, err := config.Load(config.Sources{File: name, Flags: all})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// proxySite is a site with a configuration file.
func proxySite(t *testing.T, text string, flags map[string]string) *site {
	t.Helper()
	c := proxyConfig(t, text, flags)
	s, err := newSite(t.Context(), c, opened(t, c), "test", slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.closeWithin(cutTimeout) })
	return s
}

// TestProxy: what a few lines of configuration make of a registry. It is pulled
// through by prefix, by ns and by host, and still there when the upstream is not.
func TestProxy(t *testing.T) {
	up := anotherRegistry(t)
	manifest := push(t, up.URL, "library/app", "1", "the layer")
	layer := oci.SHA256.FromBytes([]byte("the layer")).String()
	s := proxySite(t, "proxies:\n  - name: docker.io\n    upstreams: ['"+up.URL+"']\n    networks: [127.0.0.1]\n    hosts: [hub.example.com]\n", nil)
	ask := asking(t, s)
	const here = "127.0.0.1:5000"
	check := func(host, path, body string) {
		t.Helper()
		if got := ask("GET", host, path, "", ""); got.Code != 200 || got.Body.String() != body {
			t.Errorf("%s%s: %d %s", host, path, got.Code, got.Body)
		}
	}
	check(here, "/v2/docker.io/library/app/manifests/1", string(manifest))
	check(here, "/v2/docker.io/library/app/blobs/"+layer, "the layer")
	up.down.Store(1)
	before := up.asked.Load()
	check(here, "/v2/docker.io/app/manifests/1", string(manifest))
	check(here, "/v2/library/app/manifests/1?ns=docker.io", string(manifest))
	check(here, "/v2/app/manifests/1?ns=index.docker.io", string(manifest))
	check("hub.example.com", "/v2/app/manifests/1", string(manifest))
	check("hub.example.com", "/v2/library/app/blobs/"+layer, "the layer")
	if n := up.asked.Load() - before; n != 0 {
		t.Errorf("the upstream was asked %d times for what is in the cache and fresh", n)
	}
	if got := ask("GET", here, "/v2/library/app/manifests/1?ns=evil.example", "", ""); got.Code != 404 || !strings.Contains(got.Body.String(), "NAME_UNKNOWN") {
		t.Errorf("another ns: %d %s", got.Code, got.Body)
	}
	if got := ask("GET", here, "/v2/docker.io/library/none/manifests/1", "", ""); got.Code != 503 || got.Header().Get("Retry-After") == "" {
		t.Errorf("what is not in the cache: %d %s", got.Code, got.Body)
	}
	if got := ask("GET", here, "/api/v1/projects/docker.io", "", ""); got.Code != 200 || !strings.Contains(got.Body.String(), `"visibility":"private"`) {
		t.Errorf("the project: %d %s", got.Code, got.Body)
	}
	w := httptest.NewRecorder()
	s.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, line := range []string{
		`berth_proxy_answers_total{kind="manifest",proxy="docker.io",result="miss"} 1`,
		`berth_proxy_answers_total{kind="manifest",proxy="docker.io",result="hit"} 4`,
		`berth_proxy_upstream_requests_total{class="2xx",kind="blob",proxy="docker.io",role="registry"} 1`,
		`berth_proxy_paused{proxy="docker.io"} 0`,
		`berth_proxy_cache_budget_bytes{proxy="docker.io"} 0`,
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("metrics do not say %s", line)
		}
	}
}
