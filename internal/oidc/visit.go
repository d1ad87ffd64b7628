package oidc

import (
	"crypto/rand"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/auth"
)

// ServeHTTP serves the paths of the handler. The RemoteAddr of requests must be
// the client's true address.
func (p *People) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began, seen := time.Now(), &answered{ResponseWriter: w}
	c := &audit.Caller{Request: requestID(r), Agent: r.UserAgent()}
	if from := auth.AddressOf(r); from.IsValid() {
		c.Address = from.String()
	}
	w.Header().Set("X-Request-Id", c.Request)
	p.mux.ServeHTTP(seen, r.WithContext(audit.WithCaller(r.Context(), c)))
	// The query is left out: it has what a log-in is made of.
	p.o.Log.LogAttrs(r.Context(), slog.LevelInfo, "request",
		slog.String("method", audit.Clean(r.Method)), slog.String("path", audit.Clean(r.URL.Path)),
		slog.Int("status", seen.status), slog.Duration("duration", time.Since(began)),
		slog.String("request_id", c.Request), slog.String("remote", r.RemoteAddr), slog.String("agent", audit.Clean(c.Agent)))
}

// answered remembers the status.
type answered struct {
	http.ResponseWriter
	status int
}

func (a *answered) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (a *answered) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// requestID is that of a proxy in front, if it is short and plain, else a new
// one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	odd := func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && !strings.ContainsRune("._-", c)
	}
	if id == "" || len(id) > 64 || strings.ContainsFunc(id, odd) {
		return rand.Text()
	}
	return id
}

// refuse tells the trail of a log-in that was under way and came to nothing.
func (p *People) refuse(r *http.Request, status int, reason string) {
	if p.o.Record == nil {
		return
	}
	e := audit.CallerOf(r.Context()).Event("login")
	e.Status, e.Reason = status, reason
	p.o.Record(e)
}
