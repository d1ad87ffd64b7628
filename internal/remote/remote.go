// Package remote is the client of an OCI registry somewhere else, as a
// registry.Registry. It believes nothing it is told: content is hashed before
// it counts, lists and bodies are bounded, and no answer can make it send
// credentials to, or upload to, another host.
package remote

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-registry/berth/internal/registry"
)

// Options of New; the zero value is an anonymous client.
type Options struct {
	// Authorization returns the value of the Authorization header for requests
	// about a repository ("" for the catalog), or "" for none. It is sent to
	// the registry's own origin only. See Basic.
	Authorization func(ctx context.Context, repo string) (string, error)

	// Transport sends requests. Default: one with time limits for connecting
	// and for the beginning of an answer.
	Transport http.RoundTripper

	// Stall is how long a body may bring nothing before it is given up.
	// Default one minute.
	Stall time.Duration

	// SessionKey signs ids of upload sessions whose location has a form of the
	// upstream's own. With the same key they can be resumed by another process.
	// Default: a random one.
	SessionKey []byte
}

// Basic is an Authorization for a user name and password.
func Basic(user, password string) func(context.Context, string) (string, error) {
	value := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	return func(context.Context, string) (string, error) { return value, nil }
}

const defaultStall = time.Minute

// Registry is a registry at an origin.
type Registry struct {
	base       *url.URL // scheme and host only
	o          Options
	client     *http.Client
	chunks     sync.Pool   // *bufio.Reader of chunkSize
	unordered  atomic.Bool // a list was seen that is not in bytewise order
	sessionKey []byte
}

var _ registry.Registry = (*Registry)(nil)

// New makes a client of the registry at base, such as "https://example.com".
func New(base string, o Options) (*Registry, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("registry address: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("registry address %q: write https://host or http://host:port", u.Redacted())
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/") {
		return nil, fmt.Errorf("registry address %q: only a scheme, a host and a port belong here", u.Redacted())
	}
	if o.Transport == nil {
		o.Transport = defaultTransport()
	}
	if o.Stall <= 0 {
		o.Stall = defaultStall
	}
	r := &Registry{base: &url.URL{Scheme: u.Scheme, Host: u.Host}, o: o, sessionKey: o.SessionKey}
	if len(r.sessionKey) == 0 {
		r.sessionKey = make([]byte, 32)
		rand.Read(r.sessionKey)
	}
	r.client = &http.Client{Transport: o.Transport, CheckRedirect: r.checkRedirect}
	return r, nil
}

func defaultTransport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 32
	t.ResponseHeaderTimeout = time.Minute
	t.MaxResponseHeaderBytes = 64 << 10
	t.DisableCompression = true // bytes count as they were pushed
	return t
}
