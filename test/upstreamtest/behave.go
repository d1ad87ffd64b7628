package upstreamtest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
)

// Behaviour answers a request in place of serve, or with its help.
type Behaviour func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc)

// Rule has requests answered in another way. What is empty matches all.
type Rule struct {
	Kind   Kind
	Method string
	Repo   string
	Ref    string // tag, digest, or subject
	Times  int    // how many requests; 0: all
	Do     Behaviour
}

type active struct {
	Rule
	left int
}

// On adds a rule. The newest that matches decides. Off ends it.
func (u *Registry) On(r Rule) (off func()) {
	a := &active{r, r.Times}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rules = append(u.rules, a)
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.rules = slices.DeleteFunc(u.rules, func(o *active) bool { return o == a })
	}
}

// Behave ends all rules.
func (u *Registry) Behave() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rules = nil
}

func (u *Registry) matching(q Request) Behaviour {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, a := range slices.Backward(u.rules) {
		if a.Kind != "" && a.Kind != q.Kind || a.Method != "" && a.Method != q.Method || a.Repo != "" && a.Repo != q.Repo ||
			a.Ref != "" && a.Ref != q.Ref || a.Times > 0 && a.left == 0 {
			continue
		}
		a.left--
		return a.Do
	}
	return nil
}

// All is one behaviour around the next.
func All(list ...Behaviour) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		for _, b := range slices.Backward(list) {
			inner := serve
			serve = func(w http.ResponseWriter, r *http.Request) { b(w, r, inner) }
		}
		serve(w, r)
	}
}

// Status answers with an error of the protocol, and with headers, which are a
// list of names and values.
func Status(code int, header ...string) Behaviour {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		set(w.Header(), header)
		refuse(w, code, map[int]string{401: "UNAUTHORIZED", 403: "DENIED", 404: "MANIFEST_UNKNOWN", 429: "TOOMANYREQUESTS"}[code])
	}
}

// Answer is a fixed one.
func Answer(code int, contentType string, body []byte) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(code)
		if r.Method != http.MethodHead {
			w.Write(body)
		}
	}
}

// HTML is the page that some put in the way.
func HTML(code int) Behaviour {
	return Answer(code, "text/html; charset=utf-8", []byte("<!DOCTYPE html><html><title>Sign in</title><p>To go on, sign in.</html>"))
}

// Hang answers nothing until the client leaves.
func Hang() Behaviour {
	return func(_ http.ResponseWriter, r *http.Request, _ http.HandlerFunc) { <-r.Context().Done() }
}

// Wait answers when open is closed.
func Wait(open <-chan struct{}) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		select {
		case <-open:
			serve(w, r)
		case <-r.Context().Done():
		}
	}
}

// Redirect sends the client to another place, with /DIGEST behind it for a blob.
func Redirect(code int, to string) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		location := to
		if q := parse(r); q.Kind == Blob {
			location += "/" + q.Ref
		}
		w.Header().Set("Location", location)
		w.WriteHeader(code)
	}
}

// Headers are set in place of the right ones; a value "" removes.
func Headers(header ...string) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		serve(&mangled{ResponseWriter: w, head: func(h http.Header) { set(h, header) }}, r)
	}
}

// NoRange ignores the header: all bytes, with 200.
func NoRange() Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		r = r.Clone(r.Context())
		r.Header.Del("Range")
		serve(&mangled{ResponseWriter: w, head: func(h http.Header) { h.Del("Accept-Ranges") }}, r)
	}
}

// Truncate cuts the connection after n bytes of the body.
func Truncate(n int64) Behaviour {
	return after(n, func(*http.Request) { panic(http.ErrAbortHandler) })
}

// Pause sends n bytes of the body, calls reached, and goes on when open is closed.
func Pause(n int64, reached func(), open <-chan struct{}) Behaviour {
	return after(n, func(r *http.Request) {
		reached()
		select {
		case <-open:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	})
}

// Slow sends n bytes of the body at a time, and calls pause before each.
func Slow(n int64, pause func()) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		serve(&mangled{ResponseWriter: w, body: func(w http.ResponseWriter, p []byte) (int, error) {
			written := 0
			for len(p) > 0 {
				pause()
				m, err := w.Write(p[:min(n, int64(len(p)))])
				written += m
				if err != nil {
					return written, err
				}
				w.(http.Flusher).Flush()
				p = p[m:]
			}
			return written, nil
		}}, r)
	}
}

// Corrupt changes the first byte of the body.
func Corrupt() Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		done := false
		serve(&mangled{ResponseWriter: w, body: func(w http.ResponseWriter, p []byte) (int, error) {
			if !done && len(p) > 0 {
				p = bytes.Clone(p)
				p[0] ^= 1
				done = true
			}
			return w.Write(p)
		}}, r)
	}
}

// Short sends the first n bytes of the body, and says that they are all.
func Short(n int) Behaviour {
	return rewritten(func(h http.Header, body []byte) []byte { return body[:min(n, len(body))] })
}

// Gzip sends the body compressed, although nobody asked for that.
func Gzip() Behaviour {
	return rewritten(func(h http.Header, body []byte) []byte {
		h.Set("Content-Encoding", "gzip")
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(body)
		z.Close()
		return b.Bytes()
	})
}

// Oversize appends blanks to the body until it has n bytes.
func Oversize(n int) Behaviour {
	return rewritten(func(_ http.Header, body []byte) []byte {
		return append(body, bytes.Repeat([]byte(" "), max(0, n-len(body)))...)
	})
}

// rewritten has the whole answer made before it is changed.
func rewritten(change func(h http.Header, body []byte) []byte) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		answer := httptest.NewRecorder()
		serve(answer, r)
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		body := change(w.Header(), answer.Body.Bytes())
		if r.Method != http.MethodHead {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		}
		w.WriteHeader(answer.Code)
		w.Write(body)
	}
}

// RateLimit are headers as Docker Hub has them.
func RateLimit(limit, remaining int) Behaviour {
	return Headers("RateLimit-Limit", fmt.Sprintf("%d;w=21600", limit), "RateLimit-Remaining", fmt.Sprintf("%d;w=21600", remaining))
}

// after does something behind n bytes of a body, once.
func after(n int64, do func(*http.Request)) Behaviour {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		left, done := n, false
		serve(&mangled{ResponseWriter: w, body: func(w http.ResponseWriter, p []byte) (int, error) {
			if done || int64(len(p)) < left {
				left -= int64(len(p))
				return w.Write(p)
			}
			head, rest := p[:left], p[left:]
			m, err := w.Write(head)
			if err != nil {
				return m, err
			}
			w.(http.Flusher).Flush()
			done = true
			do(r)
			k, err := w.Write(rest)
			return m + k, err
		}}, r)
	}
}

// mangled changes an answer on its way.
type mangled struct {
	http.ResponseWriter
	head func(http.Header)                                  // nil: as it is
	body func(w http.ResponseWriter, p []byte) (int, error) // nil: as it is
	sent bool
}

func (m *mangled) WriteHeader(code int) {
	if !m.sent && m.head != nil {
		m.head(m.Header())
	}
	m.sent = true
	m.ResponseWriter.WriteHeader(code)
}

func (m *mangled) Write(p []byte) (int, error) {
	if !m.sent {
		m.WriteHeader(http.StatusOK)
	}
	if m.body == nil {
		return m.ResponseWriter.Write(p)
	}
	return m.body(m.ResponseWriter, p)
}

func (m *mangled) Flush() { m.ResponseWriter.(http.Flusher).Flush() }

// set sets headers from a list of names and values; "" removes.
func set(h http.Header, list []string) {
	for i := 0; i+1 < len(list); i += 2 {
		if list[i+1] == "" {
			h.Del(list[i])
			continue
		}
		h.Set(list[i], strings.TrimSpace(list[i+1]))
	}
}
