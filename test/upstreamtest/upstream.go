// Package upstreamtest is a registry for the tests of those that stand before
// one: it serves what it is given, writes down what it is asked, and misbehaves
// as it is told to.
package upstreamtest

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// Kind is what a request is about.
type Kind string

const (
	Ping      Kind = "ping" // /v2/
	Manifest  Kind = "manifest"
	Blob      Kind = "blob"
	Tags      Kind = "tags"
	Referrers Kind = "referrers"
	Token     Kind = "token"
	Other     Kind = "other"
)

// Request is one that came.
type Request struct {
	Kind      Kind
	Method    string
	Path      string
	Repo, Ref string // Ref: tag, digest, or subject
	Query     url.Values
	Header    http.Header
	Refused   bool // for want of a credential, with a challenge
}

// Registry is an upstream. Its methods may be called while it serves.
type Registry struct {
	*Host

	mu        sync.Mutex
	repos     map[string]*repository
	rules     []*active
	auth      *Auth
	tokens    map[string]string // token → scope
	issued    int
	referrers ReferrersAPI
}

// New starts one on a free port of 127.0.0.1 that ends with the test.
func New(t testing.TB) *Registry { return NewAt(t, "127.0.0.1") }

// NewAt starts one at another address of this machine, which is another host.
func NewAt(t testing.TB, ip string) *Registry {
	t.Helper()
	u := &Registry{repos: map[string]*repository{}, tokens: map[string]string{}}
	u.Host = newHost(t, ip, u)
	return u
}

// ServeHTTP answers by the newest rule that matches, and else as it should be.
func (u *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := parse(r)
	q.Refused = q.Kind != Token && !u.allowed(r, q)
	u.note(q)
	serve := func(w http.ResponseWriter, r *http.Request) { u.serve(w, r, q) }
	if q.Refused {
		serve = u.challenge(q)
	}
	if do := u.matching(q); do != nil {
		do(w, r, serve)
		return
	}
	serve(w, r)
}

// parse says what a request is about.
func parse(r *http.Request) Request {
	q := Request{Kind: Other, Method: r.Method, Path: r.URL.Path, Query: r.URL.Query(), Header: r.Header.Clone()}
	path, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	switch {
	case r.URL.Path == "/token":
		q.Kind = Token
	case ok && path == "":
		q.Kind = Ping
	case ok && strings.HasSuffix(path, "/tags/list"):
		q.Kind, q.Repo = Tags, strings.TrimSuffix(path, "/tags/list")
	case ok:
		for kind, segment := range map[Kind]string{Manifest: "/manifests/", Blob: "/blobs/", Referrers: "/referrers/"} {
			if at := strings.LastIndex(path, segment); at > 0 {
				q.Kind, q.Repo, q.Ref = kind, path[:at], path[at+len(segment):]
			}
		}
	}
	return q
}

// Host is a web server that writes down what it is asked.
type Host struct {
	t       testing.TB
	addr    string
	handler http.Handler
	server  *http.Server // nil: stopped

	mu       sync.Mutex
	requests []Request
}

// NewHost starts one that answers with a handler.
func NewHost(t testing.TB, ip string, handler http.Handler) *Host {
	t.Helper()
	var h *Host
	h = newHost(t, ip, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.note(parse(r))
		handler.ServeHTTP(w, r)
	}))
	return h
}

func newHost(t testing.TB, ip string, handler http.Handler) *Host {
	h := &Host{t: t, handler: handler, addr: ip + ":0"}
	h.Start()
	t.Cleanup(h.Stop)
	return h
}

// Addr is host:port.
func (h *Host) Addr() string { return h.addr }

// URL is where it is.
func (h *Host) URL() string { return "http://" + h.addr }

// Stop ends it, with all connections: nothing listens there any more.
func (h *Host) Stop() {
	if h.server != nil {
		h.server.Close()
		h.server = nil
	}
}

// Start has it listen at its address again.
func (h *Host) Start() {
	h.t.Helper()
	l, err := net.Listen("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.addr = l.Addr().String()
	h.server = &http.Server{Handler: h.handler}
	go h.server.Serve(l)
}

func (h *Host) note(q Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = append(h.requests, q)
}

// Requests are all that came since the start or Forget.
func (h *Host) Requests() []Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Request(nil), h.requests...)
}

// Forget drops what was written down.
func (h *Host) Forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = nil
}

// Count is how many requests of a kind came; of these methods, if any are given.
// Those that were refused for want of a credential do not count.
func (h *Host) Count(kind Kind, methods ...string) (n int) {
	for _, q := range h.Requests() {
		if q.Kind == kind && !q.Refused && (len(methods) == 0 || contains(methods, q.Method)) {
			n++
		}
	}
	return n
}

// Asked is a line for each request, for messages.
func (h *Host) Asked() string {
	var lines strings.Builder
	for _, q := range h.Requests() {
		fmt.Fprintf(&lines, "%s %s", q.Method, q.Path)
		if len(q.Query) > 0 {
			fmt.Fprintf(&lines, "?%s", q.Query.Encode())
		}
		if q.Refused {
			lines.WriteString(" (refused)")
		}
		lines.WriteString("\n")
	}
	return lines.String()
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}
