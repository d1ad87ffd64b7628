package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/config"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/metrics"
	"github.com/berth-registry/berth/internal/namespace"
	"github.com/berth-registry/berth/internal/proxy"
	"github.com/berth-registry/berth/internal/proxyspec"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/seal"
	"github.com/berth-registry/berth/internal/upstream"
	"github.com/berth-registry/berth/internal/virtual"
)

const (
	proxyPoll  = 500 * time.Millisecond // between two looks at what other processes changed
	proxyPage  = 200                    // rows of a read
	spoolName  = "proxy-spool"
	proxyActor = "proxy:" // what a cache writes is written by proxy:NAME
)

// proxies are the caches of other registries with the routes to them: those of
// the configuration, and those that administrators added, which are looked for
// when the access generation has moved.
type proxies struct {
	config  *config.Config
	store   *store
	log     *slog.Logger
	metrics *metrics.Proxies
	sealer  *seal.Sealer // nil: no key is configured
	cache   registry.Registry
	spool   string
	evict   func() // asks for eviction soon

	current atomic.Pointer[routes]
	closing sync.WaitGroup

	mu         sync.Mutex // of changing the routes
	generation int64      // that the routes were made at; -1: to be looked at
	spools     int        // made so far: each proxy has one of its own
	ended      bool
}

// newProxies opens the caches. The caller closes them before the store.
func newProxies(ctx context.Context, c *config.Config, st *store, log *slog.Logger) (_ *proxies, err error) {
	p := &proxies{config: c, store: st, log: log, metrics: st.metrics.Proxies(), spool: filepath.Join(c.Data, spoolName), evict: func() {}, generation: -1}
	if p.sealer, err = sealerOf(c); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(p.spool); err != nil { // what a crash left behind
		return nil, err
	}
	o := registryOptions(c, st.isCache)
	o.Sparse = func(string) bool { return true }
	p.cache = st.hosted(o)
	if err := p.reload(ctx); err != nil {
		return nil, err
	}
	p.metrics.Show(p.states)
	return p, nil
}

// sealerOf is what secrets in the database are encrypted with; nil: no key is
// configured.
func sealerOf(c *config.Config) (*seal.Sealer, error) {
	if c.Secrets.KeyFile == "" {
		return nil, nil
	}
	content, err := os.ReadFile(c.Secrets.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("secrets.key_file: %w", err)
	}
	keys, err := seal.Keys(content)
	if err != nil {
		return nil, fmt.Errorf("secrets.key_file: %s: %w", c.Secrets.KeyFile, err)
	}
	return seal.New(keys...)
}

// run looks for what other processes changed, until ctx ends.
func (p *proxies) run(ctx context.Context) {
	tick := time.NewTicker(proxyPoll)
	defer tick.Stop()
	for failed := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := p.reload(ctx)
		if now := err != nil && ctx.Err() == nil; now != failed {
			if failed = now; failed {
				p.log.Error("proxies that were added or changed elsewhere are not known here until the database answers again", "error", err)
			}
		}
	}
}

// nowhere are the routes of requests that outlive what they would lead to.
func nowhere() *routes {
	mux, err := registry.NewMux(nil)
	if err != nil { // it has no routes to be wrong
		panic(err)
	}
	return &routes{users: 1, mux: mux, table: namespace.NewTable(nil, nil, nil)}
}

// close lets go of all, after the last request.
func (p *proxies) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	p.ended = true
	p.current.Swap(nowhere()).release()
	p.closing.Wait()
	if err := os.RemoveAll(p.spool); err != nil {
		p.log.Warn("the folder for what proxies fetch could not be emptied; the next start does it", "error", err)
	}
}

// reload makes the routes anew if what they are made of may have changed.
func (p *proxies) reload(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	generation, err := p.store.db.Generation(ctx)
	if err != nil || generation == p.generation || p.ended {
		return err
	}
	rows, err := managedProxies(ctx, p.store.db)
	if err != nil {
		return err
	}
	if err := p.replace(ctx, p.wanted(rows)); err != nil {
		return err
	}
	p.generation = generation
	p.sampleUsage(ctx)
	return nil
}

// managedProxies are those that administrators added.
func managedProxies(ctx context.Context, db *meta.DB) (all []meta.Proxy, err error) {
	for after := ""; ; {
		rows, err := db.Proxies(ctx, after, proxyPage)
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
		if len(rows) < proxyPage {
			return all, nil
		}
		after = rows[len(rows)-1].Name
	}
}

// wanted is a proxy to be run.
type wanted struct {
	spec    proxyspec.Proxy
	managed bool
	broken  error  // why it cannot ask its upstream
	key     string // another whenever something of it is another
}

// wanted is what is to run: what was added first, so that the configuration wins.
func (p *proxies) wanted(rows []meta.Proxy) (all []wanted) {
	for _, row := range rows {
		if p.config.ReservedProject(row.Name) != "" {
			continue
		}
		spec, err := p.opened(row)
		all = append(all, wanted{spec, true, err, fmt.Sprintf("%s %x", row.Spec, row.Secret)})
	}
	for _, spec := range p.config.Proxies {
		all = append(all, wanted{spec, false, nil, ""})
	}
	return all
}

// opened is a proxy of the database with its secret.
func (p *proxies) opened(row meta.Proxy) (proxyspec.Proxy, error) {
	spec := proxyspec.Proxy{}
	if err := json.Unmarshal([]byte(row.Spec), &spec); err != nil {
		return proxyspec.Proxy{Name: row.Name}, fmt.Errorf("what is stored of it cannot be read: %w", err)
	}
	if row.Secret == nil {
		return spec, managedCheck(spec)
	}
	if p.sealer == nil {
		return spec, errors.New("its secret is sealed, and secrets.key_file is not set")
	}
	plain, err := p.sealer.Open(row.Name, row.Secret)
	if err != nil {
		return spec, fmt.Errorf("its secret: %w", err)
	}
	if spec.Credential.Username != "" {
		spec.Credential.Password = string(plain)
	} else {
		spec.Credential.Token = string(plain)
	}
	return spec, managedCheck(spec)
}

// managedCheck holds what is stored against the rules of what may be added: a
// database may be older than these, or another's.
func managedCheck(spec proxyspec.Proxy) error {
	if err := proxyspec.CheckManaged(spec); err != nil {
		return fmt.Errorf("it is not to be run as it is stored: %w", err)
	}
	return nil
}

// replace has what is wanted run: those that ran already go on.
func (p *proxies) replace(ctx context.Context, wants []wanted) error {
	var before map[string]*running
	if r := p.current.Load(); r != nil {
		before = r.proxies
		if slices.EqualFunc(wants, r.wanted, func(a, b wanted) bool { return a.spec.Name == b.spec.Name && a.managed == b.managed && a.key == b.key }) {
			return nil
		}
	}
	next := &routes{proxies: map[string]*running{}, users: 1}
	var list []registry.Route
	var known []namespace.Upstream
	for _, want := range wants {
		run, err := p.start(ctx, want, before[want.spec.Name])
		if err != nil {
			next.release()
			return fmt.Errorf("proxy %s: %w", want.spec.Name, err)
		}
		next.proxies[want.spec.Name] = run
		next.wanted = append(next.wanted, want)
		list = append(list, registry.Route{Prefix: want.spec.Name, Registry: run.proxy})
		known = append(known, namespace.Upstream{Name: want.spec.Name, Namespaces: want.spec.AllNamespaces(), Hosts: want.spec.Hosts})
	}
	virtuals, err := p.virtuals(ctx, next)
	if err != nil {
		next.release()
		return err
	}
	mux, err := registry.NewMux(p.store.registry, append(list, virtuals...)...)
	if err != nil {
		next.release()
		return err
	}
	next.mux, next.table = mux, namespace.NewTable(known, p.virtualNames(), hostsOf(p.config))
	p.store.caches.Store(next.names())
	if old := p.current.Swap(next); old != nil {
		for name := range old.proxies {
			if next.proxies[name] == nil {
				p.metrics.Forget(name)
			}
		}
		old.release()
	}
	return nil
}

// virtuals are the routes of virtual projects.
func (p *proxies) virtuals(ctx context.Context, r *routes) (list []registry.Route, err error) {
	for _, v := range p.config.Virtuals {
		var sources []virtual.Source
		pushed := false
		for _, name := range v.Sources {
			s := virtual.Source{Prefix: name, Registry: p.store.registry}
			if run := r.proxies[name]; run != nil {
				s.Registry = run.proxy
			} else if !pushed {
				pushed, s.Pushes = true, true
			}
			s.Registry = behind(s.Registry)
			sources = append(sources, s)
		}
		joined, err := virtual.New(v.Name, sources)
		if err != nil {
			return nil, err
		}
		if err := p.ensureProject(ctx, v.Name, "virtual"); err != nil {
			return nil, err
		}
		list = append(list, registry.Route{Prefix: v.Name, Registry: joined})
	}
	return list, nil
}

func (p *proxies) virtualNames() (names []string) {
	for _, v := range p.config.Virtuals {
		names = append(names, v.Name)
	}
	return names
}

// start runs what is wanted, or goes on with what runs of it already.
func (p *proxies) start(ctx context.Context, want wanted, before *running) (*running, error) {
	if before != nil && before.want.key == want.key && before.want.managed == want.managed && before.hold() {
		return before, nil
	}
	run, err := p.open(want)
	switch {
	case err == nil:
	case !want.managed:
		return nil, err
	default: // one that was added must not keep the others from running
		want.broken = err
		if run, err = p.open(want); err != nil {
			return nil, err
		}
	}
	if want.broken != nil {
		p.log.Error("a proxy cannot ask its upstream and serves what it has; change it, or take it away", "proxy", want.spec.Name, "error", want.broken)
	}
	if err := p.ensureProject(ctx, want.spec.Name, "proxy"); err != nil {
		run.release()
		return nil, err
	}
	return run, nil
}

// running is a proxy that runs for as long as somebody holds it.
type running struct {
	want     wanted
	proxy    *proxy.Registry
	upstream *upstream.Registry // nil: it cannot be asked
	end      func()

	mu    sync.Mutex
	users int
}

func (r *running) hold() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users == 0 {
		return false
	}
	r.users++
	return true
}

func (r *running) release() {
	r.mu.Lock()
	r.users--
	last := r.users == 0
	r.mu.Unlock()
	if last {
		r.end()
	}
}

// open makes a proxy with its upstream.
func (p *proxies) open(want wanted) (*running, error) {
	spec := want.spec
	run := &running{want: want, users: 1}
	var origin registry.Reader = silent{want.broken}
	stretch := func() int { return 1 }
	if want.broken == nil {
		u, err := p.openUpstream(spec, want.managed)
		if err != nil {
			return nil, err
		}
		run.upstream, origin, stretch = u, u, u.Stretch
	}
	p.spools++
	spool := filepath.Join(p.spool, strconv.Itoa(p.spools))
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return nil, err
	}
	o := proxyOptions(spec)
	o.State, o.Spool, o.Own, o.Stretch = p.store.db, spool, p.store.registry, stretch
	if p.config.Metadata.Postgres.URL != "" {
		o.Leases = p.store.db
	}
	o.Writing = func(ctx context.Context) context.Context { return writing(ctx, spec.Name) }
	o.Observe = func(e proxy.Event) { p.metrics.Answered(spec.Name, e.Kind, e.Result) }
	o.Stored = p.stored(spec)
	o.Log = p.log.With("proxy", spec.Name)
	cached, err := proxy.New(origin, p.cache, o)
	if err != nil {
		if run.upstream != nil {
			run.upstream.Close()
		}
		return nil, err
	}
	run.proxy = cached
	run.end = func() {
		p.closing.Go(func() {
			cached.Close()
			if run.upstream != nil {
				run.upstream.Close()
			}
			if err := os.RemoveAll(spool); err != nil {
				p.log.Warn("the folder for what a proxy fetched could not be removed; the next start does it", "proxy", spec.Name, "error", err)
			}
		})
	}
	return run, nil
}

// proxyOptions are those that a spec says.
func proxyOptions(s proxyspec.Proxy) proxy.Options {
	o := proxy.Options{
		Name: s.Name, Library: s.Library(), Allow: s.Allow(), TagTTL: s.TagTTL,
		MaxStale: s.Tags.MaxStale.Bound(), NegativeTTL: s.Tags.Negative.Or(0),
		Follow: s.Tags.OnUpstreamDelete == "follow", KeepDeleted: s.Tags.KeepDeleted.Or(0),
		ReferrersTTL: s.Referrers.TTL.Or(0), ReferrersStale: s.Referrers.MaxStale.Or(0),
		LocalReferrers: s.Referrers.Push == nil || *s.Referrers.Push,
		ShortReferrers: s.Referrers.Unknown == "local", Prefetch: s.Referrers.Prefetch,
	}
	return o
}

// writing is the context in which a cache is written for a request.
func writing(ctx context.Context, name string) context.Context {
	c := audit.Caller{Owner: proxyActor + name, Identity: proxyActor + name}
	if by := audit.CallerOf(ctx); by != nil {
		c.Request = by.Request
	}
	return audit.WithCaller(ctx, &c)
}

// ensureProject makes the project of a proxy or a virtual one, as kind says, so
// that rights to it can be given.
func (p *proxies) ensureProject(ctx context.Context, name, kind string) error {
	switch _, err := p.store.db.Project(ctx, name); {
	case err == nil:
		return nil
	case !errors.Is(err, meta.ErrNotFound):
		return err
	}
	e := audit.Event{Action: "project.create", Identity: kind + ":" + name, Project: name, Reference: name, Status: 201}
	_, err := p.store.db.CreateProject(ctx, meta.Change{Event: e}, meta.ProjectSpec{Name: name, Visibility: access.Private})
	if deleted := (*access.DeletedError)(nil); errors.As(err, &deleted) {
		p.log.Warn("a project is deleted: nothing can be had through it until it is restored", kind, name)
		return nil
	}
	if errors.Is(err, meta.ErrExists) { // another process was faster
		return nil
	}
	return err
}

// hostsOf are the hosts of the server's own addresses.
func hostsOf(c *config.Config) (hosts []string) {
	for _, base := range c.URLs() {
		if host := hostOfURL(base); host != "" {
			hosts = append(hosts, host)
		}
	}
	return hosts
}
