package app

import (
	"context"
	"errors"
	"time"

	"github.com/berth-registry/berth/internal/manage"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/proxy"
	"github.com/berth-registry/berth/internal/proxyspec"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/upstream"
)

// managedCaches are the proxies as those who manage them see them.
type managedCaches struct{ p *proxies }

var _ manage.Proxies = managedCaches{}

// Configured are those of the configuration.
func (c managedCaches) Configured() ([]proxyspec.Proxy, []proxyspec.Virtual) {
	return c.p.config.Proxies, c.p.config.Virtuals
}

// Seal encrypts a secret for the database.
func (c managedCaches) Seal(name string, secret []byte) ([]byte, error) {
	if c.p.sealer == nil {
		return nil, manage.ErrNoKey
	}
	return c.p.sealer.Seal(name, secret), nil
}

// Changed has what the database says take effect in this process.
func (c managedCaches) Changed(ctx context.Context) error { return c.p.reload(ctx) }

// startsWithin is how long another process's proxy takes to be known here, and more.
const startsWithin = 2 * time.Second

// with runs f with a proxy that stays meanwhile. One that another process has just
// added is waited for.
func (c managedCaches) with(ctx context.Context, name string, f func(*running) error) error {
	for end := time.Now().Add(startsWithin); ; {
		held := c.p.held()
		if run := held.proxies[name]; run != nil {
			defer held.release()
			return f(run)
		}
		held.release()
		if time.Now().After(end) || ctx.Err() != nil {
			return &manage.Error{Code: manage.NotFound, Detail: "this process does not run the proxy yet; try again"}
		}
		time.Sleep(startsWithin / 20)
		if err := c.p.reload(ctx); err != nil {
			return err
		}
	}
}

// ProxyStats is what a cache has, and how its upstream does.
func (c managedCaches) ProxyStats(ctx context.Context, name string) (s manage.ProxyStats, err error) {
	err = c.with(ctx, name, func(run *running) error {
		has, err := run.proxy.Stats(ctx, run.want.spec.Pinned)
		if err != nil {
			return asked(err)
		}
		s = manage.ProxyStats{
			Bytes: has.Bytes, Budget: int64(run.want.spec.Cache.Size), Manifests: has.Manifests, Images: has.Images, Pinned: has.Pinned,
			OldestUse: has.OldestUse, NewestUse: has.NewestUse, Stretch: 1,
		}
		if run.want.broken != nil {
			s.Broken = run.want.broken.Error()
		}
		if run.upstream != nil {
			showUpstream(&s, run.upstream.Status())
		}
		return nil
	})
	return s, err
}

func showUpstream(s *manage.ProxyStats, now upstream.Status) {
	s.InFlight, s.Queued, s.Stretch = now.InFlight, now.Queued, now.Stretch
	for _, e := range now.Endpoints {
		shown := manage.ProxyEndpoint{Address: e.Address, PausedUntil: e.PausedUntil}
		if !e.Budget.Seen.IsZero() {
			shown.Limit, shown.Remaining = e.Budget.Limit, e.Budget.Remaining
		}
		s.Endpoints = append(s.Endpoints, shown)
	}
	for _, h := range now.Hosts {
		s.Hosts = append(s.Hosts, manage.ProxyHost{Host: h.Host, Role: string(h.Role), State: string(h.State), Failures: h.Failures, Until: h.Until})
	}
}

// RefreshProxy has the upstream asked again.
func (c managedCaches) RefreshProxy(ctx context.Context, name, repo, ref string) error {
	return c.with(ctx, name, func(run *running) error { return asked(run.proxy.Refresh(ctx, repo, ref)) })
}

// PurgeProxy takes out of the cache.
func (c managedCaches) PurgeProxy(ctx context.Context, name, repo, ref string) (f manage.ProxyFreed, err error) {
	err = c.with(ctx, name, func(run *running) error {
		got, err := run.proxy.Purge(ctx, repo, ref)
		f = manage.ProxyFreed{Images: got.Images, Manifests: got.Manifests, Blobs: got.Blobs, Bytes: got.Bytes, Kept: got.Pinned}
		return asked(err)
	})
	return f, err
}

// PrefetchProxy brings an image into the cache.
func (c managedCaches) PrefetchProxy(ctx context.Context, name, repo string, ref oci.Ref, platforms []string, report func(manage.ProxyProgress)) error {
	return c.with(ctx, name, func(run *running) error {
		return told(run.proxy.Prefetch(ctx, repo, ref, func(p proxy.Progress) {
			report(manage.ProxyProgress{Manifests: p.Manifests, Blobs: p.Blobs, Bytes: p.Bytes, Failed: p.Failed})
		}, platforms...))
	})
}

// TestProxy tries all that a pull needs.
func (c managedCaches) TestProxy(ctx context.Context, name, repo string, ref oci.Ref, report func(manage.ProxyStep)) error {
	return c.with(ctx, name, func(run *running) error {
		if run.upstream == nil {
			return &manage.Error{Code: manage.Conflict, Detail: "the upstream cannot be asked: " + run.want.broken.Error()}
		}
		run.upstream.Probe(ctx, run.want.spec.Upstream(repo), ref, func(s upstream.Step) {
			report(manage.ProxyStep{Endpoint: s.Endpoint, Name: s.Name, OK: s.OK, Skipped: s.Skipped, Detail: s.Detail, Advice: s.Advice})
		})
		return ctx.Err()
	})
}

// asked gives an error about what was asked for its code; others are the server's
// fault.
func asked(err error) error {
	var e *registry.Error
	if !errors.As(err, &e) {
		return available(err)
	}
	code := manage.Conflict
	switch e.Code {
	case registry.NameUnknown, registry.ManifestUnknown, registry.BlobUnknown:
		code = manage.NotFound
	case registry.Denied, registry.Referenced, registry.Faulty:
	case registry.TooManyRequests:
		failed := &manage.Error{Code: manage.TooMany, Detail: e.Error(), Err: err}
		if e.Limit != nil {
			failed.Retry = max(e.Limit.RetryAfter, time.Second)
		}
		return failed
	default:
		return err
	}
	return &manage.Error{Code: code, Detail: e.Error(), Err: err}
}

// told is an error whose text an administrator may read: of what an upstream did.
func told(err error) error {
	if err == nil {
		return nil
	}
	return &manage.Error{Code: manage.Conflict, Detail: err.Error(), Err: err}
}
