package s3test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Recorder is an HTTP client that counts what goes to a service and comes from
// it, by the names of S3's operations.
type Recorder struct {
	Client *http.Client

	// Fault may answer in the service's place, or end the request with an
	// error; nil and nil let it through. n counts all requests, from one.
	Fault func(n int, operation string, r *http.Request) (*http.Response, error)
	// Lose may end a request that the service has answered.
	Lose func(n int, operation string) error

	mu     sync.Mutex
	n      int
	counts map[string]int
	out    int64 // bytes of bodies of objects and parts
	in     int64 // bytes of objects that were read
	copies int
}

// Operation names the S3 operation of a request.
func Operation(r *http.Request) string {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPut && q.Has("uploadId"):
		return "UploadPart"
	case r.Method == http.MethodPut:
		return "PutObject"
	case r.Method == http.MethodPost && q.Has("uploads"):
		return "CreateMultipartUpload"
	case r.Method == http.MethodPost && q.Has("uploadId"):
		return "CompleteMultipartUpload"
	case r.Method == http.MethodPost:
		return "DeleteObjects"
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		return "AbortMultipartUpload"
	case r.Method == http.MethodDelete:
		return "DeleteObject"
	case r.Method == http.MethodHead:
		return "HeadObject"
	case q.Has("uploads"), q.Has("list-type"), q.Has("uploadId"):
		return "List"
	}
	return "GetObject"
}

// Do sends a request.
func (c *Recorder) Do(r *http.Request) (*http.Response, error) {
	op := Operation(r)
	n := c.count(op, r)
	if c.Fault != nil {
		if resp, err := c.Fault(n, op, r); resp != nil || err != nil {
			return resp, err
		}
	}
	resp, err := c.client().Do(r)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	if op == "UploadPart" || op == "PutObject" {
		c.out += r.ContentLength
	}
	c.mu.Unlock()
	if op == "GetObject" && resp.StatusCode < 300 {
		resp.Body = &counted{resp.Body, c}
	}
	if c.Lose != nil {
		if err := c.Lose(n, op); err != nil {
			resp.Body.Close()
			return nil, err
		}
	}
	return resp, nil
}

func (c *Recorder) client() *http.Client {
	if c.Client == nil {
		return http.DefaultClient
	}
	return c.Client
}

func (c *Recorder) count(op string, r *http.Request) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[string]int{}
	}
	c.n++
	c.counts[op]++
	if r.Header.Get("x-amz-copy-source") != "" {
		c.copies++
	}
	return c.n
}

// Requests tells how many there were of an operation; "" counts all.
func (c *Recorder) Requests(op string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if op == "" {
		return c.n
	}
	return c.counts[op]
}

// Traffic tells the bytes of objects that went to the service and came from it,
// and how many requests made it copy.
func (c *Recorder) Traffic() (out, in int64, copies int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out, c.in, c.copies
}

type counted struct {
	io.ReadCloser
	c *Recorder
}

func (b *counted) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.c.mu.Lock()
	b.c.in += int64(n)
	b.c.mu.Unlock()
	return n, err
}

// Answer is an error that a service could give to a request.
func Answer(r *http.Request, status int, code string) *http.Response {
	body := "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>" + code + "</Code><Message>chosen fault</Message></Error>"
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/xml"}}, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
	}
}

// Proxy is a TCP proxy before a server that breaks connections on demand.
type Proxy struct {
	Address string

	target string
	mu     sync.Mutex
	up     cut
	down   cut
	delay  time.Duration
}

// cut says after how many bytes of a connection it breaks, and how often yet.
type cut struct {
	after int64
	times int
}

// NewProxy listens until the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &Proxy{Address: l.Addr().String(), target: target}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(conn.(*net.TCPConn))
		}
	}()
	return p
}

// CutRequests resets the next connections, as often as times says, when they
// have carried so many bytes to the server.
func (p *Proxy) CutRequests(after int64, times int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up = cut{after, times}
}

// CutAnswers does so for bytes from the server.
func (p *Proxy) CutAnswers(after int64, times int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = cut{after, times}
}

// Left tells how many connections are still to be reset.
func (p *Proxy) Left() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up.times + p.down.times
}

// Slow makes every piece of an answer wait.
func (p *Proxy) Slow(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}

func (p *Proxy) serve(client *net.TCPConn) {
	defer client.Close()
	conn, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer conn.Close()
	done := make(chan struct{}, 2)
	reset := func() {
		client.SetLinger(0)
		client.Close()
		conn.Close()
	}
	go func() { p.pipe(conn, client, &p.up, false, reset); done <- struct{}{} }()
	go func() { p.pipe(client, conn, &p.down, true, reset); done <- struct{}{} }()
	<-done
}

func (p *Proxy) pipe(to io.Writer, from io.Reader, c *cut, answers bool, reset func()) {
	buf := make([]byte, 16<<10)
	for carried := int64(0); ; {
		n, err := from.Read(buf)
		carried += int64(n)
		if n > 0 && p.cuts(c, carried) {
			reset()
			return
		}
		p.mu.Lock()
		delay := p.delay
		p.mu.Unlock()
		if answers && n > 0 {
			time.Sleep(delay)
		}
		if _, writeErr := io.Copy(to, bytes.NewReader(buf[:n])); writeErr != nil || err != nil {
			return
		}
	}
}

func (p *Proxy) cuts(c *cut, carried int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.times == 0 || carried < c.after {
		return false
	}
	c.times--
	return true
}
