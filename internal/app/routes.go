package app

import (
	"context"
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

// live is the registry that the routes of a request lead to.
type live struct{ p *proxies }

var _ registry.Registry = live{}

func (l live) of(ctx context.Context) registry.Registry { return l.p.routesOf(ctx).mux }

func (l live) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	return l.of(ctx).Resolve(ctx, repo, ref)
}

func (l live) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	return l.of(ctx).Manifest(ctx, repo, ref)
}

func (l live) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	return l.of(ctx).Blob(ctx, repo, d)
}

func (l live) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return l.of(ctx).Tags(ctx, repo, after)
}

func (l live) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return l.of(ctx).Referrers(ctx, repo, subject, artifactType, after)
}

func (l live) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return l.of(ctx).Repositories(ctx, after)
}

func (l live) Holders(ctx context.Context, near string, d oci.Digest) iter.Seq2[string, error] {
	return l.of(ctx).Holders(ctx, near, d)
}

func (l live) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags ...string) (registry.PutResult, error) {
	return l.of(ctx).PutManifest(ctx, repo, m, tags...)
}

func (l live) Mount(ctx context.Context, repo, from string, d oci.Digest) (oci.Descriptor, error) {
	return l.of(ctx).Mount(ctx, repo, from, d)
}

func (l live) StartUpload(ctx context.Context, repo string, o registry.UploadOptions) (registry.Upload, error) {
	return l.of(ctx).StartUpload(ctx, repo, o)
}

func (l live) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	return l.of(ctx).ResumeUpload(ctx, repo, id)
}

func (l live) DeleteTag(ctx context.Context, repo, tag string) error {
	return l.of(ctx).DeleteTag(ctx, repo, tag)
}

func (l live) DeleteManifest(ctx context.Context, repo string, d oci.Digest) error {
	return l.of(ctx).DeleteManifest(ctx, repo, d)
}

func (l live) DeleteBlob(ctx context.Context, repo string, d oci.Digest) error {
	return l.of(ctx).DeleteBlob(ctx, repo, d)
}
