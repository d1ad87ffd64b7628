package app

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-registry/berth/internal/apihttp"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/authhttp"
)

// readyFor is how long an answer of /readyz is good: asking more often does not
// write more often.
const readyFor = time.Second

// readiness answers whether this process should get requests.
type readiness struct {
	store    *store
	stopping atomic.Bool

	mu      sync.Mutex
	checked time.Time
	err     error
}

var errStopping = errors.New("the server is shutting down")

func (r *readiness) check() error {
	if r.stopping.Load() {
		return errStopping
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.checked) > readyFor {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		r.err = r.store.check(ctx)
		r.checked = time.Now()
	}
	return r.err
}

// leaving makes the last answer on each connection say so once the server is
// about to stop. To close idle ones instead would lose what is sent meanwhile.
func (r *readiness) leaving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if r.stopping.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, req)
	})
}

func (r *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if err := r.check(); err != nil {
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "reason": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}

// root gives each path to whom it belongs. It is no http.ServeMux, for that
// rewrites paths, and the fronts must see them as they were sent.
type root struct {
	oci, api, tokens http.Handler
	people           http.Handler // nil: no log-in at an identity provider
	ready            http.Handler
}

func (h *root) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case path == "/v2" || strings.HasPrefix(path, "/v2/"):
		h.oci.ServeHTTP(w, r)
	case path == auth.TokenPath || path == authhttp.KeysPath:
		h.tokens.ServeHTTP(w, r)
	case strings.HasPrefix(path, apihttp.Prefix+"/"):
		h.api.ServeHTTP(w, r)
	case strings.HasPrefix(path, "/auth/") && h.people != nil:
		h.people.ServeHTTP(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.oci.ServeHTTP(w, r) // answers 404 in its own form
	case path == "/healthz":
		healthy(w, r)
	case path == "/readyz":
		h.ready.ServeHTTP(w, r)
	case path == "/":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, "This is Berth, an OCI registry. Its API is under /v2/.\n"+
			"Push with: docker push "+r.Host+"/NAME:TAG\n")
	default:
		h.oci.ServeHTTP(w, r)
	}
}

// healthy answers as long as the process serves.
func healthy(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}
