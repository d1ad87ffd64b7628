package ocihttp

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/requestid"
)

// exchange is one request and its answer. Handlers answer through respond and
// never wrap the server's ResponseWriter, so that a file reaches sendfile.
type exchange struct {
	h    *handler
	w    http.ResponseWriter
	ctl  *http.ResponseController
	r    *http.Request
	ctx  context.Context
	req  request
	body *body // nil: the request has none
	id   auth.Identity
	reg  registry.Registry

	fresh     registry.FreshnessNote
	requestID string
	start     time.Time
	status    int // 0: nothing was sent yet
	sent      int64

	// values backs the headers that set writes: one allocation for all.
	values [12]string
	used   int
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{
		h: h, w: w, ctl: http.NewResponseController(w), r: r, ctx: r.Context(),
		requestID: requestid.Of(r), start: time.Now(),
	}
	if r.Body != nil && r.Body != http.NoBody {
		x.body = newBody(r.Body, x.ctl, h.BodyIdle)
	}
	x.set("Docker-Distribution-Api-Version", "registry/2.0")
	x.set("X-Request-Id", x.requestID)
	x.set("X-Content-Type-Options", "nosniff")
	x.finish(x.run())
}

// run serves the request; a panic becomes an error.
func (x *exchange) run() (err error) {
	defer func() {
		if p := recover(); p != nil {
			x.h.Log.LogAttrs(x.ctx, slog.LevelError, "panic in a handler", slog.String("request_id", x.requestID),
				slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return x.serve()
}

func (x *exchange) serve() (err error) {
	if err := checkSize(x.r); err != nil {
		return err
	}
	if x.req, err = parse(x.r.URL); err != nil {
		return err
	}
	handle := routes[x.req.kind][methodOf(x.r.Method)]
	if handle == nil {
		return registry.Errorf(registry.Unsupported, "", "this resource has no method %.32q; use %s",
			x.r.Method, allowed(x.req.kind, methodOther))
	}
	if x.id, err = x.h.Identify(x.r); err != nil {
		return err
	}
	x.ctx = x.fresh.In(audit.WithCaller(x.ctx, x.caller()))
	x.reg = x.h.Open(x.id)
	return handle(x)
}

// finish answers an error, logs, and cuts the connection of an answer that
// broke off, so that nobody takes it for whole.
func (x *exchange) finish(err error) {
	whole := err == nil || x.respondError(err)
	x.h.Answered(x.ctx, x.answer())
	x.log(err)
	if !whole {
		panic(http.ErrAbortHandler)
	}
}

func (x *exchange) answer() Answer {
	a := Answer{
		Route: kindNames[x.req.kind], Method: methodNames[methodOf(x.r.Method)], Repository: x.req.repo,
		RequestID: x.requestID, Status: x.status, Sent: x.sent, Took: time.Since(x.start),
	}
	if x.body != nil {
		a.Received = x.body.n
	}
	return a
}

// set puts a header value under its canonical key.
func (x *exchange) set(key, value string) {
	if x.used == len(x.values) {
		x.w.Header()[key] = []string{value}
		return
	}
	x.values[x.used] = value
	x.used++
	x.w.Header()[key] = x.values[x.used-1 : x.used : x.used]
}

// respond sends the status line and headers. length is that of the body, or -1
// where it is not known; a client has a minute and the time that the body
// takes at the slowest rate allowed to take it in.
func (x *exchange) respond(status int, length int64) {
	x.status = status
	if length >= 0 && status != http.StatusNoContent && status != http.StatusNotModified {
		x.set("Content-Length", strconv.FormatInt(length, 10))
	}
	if f := x.fresh.Told(); f != nil {
		x.setFreshness(f)
	}
	x.allowWriting(max(length, 0))
	x.w.WriteHeader(status)
}

// allowWriting sets the deadline for the next n bytes to be taken in.
func (x *exchange) allowWriting(n int64) {
	rate := time.Duration(n/slowestRead) * time.Second
	// A ResponseWriter without deadlines (a test's recorder) has no connection to guard.
	_ = x.ctl.SetWriteDeadline(time.Now().Add(writeGrace + rate))
}

// write sends a part of the body. HEAD sends none.
func (x *exchange) write(p []byte) error {
	if x.r.Method == http.MethodHead {
		return nil
	}
	n, err := x.w.Write(p)
	x.sent += int64(n)
	return err
}

// respondBytes sends a whole answer.
func (x *exchange) respondBytes(status int, contentType string, content []byte) error {
	x.set("Content-Type", contentType)
	x.respond(status, int64(len(content)))
	return x.write(content)
}

// caller is for whom the request runs, as trails show it.
func (x *exchange) caller() *audit.Caller {
	return &audit.Caller{
		Owner: x.id.Owner(), Identity: x.id.String(), Key: x.id.KeyID,
		Request: x.requestID, Address: hostOf(x.r.RemoteAddr), Agent: x.r.UserAgent(),
	}
}

// hostOf is an address without its port.
func hostOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// ping is how clients find out whether they have to log in, and whether they
// are: an anonymous token is enough, no token is not.
func (x *exchange) ping() error {
	if x.id.Kind == access.Anonymous && x.id.Scopes == nil {
		return &registry.Error{Code: registry.Unauthorized}
	}
	return x.respondBytes(http.StatusOK, "application/json", []byte("{}"))
}

// checkSize bounds the request line and the headers.
func checkSize(r *http.Request) error {
	if len(r.RequestURI) > maxURL {
		return refuse(http.StatusRequestURITooLong, "UNSUPPORTED", "the URL has %d bytes; at most %d are allowed", len(r.RequestURI), maxURL)
	}
	size := len(r.Host)
	for key, values := range r.Header {
		if key == "Authorization" {
			continue // whoever looks at credentials bounds them, and says that they are no good
		}
		for _, v := range values {
			size += len(key) + len(v) + len(": \r\n")
		}
	}
	if size > maxHeader {
		return refuse(http.StatusRequestHeaderFieldsTooLarge, "UNSUPPORTED", "the header has %d bytes; at most %d are allowed", size, maxHeader)
	}
	return nil
}

// log writes the request's line: never a query string or a credential.
func (x *exchange) log(err error) {
	level := slog.LevelInfo
	if x.status >= http.StatusInternalServerError {
		level = slog.LevelError
	}
	if !x.h.Log.Enabled(x.ctx, level) {
		return
	}
	var list [13]slog.Attr
	attrs := append(list[:0],
		slog.String("method", clip(x.r.Method, 32)),
		slog.String("path", hidden(x.r.URL.Path, 512)),
		slog.String("repo", audit.Hide(x.req.repo)),
		slog.Int("status", x.status),
		slog.Int64("bytes", x.sent),
		slog.Duration("duration", time.Since(x.start)),
		slog.String("request_id", x.requestID),
		slog.String("remote", x.r.RemoteAddr),
		slog.String("agent", hidden(x.r.UserAgent(), 128)),
		slog.String("identity", x.id.String()),
	)
	if x.body != nil {
		attrs = append(attrs, slog.Int64("received", x.body.n))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", hidden(err.Error(), 2048)))
	}
	x.h.Log.LogAttrs(x.ctx, level, "request", attrs...)
}

// hidden is text for the log: people paste keys where names belong, and tools
// into their user agent.
func hidden(s string, most int) string { return audit.Hide(clip(s, most)) }

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
