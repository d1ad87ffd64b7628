package authhttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/requestid"
)

// exchange is one request and its answer.
type exchange struct {
	h      *handler
	w      http.ResponseWriter
	r      *http.Request
	caller audit.Caller
	status int // 0: nothing was sent yet
	start  time.Time
}

func newExchange(h *handler, w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{h: h, w: w, r: r, start: time.Now()}
	x.caller = audit.Caller{Request: requestid.Of(r), Agent: r.UserAgent()}
	if from := auth.AddressOf(r); from.IsValid() {
		x.caller.Address = from.String()
	}
	w.Header().Set("X-Request-Id", x.caller.Request)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return x
}

// run serves the request; a panic becomes an error.
func (x *exchange) run() (err error) {
	defer func() {
		if p := recover(); p != nil {
			x.h.Log.LogAttrs(x.r.Context(), slog.LevelError, "panic in a handler", slog.String("request_id", x.caller.Request),
				slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return x.serve()
}

// failure is an error with its form on the wire.
type failure struct {
	status  int
	code    string
	message string // for the client
}

func (e *failure) Error() string { return e.message }

func malformed(format string, args ...any) error {
	return &failure{http.StatusBadRequest, "UNSUPPORTED", fmt.Sprintf(format, args...)}
}

// finish answers an error and logs.
func (x *exchange) finish(err error) {
	if err != nil && x.status == 0 {
		x.respondError(err)
	}
	x.log(err)
}

// respondError answers in the form that clients know from the registry. All bad
// credentials look the same, and none gets a challenge: the client is where a
// challenge would send it.
func (x *exchange) respondError(err error) {
	var f *failure
	var throttled *auth.ThrottledError
	switch {
	case errors.As(err, &f):
	case errors.As(err, &throttled):
		x.w.Header().Set("Retry-After", strconv.FormatInt(int64((throttled.RetryAfter+time.Second-1)/time.Second), 10))
		f = &failure{http.StatusTooManyRequests, "TOOMANYREQUESTS", "too many failed log-ins; wait and try again"}
	case errors.Is(err, auth.ErrCredentials):
		f = &failure{http.StatusUnauthorized, "UNAUTHORIZED", "wrong user name, password or token"}
	case errors.Is(err, auth.ErrUnavailable):
		x.w.Header().Set("Retry-After", "5")
		f = &failure{http.StatusServiceUnavailable, "UNAVAILABLE", "the issuer of the ID token cannot be reached; try again"}
	case errors.Is(err, access.ErrUnavailable):
		x.w.Header().Set("Retry-After", "5")
		f = &failure{http.StatusServiceUnavailable, "UNAVAILABLE", "the registry's database is not available; try again"}
	case errors.Is(err, context.Canceled) && x.r.Context().Err() != nil:
		x.status = 499 // logged, never sent: the client is gone
		return
	default:
		f = &failure{http.StatusInternalServerError, "UNKNOWN", "internal error; its cause is in the server's log under request id " + x.caller.Request}
	}
	body, _ := json.Marshal(map[string]any{"errors": []map[string]string{{"code": f.code, "message": f.message}}}) // strings always have a form
	x.w.Header().Set("Cache-Control", "no-store")
	x.respond(f.status, "application/json", body)
}

func (x *exchange) respond(status int, contentType string, body []byte) {
	x.status = status
	x.w.Header().Set("Content-Type", contentType)
	x.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write(body) // a client that does not take it in gets no other
	}
}

// log writes the request's line: never a query string or a credential.
func (x *exchange) log(err error) {
	level := slog.LevelInfo
	if x.status >= http.StatusInternalServerError {
		level = slog.LevelError
	}
	if !x.h.Log.Enabled(x.r.Context(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", audit.Clean(x.r.Method)), slog.String("path", audit.Clean(x.r.URL.Path)),
		slog.Int("status", x.status), slog.Duration("duration", time.Since(x.start)),
		slog.String("request_id", x.caller.Request), slog.String("remote", x.r.RemoteAddr),
		slog.String("agent", audit.Clean(x.caller.Agent)), slog.String("identity", x.caller.Identity),
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", audit.Clean(err.Error())))
	}
	x.h.Log.LogAttrs(x.r.Context(), level, "request", attrs...)
}
