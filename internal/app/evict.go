package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/berth-registry/berth/internal/jobs"
	"github.com/berth-registry/berth/internal/proxy"
	"github.com/berth-registry/berth/internal/proxyspec"
)

// evictJob is the name of the job that keeps caches within their bounds.
const (
	evictJob   = "proxy-evict"
	evictEvery = time.Minute
	// evictShare is the part of a budget after which what came since the last look
	// is worth another: less than what a budget leaves between its two marks.
	evictShare = 20
)

// evicting is that job. Each cache gives up what it used least recently until it
// is within its own budget. Where all together have more than proxy.cache_size,
// each is given the same share of it as it has of them.
func (p *proxies) evicting() jobs.Job {
	return jobs.Job{Name: evictJob, Every: evictEvery, Run: func(ctx context.Context) (any, error) { return p.evictAll(ctx) }}
}

func (p *proxies) evictAll(ctx context.Context) (freed map[string]proxy.Freed, err error) {
	held := p.held()
	defer held.release()
	freed = map[string]proxy.Freed{}
	usage, err := p.usage(ctx, held)
	if err != nil {
		return freed, err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(held.proxies)) {
		run := held.proxies[name]
		got, err := run.proxy.Evict(ctx, budgetOf(run.want.spec, usage, p.config.ProxyCacheSize()))
		if got != (proxy.Freed{}) {
			freed[name] = got
			p.log.Info("a cache gave up what was not used", "proxy", name, "freed", got)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("proxy %s: %w", name, err))
		}
	}
	return freed, errors.Join(errs...)
}

// usage is how many bytes each cache keeps.
func (p *proxies) usage(ctx context.Context, r *routes) (map[string]int64, error) {
	usage := map[string]int64{}
	for name := range r.proxies {
		n, err := p.store.db.ProxyUsage(ctx, name)
		if err != nil {
			return nil, err
		}
		usage[name] = n
	}
	return usage, nil
}

// budgetOf is what a cache may keep, beside others with that usage.
func budgetOf(s proxyspec.Proxy, usage map[string]int64, together int64) proxy.Budget {
	b := proxy.Budget{Bytes: int64(s.Cache.Size), MaxIdle: s.Cache.MaxIdle.Bound()}
	if len(s.Cache.Pins) > 0 {
		b.Pinned = s.Pinned
	}
	all := int64(0)
	for _, n := range usage {
		all += n
	}
	if together > 0 && all > 0 && usage[s.Name] > 0 {
		share := max(1, int64(float64(together)*float64(usage[s.Name])/float64(all)))
		if b.Bytes == 0 || share < b.Bytes {
			b.Bytes = share
		}
	}
	return b
}

// stored counts what comes into a cache, and has a look taken at it when that is
// much of what it may keep.
func (p *proxies) stored(s proxyspec.Proxy) func(int64) {
	bound := int64(s.Cache.Size)
	if all := p.config.ProxyCacheSize(); all > 0 && (bound == 0 || all < bound) {
		bound = all
	}
	if bound == 0 {
		return nil
	}
	var since atomic.Int64
	return func(n int64) {
		if since.Add(n) > bound/evictShare {
			since.Store(0)
			p.evict()
		}
	}
}

// soon asks for a job to be done, without waiting.
func (s *site) soon(job string) func() {
	var asking atomic.Bool
	return func() {
		if !asking.CompareAndSwap(false, true) {
			return
		}
		s.proxies.closing.Go(func() {
			defer asking.Store(false)
			ctx, cancel := context.WithTimeout(context.Background(), cutTimeout)
			defer cancel()
			if _, err := s.jobs.Request(ctx, job); err != nil {
				s.log.Debug("a job could not be asked for; it is done in its own time", "job", job, "error", err)
			}
		})
	}
}

// sampleUsage shows how much the caches keep.
func (p *proxies) sampleUsage(ctx context.Context) {
	held := p.held()
	defer held.release()
	usage, err := p.usage(ctx, held)
	if err != nil {
		usage = nil
	}
	p.metrics.Usage(usage)
}

// serves reports whether a request came by a name that was given to a proxy.
func (p *proxies) serves(r *http.Request) bool { return p.current.Load().table.HostOf(r) != "" }
