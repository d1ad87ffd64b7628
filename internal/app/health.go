package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-registry/berth/internal/apihttp"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/authhttp"
)

// How long an answer of /readyz is good: asking more often does not write more
// often. Each look at a bucket costs money, so that it is seldom while all is well.
const (
	readyFor  = time.Second
	bucketFor = 10 * time.Second
)

// readyWithin is how long /readyz waits for what does not answer.
const readyWithin = 3 * time.Second

// readiness answers whether this process should get requests.
type readiness struct {
	store    *store
	log      *slog.Logger // nil: none
	stopping atomic.Bool

	base, bucket part
	good         atomic.Bool // that it was ready when it was last asked
}

var (
	errStopping = errors.New("the server is shutting down")
	errSilent   = fmt.Errorf("no answer within %v", readyWithin)
)

// check looks at what no request can do without.
func (r *readiness) check() error {
	if r.stopping.Load() {
		return errStopping
	}
	err := r.base.check(readyFor, r.store.check, r.note("database and folders"))
	r.good.Store(err == nil)
	return err
}

// checkBucket looks at the bucket, if blobs are in one. Without it manifests,
// tags and lists can still be had, which is all that many pulls ask for: that
// alone does not make a process unready.
func (r *readiness) checkBucket() error {
	if r.store.inFolder {
		return nil
	}
	return r.bucket.check(bucketFor, r.store.blobs.Check, r.note("bucket"))
}

// note logs when a part fails and when it no longer does.
func (r *readiness) note(name string) func(error) {
	return func(err error) {
		switch {
		case r.log == nil:
		case err != nil:
			r.log.Error("not ready", "part", name, "reason", err)
		default:
			r.log.Info("ready again", "part", name)
		}
	}
}

// part is one thing that this process needs, as it was when last looked at.
type part struct {
	mu      sync.Mutex
	checked time.Time // when the last look ended
	err     error
	looking chan struct{} // closed when the one under way ends; nil: none is
}

// check returns what a look within the last while has shown, or takes one. That
// of a failure is good for readyFor at most. changed hears of failures that begin
// and end.
func (p *part) check(good time.Duration, look func(context.Context) error, changed func(error)) error {
	p.mu.Lock()
	if p.err != nil {
		good = readyFor
	}
	if time.Since(p.checked) <= good {
		defer p.mu.Unlock()
		return p.err
	}
	if p.looking == nil {
		p.looking = make(chan struct{})
		go p.look(look, changed)
	}
	looking := p.looking
	p.mu.Unlock()
	select {
	case <-looking:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.err
	case <-time.After(readyWithin):
		return errSilent
	}
}

func (p *part) look(look func(context.Context) error, changed func(error)) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*readyWithin)
	defer cancel()
	err := look(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if (err == nil) != (p.err == nil) {
		changed(err)
	}
	p.err, p.checked = err, time.Now()
	close(p.looking)
	p.looking = nil
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

// ServeHTTP answers /readyz. With the parameter storage the bucket counts too,
// for load balancers that send requests on where no process is ready.
func (r *readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.answer(w, req, error.Error)
}

// public answers strangers, whom folders, hosts and users of others do not concern.
func (r *readiness) public(w http.ResponseWriter, req *http.Request) {
	r.answer(w, req, func(err error) string {
		if errors.Is(err, errStopping) {
			return err.Error()
		}
		return "the server's log says why, and so does /readyz of admin.listen"
	})
}

func (r *readiness) answer(w http.ResponseWriter, req *http.Request, why func(error) string) {
	err, bucket := r.check(), error(nil)
	if err == nil {
		bucket = r.checkBucket()
	}
	if err == nil && req.URL.Query().Has("storage") {
		err = bucket
	}
	switch {
	case err != nil:
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "reason": why(err)})
	case bucket != nil:
		writeJSON(w, http.StatusOK, map[string]string{"status": "ready", "storage": why(bucket)})
	default:
		writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
	}
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
