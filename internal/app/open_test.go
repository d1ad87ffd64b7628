package app

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/access"
)

// asking sends requests to a site, as from a client on this machine.
func asking(t *testing.T, s *site) func(method, host, path, user, body string) *httptest.ResponseRecorder {
	return func(method, host, path, user, body string) *httptest.ResponseRecorder {
		t.Helper()
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Host, r.RemoteAddr = host, "127.0.0.1:1"
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		if user != "" {
			r.SetBasicAuth(user, "a long password")
		}
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		return w
	}
}

func siteOf(t *testing.T, keys map[string]string) *site {
	t.Helper()
	c := settings(t, keys)
	s, err := newSite(t.Context(), c, opened(t, c), "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.closeWithin(cutTimeout) })
	return s
}

// TestOpenUntilSomebodyCanLogIn: on loopback everybody may do everything, until
// the first user; and that one can manage the registry.
func TestOpenUntilSomebodyCanLogIn(t *testing.T) {
	ask := asking(t, siteOf(t, nil))
	for _, step := range []struct {
		method, host, path, user, body string
		want                           int
	}{
		{"GET", "localhost:5000", "/v2/", "", "", 200},
		{"GET", "localhost:5000", "/api/v1/users", "", "", 200},
		// A page that leads a browser here by a name of its own manages nothing.
		{"GET", "rebound.example:5000", "/api/v1/users", "", "", 401},
		{"POST", "127.0.0.1:5000", "/api/v1/projects", "", `{"name":"acme"}`, 201},
		// Nobody could manage what the first of these would shut.
		{"POST", "127.0.0.1:5000", "/api/v1/projects/acme/keys", "", `{"name":"ci","role":"writer"}`, 409},
		{"POST", "127.0.0.1:5000", "/api/v1/users", "", `{"name":"alice"}`, 409},
		{"GET", "127.0.0.1:5000", "/v2/", "", "", 200},
		{"POST", "127.0.0.1:5000", "/api/v1/users", "", `{"name":"alice","password":"a long password"}`, 201},
		{"GET", "127.0.0.1:5000", "/v2/", "", "", 401},
		{"GET", "127.0.0.1:5000", "/api/v1/users", "", "", 401},
		{"GET", "127.0.0.1:5000", "/api/v1/users", "alice", "", 200},
		{"GET", "127.0.0.1:5000", "/v2/", "alice", "", 200},
		{"POST", "127.0.0.1:5000", "/api/v1/projects/acme/keys", "alice", `{"name":"ci","role":"writer"}`, 201},
	} {
		if got := ask(step.method, step.host, step.path, step.user, step.body); got.Code != step.want {
			t.Errorf("%s %s%s by %q: %d %s, want %d", step.method, step.host, step.path, step.user, got.Code, got.Body, step.want)
		}
	}
}

// TestOpenNotToOtherSites: a page of another site that a browser on this machine
// shows gets nothing, not even under a name that it pointed here.
func TestOpenNotToOtherSites(t *testing.T) {
	s := siteOf(t, nil)
	for _, tt := range []struct {
		method, path, host, origin string
		want                       int
	}{
		{"GET", "/v2/_catalog", "localhost:5000", "", 200},
		{"GET", "/v2/_catalog", "127.0.0.1:5000", "", 200},
		{"GET", "/v2/_catalog", "[::1]:5000", "", 200},
		{"GET", "/v2/_catalog", "build:5000", "", 200},
		{"GET", "/v2/_catalog", "host.docker.internal:5000", "", 200},
		{"GET", "/v2/_catalog", "rebound.example:5000", "", 401},
		{"GET", "/v2/_catalog", "127.0.0.1.rebound.example:5000", "", 401},
		{"GET", "/v2/_catalog", "localhost.rebound.example", "", 401},
		{"POST", "/v2/a/blobs/uploads/", "localhost:5000", "", 202},
		{"POST", "/v2/a/blobs/uploads/", "localhost:5000", "http://localhost:5000", 202},
		{"POST", "/v2/a/blobs/uploads/", "localhost:5000", "http://elsewhere.example", 401},
		{"POST", "/v2/a/blobs/uploads/", "localhost:5000", "null", 401},
		{"POST", "/v2/a/blobs/uploads/", "rebound.example:5000", "http://rebound.example:5000", 401},
	} {
		r := httptest.NewRequest(tt.method, tt.path, nil)
		r.Host, r.RemoteAddr = tt.host, "127.0.0.1:1"
		if tt.origin != "" {
			r.Header.Set("Origin", tt.origin)
		}
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%s %s%s from %q: %d %s, want %d", tt.method, tt.host, tt.path, tt.origin, w.Code, w.Body, tt.want)
		}
	}
}

// TestWhoMustLogIn by address and settings.
func TestWhoMustLogIn(t *testing.T) {
	for _, tt := range []struct {
		keys map[string]string
		want int
	}{
		{nil, http.StatusOK},
		{map[string]string{"listen": "[::1]:0"}, http.StatusOK},
		{map[string]string{"listen": ":0"}, http.StatusUnauthorized},
		{map[string]string{"listen": "192.0.2.1:0"}, http.StatusUnauthorized},
		{map[string]string{"auth.mode": "required"}, http.StatusUnauthorized},
		{map[string]string{"url": "http://localhost:5000"}, http.StatusOK},
		{map[string]string{"url": "https://registry.example"}, http.StatusUnauthorized},
		{map[string]string{"http.trusted_proxies": "127.0.0.1"}, http.StatusUnauthorized},
		{map[string]string{"listen": ":0", "insecure_anonymous": "true"}, http.StatusOK},
	} {
		got := asking(t, siteOf(t, tt.keys))("GET", "127.0.0.1:5000", "/v2/", "", "")
		if got.Code != tt.want {
			t.Errorf("%v: %d, want %d", tt.keys, got.Code, tt.want)
		}
	}
}

// TestIssuersOnThisMachine are for registries that serve this machine alone.
func TestIssuersOnThisMachine(t *testing.T) {
	rule := access.TrustRule{Issuer: "http://127.0.0.1:8080", Audience: "berth", Claims: map[string]string{"ref": "main"}}
	for listen, ok := range map[string]bool{"127.0.0.1:0": true, ":0": false} {
		err := siteOf(t, map[string]string{"listen": listen}).validateRule(rule)
		if (err == nil) != ok {
			t.Errorf("listening on %s: %v", listen, err)
		}
	}
}
