// Package upstream is a registry that Berth stands before: its addresses, how
// they are reached, and how to be a good guest there. It is read only. What it
// does not do is to remember content; that is for a cache.
//
// One upstream may have several endpoints, mirrors first, the registry itself
// last. What has a digest may come from any of them, for it can be proved. What a
// tag stands for says the first that knows it: a mirror that is named is trusted
// with that. Lists cannot be proved, and one that lacks something reads like one
// of something that is not there: a list of referrers comes from the last endpoint
// alone, and of tags from a mirror only when the last does not answer.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/remote"
)

// Authorizer proves to one endpoint who we are. See remote.Options.
type Authorizer interface {
	Authorization(ctx context.Context, repo string) (string, error)
	Challenged(ctx context.Context, repo, sent string, header http.Header) (retry bool, err error)
}

// Pauses is where processes tell each other until when an upstream is not to be
// asked. *meta.DB is one. The zero Time: it may be.
type Pauses interface {
	ProxyPause(ctx context.Context, proxy string) (time.Time, error)
	PauseProxy(ctx context.Context, proxy string, until time.Time) error
}

// Options of New. Name and Endpoints are required.
type Options struct {
	// Name is that of the upstream, under which pauses are kept.
	Name string
	// Endpoints are addresses as remote.ParseAddress reads them, in the order in
	// which they are tried: mirrors first, the registry itself last.
	Endpoints []string

	Transport Transport
	Limits    Limits

	// Authorize makes what proves to an endpoint who we are; it may return nil
	// for one that is nobody's business. What it asks of a token service goes
	// through tokens. nil: we are anonymous everywhere.
	Authorize func(endpoint *url.URL, tokens http.RoundTripper) (Authorizer, error)

	// Pauses are for several processes; nil: this one is alone.
	Pauses Pauses
	// Observe is told of each request that was sent, when it is over.
	Observe func(Call)
	// Log gets what an operator should know. nil: nobody.
	Log *slog.Logger
	// Now is the clock. nil: time.Now.
	Now func() time.Time
}

// Transport is how endpoints, their token services and their storage are reached.
type Transport struct {
	// CAFile holds certificates that are trusted besides those of the system.
	CAFile string
	// HTTPProxy is the address of a proxy that requests go through; "": what the
	// environment says; "none": none.
	HTTPProxy string
	// Untrusted has HTTPProxy dialled only where anything else would be: who chose
	// it may not choose what else is reached.
	Untrusted bool
	// Networks are those, of private or local addresses, that may be dialled.
	Networks []netip.Prefix

	Connect time.Duration // 0: 5 seconds
	Header  time.Duration // until an answer begins; 0: 10 seconds
	Idle    time.Duration // that a body may bring nothing; 0: 30 seconds
	Whole   time.Duration // that the body of what is no blob may take; 0: 5 minutes
}

// Limits of what is asked, of this process. Who is over one waits.
type Limits struct {
	// Connections bounds the requests under way, bodies that are being read
	// included. One in eight is kept for what is short. 0: 32.
	Connections int
	// Queue bounds how many wait. Who is too many is told TooManyRequests. 0: 1000;
	// negative: nobody waits.
	Queue int
	// Requests bounds those sent to registry and token service within any time
	// of Per. 0: no bound.
	Requests int
	Per      time.Duration // 0: a second
	// Bandwidth bounds what bodies bring, in bytes a second. 0: no bound.
	Bandwidth int64
	// Reserve is how many requests of the upstream's own allowance are left
	// before Stretch grows. 0: 20; negative: none.
	Reserve int
	// Failures of a host in a row end in its not being asked for Open. 0: 5
	// failures, 30 seconds.
	Failures int
	Open     time.Duration
}

// Registry is an upstream.
type Registry struct {
	o         Options
	endpoints []*endpoint
	transport *http.Transport
	proxied   func(*http.Request) bool // it goes through an HTTP proxy
	trusted   func(*http.Request) bool // it does, which may be dialled wherever it is
	policy    policy
	gate      *gate
	rate      *bucket // nil: no bound
	bandwidth *bucket // nil: no bound
	breakers  breakers
}

var _ registry.Reader = (*Registry)(nil)

// endpoint is an address of an upstream.
type endpoint struct {
	address  *url.URL
	remote   *remote.Registry
	pause    pause
	budget   budget
	distrust distrust
	// authorizer is nil where we are anonymous.
	authorizer Authorizer
}

// New makes the client of an upstream. The caller closes it.
func New(o Options) (*Registry, error) {
	o = withDefaults(o)
	if o.Name == "" || len(o.Endpoints) == 0 {
		return nil, errors.New("an upstream needs a name and an endpoint")
	}
	u := &Registry{o: o, policy: policy{o.Transport.Networks}, breakers: breakers{o: o}}
	queue := &queue{most: int64(o.Limits.Queue)}
	u.gate = newGate(o.Limits.Connections, queue)
	u.rate = requestRate(o.Limits.Requests, o.Limits.Per, queue, o.Now)
	u.bandwidth = byteRate(o.Limits.Bandwidth, o.Now)
	if err := u.connect(); err != nil {
		return nil, err
	}
	for i, address := range o.Endpoints {
		e, err := u.endpoint(address, i == len(o.Endpoints)-1)
		if err != nil {
			return nil, err
		}
		u.endpoints = append(u.endpoints, e)
	}
	return u, nil
}

// endpoint makes one; the last is the registry itself, the others are mirrors.
func (u *Registry) endpoint(address string, last bool) (*endpoint, error) {
	at, err := remote.ParseAddress(address)
	if err != nil {
		return nil, err
	}
	e := &endpoint{address: at, pause: pause{name: u.o.Name, store: u.o.Pauses, log: u.o.Log}}
	if !last {
		e.pause.name += " " + at.Host + at.Path
	}
	o := remote.Options{
		Transport: &trip{u, e, ""}, Stall: -1, Frugal: true, Refusals: true, Now: u.o.Now,
		// Who reads a blob hashes it. A mirror that sends wrong bytes is better
		// known here too, where another can be asked.
		Unverified: last,
	}
	if u.o.Authorize != nil {
		own := *at
		a, err := u.o.Authorize(&own, &trip{u, e, RoleToken})
		if err != nil {
			return nil, fmt.Errorf("credentials for %s: %w", at, err)
		}
		if a != nil {
			o.Authorization, o.Challenged = a.Authorization, a.Challenged
			e.authorizer = a
		}
	}
	e.remote, err = remote.New(address, o)
	return e, err
}

// Close frees connections. Nothing may be under way any more.
func (u *Registry) Close() { u.transport.CloseIdleConnections() }

func withDefaults(o Options) Options {
	if o.Observe == nil {
		o.Observe = func(Call) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, d := range []struct {
		of    *time.Duration
		value time.Duration
	}{
		{&o.Transport.Connect, 5 * time.Second}, {&o.Transport.Header, 10 * time.Second}, {&o.Transport.Idle, 30 * time.Second}, {&o.Transport.Whole, 5 * time.Minute},
		{&o.Limits.Per, time.Second}, {&o.Limits.Open, 30 * time.Second},
	} {
		if *d.of == 0 {
			*d.of = d.value
		}
	}
	for _, n := range []struct {
		of    *int
		value int
	}{{&o.Limits.Connections, 32}, {&o.Limits.Queue, 1000}, {&o.Limits.Reserve, 20}, {&o.Limits.Failures, 5}} {
		if *n.of == 0 {
			*n.of = n.value
		}
	}
	return o
}
