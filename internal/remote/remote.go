// Package remote is the client of an OCI registry somewhere else, as a
// registry.Registry. It believes nothing it is told: content is hashed before
// it counts, lists and bodies are bounded, and no answer can make it send
// credentials to, or upload to, another address.
package remote

import (
	"context"
	"crypto/rand"
	"encoding/base64"
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
	// the registry's own address only. See Basic. An error with a code is
	// passed on as it is.
	Authorization func(ctx context.Context, repo string) (string, error)

	// Challenged is told of a 401 of the registry's own address, at most once
	// for a request: what Authorization was sent, and the header of the answer.
	// If it says so, the request is sent again, with what Authorization returns
	// then. It is not asked about requests with a body. An error with a code is
	// passed on as it is.
	Challenged func(ctx context.Context, repo, sent string, header http.Header) (retry bool, err error)

	// Refusals makes an answer of 401 or 403 NameUnknown with
	// registry.ErrRefused: what our credentials do not open does not exist for
	// us. Else it is Unauthorized or Denied, which blames the caller.
	Refusals bool

	// Frugal has a HEAD that finds nothing believed, where else a GET would
	// follow to learn why. Registries count requests.
	Frugal bool

	// Unverified has the bytes of blobs given out as they come, for a caller
	// that hashes them itself. Size and range are held against what was asked.
	Unverified bool

	// Transport sends requests. Default: one with time limits for connecting
	// and for the beginning of an answer. Errors with a code that it returns
	// are passed on as they are.
	Transport http.RoundTripper

	// Stall is how long a body may bring nothing before it is given up.
	// Default one minute; negative: for ever, where Transport sees to it.
	Stall time.Duration

	// SessionKey signs ids of upload sessions whose location has a form of the
	// upstream's own. With the same key they can be resumed by another process.
	// Default: a random one.
	SessionKey []byte

	// Now is the time. Default: time.Now.
	Now func() time.Time
}

// Basic is an Authorization for a user name and password.
func Basic(user, password string) func(context.Context, string) (string, error) {
	value := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	return func(context.Context, string) (string, error) { return value, nil }
}

const defaultStall = time.Minute

// Registry is a registry at an address.
type Registry struct {
	base       *url.URL // scheme, host and, unless the API lies at its top, a path without a slash at the end
	o          Options
	client     *http.Client
	chunks     sync.Pool   // *bufio.Reader of chunkSize
	unordered  atomic.Bool // a list was seen that is not in bytewise order
	listing    referrersAPI
	sessionKey []byte
}

var _ registry.Registry = (*Registry)(nil)

// New makes a client of the registry at base, such as "https://example.com".
// Behind a path, as in "https://example.com/path", requests go to /path/v2/.
func New(base string, o Options) (*Registry, error) {
	u, err := ParseAddress(base)
	if err != nil {
		return nil, err
	}
	if o.Transport == nil {
		o.Transport = defaultTransport()
	}
	if o.Stall == 0 {
		o.Stall = defaultStall
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Registry{base: u, o: o, sessionKey: o.SessionKey}
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
