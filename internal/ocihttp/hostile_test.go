package ocihttp_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/ocihttp"
	"github.com/berth-registry/berth/internal/registry"
)

// raw sends bytes as they are and returns the answer, if one comes. With half
// the client says no more but goes on listening.
func (s *server) raw(request string, half bool) *answer {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		s.t.Fatal(err)
	}
	if half {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	what, _, _ := strings.Cut(request, "\r\n")
	method, _, _ := strings.Cut(what, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		s.t.Fatalf("%s: %v", clip(what), err)
	}
	if resp.Close { // which ReadResponse takes out of the header
		resp.Header.Set("Connection", "close")
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s: %v", clip(what), err)
	}
	return &answer{s.t, clip(what), resp.StatusCode, resp.Header, resp.ContentLength, string(body)}
}

const rest = " HTTP/1.1\r\nHost: x\r\n\r\n"

func TestPathTricks(t *testing.T) {
	s := newServer(t)
	s.pushImage("a", "v1", "config")
	long := strings.Repeat("a", 256)
	for target, want := range map[string]struct {
		status int
		code   string
	}{
		"/":                                              {404, "UNSUPPORTED"},
		"/v1/":                                           {404, "UNSUPPORTED"},
		"/v2/a":                                          {404, "UNSUPPORTED"},
		"//v2/a/manifests/v1":                            {404, "UNSUPPORTED"},
		"/x/../v2/a/manifests/v1":                        {404, "UNSUPPORTED"},
		"/v2/a/manifests/v1/":                            {404, "UNSUPPORTED"},
		"/v2//a/manifests/v1":                            {400, "NAME_INVALID"},
		"/v2/a//manifests/v1":                            {400, "NAME_INVALID"},
		"/v2/./a/manifests/v1":                           {400, "NAME_INVALID"},
		"/v2/x/../a/manifests/v1":                        {400, "NAME_INVALID"},
		"/v2/x/%2e%2e/a/manifests/v1":                    {400, "NAME_INVALID"},
		"/v2/%61/manifests/v1":                           {400, "NAME_INVALID"},
		"/v2/a%2fmanifests/v1":                           {400, "NAME_INVALID"},
		"/v2/a/manifests%2fv1":                           {400, "NAME_INVALID"},
		"/v2/a%00/manifests/v1":                          {400, "NAME_INVALID"},
		"/v2/a/manifests/v1%00":                          {400, "NAME_INVALID"},
		"/v2/a/manifests/v1%0d%0aX:%20y":                 {400, "NAME_INVALID"},
		"/v2/a\xff/manifests/v1":                         {400, "NAME_INVALID"},
		"/v2/" + long + "/manifests/v1":                  {400, "NAME_INVALID"},
		"/v2/a/manifests/" + long:                        {400, "NAME_INVALID"},
		"/v2/a/blobs/sha256:" + long:                     {400, "DIGEST_INVALID"},
		"/v2/a/blobs/../../../etc/passwd":                {404, "UNSUPPORTED"},
		"/v2/a/blobs/uploads/../../x":                    {404, "UNSUPPORTED"},
		"/v2/a/blobs/uploads/" + long:                    {404, "BLOB_UPLOAD_UNKNOWN"},
		"/v2/" + strings.Repeat("a/", 5000):              {414, "UNSUPPORTED"},
		"/v2/_catalog?last=" + strings.Repeat("a", 9000): {414, "UNSUPPORTED"},
		"http://elsewhere/v2/none/tags/list":             {404, "NAME_UNKNOWN"},
		"*":                                              {404, "UNSUPPORTED"},
	} {
		s.raw("GET "+target+rest, false).fails(want.status, want.code)
		s.raw("HEAD "+target+rest, false).wants(want.status).holds("")
	}
}

// TestNoSecretsInTheLog: keys that are pasted where names belong stay out of it.
func TestNoSecretsInTheLog(t *testing.T) {
	s := newServer(t)
	secret, _ := auth.NewKey(auth.ProjectKey)
	for _, target := range []string{"/v2/a/manifests/" + secret, "/v2/" + strings.ToLower(secret) + "/tags/list"} {
		s.raw("GET "+target+" HTTP/1.1\r\nHost: x\r\nUser-Agent: ci "+secret+"\r\n\r\n", false).wants(404)
	}
	eventually(t, func() bool { return strings.Count(s.log.String(), "[hidden]") >= 2 })
	if log := strings.ToLower(s.log.String()); strings.Contains(log, strings.ToLower(secret)) {
		t.Errorf("the log has %s", s.log)
	}
}

// TestManifestsOfStrangers: not a byte is read of who may not push; who may is
// asked for the manifest.
func TestManifestsOfStrangers(t *testing.T) {
	open := "a"
	s := serve(t, memblob.New(), func(o *ocihttp.Options) {
		inner := o.Open
		o.Open = func(id auth.Identity) registry.Registry {
			return registry.Guard(inner(id), func(_ context.Context, op registry.Op) error {
				if op.Repo != open {
					return &registry.Error{Code: registry.Denied, Repo: op.Repo}
				}
				return nil
			})
		}
		o.MayPush = func(_ context.Context, _ auth.Identity, repo string) (bool, error) { return repo == open, nil }
	})
	const length = " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
	s.raw("PUT /v2/b/manifests/v1"+length, false).fails(403, "DENIED")
	s.raw("PUT /v2/a/manifests/v1"+length, true).fails(400, "SIZE_INVALID") // it ended early
}

func TestWrongMethods(t *testing.T) {
	s := newServer(t)
	d := string(digestOf("x"))
	for path, allow := range map[string]string{
		"/v2/":                    "GET, HEAD",
		"/v2/_catalog":            "GET, HEAD",
		"/v2/a/tags/list":         "GET, HEAD",
		"/v2/a/referrers/" + d:    "GET, HEAD",
		"/v2/a/manifests/v1":      "GET, HEAD, PUT, DELETE",
		"/v2/a/blobs/" + d:        "GET, HEAD, DELETE",
		"/v2/a/blobs/uploads/":    "POST",
		"/v2/a/blobs/uploads/x-1": "GET, HEAD, PUT, PATCH, DELETE",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "BREW"} {
			if strings.Contains(allow+",", method+",") {
				continue
			}
			s.raw(method+" "+path+rest, false).fails(405, "UNSUPPORTED").wants(405, "Allow", allow)
		}
	}
}

func TestEndlessHeaders(t *testing.T) {
	s := newServer(t)
	header := strings.Repeat("X-Filler: "+strings.Repeat("x", 1000)+"\r\n", 40)
	s.raw("GET /v2/ HTTP/1.1\r\nHost: x\r\n"+header+"\r\n", false).fails(431, "UNSUPPORTED")
}

// TestLyingLength: a body that ends before its Content-Length is refused; an
// upload keeps what came.
func TestLyingLength(t *testing.T) {
	s := newServer(t)
	s.pushBlob("a", "config")
	m := image("config")
	put := func(method, path, header, body string) *answer {
		return s.raw(method+" "+path+" HTTP/1.1\r\nHost: x\r\n"+header+"\r\n\r\n"+body, true)
	}
	put("PUT", "/v2/a/manifests/v1", fmt.Sprintf("Content-Length: %d", len(m)+1), m).fails(400, "SIZE_INVALID")
	put("PUT", "/v2/a/manifests/v1", "Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n", len(m), m)).fails(400, "SIZE_INVALID")
	put("PUT", "/v2/a/manifests/v1", "Transfer-Encoding: chunked", "nonsense\r\n").fails(400, "SIZE_INVALID")
	put("PUT", "/v2/a/manifests/v1", "Content-Length: 99999999999", m).fails(413, "SIZE_INVALID")
	s.get("/v2/a/manifests/v1").fails(404, "MANIFEST_UNKNOWN")

	at := s.startUpload("a", "")
	put("PATCH", at, "Content-Length: 10", "abc").fails(400, "SIZE_INVALID")
	s.get(at).wants(204, "Range", "0-2")
	put("PATCH", at, "Transfer-Encoding: chunked", "3\r\ndef\r\n").fails(400, "SIZE_INVALID")
	s.get(at).wants(204, "Range", "0-5")
	put("PUT", at+"?digest="+string(digestOf("abcdefg")), "Content-Length: 2", "g").fails(400, "SIZE_INVALID")
	s.get(at).wants(204, "Range", "0-6")
	s.do("PUT", at+"?digest="+string(digestOf("abcdefg")), nil).wants(201)

	d := digestOf("whole")
	put("POST", "/v2/a/blobs/uploads/?digest="+string(d), "Content-Length: 99", "whole").fails(400, "SIZE_INVALID")
	s.get("/v2/a/blobs/"+string(d)).fails(404, "BLOB_UNKNOWN")
}

// TestStalledBody: a client that sends nothing is cut, and its session stays.
func TestStalledBody(t *testing.T) {
	s := newServer(t, func(o *ocihttp.Options) { o.BodyIdle = 100 * time.Millisecond })
	at := s.startUpload("a", "")
	s.raw("PATCH "+at+" HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", false).
		fails(408, "SIZE_INVALID").wants(408, "Connection", "close")
	s.get(at).wants(204, "Range", "0-2")
	s.raw("PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", false).fails(408, "SIZE_INVALID")
	// Where nobody reads the body, the answer does not wait for it either.
	s.raw("PUT /v2/a/manifests/v1?tag=x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", false).fails(400, "UNSUPPORTED")
}

// TestSlowBody: bytes that keep coming are waited for, however long it takes,
// and a connection lives on after the deadline of its last body.
func TestSlowBody(t *testing.T) {
	const idle = 400 * time.Millisecond
	s := newServer(t, func(o *ocihttp.Options) { o.BodyIdle = idle })
	at := s.startUpload("a", "")
	r, w := io.Pipe()
	go func() {
		for range 8 {
			time.Sleep(idle / 4)
			_, _ = io.WriteString(w, "x")
		}
		w.Close()
	}()
	s.do("PATCH", at, r).wants(202, "Range", "0-7")
	time.Sleep(idle * 3 / 2)
	s.get(at).wants(204, "Range", "0-7")
}

// TestBrokenBody: a client that vanishes leaves what had come.
func TestBrokenBody(t *testing.T) {
	s := newServer(t)
	at := s.startUpload("a", "")
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", at)
	time.Sleep(50 * time.Millisecond)
	_ = conn.(*net.TCPConn).SetLinger(0) // a reset
	conn.Close()
	eventually(t, func() bool { return strings.Contains(s.log.String(), `"received":3`) })
	if !strings.Contains(s.log.String(), `"status":499`) {
		t.Errorf("the log does not say that the client left: %s", s.log)
	}
	s.get(at).wants(204, "Range", "0-2")
}

// TestHTTP2 walks through a push and a pull over HTTP/2, where bodies and
// deadlines are other code.
func TestHTTP2(t *testing.T) {
	s := newServer(t)
	s.Close()
	s.Server = httptest.NewUnstartedServer(s.Config.Handler)
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	at := s.startUpload("a", "")
	s.do("PATCH", at, strings.NewReader("abc"), "Content-Range", "0-2").wants(202, "Range", "0-2")
	s.do("PUT", at+"?digest="+string(digestOf("abcdef")), chunked{strings.NewReader("def")}).wants(201)
	s.get("/v2/a/blobs/"+string(digestOf("abcdef"))).wants(200, "Content-Length", "6").holds("abcdef")
	s.get("/v2/a/blobs/"+string(digestOf("abcdef")), "Range", "bytes=2-3").wants(206).holds("cd")
	m := s.pushImage("a", "v1", "config")
	s.get("/v2/a/manifests/v1").wants(200, "Content-Type", oci.MediaTypeImage).holds(m)
	s.do("HEAD", "/v2/a/manifests/v2", nil).fails(404, "MANIFEST_UNKNOWN")
	s.get("/v2/a/tags/list").wants(200).holds(`{"name":"a","tags":["v1"]}` + "\n")
}
