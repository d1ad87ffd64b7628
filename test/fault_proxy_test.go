package test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"
)

// proxy stands between berth and an engine and breaks what passes, as it is
// told, at any time. It begins by letting everything pass.
type proxy struct {
	t            *testing.T
	addr, target string

	mu       sync.Mutex
	listener net.Listener
	conns    map[*wire]bool
	opened   int           // connections that came, ever
	thaw     chan struct{} // closed where bytes may pass
	delay    time.Duration // of each piece
	rate     int64         // bytes of a second; 0: any number
	cutUp    int64         // bytes to the engine after which the next connection is reset; 0: none is
	cutDown  int64         // the same for bytes from it
}

// newProxy listens until the test ends.
func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	p := &proxy{t: t, target: target, conns: map[*wire]bool{}, thaw: make(chan struct{})}
	close(p.thaw)
	p.listen("127.0.0.1:0")
	t.Cleanup(func() { p.refuse(); p.pass() })
	return p
}

func (p *proxy) listen(addr string) {
	var err error
	for range 100 {
		if p.listener, err = net.Listen("tcp", addr); err == nil {
			p.addr = p.listener.Addr().String()
			go p.accept(p.listener)
			return
		}
		time.Sleep(50 * time.Millisecond) // a passing connection of this machine has the port
	}
	p.t.Errorf("the proxy cannot listen again: %v", err)
}

func (p *proxy) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		w := &wire{p: p, near: c.(*net.TCPConn), ended: make(chan struct{})}
		p.mu.Lock()
		p.conns[w] = true
		p.opened++
		p.mu.Unlock()
		go w.run()
	}
}

// refuse closes the port and resets all connections, as when the engine's
// process has ended.
func (p *proxy) refuse() {
	p.mu.Lock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	p.mu.Unlock()
	p.reset()
}

// freeze lets nothing pass, in either direction, and says nothing: connections
// are taken and never answered, as when packets vanish.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.thaw = make(chan struct{})
}

// pass ends refuse and freeze. What was under way goes on where it stood.
func (p *proxy) pass() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.thaw:
	default:
		close(p.thaw)
	}
	if p.listener == nil && p.t.Context().Err() == nil {
		p.listen(p.addr)
	}
}

// slow delays each piece and bounds the bytes of a second; zeros end it.
func (p *proxy) slow(delay time.Duration, rate int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay, p.rate = delay, rate
}

// reset breaks all connections that there are.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.conns {
		w.close()
	}
}

// cut resets the next connection that has carried so many bytes to the engine
// (up), or from it; 0 does not.
func (p *proxy) cut(up, down int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutUp, p.cutDown = up, down
}

// count tells how many connections came, ever.
func (p *proxy) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened
}

// wire is a connection through the proxy.
type wire struct {
	p         *proxy
	near, far *net.TCPConn
	once      sync.Once
	ended     chan struct{}
}

func (w *wire) run() {
	defer func() {
		w.close()
		w.p.mu.Lock()
		defer w.p.mu.Unlock()
		delete(w.p.conns, w)
	}()
	if !w.wait() {
		return
	}
	far, err := net.DialTimeout("tcp", w.p.target, 5*time.Second)
	if err != nil {
		return
	}
	w.p.mu.Lock()
	w.far = far.(*net.TCPConn)
	w.p.mu.Unlock()
	defer far.Close()
	var both sync.WaitGroup
	both.Go(func() { w.pump(w.far, w.near, &w.p.cutUp) })
	both.Go(func() { w.pump(w.near, w.far, &w.p.cutDown) })
	both.Wait()
}

// close resets the connection: what is under way is lost.
func (w *wire) close() {
	w.once.Do(func() {
		close(w.ended)
		w.near.SetLinger(0)
		w.near.Close()
		if w.far != nil {
			w.far.SetLinger(0)
			w.far.Close()
		}
	})
}

// wait blocks while the proxy is frozen, and reports whether the connection
// still stands.
func (w *wire) wait() bool {
	w.p.mu.Lock()
	thaw := w.p.thaw
	w.p.mu.Unlock()
	select {
	case <-thaw:
		return true
	case <-w.ended:
		return false
	}
}

// pump carries bytes of one direction. limit is the proxy's cut of it.
func (w *wire) pump(to, from *net.TCPConn, limit *int64) {
	buf := make([]byte, 16<<10)
	for sum := int64(0); ; {
		if !w.wait() {
			return
		}
		n, err := from.Read(buf)
		// What was read before a freeze does not pass either.
		if !w.wait() || w.linger(n) != nil {
			return
		}
		sum += int64(n)
		w.p.mu.Lock()
		over := sum - *limit
		cut := *limit > 0 && over >= 0
		if cut {
			*limit = 0
		}
		w.p.mu.Unlock()
		if cut {
			to.Write(buf[:max(0, int64(n)-over)])
			// A reset overtakes bytes that the other side has not read yet.
			time.Sleep(50 * time.Millisecond)
			w.p.mu.Lock()
			defer w.p.mu.Unlock()
			w.close()
			return
		}
		if _, failed := to.Write(buf[:n]); failed != nil {
			return
		}
		if err == io.EOF {
			to.CloseWrite()
			return
		}
		if err != nil {
			w.p.mu.Lock()
			defer w.p.mu.Unlock()
			w.close()
			return
		}
	}
}

// linger waits as long as n bytes take.
func (w *wire) linger(n int) error {
	w.p.mu.Lock()
	d, rate := w.p.delay, w.p.rate
	w.p.mu.Unlock()
	if rate > 0 {
		d += time.Duration(n) * time.Second / time.Duration(rate)
	}
	if d == 0 || n == 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-w.ended:
		return net.ErrClosed
	}
}

// answers is an HTTP proxy before an S3 service that answers in its place.
type answers struct {
	*url.URL
	mu     sync.Mutex
	script func(*http.Request) (status int, code string)
	given  int
}

// newAnswers lets everything through until it has a script.
func newAnswers(t *testing.T, target string) *answers {
	t.Helper()
	to := &url.URL{Scheme: "http", Host: target}
	a := &answers{URL: &url.URL{Scheme: "http"}}
	through := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // which is signed
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.Host = l.Addr().String()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status, code := a.answer(r); status != 0 {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(status)
			fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>chosen by the test</Message></Error>`, code)
			return
		}
		through.ServeHTTP(w, r)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return a
}

func (a *answers) answer(r *http.Request) (status int, code string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.script == nil {
		return 0, ""
	}
	if status, code = a.script(r); status != 0 {
		a.given++
	}
	return status, code
}

// follow sets the script; nil ends it. It returns how many answers the one
// before has given.
func (a *answers) follow(script func(*http.Request) (status int, code string)) (given int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	given, a.given = a.given, 0
	a.script = script
	return given
}

// always answers every request alike.
func always(status int, code string) func(*http.Request) (int, string) {
	return func(*http.Request) (int, string) { return status, code }
}
