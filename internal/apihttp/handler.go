package apihttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/manage"
	"github.com/berth-registry/berth/internal/requestid"
)

const (
	maxBody      = 1 << 20          // bytes that a request may send
	bodyTimeout  = 10 * time.Second // for them
	writeTimeout = time.Minute      // for each part of an export
)

// handler is the way from a request to its operation.
type handler struct {
	*api
	cross *http.CrossOriginProtection
}

// newCrossOrigin keeps other sites from acting with a browser's credentials.
func newCrossOrigin() *http.CrossOriginProtection {
	c := http.NewCrossOriginProtection()
	c.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		respondError(w, refusal{status: http.StatusForbidden, detail: "a page of another site may not use this API with your browser"})
	}))
	return c
}

// exchange is one request and what is known of it.
type exchange struct {
	http.ResponseWriter
	id     string
	caller manage.Caller
	err    error // why it was refused, for the log
	status int   // 0: nothing was sent yet
}

func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(p []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	return x.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange { return ctx.Value(exchangeKey{}).(*exchange) }

// callerOf is on whose behalf an operation runs.
func callerOf(ctx context.Context) *manage.Caller { return &exchangeOf(ctx).caller }

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, id: requestid.Of(r)}
	start := time.Now()
	w.Header().Set("X-Request-Id", x.id)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	defer func() { h.finish(x, r, start, recover()) }()
	h.cross.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.serve(x, r) })).ServeHTTP(x, r)
}

// finish turns a panic into an answer, and logs.
func (h *handler) finish(x *exchange, r *http.Request, start time.Time, panicked any) {
	if panicked != nil && panicked != http.ErrAbortHandler {
		h.Log.LogAttrs(r.Context(), slog.LevelError, "panic in a handler", slog.String("request_id", x.id),
			slog.Any("panic", panicked), slog.String("stack", string(debug.Stack())))
		if x.status == 0 {
			respondError(x, refusal{status: http.StatusInternalServerError, detail: internal})
			panicked = nil
		}
	}
	h.log(x, r, start)
	if panicked != nil {
		panic(http.ErrAbortHandler) // so that nobody takes a part of an answer for the whole
	}
}

// log writes the request's line: never a query string, a body or a credential.
func (h *handler) log(x *exchange, r *http.Request, start time.Time) {
	level := slog.LevelInfo
	if x.status >= http.StatusInternalServerError {
		level = slog.LevelError
	}
	attrs := []slog.Attr{
		slog.String("method", clip(r.Method, 32)), slog.String("path", hidden(r.URL.Path, 512)), slog.Int("status", x.status),
		slog.Duration("duration", time.Since(start)), slog.String("request_id", x.id), slog.String("remote", r.RemoteAddr),
		slog.String("agent", hidden(r.UserAgent(), 128)), slog.String("identity", x.caller.String()),
	}
	if x.err != nil {
		attrs = append(attrs, slog.String("error", hidden(x.err.Error(), 2048)))
	}
	h.Log.LogAttrs(r.Context(), level, "request", attrs...)
}

// serve routes, identifies and checks the form of a request, and hands it on.
func (h *handler) serve(x *exchange, r *http.Request) {
	route, pattern := h.mux.Handler(r)
	// The mux would send those elsewhere who write a path in an odd way.
	if p := r.URL.EscapedPath(); pattern == "" || path.Clean(p) != p {
		noRoute(x, route, r)
		return
	}
	if strings.HasPrefix(r.URL.Path, documentPath+".") {
		h.mux.ServeHTTP(x, r) // is for everybody
		return
	}
	var err error
	if x.caller.Identity, err = h.Identify(r); err == nil && x.caller.Kind == access.Anonymous {
		err = &manage.Error{Code: manage.Unauthorized, Detail: loginHint}
	}
	if err != nil {
		x.err = err
		respondError(x, describe(err))
		return
	}
	x.caller.Request, x.caller.Agent = x.id, r.UserAgent()
	if f := h.prepare(x, r); f.status != 0 {
		respondError(x, f)
		return
	}
	h.mux.ServeHTTP(x, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)))
}

// prepare checks the form of a request, reads its body, and finds out what makes
// it the same as another. Its zero value says that all is well.
func (h *handler) prepare(x *exchange, r *http.Request) refusal {
	content, f := readBody(x, r)
	if f.status != 0 {
		return f
	}
	r.Body = io.NopCloser(bytes.NewReader(content))
	return prepareOnce(x, r, content)
}

// readBody reads the body whole, as a client has little time to send so little.
func readBody(x *exchange, r *http.Request) ([]byte, refusal) {
	if r.ContentLength == 0 {
		return nil, refusal{}
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return nil, refusal{status: http.StatusUnsupportedMediaType, detail: "send the body as Content-Type: application/json"}
	}
	// A ResponseWriter without deadlines (a test's recorder) has no connection to guard.
	connection := http.NewResponseController(x)
	_ = connection.SetReadDeadline(time.Now().Add(bodyTimeout))
	content, err := io.ReadAll(http.MaxBytesReader(x, r.Body, maxBody))
	_ = connection.SetReadDeadline(time.Time{})
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, refusal{status: http.StatusRequestEntityTooLarge, detail: fmt.Sprintf("the body must have at most %d bytes", maxBody)}
	case err != nil:
		x.err = err
		return nil, refusal{status: http.StatusBadRequest, detail: "the body ended early, or came too slowly"}
	}
	return content, refusal{}
}

// noRoute answers a path that there is not, or a method that it does not have.
func noRoute(x *exchange, route http.Handler, r *http.Request) {
	found := &headerOnly{header: http.Header{}}
	route.ServeHTTP(found, r)
	if found.status == http.StatusMethodNotAllowed {
		x.Header().Set("Allow", found.header.Get("Allow"))
		respondError(x, refusal{status: found.status, detail: "this resource has no method " + clip(r.Method, 32) + "; use " + found.header.Get("Allow")})
		return
	}
	respondError(x, refusal{status: http.StatusNotFound, detail: "there is no such path; see " + documentPath + ".yaml"})
}

// headerOnly takes in an answer without its body.
type headerOnly struct {
	header http.Header
	status int
}

func (h *headerOnly) Header() http.Header         { return h.header }
func (h *headerOnly) WriteHeader(status int)      { h.status = status }
func (h *headerOnly) Write(p []byte) (int, error) { return len(p), nil }

// hidden is text for the log: people paste keys where names belong, and tools
// into their user agent.
func hidden(s string, most int) string { return audit.Hide(clip(s, most)) }

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
