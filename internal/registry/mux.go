package registry

import (
	"context"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"

	"github.com/berth-registry/berth/internal/oci"
)

// Route sends the repository Prefix, and all whose names begin with Prefix and
// a slash, to a registry.
type Route struct {
	Prefix   string
	Registry Registry
}

// covers reports whether name lies under the route. The empty prefix is the
// fallback's and covers all.
func (r *Route) covers(name string) bool {
	rest, ok := strings.CutPrefix(name, r.Prefix)
	return ok && (rest == "" || rest[0] == '/' || r.Prefix == "")
}

// Mux joins registries into one by the names of repositories. Names are passed
// on unchanged.
type Mux struct {
	routes []Route // longest prefix first; the fallback, if any, last
}

var _ Registry = (*Mux)(nil)

// NewMux joins the routes; the longest prefix wins. A name that no route
// covers belongs to fallback or, where that is nil, is unknown.
func NewMux(fallback Registry, routes ...Route) (*Mux, error) {
	sorted := slices.Clone(routes)
	slices.SortFunc(sorted, func(a, b Route) int {
		if d := len(b.Prefix) - len(a.Prefix); d != 0 {
			return d
		}
		return strings.Compare(a.Prefix, b.Prefix)
	})
	for i, r := range sorted {
		if err := oci.CheckRepository(r.Prefix); err != nil {
			return nil, fmt.Errorf("route %q: %w", r.Prefix, err)
		}
		if r.Registry == nil {
			return nil, fmt.Errorf("route %q leads to no registry", r.Prefix)
		}
		if i > 0 && sorted[i-1].Prefix == r.Prefix {
			return nil, fmt.Errorf("route %q is given twice; keep one", r.Prefix)
		}
	}
	if fallback != nil {
		sorted = append(sorted, Route{Registry: fallback})
	}
	return &Mux{routes: sorted}, nil
}

// route finds the index of the route that repo takes, -1 for none.
func (m *Mux) route(repo string) int {
	return slices.IndexFunc(m.routes, func(r Route) bool { return r.covers(repo) })
}

func (m *Mux) find(repo string) (Registry, error) {
	if i := m.route(repo); i >= 0 {
		return m.routes[i].Registry, nil
	}
	return nil, &Error{Code: NameUnknown, Repo: repo}
}

func (m *Mux) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	r, err := m.find(repo)
	if err != nil {
		return oci.Descriptor{}, err
	}
	return r.Resolve(ctx, repo, ref)
}

func (m *Mux) Manifest(ctx context.Context, repo string, ref oci.Ref) (Manifest, error) {
	r, err := m.find(repo)
	if err != nil {
		return Manifest{}, err
	}
	return r.Manifest(ctx, repo, ref)
}

func (m *Mux) Blob(ctx context.Context, repo string, d oci.Digest) (Blob, error) {
	r, err := m.find(repo)
	if err != nil {
		return nil, err
	}
	return r.Blob(ctx, repo, d)
}

func (m *Mux) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	r, err := m.find(repo)
	if err != nil {
		return func(yield func(string, error) bool) { yield("", err) }
	}
	return r.Tags(ctx, repo, after)
}

func (m *Mux) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	r, err := m.find(repo)
	if err != nil {
		return func(func(oci.Descriptor, error) bool) {}
	}
	return r.Referrers(ctx, repo, subject, artifactType, after)
}

func (m *Mux) PutManifest(ctx context.Context, repo string, man Manifest, tags ...string) (PutResult, error) {
	r, err := m.find(repo)
	if err != nil {
		return PutResult{}, err
	}
	return r.PutManifest(ctx, repo, man, tags...)
}

// Mount works within one registry. An empty from stands for any repository of
// the registry that repo belongs to.
func (m *Mux) Mount(ctx context.Context, repo, from string, d oci.Digest) (oci.Descriptor, error) {
	to, err := m.find(repo)
	if err != nil {
		return oci.Descriptor{}, err
	}
	if from != "" {
		source, err := m.find(from)
		if err != nil {
			return oci.Descriptor{}, &Error{Code: BlobUnknown, Repo: repo, Err: err}
		}
		if !same(to, source) {
			return oci.Descriptor{}, Errorf(Unsupported, repo, "%s is kept in another registry; push the blob", from)
		}
	}
	return to.Mount(ctx, repo, from, d)
}

// Holders are those of the registry that near belongs to: nothing is mounted
// across two.
func (m *Mux) Holders(ctx context.Context, near string, d oci.Digest) iter.Seq2[string, error] {
	r, err := m.find(near)
	if err != nil {
		return func(func(string, error) bool) {}
	}
	return r.Holders(ctx, near, d)
}

// same compares registries without panicking for types that have no ==.
func same(a, b Registry) bool {
	return reflect.TypeOf(a).Comparable() && a == b
}

func (m *Mux) StartUpload(ctx context.Context, repo string, o UploadOptions) (Upload, error) {
	r, err := m.find(repo)
	if err != nil {
		return nil, err
	}
	return r.StartUpload(ctx, repo, o)
}

func (m *Mux) ResumeUpload(ctx context.Context, repo, id string) (Upload, error) {
	r, err := m.find(repo)
	if err != nil {
		return nil, &Error{Code: UploadUnknown, Repo: repo, Err: err}
	}
	return r.ResumeUpload(ctx, repo, id)
}

func (m *Mux) DeleteTag(ctx context.Context, repo, tag string) error {
	r, err := m.find(repo)
	if err != nil {
		return err
	}
	return r.DeleteTag(ctx, repo, tag)
}

func (m *Mux) DeleteManifest(ctx context.Context, repo string, d oci.Digest) error {
	r, err := m.find(repo)
	if err != nil {
		return err
	}
	return r.DeleteManifest(ctx, repo, d)
}

func (m *Mux) DeleteBlob(ctx context.Context, repo string, d oci.Digest) error {
	r, err := m.find(repo)
	if err != nil {
		return err
	}
	return r.DeleteBlob(ctx, repo, d)
}
