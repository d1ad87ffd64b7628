package app

import (
	"context"
	"io"
	"iter"
	"net/http"
	"sync"

	"github.com/berth-registry/berth/internal/namespace"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// routes are the registries that requests go to, at one time. They are never
// changed: others take their place.
type routes struct {
	mux     *registry.Mux
	table   *namespace.Table
	proxies map[string]*running
	wanted  []wanted // what they were made of

	mu    sync.Mutex
	users int // who counts on them, themselves included while they are the current ones
}

// hold lets what the routes lead to stay, unless they have ended.
func (r *routes) hold() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users == 0 {
		return false
	}
	r.users++
	return true
}

// release ends a hold. The last one lets go of the proxies.
func (r *routes) release() {
	r.mu.Lock()
	r.users--
	last := r.users == 0
	r.mu.Unlock()
	if last {
		for _, p := range r.proxies {
			p.release()
		}
	}
}

// names are those of the proxies.
func (r *routes) names() *map[string]bool {
	all := map[string]bool{}
	for name := range r.proxies {
		all[name] = true
	}
	return &all
}

type routesKey struct{}

// held are the current routes, which stay until release.
func (p *proxies) held() *routes {
	for {
		if r := p.current.Load(); r.hold() {
			return r
		}
	}
}

// routed has a request keep its routes to its end, and its repository found.
func (p *proxies) routed(next http.Handler) http.Handler {
	found := namespace.Handler(func(r *http.Request) *namespace.Table { return p.routesOf(r.Context()).table }, next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		held := p.held()
		defer held.release()
		found.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), routesKey{}, held)))
	})
}

// routesOf are those that a request keeps, or the current ones.
func (p *proxies) routesOf(ctx context.Context) *routes {
	if r, ok := ctx.Value(routesKey{}).(*routes); ok {
		return r
	}
	return p.current.Load()
}

// repository is the name here of what a client calls a repository.
func (p *proxies) repository(r *http.Request, name string) string {
	return p.current.Load().table.Repository(r, name)
}

// serves reports whether a request came by a name that was given to a proxy.
func (p *proxies) serves(r *http.Request) bool { return p.current.Load().table.HostOf(r) != "" }

// live is the registry that the routes of a request lead to. Of what stands behind
// a virtual project each source is asked for with behind.
type live struct {
	p      *proxies
	behind registry.Check
}

var _ registry.Registry = live{}

func (l live) of(ctx context.Context) registry.Registry { return l.p.routesOf(ctx).mux }

// behindKey is that of a registry.Check in the context of a request.
type behindKey struct{}

func (l live) with(ctx context.Context) context.Context {
	return context.WithValue(ctx, behindKey{}, l.behind)
}

// behind is the source of a virtual project, as who asks may use it.
func behind(source registry.Registry) registry.Registry {
	return registry.Guard(source, func(ctx context.Context, op registry.Op) error {
		check, ok := ctx.Value(behindKey{}).(registry.Check)
		if !ok || check == nil {
			return registry.Errorf(registry.Internal, op.Repo, "it is not known who asks")
		}
		return check(ctx, op)
	})
}

// heldUpload is asked for again when it commits.
type heldUpload struct {
	registry.Upload
	live live
}

func (u heldUpload) Commit(ctx context.Context, off int64, r io.Reader, d oci.Digest) (oci.Descriptor, error) {
	return u.Upload.Commit(u.live.with(ctx), off, r, d)
}

func (l live) upload(u registry.Upload, err error) (registry.Upload, error) {
	if err != nil {
		return nil, err
	}
	return heldUpload{u, l}, nil
}

func (l live) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	return l.of(ctx).Resolve(l.with(ctx), repo, ref)
}

func (l live) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	return l.of(ctx).Manifest(l.with(ctx), repo, ref)
}

func (l live) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	return l.of(ctx).Blob(l.with(ctx), repo, d)
}

func (l live) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return l.of(ctx).Tags(l.with(ctx), repo, after)
}

func (l live) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return l.of(ctx).Referrers(l.with(ctx), repo, subject, artifactType, after)
}

func (l live) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return l.of(ctx).Repositories(l.with(ctx), after)
}

func (l live) Holders(ctx context.Context, near string, d oci.Digest) iter.Seq2[string, error] {
	return l.of(ctx).Holders(l.with(ctx), near, d)
}

func (l live) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags ...string) (registry.PutResult, error) {
	return l.of(ctx).PutManifest(l.with(ctx), repo, m, tags...)
}

func (l live) Mount(ctx context.Context, repo, from string, d oci.Digest) (oci.Descriptor, error) {
	return l.of(ctx).Mount(l.with(ctx), repo, from, d)
}

func (l live) StartUpload(ctx context.Context, repo string, o registry.UploadOptions) (registry.Upload, error) {
	return l.upload(l.of(ctx).StartUpload(l.with(ctx), repo, o))
}

func (l live) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	return l.upload(l.of(ctx).ResumeUpload(l.with(ctx), repo, id))
}

func (l live) DeleteTag(ctx context.Context, repo, tag string) error {
	return l.of(ctx).DeleteTag(l.with(ctx), repo, tag)
}

func (l live) DeleteManifest(ctx context.Context, repo string, d oci.Digest) error {
	return l.of(ctx).DeleteManifest(l.with(ctx), repo, d)
}

func (l live) DeleteBlob(ctx context.Context, repo string, d oci.Digest) error {
	return l.of(ctx).DeleteBlob(l.with(ctx), repo, d)
}
