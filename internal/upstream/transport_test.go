package upstream_test

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
	"github.com/berth-registry/berth/internal/upstream"
)

// elsewhere is a network that this machine is not in.
var elsewhere = []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}

// TestPrivateAddresses: they are not dialled, whatever leads to them, unless they
// are named; and that is not taken for a failure of theirs.
func TestPrivateAddresses(t *testing.T) {
	s := scripted(t, serve)
	for what, address := range map[string]string{
		"an address":   s.URL,
		"a name":       strings.Replace(s.URL, "127.0.0.1", "localhost", 1),
		"mapped":       strings.Replace(s.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1),
		"everywhere":   strings.Replace(s.URL, "127.0.0.1", "0.0.0.0", 1),
		"another name": strings.Replace(s.URL, "127.0.0.1", "LOCALHOST", 1),
	} {
		t.Run(what, func(t *testing.T) {
			u := open(t, upstream.Options{Endpoints: []string{address}, Transport: upstream.Transport{Networks: elsewhere}, Limits: upstream.Limits{Failures: 1}})
			for range 2 {
				registrytest.WantCode(t, "resolve", resolve(t, u), registry.Faulty)
			}
			s.wantAsked(t, "a private address")
		})
	}
	wantCode(t, "named", resolve(t, open(t, upstream.Options{Endpoints: []string{s.URL}})), 0)
}

// TestRedirectedToPrivateAddresses: nor does a registry that may be dialled lead
// there, nor do its tokens come from there.
func TestRedirectedToPrivateAddresses(t *testing.T) {
	secret := scripted(t, serve)
	inside := strings.Replace(secret.URL, "127.0.0.1", "127.0.0.2", 1) // where it listens not, nor is dialled
	s := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, inside+"/", http.StatusTemporaryRedirect)
	})
	o := upstream.Options{Endpoints: []string{s.URL}, Transport: upstream.Transport{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}}
	_, err := open(t, o).Manifest(t.Context(), "team/app", v1)
	registrytest.WantCode(t, "redirected", err, registry.Faulty)
	o.Authorize = tokenUser(inside)
	s.now(serve)
	registrytest.WantCode(t, "token", resolve(t, open(t, o)), registry.Faulty)
}

// TestLedToNoHost: what is no name of a host is not asked for, nor remembered.
func TestLedToNoHost(t *testing.T) {
	leads := ""
	s := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", leads)
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	u := open(t, upstream.Options{Endpoints: []string{s.URL}})
	for _, leads = range []string{"http://%ff%fe.evil.example/", "http://a\"b.evil.example/", "http://%E2%80%AEevil.example/"} {
		registrytest.WantCode(t, leads, resolve(t, u), registry.Faulty)
	}
	if hosts := u.Status().Hosts; len(hosts) != 1 || hosts[0].Host != host(s) {
		t.Errorf("%+v are remembered", hosts)
	}
}

// TestDrip: what is no blob has an end, however little at a time it brings.
func TestDrip(t *testing.T) {
	s := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			io.WriteString(w, " ")
			w.(http.Flusher).Flush()
		}
	})
	u := open(t, upstream.Options{Endpoints: []string{s.URL}, Transport: upstream.Transport{Whole: 20 * time.Millisecond, Idle: time.Hour}})
	for _, err := range u.Tags(t.Context(), "team/app", "") {
		registrytest.WantCode(t, "tags without an end", err, registry.Unavailable)
		return
	}
	t.Error("tags without an end are none")
}

// forward is an HTTP proxy that sends all requests to one handler.
func forward(t *testing.T, h http.HandlerFunc) (proxy *httptest.Server, asked func() []string) {
	var mu sync.Mutex
	var hosts []string
	proxy = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		hosts = append(hosts, r.URL.Host+" "+r.Header.Get("Proxy-Authorization"))
		mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(proxy.Close)
	return proxy, func() []string {
		mu.Lock()
		defer mu.Unlock()
		all := hosts
		hosts = nil
		return all
	}
}

// TestHTTPProxy: a proxy is dialled wherever it is, and is not asked for what is
// private, however that is written.
func TestHTTPProxy(t *testing.T) {
	leads := "http://169.254.169.254/latest"
	proxy, asked := forward(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, leads, http.StatusTemporaryRedirect)
			return
		}
		serve(w, r)
	})
	transport := upstream.Transport{Networks: elsewhere, HTTPProxy: strings.Replace(proxy.URL, "http://", "http://user:secret@", 1)}
	u := open(t, upstream.Options{Endpoints: []string{"http://registry.example"}, Transport: transport})
	wantCode(t, "resolve", resolve(t, u), 0)
	if got := asked(); len(got) != 1 || got[0] != "registry.example Basic dXNlcjpzZWNyZXQ=" {
		t.Errorf("the proxy was asked for %q", got)
	}
	for _, leads = range []string{
		"http://169.254.169.254/", "http://[::ffff:169.254.169.254]/", "http://127.1/", "http://0x7f000001/", "http://2130706433/", "http://0177.0.0.01/",
		"http://localhost/", "http://LOCALHOST./", "http://a.localhost/", "http://127.0.0.1./", "http://x.0x7f/", proxy.URL,
		"http://１２７.０.０.１/", "https://１２７.０.０.１/", "http://127。0。0。1/", "https://ｌｏｃａｌｈｏｓｔ/",
	} {
		_, err := read(t.Context(), known(u))
		registrytest.WantCode(t, leads, err, registry.Faulty)
		if got := asked(); len(got) != 1 {
			t.Errorf("%s: the proxy was asked for %q", leads, got)
		}
	}
	leads = "http://10.99.1.2/"
	if _, err := read(t.Context(), known(u)); err == nil || len(asked()) != 2 {
		t.Errorf("a network that is named is not had through the proxy: %v", err)
	}

	proxy.Close()
	err := resolve(t, u)
	registrytest.WantCode(t, "without the proxy", err, registry.Unavailable)
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the password shows in %v", err)
	}
}

// TestHTTPProxyOfTheEnvironment: it is an operator's word too. net/http reads the
// environment once, so a process of its own looks.
func TestHTTPProxyOfTheEnvironment(t *testing.T) {
	const own = "TEST_IN_A_PROCESS_OF_ITS_OWN"
	if os.Getenv(own) != "" {
		u, err := upstream.New(upstream.Options{Name: "hub", Endpoints: []string{"http://registry.example"}})
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		wantCode(t, "resolve", resolve(t, u), 0)
		return
	}
	proxy, asked := forward(t, serve)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), own+"=1", "HTTP_PROXY="+proxy.URL, "NO_PROXY=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if got := asked(); len(got) != 1 {
		t.Errorf("the proxy was asked for %q", got)
	}
}

// TestHTTPProxyIsNotForRegistries: where an upstream leads to the address of the
// proxy itself, past it, that is an address like any other.
func TestHTTPProxyIsNotForRegistries(t *testing.T) {
	var leads string
	proxy, asked := forward(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, leads, http.StatusTemporaryRedirect)
			return
		}
		serve(w, r)
	})
	leads = proxy.URL + "/status"
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("NO_PROXY", "127.0.0.1")
	u, err := upstream.New(upstream.Options{Name: "hub", Endpoints: []string{"http://registry.example"}})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	_, err = read(t.Context(), known(u))
	registrytest.WantCode(t, "read", err, registry.Faulty)
	if got := asked(); len(got) != 1 || !strings.HasPrefix(got[0], "registry.example ") {
		t.Errorf("the proxy was asked for %q", got)
	}
}

// TestUntrustedHTTPProxy: one that is not the operator's word is dialled where
// anything else may be.
func TestUntrustedHTTPProxy(t *testing.T) {
	proxy, asked := forward(t, serve)
	transport := upstream.Transport{Networks: elsewhere, HTTPProxy: proxy.URL, Untrusted: true}
	u := open(t, upstream.Options{Endpoints: []string{"http://registry.example"}, Transport: transport})
	registrytest.WantCode(t, "resolve", resolve(t, u), registry.Faulty)
	if got := asked(); len(got) != 0 {
		t.Errorf("the proxy was asked for %q", got)
	}
	transport.Networks = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	wantCode(t, "named", resolve(t, open(t, upstream.Options{Endpoints: []string{"http://registry.example"}, Transport: transport})), 0)
}

// withTLS serves with a certificate of its own and returns a file that holds it.
func withTLS(t *testing.T, c *tls.Config) (s *httptest.Server, file string) {
	t.Helper()
	s = httptest.NewUnstartedServer(http.HandlerFunc(serve))
	s.TLS = c
	s.EnableHTTP2 = c == nil
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains of us
	s.StartTLS()
	t.Cleanup(s.Close)
	file = filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return s, file
}

func TestCertificates(t *testing.T) {
	s, file := withTLS(t, nil)
	o := upstream.Options{Endpoints: []string{s.URL}}
	registrytest.WantCode(t, "an unknown certificate", resolve(t, open(t, o)), registry.Faulty)
	o.Transport.CAFile = file
	u := open(t, o)
	wantCode(t, "a known one", resolve(t, u), 0)
	if got, err := read(t.Context(), known(u)); got != string(content) || err != nil {
		t.Errorf("read %q, %v", got, err)
	}

	old, file := withTLS(t, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	o = upstream.Options{Endpoints: []string{old.URL}, Transport: upstream.Transport{CAFile: file}}
	registrytest.WantCode(t, "TLS of old", resolve(t, open(t, o)), registry.Unavailable)
}

// TestTimeLimits: nobody waits for ever, neither for an answer to begin nor for
// the rest of one.
func TestTimeLimits(t *testing.T) {
	s := scripted(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	u := open(t, upstream.Options{Endpoints: []string{s.URL}, Transport: upstream.Transport{Header: 10 * time.Millisecond, Idle: 10 * time.Millisecond}})
	registrytest.WantCode(t, "no answer", resolve(t, u), registry.Unavailable)
	s.now(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "01234")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	got, err := read(t.Context(), known(u))
	registrytest.WantCode(t, "half an answer", err, registry.Unavailable)
	if got != "01234" || !strings.Contains(err.Error(), "too long") {
		t.Errorf("read %q, %v", got, err)
	}
}

// TestConnections: no more requests than places are under way, bodies included.
func TestConnections(t *testing.T) {
	s := scripted(t, serve)
	u := open(t, upstream.Options{Endpoints: []string{s.URL}, Limits: upstream.Limits{Connections: 2, Queue: 1}})
	b, err := known(u).Open(t.Context(), 0, 10)
	wantCode(t, "open", err, 0)
	s.asked()
	second := make(chan error)
	go func() {
		got, err := read(t.Context(), known(u))
		if err == nil && got != string(content) {
			err = errors.New(got)
		}
		second <- err
	}()
	for u.Status().Queued == 0 {
		time.Sleep(time.Millisecond)
	}
	_, err = known(u).Open(t.Context(), 0, 10)
	wantLater(t, "a third", err, registry.TooManyRequests, time.Second, time.Minute)
	s.wantAsked(t, "while a body is read")
	wantCode(t, "what is short", resolve(t, u), 0)
	b.Close()
	wantCode(t, "the second", <-second, 0)
}

// TestRequestsAndBandwidth: that the bounds are in the way; that they are exact is
// shown elsewhere.
func TestRequestsAndBandwidth(t *testing.T) {
	s, tokens := scripted(t, serve), scripted(t, serveToken)
	u := open(t, upstream.Options{Endpoints: []string{s.URL}, Authorize: tokenUser(tokens.URL), Limits: upstream.Limits{Requests: 2, Per: time.Hour, Queue: -1, Bandwidth: 1 << 30}})
	err := resolve(t, u) // a token, and then none is left
	wantLater(t, "resolve", err, registry.TooManyRequests, time.Second, time.Hour)
	s.wantAsked(t, "over the bound")
	u = open(t, upstream.Options{Endpoints: []string{s.URL}, Limits: upstream.Limits{Requests: 20, Per: time.Hour, Queue: -1}})
	wantCode(t, "first", resolve(t, u), 0)
	wantCode(t, "second", resolve(t, u), 0)
	wantLater(t, "third", resolve(t, u), registry.TooManyRequests, time.Second, time.Hour)
}
