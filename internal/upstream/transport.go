package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// connect makes the transport that all endpoints share.
func (u *Registry) connect() error {
	o := u.o.Transport
	roots, err := certificates(o.CAFile)
	if err != nil {
		return err
	}
	proxy, err := httpProxy(o.HTTPProxy)
	if err != nil {
		return err
	}
	d := &dialer{
		guarded: net.Dialer{Timeout: o.Connect, Control: u.policy.control},
		free:    net.Dialer{Timeout: o.Connect},
	}
	u.proxied = func(req *http.Request) bool {
		p, err := proxy(req)
		return p != nil && err == nil
	}
	u.trusted = func(req *http.Request) bool { return !o.Untrusted && u.proxied(req) }
	u.transport = &http.Transport{
		Proxy:                  proxy,
		DialContext:            d.dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    o.Connect,
		ResponseHeaderTimeout:  o.Header,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConns:           2 * u.o.Limits.Connections,
		MaxIdleConnsPerHost:    u.o.Limits.Connections,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // bytes count as they were pushed
		ForceAttemptHTTP2:      true,
		// A connection that many share is found dead by asking.
		HTTP2: &http.HTTP2Config{SendPingTimeout: o.Header, PingTimeout: o.Connect},
	}
	return nil
}

// certificates are those of the system and of a file; nil: of the system.
func certificates(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("certificates of the upstream: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("certificates of the upstream: %s holds none in PEM form", file)
	}
	return pool, nil
}

type proxyFunc func(*http.Request) (*url.URL, error)

// httpProxy is the choice of a proxy that an operator made.
func httpProxy(address string) (proxyFunc, error) {
	switch address {
	case "":
		choose := httpproxy.FromEnvironment().ProxyFunc()
		return func(r *http.Request) (*url.URL, error) { return choose(r.URL) }, nil
	case "none":
		return func(*http.Request) (*url.URL, error) { return nil, nil }, nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the address of the HTTP proxy is malformed") // it may hold a password
	}
	if !slices.Contains(proxyKinds, u.Scheme) || u.Hostname() == "" {
		return nil, fmt.Errorf("HTTP proxy %q: write http://host:port, https://host:port or socks5://host:port", u.Redacted())
	}
	return http.ProxyURL(u), nil
}

// proxyKinds are the schemes of addresses of proxies.
var proxyKinds = []string{"http", "https", "socks5", "socks5h"}

// dialer makes connections, to addresses that are allowed and to proxies.
type dialer struct {
	guarded net.Dialer
	free    net.Dialer
}

// proxyKey is that of a true in the context of requests that go through a proxy
// which is the operator's word, and mostly private. The same address, when a
// registry leads to it, is dialled like any other.
type proxyKey struct{}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if ctx.Value(proxyKey{}) != nil {
		return d.free.DialContext(ctx, network, address)
	}
	return d.guarded.DialContext(ctx, network, address)
}
