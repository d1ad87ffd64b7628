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

func (r *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if err := r.check(); err != nil {
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "reason": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}

// newRoot gives each path to whom it belongs. It is no http.ServeMux, for that
// rewrites paths, and the front must see them as they were sent.
func newRoot(front, ready http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case path == "/v2" || strings.HasPrefix(path, "/v2/"):
			front.ServeHTTP(w, r)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			front.ServeHTTP(w, r) // answers 404 in its own form
		case path == "/healthz":
			writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
		case path == "/readyz":
			ready.ServeHTTP(w, r)
		case path == "/":
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			io.WriteString(w, "This is Berth, an OCI registry. Its API is under /v2/.\n"+
				"Push with: docker push "+r.Host+"/NAME:TAG\n")
		default:
			front.ServeHTTP(w, r)
		}
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}
