package app

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-registry/berth/internal/config"
)

// settings are the defaults for a data folder of the test's own.
func settings(t testing.TB, flags map[string]string) *config.Config {
	t.Helper()
	all := map[string]string{"data": filepath.Join(t.TempDir(), "data")}
	for key, value := range flags {
		all[key] = value
	}
	c, err := config.Load(config.Sources{Flags: all})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func opened(t testing.TB, c *config.Config) *store {
	t.Helper()
	st, err := openStore(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.close)
	return st
}

func get(h http.Handler, path string) (status int, body string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	answer, _ := io.ReadAll(w.Result().Body)
	return w.Code, string(answer)
}

func wantReady(t *testing.T, r *readiness, when string, status int, words ...string) {
	t.Helper()
	got, body := get(r, "/readyz")
	if got != status {
		t.Errorf("%s: %d %s, want %d", when, got, body, status)
	}
	for _, word := range words {
		if !strings.Contains(body, word) {
			t.Errorf("%s: %s does not tell %q", when, body, word)
		}
	}
}

func TestNotReadyWhileStopping(t *testing.T) {
	r := &readiness{store: opened(t, settings(t, nil))}
	wantReady(t, r, "running", http.StatusOK, "ready")
	r.stopping.Store(true)
	wantReady(t, r, "stopping", http.StatusServiceUnavailable, errStopping.Error())
}

// TestReadyForStrangers: they learn that something is wrong, and not what.
func TestReadyForStrangers(t *testing.T) {
	st := opened(t, settings(t, nil))
	if err := st.db.Close(); err != nil {
		t.Fatal(err)
	}
	r := &readiness{store: st}
	_, all := get(r, "/readyz")
	status, body := get(http.HandlerFunc(r.public), "/readyz")
	if status != http.StatusServiceUnavailable || !strings.Contains(body, "not ready") || !strings.Contains(body, "log") || strings.Contains(body, "database") {
		t.Errorf("%d %s; those who run it are told %s", status, body, all)
	}
	r.stopping.Store(true)
	if _, body := get(http.HandlerFunc(r.public), "/readyz"); !strings.Contains(body, errStopping.Error()) {
		t.Errorf("stopping: %s", body)
	}
}

func TestNotReadyWithoutDatabase(t *testing.T) {
	st := opened(t, settings(t, nil))
	if err := st.db.Close(); err != nil {
		t.Fatal(err)
	}
	wantReady(t, &readiness{store: st}, "closed", http.StatusServiceUnavailable, "database")
}

// Asking often must not write often: an answer holds for a while. In the bubble
// the clock moves by Sleep alone; the folders are real.
func TestReadyIsRemembered(t *testing.T) {
	st := opened(t, settings(t, nil))
	synctest.Test(t, func(t *testing.T) {
		r := &readiness{store: st}
		wantReady(t, r, "at first", http.StatusOK)
		data := st.folders[0]
		if err := os.Rename(data, data+".away"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(readyFor)
		wantReady(t, r, "within the time", http.StatusOK)
		time.Sleep(time.Millisecond)
		wantReady(t, r, "after it", http.StatusServiceUnavailable, data)
		if err := os.Rename(data+".away", data); err != nil {
			t.Fatal(err)
		}
		wantReady(t, r, "mended, within the time", http.StatusServiceUnavailable)
		time.Sleep(readyFor + time.Millisecond)
		wantReady(t, r, "mended, after it", http.StatusOK)
	})
}

// The front judges paths itself, so it must get them as they were sent.
func TestRootLeavesPathsAlone(t *testing.T) {
	named := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name+" "+r.URL.EscapedPath()) })
	}
	root := &root{oci: named("front"), api: named("api"), tokens: named("tokens"), people: named("people"), ready: named("ready")}
	for path, want := range map[string]string{
		"/v2":                    "front /v2",
		"/v2/":                   "front /v2/",
		"/v2//a/../b/%2e%2e/":    "front /v2//a/../b/%2e%2e/",
		"/v2/a%2Fb/manifests/x":  "front /v2/a%2Fb/manifests/x",
		"/v2x":                   "front /v2x",
		"//":                     "front //",
		"/healthz/":              "front /healthz/",
		"/readyz":                "ready /readyz",
		"/healthz":               `{"status":"ok"}` + "\n",
		"/.well-known/something": "front /.well-known/something",
		"/.well-known/jwks.json": "tokens /.well-known/jwks.json",
		"/auth/token":            "tokens /auth/token",
		"/auth/token/":           "people /auth/token/",
		"/auth/login":            "people /auth/login",
		"/api/v1/a%2Fb":          "api /api/v1/a%2Fb",
		"/api/v1":                "front /api/v1",
	} {
		if _, body := get(root, path); body != want {
			t.Errorf("%s: %q, want %q", path, body, want)
		}
	}
}

// TestLeaving: a server that is about to stop ends each connection with an
// answer, and none without.
func TestLeaving(t *testing.T) {
	ready := &readiness{}
	s := httptest.NewServer(ready.leaving(http.HandlerFunc(healthy)))
	defer s.Close()
	for _, stopping := range []bool{false, true} {
		ready.stopping.Store(stopping)
		res, err := s.Client().Get(s.URL) // on the connection that there is
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 || res.Close != stopping {
			t.Errorf("stopping %v: %d, the connection closes: %v", stopping, res.StatusCode, res.Close)
		}
	}
}
