package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/config"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/proxyspec"
	"github.com/berth-registry/berth/internal/registry"
)

// another is another registry, as a server that counts what it is asked.
type another struct {
	*httptest.Server
	asked, down atomic.Int64
	token       atomic.Pointer[string] // what was shown last
}

func anotherRegistry(t *testing.T) *another {
	t.Helper()
	s := siteOf(t, nil)
	a := &another{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked.Add(1)
		if token := r.Header.Get("Authorization"); token != "" {
			a.token.Store(&token)
			r.Header.Del("Authorization")
		}
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
		oci.MediaTypeImage, oci.SHA256.FromBytes([]byte(config)), len(config), oci.SHA256.FromBytes([]byte(layer)), len(layer))
	send(t, "PUT", url+"/v2/"+repo+"/manifests/"+tag, oci.MediaTypeImage, manifest, 201)
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
	for _, line := range []string{
		`berth_proxy_answers_total{kind="manifest",proxy="docker.io",result="miss"} 1`,
		`berth_proxy_answers_total{kind="manifest",proxy="docker.io",result="hit"} 4`,
		`berth_proxy_upstream_requests_total{class="2xx",kind="blob",proxy="docker.io",role="registry"} 1`,
		`berth_proxy_paused{proxy="docker.io"} 0`,
		`berth_proxy_cache_budget_bytes{proxy="docker.io"} 0`,
	} {
		shows(t, s, line)
	}
}

// shows waits until metrics say something: a request to an upstream is counted
// when it is over, and that may be after its answer has been passed on.
func shows(t *testing.T, s *site, line string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		w := httptest.NewRecorder()
		s.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		switch {
		case strings.Contains(w.Body.String(), line+"\n"):
			return
		case time.Now().After(end):
			t.Errorf("metrics do not say %s", line)
			return
		}
	}
}

// TestProxyIsTried under the names that clients use.
func TestProxyIsTried(t *testing.T) {
	up := anotherRegistry(t)
	push(t, up.URL, "library/app", "1", "the layer")
	ask := asking(t, proxySite(t, "proxies:\n  - {name: docker.io, upstreams: ['"+up.URL+"'], networks: [127.0.0.1]}\n", nil))
	if got := ask("POST", "127.0.0.1:5000", "/api/v1/proxies/docker.io/test", "", `{"repository":"app","reference":"1"}`); !strings.Contains(got.Body.String(), `{"ok":true,"done":true}`) {
		t.Errorf("%d %s", got.Code, got.Body)
	}
}

// TestProxyHostTokens: who comes by a proxy's host and calls repositories as the
// upstream does gets tokens that are good there.
func TestProxyHostTokens(t *testing.T) {
	up := anotherRegistry(t)
	manifest := push(t, up.URL, "library/app", "1", "the layer")
	s := proxySite(t, "proxies:\n  - name: docker.io\n    upstreams: ['"+up.URL+"']\n    networks: [127.0.0.1]\n    hosts: ['hub.localhost:5000']\n",
		map[string]string{"auth.mode": "required", "url": "http://127.0.0.1:5000"})
	ctx := t.Context()
	p, err := s.store.db.Project(ctx, "docker.io")
	if err != nil {
		t.Fatal(err)
	}
	internal, change := access.Internal, meta.Change{Event: audit.Event{Action: "test"}}
	if err := s.store.db.SetProject(ctx, change, p.ID, meta.ProjectChange{Visibility: &internal}); err != nil {
		t.Fatal(err)
	}
	u, err := s.store.db.CreateUser(ctx, change, meta.UserSpec{Name: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	secret, hash := auth.NewKey(auth.UserKey)
	if _, err := s.store.db.CreateKey(ctx, change, access.Key{Name: "test", UserID: u.ID, CreatedBy: "test"}, hash); err != nil {
		t.Fatal(err)
	}
	ask := func(host, path, token string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		r.Host, r.RemoteAddr = host, "192.0.2.1:1"
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		} else if strings.HasPrefix(path, "/auth/") {
			r.SetBasicAuth("alice", secret)
		}
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		return w
	}
	first := ask("hub.localhost:5000", "/v2/", "")
	if got := first.Header().Get("WWW-Authenticate"); first.Code != 401 || !strings.Contains(got, `realm="http://hub.localhost:5000/auth/token"`) {
		t.Fatalf("%d %s", first.Code, got)
	}
	var token struct{ Token string }
	answer := ask("hub.localhost:5000", "/auth/token?service=127.0.0.1:5000&scope=repository:library/app:pull", "")
	if err := json.Unmarshal(answer.Body.Bytes(), &token); err != nil || token.Token == "" {
		t.Fatalf("%d %s, %v", answer.Code, answer.Body, err)
	}
	if got := ask("hub.localhost:5000", "/v2/library/app/manifests/1", token.Token); got.Code != 200 || got.Body.String() != string(manifest) {
		t.Errorf("%d %s %v", got.Code, got.Body, got.Header())
	}
}

// TestManagedProxy: one that is added while the server runs is there at once, and
// when it is taken away nothing is fetched any more; requests go on meanwhile.
func TestManagedProxy(t *testing.T) {
	up := anotherRegistry(t)
	manifest := push(t, up.URL, "team/app", "1", "the layer")
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("5f", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := proxySite(t, "proxies: [{name: quay.io}]\n", map[string]string{"proxy.networks": "127.0.0.1", "secrets.key_file": key})
	ask := asking(t, s)
	const here = "127.0.0.1:5000"
	wants := func(status int, method, path, body string) string {
		t.Helper()
		got := ask(method, here, path, "", body)
		if got.Code != status {
			t.Fatalf("%s %s: %d %s, want %d", method, path, got.Code, got.Body, status)
		}
		return got.Body.String()
	}
	wants(404, "GET", "/v2/mirror/team/app/manifests/1", "")
	wants(200, "PUT", "/api/v1/proxies/mirror", `{"name":"mirror","upstreams":["`+up.URL+`"],"credential":{"token":"hunter2"},"namespaces":["registry.example.com"]}`)
	if got := wants(200, "GET", "/v2/mirror/team/app/manifests/1", ""); got != string(manifest) {
		t.Errorf("pulled: %s", got)
	}
	wants(200, "GET", "/v2/team/app/manifests/1?ns=registry.example.com", "")
	if token := up.token.Load(); token == nil || *token != "Bearer hunter2" {
		t.Errorf("the upstream was shown %v", token)
	}
	if got := wants(200, "GET", "/api/v1/proxies/mirror/stats", ""); !strings.Contains(got, `"manifests":1`) {
		t.Errorf("stats: %s", got)
	}
	if got := wants(200, "POST", "/api/v1/proxies/mirror/prefetch", `{"repository":"team/app","reference":"1"}`); !strings.Contains(got, `"manifests":1,"blobs":2,`) || !strings.Contains(got, `"done":true}`) {
		t.Errorf("prefetch: %s", got)
	}
	if got := wants(200, "POST", "/api/v1/proxies/mirror/test", `{"repository":"team/app","reference":"1"}`); !strings.Contains(got, `{"ok":true,"done":true}`) {
		t.Errorf("test: %s", got)
	}
	wants(204, "POST", "/api/v1/proxies/mirror/refresh", `{}`)
	before := up.asked.Load()
	wants(200, "GET", "/v2/mirror/team/app/manifests/1", "")
	if up.asked.Load() == before {
		t.Error("after a refresh the upstream is not asked")
	}
	if got := wants(200, "POST", "/api/v1/proxies/mirror/purge", `{}`); !strings.Contains(got, `"images":1`) {
		t.Errorf("purge: %s", got)
	}
	wants(409, "POST", "/api/v1/projects/mirror/rename", `{"name":"other"}`)
	wants(409, "PUT", "/api/v1/proxies/quay.io", `{"name":"quay.io"}`)
	wants(409, "DELETE", "/api/v1/proxies/quay.io", "")
	// The same over another address is another proxy, and the old one ends.
	wants(200, "PUT", "/api/v1/proxies/mirror", `{"name":"mirror","upstreams":["`+up.URL+`"],"repositories":["other/*"]}`)
	wants(404, "GET", "/v2/mirror/team/app/manifests/1", "")
	wants(404, "GET", "/v2/team/app/manifests/1?ns=registry.example.com", "")
	wants(204, "DELETE", "/api/v1/proxies/mirror", "")
	before = up.asked.Load()
	wants(404, "GET", "/v2/mirror/other/app/manifests/1", "")
	if up.asked.Load() != before {
		t.Error("what was taken away is still asked")
	}
	if got := wants(200, "GET", "/api/v1/audit?action=proxy.", ""); strings.Contains(got, "hunter2") || !strings.Contains(got, `"action":"proxy.delete"`) || !strings.Contains(got, `"action":"proxy.purge"`) {
		t.Errorf("audit: %s", got)
	}
}

// TestRequestsOutliveRoutes: what is under way when a proxy is taken away comes to
// its end, and the proxy with it.
func TestRequestsOutliveRoutes(t *testing.T) {
	up := anotherRegistry(t)
	layer := strings.Repeat("layer", 200_000)
	push(t, up.URL, "team/app", "1", layer)
	digest := oci.SHA256.FromBytes([]byte(layer)).String()
	half, rest := make(chan struct{}), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		up.Config.Handler.ServeHTTP(answer, r)
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		body := answer.Body.Bytes()
		if r.Method == "GET" && strings.HasSuffix(r.URL.Path, digest) {
			w.Write(body[:len(body)/2])
			w.(http.Flusher).Flush()
			close(half)
			<-rest
			body = body[len(body)/2:]
		}
		w.Write(body)
	}))
	defer slow.Close()
	s := proxySite(t, "", map[string]string{"proxy.networks": "127.0.0.1"})
	here := httptest.NewServer(s.handler)
	defer here.Close()
	send(t, "PUT", here.URL+"/api/v1/proxies/mirror", "application/json", []byte(`{"name":"mirror","upstreams":["`+slow.URL+`"]}`), 200)
	send(t, "GET", here.URL+"/v2/mirror/team/app/manifests/1", "", nil, 200)
	got := make(chan string)
	go func() {
		resp, err := client.Get(here.URL + "/v2/mirror/team/app/blobs/" + digest)
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			text = []byte(err.Error())
		}
		got <- string(text)
	}()
	<-half
	run := s.proxies.current.Load().proxies["mirror"]
	send(t, "DELETE", here.URL+"/api/v1/proxies/mirror", "", nil, 204)
	if !run.hold() {
		t.Error("it has ended before its last request")
	} else {
		run.release()
	}
	close(rest)
	if text := <-got; text != layer {
		t.Errorf("the client got %d bytes: %.100s", len(text), text)
	}
	for end := time.Now().Add(30 * time.Second); run.hold(); time.Sleep(10 * time.Millisecond) {
		run.release()
		if time.Now().After(end) {
			t.Fatal("it does not end")
		}
	}
}

// TestManagedElsewhere: what another process adds is known here within a second,
// and one that cannot be started keeps nothing from the others.
func TestManagedElsewhere(t *testing.T) {
	up := anotherRegistry(t)
	push(t, up.URL, "team/app", "1", "the layer")
	s := proxySite(t, "proxies:\n  - {name: first, upstreams: ['"+up.URL+"']}\n", map[string]string{"proxy.networks": "127.0.0.1"})
	change := meta.Change{Event: audit.Event{Action: "proxy.put"}}
	for name, p := range map[string]meta.Proxy{
		"broken": {Name: "broken", Spec: `{"name":"broken","upstreams":["` + up.URL + `"]}`, Secret: []byte("nobody can open this")},
		"first":  {Name: "first", Spec: `{"name":"first","upstreams":["http://127.0.0.1:1"]}`}, // the configuration wins
		"mirror": {Name: "mirror", Spec: `{"name":"mirror","upstreams":["` + up.URL + `"]}`},
	} {
		if _, err := s.store.db.PutProxy(t.Context(), change, p); err != nil {
			t.Fatal(name, err)
		}
	}
	ask := asking(t, s)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		got := ask("GET", "127.0.0.1:5000", "/v2/mirror/team/app/manifests/1", "", "")
		if got.Code == 200 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it is not known: %d %s", got.Code, got.Body)
		}
	}
	if got := ask("GET", "127.0.0.1:5000", "/v2/first/team/app/manifests/1", "", ""); got.Code != 200 {
		t.Errorf("what the configuration has: %d %s", got.Code, got.Body)
	}
	if got := ask("GET", "127.0.0.1:5000", "/v2/broken/team/app/manifests/1", "", ""); got.Code != 503 {
		t.Errorf("what cannot be asked: %d %s", got.Code, got.Body)
	}
	if got := ask("GET", "127.0.0.1:5000", "/api/v1/proxies/broken/stats", "", ""); got.Code != 200 || !strings.Contains(got.Body.String(), "secrets.key_file is not set") {
		t.Errorf("stats: %d %s", got.Code, got.Body)
	}
}

// TestManagedReach: who may add proxies reaches with them what the configuration
// lets them reach, whatever is stored, and not this machine's network.
func TestManagedReach(t *testing.T) {
	up := anotherRegistry(t)
	push(t, up.URL, "team/app", "1", "the layer")
	s := proxySite(t, "", nil)
	change := meta.Change{Event: audit.Event{Action: "proxy.put"}}
	for name, spec := range map[string]string{
		"plain":   `"upstreams":["` + up.URL + `"]`,
		"network": `"upstreams":["` + up.URL + `"],"networks":["127.0.0.1"]`,
		"way":     `"upstreams":["http://registry.example"],"plain_http":true,"http_proxy":"` + up.URL + `"`,
		"cloud":   `"upstreams":["https://registry.example"],"credential":{"exchange":"gcp"}`,
	} {
		spec = `{"name":"` + name + `",` + spec + `}`
		if _, err := s.store.db.PutProxy(t.Context(), change, meta.Proxy{Name: name, Spec: spec}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.proxies.reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	ask := asking(t, s)
	before := up.asked.Load()
	for name, want := range map[string]int{"plain": 502, "network": 503, "way": 502, "cloud": 503} {
		if got := ask("GET", "127.0.0.1:5000", "/v2/"+name+"/team/app/manifests/1", "", ""); got.Code != want {
			t.Errorf("%s: %d %s", name, got.Code, got.Body)
		}
	}
	if up.asked.Load() != before {
		t.Error("an address of this machine was dialled")
	}
	for _, spec := range []string{`"networks":["169.254.169.254"]`, `"credential":{"exchange":"acr"}`} {
		if got := ask("PUT", "127.0.0.1:5000", "/api/v1/proxies/quay.io", "", `{"name":"quay.io",`+spec+`}`); got.Code != 422 {
			t.Errorf("%s: %d %s", spec, got.Code, got.Body)
		}
	}
}

// TestProxyIsNotClaimed: nobody becomes the owner of a cache by writing to it, nor
// reads it, although newcomers may claim projects and its own was never claimed.
func TestProxyIsNotClaimed(t *testing.T) {
	up := anotherRegistry(t)
	push(t, up.URL, "app", "1", "the layer")
	s := proxySite(t, "proxies:\n  - {name: mirror, upstreams: ['"+up.URL+"'], networks: [127.0.0.1]}\nvirtual:\n  - {name: all, sources: [team, mirror]}\n",
		map[string]string{"projects.newcomers": "claim"})
	ask := asking(t, s)
	for _, name := range []string{"root", "bob"} {
		if got := ask("POST", "127.0.0.1:5000", "/api/v1/users", map[string]string{"bob": "root"}[name], `{"name":"`+name+`","password":"a long password"}`); got.Code != 201 {
			t.Fatalf("%d %s", got.Code, got.Body)
		}
	}
	for _, name := range []string{"mirror", "all"} {
		p, err := s.store.db.Project(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		claimed := false
		if err := s.store.db.SetProject(t.Context(), meta.Change{Event: audit.Event{Action: "project.update"}}, p.ID, meta.ProjectChange{Claimed: &claimed}); err != nil {
			t.Fatal(err)
		}
		if got := ask("POST", "127.0.0.1:5000", "/v2/"+name+"/app/blobs/uploads/", "bob", ""); got.Code != 403 {
			t.Errorf("a push to %s: %d %s", name, got.Code, got.Body)
		}
		if got := ask("GET", "127.0.0.1:5000", "/v2/"+name+"/app/manifests/1", "bob", ""); got.Code != 404 {
			t.Errorf("a pull from %s: %d %s", name, got.Code, got.Body)
		}
	}
}

// TestHostsOfUpstreams: an upstream that leads to ever new hosts, or to what is no
// text, has neither ever more metrics nor none at all.
func TestHostsOfUpstreams(t *testing.T) {
	var asked atomic.Int64
	hostile := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		w.Header()["Location"] = []string{fmt.Sprintf("http://%s%d.evil.example/", []string{"%ff%fe", "a%22%3Cb", "a"}[asked.Load()%3], asked.Load())}
		asked.Add(1)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	defer hostile.Close()
	s := proxySite(t, "proxies:\n  - {name: mirror, upstreams: ['"+hostile.URL+"'], networks: [127.0.0.1], http_proxy: '"+hostile.URL+"'}\n", nil)
	ask := asking(t, s)
	for i := range 9 {
		if got := ask("GET", "127.0.0.1:5000", "/v2/mirror/app"+strconv.Itoa(i)+"/manifests/1", "", ""); got.Code != 502 && got.Code != 503 {
			t.Errorf("%d %s", got.Code, got.Body)
		}
	}
	w := httptest.NewRecorder()
	s.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	hosts := 0
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "berth_proxy_breaker_open{") {
			hosts++
		}
	}
	if w.Code != 200 || hosts != 2 || strings.Contains(w.Body.String(), "evil") {
		t.Errorf("%d, %d hosts: %s", w.Code, hosts, w.Body)
	}
}

// TestVirtualProject: one name for a project and a cache.
func TestVirtualProject(t *testing.T) {
	up := anotherRegistry(t)
	theirs := push(t, up.URL, "app", "1", "their layer")
	s := proxySite(t, "proxies:\n  - {name: mirror, upstreams: ['"+up.URL+"'], networks: [127.0.0.1]}\nvirtual:\n  - {name: all, sources: [team, mirror]}\n", nil)
	here := httptest.NewServer(s.handler)
	defer here.Close()
	ours := push(t, here.URL, "all/own", "1", "our layer")
	for path, want := range map[string][]byte{"all/app": theirs, "all/own": ours, "team/own": ours, "mirror/app": theirs} {
		resp := send(t, "GET", here.URL+"/v2/"+path+"/manifests/1", "", nil, 200)
		if got, _ := io.ReadAll(resp.Body); string(got) != string(want) {
			t.Errorf("%s: %s", path, got)
		}
	}
	send(t, "GET", here.URL+"/v2/team/app/manifests/1", "", nil, 404)
}

// TestVirtualRights: through a virtual project nobody sees or writes more than the
// sources let him, and what was deleted is gone there too. A token need not name
// the sources.
func TestVirtualRights(t *testing.T) {
	up := anotherRegistry(t)
	theirs := push(t, up.URL, "app", "1", "their layer")
	s := proxySite(t, "proxies:\n  - {name: mirror, upstreams: ['"+up.URL+"'], networks: [127.0.0.1]}\nvirtual:\n  - {name: all, sources: [team, mirror]}\n",
		map[string]string{"url": "http://127.0.0.1:5000"})
	here := httptest.NewServer(s.handler)
	defer here.Close()
	ours := push(t, here.URL, "team/own", "1", "our layer")
	send(t, "GET", here.URL+"/v2/all/app/manifests/1", "", nil, 200)
	ask := asking(t, s)
	const host = "127.0.0.1:5000"
	wants := func(status int, method, path, user, body string) *httptest.ResponseRecorder {
		t.Helper()
		got := ask(method, host, path, user, body)
		if got.Code != status {
			t.Errorf("%s %s by %q: %d %s, want %d", method, path, user, got.Code, got.Body, status)
		}
		return got
	}
	for i, name := range []string{"root", "bob", "carol"} {
		wants(201, "POST", "/api/v1/users", []string{"", "root", "root"}[i], `{"name":"`+name+`","password":"a long password"}`)
	}
	for _, member := range []string{"all bob writer", "mirror bob reader", "all carol writer", "team carol reader"} {
		m := strings.Fields(member)
		wants(200, "PUT", "/api/v1/projects/"+m[0]+"/members/user/"+m[1], "root", `{"role":"`+m[2]+`"}`)
	}
	layer := "/blobs/" + oci.SHA256.FromBytes([]byte("our layer")).String()
	digest := "/manifests/" + oci.SHA256.FromBytes(ours).String()
	for _, path := range []string{"/v2/all/own/manifests/1", "/v2/all/own" + digest, "/v2/all/own" + layer} {
		wants(404, "GET", path, "bob", "")
		wants(200, "GET", path, "carol", "")
	}
	wants(404, "GET", "/v2/all/own/tags/list", "bob", "")
	if got := wants(200, "GET", "/v2/_catalog", "bob", "").Body.String(); strings.Contains(got, "own") || !strings.Contains(got, `"all/app"`) {
		t.Errorf("bob is told of %s", got)
	}
	if got := wants(200, "GET", "/v2/all/app/manifests/1", "bob", "").Body.String(); got != string(theirs) {
		t.Errorf("bob got %s", got)
	}
	wants(404, "GET", "/v2/all/app/manifests/1", "carol", "")
	wants(403, "POST", "/v2/all/own/blobs/uploads/", "bob", "")
	wants(403, "POST", "/v2/all/own/blobs/uploads/", "carol", "")
	wants(403, "DELETE", "/v2/all/own/manifests/1", "carol", "")
	wants(202, "POST", "/v2/all/own/blobs/uploads/", "root", "")
	own := oci.SHA256.FromBytes([]byte("{}")).String()
	wants(201, "POST", "/v2/all/own/blobs/uploads/?digest="+own, "root", "{}")

	token := func(user string) string {
		t.Helper()
		var answer struct{ Token string }
		got := wants(200, "GET", "/auth/token?service="+host+"&scope=repository:all/own:pull", user, "")
		if err := json.Unmarshal(got.Body.Bytes(), &answer); err != nil || answer.Token == "" {
			t.Fatalf("%s, %v", got.Body, err)
		}
		return answer.Token
	}
	for user, want := range map[string]int{"bob": 404, "carol": 200} {
		r := httptest.NewRequest("GET", "/v2/all/own/manifests/1", nil)
		r.Host = host
		r.Header.Set("Authorization", "Bearer "+token(user))
		w := httptest.NewRecorder()
		if s.handler.ServeHTTP(w, r); w.Code != want {
			t.Errorf("with a token of %s: %d %s", user, w.Code, w.Body)
		}
	}
	wants(200, "DELETE", "/api/v1/projects/team?confirm=team", "root", "")
	wants(404, "GET", "/v2/all/own"+digest, "root", "")
	wants(403, "POST", "/v2/all/own/blobs/uploads/", "root", "")
}

// TestEviction: a cache that has more than it may keep gives up what was not used
// for longest, and what is left is whole.
func TestEviction(t *testing.T) {
	up := anotherRegistry(t)
	const images = 10
	for i := range images {
		push(t, up.URL, "team/app", strconv.Itoa(i), strings.Repeat(strconv.Itoa(i), 10_000))
	}
	for name, text := range map[string]string{
		"of its own":  "proxies:\n  - {name: mirror, upstreams: ['" + up.URL + "'], networks: [127.0.0.1], cache: {size: 60000, pins: ['team/app:0']}}\n",
		"of all":      "proxy: {cache_size: 60KiB}\nproxies:\n  - {name: mirror, upstreams: ['" + up.URL + "'], networks: [127.0.0.1], cache: {pins: ['team/app:0']}}\n",
		"no use made": "proxies:\n  - {name: mirror, upstreams: ['" + up.URL + "'], networks: [127.0.0.1], cache: {max_idle: 1ms, pins: ['team/app:0']}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := proxySite(t, text, nil)
			here := httptest.NewServer(s.handler)
			defer here.Close()
			for i := range images {
				send(t, "GET", here.URL+"/v2/mirror/team/app/manifests/"+strconv.Itoa(i), "", nil, 200)
				send(t, "GET", here.URL+"/v2/mirror/team/app/blobs/"+oci.SHA256.FromBytes([]byte(strings.Repeat(strconv.Itoa(i), 10_000))).String(), "", nil, 200)
			}
			// What was passed on is kept a moment later.
			for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				if used, err := s.store.db.ProxyUsage(t.Context(), "mirror"); err != nil || used > images*10_000 {
					break
				} else if time.Now().After(end) {
					t.Fatalf("only %d bytes are kept", used)
				}
			}
			freed, err := s.proxies.evictAll(t.Context())
			if err != nil || freed["mirror"].Images == 0 {
				t.Fatalf("freed: %+v, %v", freed, err)
			}
			if used, err := s.store.db.ProxyUsage(t.Context(), "mirror"); err != nil || used > 60<<10 {
				t.Errorf("%d bytes are in use, %v", used, err)
			}
			up.down.Store(1)
			defer up.down.Store(0)
			send(t, "GET", here.URL+"/v2/mirror/team/app/manifests/0", "", nil, 200) // is pinned
		})
	}
}

// TestCacheIsNotCollected: what no tag names is kept until the cache gives it up,
// whatever holds for others.
func TestCacheIsNotCollected(t *testing.T) {
	c := proxyConfig(t, "gc: {untagged: 1d}\nproxies: [{name: docker.io}]\n", nil)
	st := opened(t, c)
	change := meta.Change{Event: audit.Event{Action: "proxy.put"}}
	if _, err := st.db.PutProxy(t.Context(), change, meta.Proxy{Name: "quay.io", Spec: `{"name":"quay.io"}`}); err != nil {
		t.Fatal(err)
	}
	caches, err := cachesOf(t.Context(), c, st.db)
	if err != nil {
		t.Fatal(err)
	}
	st.caches.Store(&caches)
	retention := registryOptions(c, st.isCache).Retention
	for repo, want := range map[string]time.Duration{"docker.io/library/a": 0, "quay.io/a": 0, "team/app": 24 * time.Hour, "docker.iox/a": 24 * time.Hour} {
		if got := retention(repo); got.Untagged != want || got.Orphans == 0 {
			t.Errorf("%s: %+v", repo, got)
		}
	}
}

// TestSpoolIsEmptied: what a crash left of fetches is gone after a start, and
// nothing is left after a stop.
func TestSpoolIsEmptied(t *testing.T) {
	c := proxyConfig(t, "proxies: [{name: docker.io}]\n", nil)
	left := filepath.Join(c.Data, spoolName, "7", "left")
	if err := os.MkdirAll(filepath.Dir(left), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(left, []byte("half a blob"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := newSite(t.Context(), c, opened(t, c), "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
	s.closeWithin(cutTimeout)
	if _, err := os.Stat(filepath.Join(c.Data, spoolName)); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
}

func TestBudgetOf(t *testing.T) {
	usage := map[string]int64{"a": 300, "b": 100, "c": 0}
	for _, tt := range []struct {
		name           string
		own            proxyspec.Size
		together, want int64
	}{
		{"a", 0, 0, 0}, {"a", 50, 0, 50}, {"a", 0, 200, 150}, {"b", 0, 200, 50}, {"a", 50, 200, 50}, {"b", 70, 200, 50}, {"c", 70, 200, 70}, {"c", 0, 200, 0}, {"a", 0, 1000, 750},
	} {
		if got := budgetOf(proxyspec.Proxy{Name: tt.name, Cache: proxyspec.Cache{Size: tt.own}}, usage, tt.together); got.Bytes != tt.want {
			t.Errorf("%+v: %d", tt, got.Bytes)
		}
	}
}

// TestRequestAfterTheEnd: who comes when all is closed finds nothing, and goes.
func TestRequestAfterTheEnd(t *testing.T) {
	s := proxySite(t, "proxies: [{name: docker.io}]", nil)
	s.proxies.close()
	held := s.proxies.held()
	defer held.release()
	if _, err := held.mux.Resolve(t.Context(), "docker.io/library/app", oci.TagRef("1")); !registry.IsCode(err, registry.NameUnknown) {
		t.Errorf("after the end: %v", err)
	}
}
