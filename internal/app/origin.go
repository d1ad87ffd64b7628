package app

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"slices"

	"github.com/berth-registry/berth/internal/credential"
	"github.com/berth-registry/berth/internal/metrics"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/proxyspec"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/remote"
	"github.com/berth-registry/berth/internal/upstream"
)

// openUpstream makes the client of a proxy's upstream. What administrators added
// reaches what the configuration lets all proxies reach, and no more.
func (p *proxies) openUpstream(s proxyspec.Proxy, managed bool) (*upstream.Registry, error) {
	o := p.upstreamOptions(s)
	o.Transport.Untrusted = managed && s.HTTPProxy != ""
	return upstream.New(o)
}

// upstreamOptions are those that a spec says.
func (p *proxies) upstreamOptions(s proxyspec.Proxy) upstream.Options {
	rate, _ := proxyspec.ParseRate(s.Limits.Requests) // checked
	o := upstream.Options{
		Name: s.Name, Endpoints: s.Endpoints(), Pauses: p.store.db,
		Transport: upstream.Transport{
			CAFile: s.TLS.CAFile, HTTPProxy: s.HTTPProxy, Networks: slices.Concat(s.Prefixes(), p.config.ProxyNetworks()),
		},
		Limits: upstream.Limits{
			Connections: s.Limits.Connections, Queue: s.Limits.Queue, Requests: rate.N, Per: rate.Per, Bandwidth: int64(s.Limits.Bandwidth),
		},
		Authorize: authorizing(s),
		Observe: func(c upstream.Call) {
			p.metrics.Called(s.Name, string(c.Kind), string(c.Role), c.Class(), c.Duration, c.Bytes)
		},
		Log: p.log.With("proxy", s.Name),
	}
	if s.Limits.Reserve != nil {
		o.Limits.Reserve = *s.Limits.Reserve
		if o.Limits.Reserve == 0 {
			o.Limits.Reserve = -1 // none, where 0 is the default
		}
	}
	return o
}

// authorizing shows the credentials of a spec to the upstream itself, and to
// mirrors at its origin; to others it is nobody.
func authorizing(s proxyspec.Proxy) func(*url.URL, http.RoundTripper) (upstream.Authorizer, error) {
	endpoints := s.Endpoints()
	var itself *url.URL // nil of what is no address: upstream.New says so
	if len(endpoints) > 0 {
		itself, _ = remote.ParseAddress(endpoints[len(endpoints)-1])
	}
	return func(endpoint *url.URL, tokens http.RoundTripper) (upstream.Authorizer, error) {
		source := credential.Anonymous()
		if itself != nil && endpoint.Scheme == itself.Scheme && endpoint.Host == itself.Host {
			var err error
			if source, err = sourceOf(s.Credential, endpoint, tokens); err != nil {
				return nil, err
			}
		}
		return credential.NewAuthorizer(source, tokens, credential.Options{Upstream: endpoint, Realms: s.Realms}), nil
	}
}

// sourceOf is where the credentials of a spec come from.
func sourceOf(k proxyspec.Credential, endpoint *url.URL, transport http.RoundTripper) (credential.Source, error) {
	switch {
	case k.Password != "":
		return credential.Basic(k.Username, k.Password), nil
	case k.PasswordFile != "":
		return credential.PasswordFile(k.Username, k.PasswordFile), nil
	case k.Token != "":
		return credential.Bearer(k.Token), nil
	case k.TokenFile != "":
		return credential.TokenFile(k.TokenFile), nil
	case k.Helper != "":
		return credential.Helper(k.Helper, endpoint)
	case k.Exchange != "":
		return credential.NewExchange(credential.Exchange{Kind: k.Exchange, Upstream: endpoint, Transport: transport})
	}
	return credential.Anonymous(), nil
}

// hostOfURL is the host of an address, with its port; "" of what is none.
func hostOfURL(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}

// states are how proxies do, for those who look at metrics.
func (p *proxies) states() (all []metrics.ProxyState) {
	for name, run := range p.current.Load().proxies {
		s := metrics.ProxyState{Name: name, Budget: int64(run.want.spec.Cache.Size), Remaining: -1}
		if run.upstream != nil {
			addUpstream(&s, run.upstream.Status())
		}
		all = append(all, s)
	}
	return all
}

func addUpstream(s *metrics.ProxyState, now upstream.Status) {
	for _, e := range now.Endpoints {
		s.Paused = s.Paused || !e.PausedUntil.IsZero()
		if !e.Budget.Seen.IsZero() && (s.Remaining < 0 || e.Budget.Remaining < s.Remaining) {
			s.Remaining = e.Budget.Remaining
		}
	}
	own := map[string]bool{}
	for _, e := range now.Endpoints {
		own[hostOfURL(e.Address)] = true
	}
	at := map[metrics.ProxyHost]int{} // places in s.Hosts
	for _, h := range now.Hosts {
		key := metrics.ProxyHost{Host: h.Host, Role: string(h.Role)}
		if !own[h.Host] {
			key.Host = elsewhere
		}
		if _, known := at[key]; !known {
			at[key] = len(s.Hosts)
			s.Hosts = append(s.Hosts, key)
		}
		shown := &s.Hosts[at[key]]
		shown.Open = shown.Open || h.State != upstream.Closed
	}
}

// elsewhere stands for all hosts that an upstream leads to: it may name ever new
// ones, and metrics are kept by name. Which they are is told to administrators.
const elsewhere = "elsewhere"

// silent is an origin that cannot be asked, because of what is wrong with its
// configuration.
type silent struct{ why error }

func (s silent) err(repo string) error {
	return &registry.Error{Code: registry.Unavailable, Repo: repo, Err: s.why, Detail: "the upstream of this repository cannot be asked; its administrator must mend the proxy"}
}

func (s silent) Resolve(_ context.Context, repo string, _ oci.Ref) (oci.Descriptor, error) {
	return oci.Descriptor{}, s.err(repo)
}

func (s silent) Manifest(_ context.Context, repo string, _ oci.Ref) (registry.Manifest, error) {
	return registry.Manifest{}, s.err(repo)
}

func (s silent) Blob(_ context.Context, repo string, _ oci.Digest) (registry.Blob, error) {
	return nil, s.err(repo)
}

func (s silent) Tags(_ context.Context, repo, _ string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { yield("", s.err(repo)) }
}

func (s silent) Referrers(_ context.Context, repo string, _ oci.Digest, _ string, _ oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return func(yield func(oci.Descriptor, error) bool) { yield(oci.Descriptor{}, s.err(repo)) }
}

func (s silent) Repositories(context.Context, string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { yield("", s.err("")) }
}

func (s silent) Holders(context.Context, string, oci.Digest) iter.Seq2[string, error] {
	return func(func(string, error) bool) {}
}
