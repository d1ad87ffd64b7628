package manage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/notation"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/proxyspec"
)

// Proxies runs the pull-through caches. Errors of its verbs are an *Error, or the
// server's fault.
type Proxies interface {
	// Configured are the proxies and virtual projects of the configuration, which
	// nobody manages.
	Configured() ([]proxyspec.Proxy, []proxyspec.Virtual)
	// Seal encrypts a secret for the database. Errors: ErrNoKey.
	Seal(name string, secret []byte) ([]byte, error)
	// Changed has what the database says take effect here.
	Changed(ctx context.Context) error

	ProxyStats(ctx context.Context, name string) (ProxyStats, error)
	// RefreshProxy has the upstream asked again; PurgeProxy takes out of the cache;
	// both of an image, or with an empty reference of a repository, or with an
	// empty repository too of all.
	RefreshProxy(ctx context.Context, name, repo, ref string) error
	PurgeProxy(ctx context.Context, name, repo, ref string) (ProxyFreed, error)
	// PrefetchProxy brings an image into the cache. What could not be had is told
	// in the error.
	PrefetchProxy(ctx context.Context, name, repo string, ref oci.Ref, platforms []string, report func(ProxyProgress)) error
	// TestProxy tries all that a pull needs, of a repository as the upstream names it.
	TestProxy(ctx context.Context, name, repo string, ref oci.Ref, report func(ProxyStep)) error
}

// ErrNoKey: secrets cannot be kept, for no key is configured.
var ErrNoKey = errors.New("no key to encrypt secrets with")

// Proxy is a pull-through cache as it is set up.
type Proxy struct {
	Spec               proxyspec.Proxy // without its secret
	Managed            bool            // not of the configuration
	Secret             bool            // it has one
	CreatedAt, Updated time.Time       // of a managed one
}

// ProxyStats is what a cache has and does.
type ProxyStats struct {
	Bytes, Budget             int64
	Manifests, Images, Pinned int
	OldestUse, NewestUse      time.Time
	Endpoints                 []ProxyEndpoint
	Hosts                     []ProxyHost
	InFlight, Queued, Stretch int
	Broken                    string // why the upstream cannot be asked at all
}

// ProxyEndpoint is an address of an upstream.
type ProxyEndpoint struct {
	Address          string
	PausedUntil      time.Time
	Limit, Remaining int64 // requests that it allows; Limit 0: not known
}

// ProxyHost is a host that was asked lately.
type ProxyHost struct {
	Host, Role, State string
	Failures          int
	Until             time.Time
}

// ProxyFreed is what was taken out of a cache.
type ProxyFreed struct {
	Images, Manifests, Blobs int
	Bytes                    int64
	Kept                     int // images that stay, for something was pushed here that refers to them
}

// ProxyProgress is how far a prefetch is.
type ProxyProgress struct {
	Manifests, Blobs, Failed int
	Bytes                    int64
}

// ProxyStep is something that a test tried.
type ProxyStep struct {
	Endpoint, Name, Detail, Advice string
	OK, Skipped                    bool
}

// Proxies lists all, by name. For admins, as are all verbs of proxies.
func (m *Manager) Proxies(ctx context.Context, c *Caller, p Page) (List[Proxy], error) {
	if _, err := m.admin(ctx, c); err != nil {
		return List[Proxy]{}, err
	}
	rows, err := m.o.Store.Proxies(ctx, p.After, p.size())
	if err != nil {
		return List[Proxy]{}, asked(err)
	}
	whole := len(rows) < p.size()
	var all []Proxy
	for _, row := range rows {
		managed, err := managedProxy(row)
		if err != nil {
			return List[Proxy]{}, err
		}
		all = append(all, managed)
	}
	all = m.withConfigured(all, p.After, whole)
	l := List[Proxy]{Items: all[:min(len(all), p.size())]}
	if len(all) > p.size() || !whole {
		l.Next = l.Items[len(l.Items)-1].Spec.Name
	}
	return l, nil
}

// withConfigured merges those of the configuration into a page: those behind
// after and, unless the page is the last, before its end.
func (m *Manager) withConfigured(page []Proxy, after string, last bool) []Proxy {
	end := ""
	if len(page) > 0 {
		end = page[len(page)-1].Spec.Name
	}
	configured, _ := m.o.Proxies.Configured()
	for _, spec := range configured {
		if spec.Name <= after || !last && spec.Name > end {
			continue
		}
		page = slices.DeleteFunc(page, func(p Proxy) bool { return p.Spec.Name == spec.Name })
		page = append(page, configuredProxy(spec))
	}
	slices.SortFunc(page, func(a, b Proxy) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	return page
}

// Proxy finds one.
func (m *Manager) Proxy(ctx context.Context, c *Caller, name string) (Proxy, error) {
	if _, err := m.admin(ctx, c); err != nil {
		return Proxy{}, err
	}
	return m.findProxy(ctx, name)
}

func (m *Manager) findProxy(ctx context.Context, name string) (Proxy, error) {
	if configured, _ := m.o.Proxies.Configured(); slices.ContainsFunc(configured, func(p proxyspec.Proxy) bool { return p.Name == name }) {
		i := slices.IndexFunc(configured, func(p proxyspec.Proxy) bool { return p.Name == name })
		return configuredProxy(configured[i]), nil
	}
	row, err := m.o.Store.Proxy(ctx, name)
	if errors.Is(err, meta.ErrNotFound) {
		return Proxy{}, missing("proxy", name)
	}
	if err != nil {
		return Proxy{}, err
	}
	return managedProxy(row)
}

func configuredProxy(spec proxyspec.Proxy) Proxy {
	p := Proxy{Spec: spec, Secret: spec.Credential.HasSecret()}
	p.Spec.Credential = spec.Credential.WithoutSecret()
	p.Spec.HTTPProxy = notation.Redacted(spec.HTTPProxy)
	return p
}

func managedProxy(row meta.Proxy) (Proxy, error) {
	p := Proxy{Managed: true, Secret: row.Secret != nil, CreatedAt: row.CreatedAt, Updated: row.UpdatedAt}
	if err := json.Unmarshal([]byte(row.Spec), &p.Spec); err != nil {
		return p, fmt.Errorf("proxy %s: what is stored of it cannot be read: %w", row.Name, err)
	}
	return p, nil
}

// PutProxy adds a proxy, or changes the one of that name to be as spec says.
// keepSecret keeps the secret that it has. Errors: Conflict.
func (m *Manager) PutProxy(ctx context.Context, c *Caller, name string, spec proxyspec.Proxy, keepSecret bool) (Proxy, error) {
	if _, err := m.admin(ctx, c); err != nil {
		return Proxy{}, err
	}
	if spec.Name != name {
		return Proxy{}, invalid("the proxy is called %.80q in the path and %.80q in the body; send one name", name, spec.Name)
	}
	before, err := m.mayPutProxy(ctx, spec)
	if err != nil {
		return Proxy{}, err
	}
	secret, err := m.proxySecret(&spec, before, keepSecret)
	if err != nil {
		return Proxy{}, err
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return Proxy{}, err
	}
	e := c.event("proxy.put")
	e.Project, e.Reference = name, name
	row, err := m.o.Store.PutProxy(ctx, meta.Change{Event: e}, meta.Proxy{Name: name, Spec: string(text), Secret: secret})
	if err != nil {
		return Proxy{}, asked(err)
	}
	if err := m.o.Proxies.Changed(ctx); err != nil {
		return Proxy{}, err
	}
	return managedProxy(row)
}

// mayPutProxy finds what keeps a proxy from being added or changed, and the one
// that is to be changed; nil: there is none.
func (m *Manager) mayPutProxy(ctx context.Context, spec proxyspec.Proxy) (before *meta.Proxy, err error) {
	configured, virtuals := m.o.Proxies.Configured()
	if slices.ContainsFunc(configured, func(p proxyspec.Proxy) bool { return p.Name == spec.Name }) {
		return nil, conflict("proxy %s is in the configuration file, which wins: change it there", spec.Name)
	}
	others := slices.Clone(configured)
	for after := ""; ; {
		rows, err := m.o.Store.Proxies(ctx, after, MaxPage)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			after = row.Name
			if row.Name == spec.Name {
				before = &row
			} else if other, err := managedProxy(row); err == nil {
				others = append(others, other.Spec)
			}
		}
		if len(rows) < MaxPage {
			break
		}
	}
	if err := proxyspec.CheckSet(append(others, spec), virtuals); err != nil {
		return nil, conflict("%v", err)
	}
	if before == nil {
		err = m.freeForProxy(ctx, spec.Name)
	}
	return before, err
}

// freeForProxy fails where the project that is to be a cache has content that
// did not come from an upstream.
func (m *Manager) freeForProxy(ctx context.Context, name string) error {
	p, err := m.o.Store.Project(ctx, name)
	switch {
	case errors.Is(err, meta.ErrNotFound):
		return nil
	case err != nil:
		return err
	case !p.DeletedAt.IsZero():
		return conflict("project %s was deleted and can still be restored: restore it, or wait until it is gone", name)
	case p.Repositories == 0:
		return nil
	}
	known, err := m.o.Store.ProxyStats(ctx, name)
	if err == nil && known.Manifests == 0 {
		err = conflict("project %s has repositories of its own: give the proxy another name", name)
	}
	return err
}

// proxySecret takes the secret out of a spec that is to be stored. nil keeps what
// there is, empty takes it away.
func (m *Manager) proxySecret(spec *proxyspec.Proxy, before *meta.Proxy, keep bool) ([]byte, error) {
	given := spec.Credential.Secret()
	check := *spec
	switch {
	case given != "" && keep:
		return nil, invalid("a secret is given and the one before is to be kept: choose one")
	case keep && (before == nil || before.Secret == nil):
		return nil, invalid("there is no secret to keep: give the password or token")
	case keep && check.Credential.Username != "":
		check.Credential.Password = "kept"
	case keep:
		check.Credential.Token = "kept"
	}
	if err := proxyspec.CheckManaged(check); err != nil {
		return nil, invalid("%v", err)
	}
	if keep {
		return nil, sameKind(before, spec)
	}
	spec.Credential = spec.Credential.WithoutSecret()
	if given == "" {
		return []byte{}, nil
	}
	sealed, err := m.o.Proxies.Seal(spec.Name, []byte(given))
	if errors.Is(err, ErrNoKey) {
		err = conflict("this server has no key to encrypt secrets with, and keeps none in the clear: set secrets.key_file in its configuration, or put the proxy with its credential into the configuration file")
	}
	return sealed, err
}

// sameKind fails where a secret that is kept would become another kind of secret,
// or go to another registry than it was given for.
func sameKind(before *meta.Proxy, spec *proxyspec.Proxy) error {
	old, err := managedProxy(*before)
	if err != nil {
		return err
	}
	if old.Spec.Credential.Username != spec.Credential.Username {
		return invalid("the secret that is kept belongs to another user name: give the password again")
	}
	if !slices.Equal(old.Spec.Endpoints(), spec.Endpoints()) || !slices.Equal(old.Spec.Realms, spec.Realms) ||
		old.Spec.HTTPProxy != spec.HTTPProxy || old.Spec.PlainHTTP != spec.PlainHTTP {
		return invalid("the secret that is kept was given for other addresses: give it again")
	}
	return nil
}

// DeleteProxy takes a proxy away. What is cached stays in its project.
func (m *Manager) DeleteProxy(ctx context.Context, c *Caller, name string) error {
	if _, err := m.managed(ctx, c, name); err != nil {
		return err
	}
	e := c.event("proxy.delete")
	e.Project, e.Reference = name, name
	if err := m.o.Store.DeleteProxy(ctx, meta.Change{Event: e}, name); err != nil {
		return asked(err)
	}
	return m.o.Proxies.Changed(ctx)
}

// managed finds a proxy that is not of the configuration.
func (m *Manager) managed(ctx context.Context, c *Caller, name string) (Proxy, error) {
	p, err := m.Proxy(ctx, c, name)
	if err == nil && !p.Managed {
		err = conflict("proxy %s is in the configuration file: change it there", name)
	}
	return p, err
}

// ProxyStats is what a cache has and how its upstream does.
func (m *Manager) ProxyStats(ctx context.Context, c *Caller, name string) (ProxyStats, error) {
	if _, err := m.Proxy(ctx, c, name); err != nil {
		return ProxyStats{}, err
	}
	return m.o.Proxies.ProxyStats(ctx, name)
}

// Image names what a verb of a proxy is about: a repository as the upstream calls
// it, and a tag or digest; both may be empty.
type Image struct{ Repository, Reference string }

// check parses what is asked for. whole says that both must be given.
func (i Image) check(proxy string, whole bool) (ref oci.Ref, err error) {
	switch {
	case i.Repository == "" && (whole || i.Reference != ""):
		return ref, invalid("repository must be given: as the upstream names it, such as library/nginx")
	case i.Reference == "" && whole:
		return ref, invalid("reference must be given: a tag or a digest")
	}
	if i.Repository != "" {
		if err := oci.CheckRepository(proxy + "/" + i.Repository); err != nil {
			return ref, invalid("repository %.80q: %v", i.Repository, err)
		}
	}
	if i.Reference != "" {
		if ref, err = oci.ParseRef(i.Reference); err != nil {
			return ref, invalid("reference %.80q: %v", i.Reference, err)
		}
	}
	return ref, nil
}

// here is the repository's name at this server, "" for all.
func (i Image) here(proxy string) string {
	if i.Repository == "" {
		return ""
	}
	return proxy + "/" + i.Repository
}

// RefreshProxy has the upstream asked again with the next pull.
func (m *Manager) RefreshProxy(ctx context.Context, c *Caller, name string, i Image) error {
	if _, err := m.imageOf(ctx, c, name, i, false); err != nil {
		return err
	}
	if err := m.o.Proxies.RefreshProxy(ctx, name, i.here(name), i.Reference); err != nil {
		return err
	}
	return m.didWith(ctx, c, "proxy.refresh", name, i)
}

// PurgeProxy takes out of a cache what came from the upstream.
func (m *Manager) PurgeProxy(ctx context.Context, c *Caller, name string, i Image) (ProxyFreed, error) {
	if _, err := m.imageOf(ctx, c, name, i, false); err != nil {
		return ProxyFreed{}, err
	}
	if err := m.didWith(ctx, c, "proxy.purge", name, i); err != nil { // it may end half way
		return ProxyFreed{}, err
	}
	return m.o.Proxies.PurgeProxy(ctx, name, i.here(name), i.Reference)
}

// PrefetchProxy brings an image into a cache. What can be found out before it
// begins has an error of its own; run then does it.
func (m *Manager) PrefetchProxy(ctx context.Context, c *Caller, name string, i Image, platforms []string) (run func(report func(ProxyProgress)) error, err error) {
	ref, err := m.imageOf(ctx, c, name, i, true)
	if err != nil {
		return nil, err
	}
	if len(platforms) > maxList {
		return nil, invalid("%d platforms; at most %d are allowed", len(platforms), maxList)
	}
	if err := m.didWith(ctx, c, "proxy.prefetch", name, i); err != nil {
		return nil, err
	}
	return func(report func(ProxyProgress)) error {
		return m.o.Proxies.PrefetchProxy(ctx, name, i.here(name), ref, platforms, report)
	}, nil
}

// TestProxy tries what a pull needs, up to the log-in, or with an image all of it.
// What can be found out before it begins has an error of its own.
func (m *Manager) TestProxy(ctx context.Context, c *Caller, name string, i Image) (run func(report func(ProxyStep)) error, err error) {
	ref, err := m.imageOf(ctx, c, name, i, i.Repository != "")
	if err != nil {
		return nil, err
	}
	return func(report func(ProxyStep)) error {
		return m.o.Proxies.TestProxy(ctx, name, i.Repository, ref, report)
	}, nil
}

// imageOf finds a proxy that a verb is about, and parses the image.
func (m *Manager) imageOf(ctx context.Context, c *Caller, name string, i Image, whole bool) (oci.Ref, error) {
	if _, err := m.Proxy(ctx, c, name); err != nil {
		return oci.Ref{}, err
	}
	return i.check(name, whole)
}

// didWith records what an administrator had done.
func (m *Manager) didWith(ctx context.Context, c *Caller, action, name string, i Image) error {
	e := c.event(action)
	e.Project, e.Repository, e.Reference = name, i.here(name), i.Reference
	return m.o.Store.AppendAudit(ctx, []audit.Event{e})
}

// noProxy fails where a project is the cache of a proxy.
func (m *Manager) noProxy(ctx context.Context, project string) error {
	_, err := m.findProxy(ctx, project)
	var own *Error
	switch {
	case err == nil:
		return conflict("project %s is the cache of a proxy, which is found by this name", project)
	case errors.As(err, &own) && own.Code == NotFound:
		return nil
	}
	return err
}
