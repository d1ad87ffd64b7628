package virtual

import (
	"context"
	"iter"
	"strings"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// A tag is that of the first source that has it: where one fails, no later one's
// takes its place, for that may be another's image of the same name. What a
// digest names is the same wherever it comes from.

func (v *Registry) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	return one(ctx, v, repo, ref.IsDigest(), func(ctx context.Context, r registry.Registry, repo string) (oci.Descriptor, error) {
		return r.Resolve(ctx, repo, ref)
	})
}

func (v *Registry) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	return one(ctx, v, repo, ref.IsDigest(), func(ctx context.Context, r registry.Registry, repo string) (registry.Manifest, error) {
		return r.Manifest(ctx, repo, ref)
	})
}

func (v *Registry) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	return one(ctx, v, repo, true, func(ctx context.Context, r registry.Registry, repo string) (registry.Blob, error) {
		return r.Blob(ctx, repo, d)
	})
}

// Tags are those of all sources. Where one fails there is no list: a part of it
// would look like the whole.
func (v *Registry) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return all(v, repo, strings.Compare, func(r registry.Registry, repo string) iter.Seq2[string, error] {
		return r.Tags(ctx, repo, after)
	})
}

// Referrers are those of all sources. Where one fails there is no list: a part of
// it would read as "not signed".
func (v *Registry) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	byDigest := func(a, b oci.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) }
	return all(v, repo, byDigest, func(r registry.Registry, repo string) iter.Seq2[oci.Descriptor, error] {
		return r.Referrers(ctx, repo, subject, artifactType, after)
	})
}

// all joins the lists of all sources that know the repository. Errors:
// NameUnknown where none does.
func all[T any](v *Registry, repo string, compare func(a, b T) int, open func(r registry.Registry, repo string) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		rest, err := v.rest(repo)
		if err != nil {
			yield(none, err)
			return
		}
		known := false
		lists := make([]iter.Seq2[T, error], len(v.sources))
		for i := range v.sources {
			lists[i] = listOf(&v.sources[i], rest, &known, open)
		}
		for item, err := range registry.Union(compare, lists...) {
			if !yield(item, err) || err != nil {
				return
			}
		}
		if !known {
			yield(none, &registry.Error{Code: registry.NameUnknown, Repo: repo})
		}
	}
}

// listOf is the list of one source; it is empty, and known stays as it is, where
// the source does not know the repository.
func listOf[T any](s *Source, rest string, known *bool, open func(r registry.Registry, repo string) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		name, err := s.at(rest)
		if err != nil {
			return
		}
		for item, err := range open(s.Registry, name) {
			if registry.IsCode(err, registry.NameUnknown) {
				return
			}
			*known = true
			if !yield(item, err) || err != nil {
				return
			}
		}
		*known = true
	}
}

// Repositories are those of all sources; one that cannot list has none.
func (v *Registry) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	rest, inside := strings.CutPrefix(after, v.name+"/")
	switch {
	case !inside && after > v.name+"/":
		return func(func(string, error) bool) {}
	case !inside:
		rest = ""
	}
	lists := make([]iter.Seq2[string, error], len(v.sources))
	for i := range v.sources {
		lists[i] = v.names(ctx, &v.sources[i], rest)
	}
	return registry.Union(strings.Compare, lists...)
}

// names lists the repositories of a source behind rest, as they are called here.
func (v *Registry) names(ctx context.Context, s *Source, rest string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		// They lie behind "PREFIX/" and before "PREFIX0": '0' is the byte behind '/'.
		for there, err := range s.Registry.Repositories(ctx, s.Prefix+"/"+rest) {
			if registry.IsCode(err, registry.Unsupported) || err == nil && there >= s.Prefix+"0" {
				return
			}
			name := v.called(s, there)
			if err == nil && name == "" {
				continue
			}
			if !yield(name, err) || err != nil {
				return
			}
		}
	}
}

// called is what a repository of a source is called here; "": it is not here.
func (v *Registry) called(s *Source, there string) string {
	rest, ok := strings.CutPrefix(there, s.Prefix+"/")
	if name := v.name + "/" + rest; ok && oci.CheckRepository(name) == nil {
		return name
	}
	return ""
}

// Holders are those of the source that takes pushes: nothing is mounted from others.
func (v *Registry) Holders(ctx context.Context, near string, d oci.Digest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		s, near, err := v.writes(near)
		if err != nil {
			return
		}
		for there, err := range s.Registry.Holders(ctx, near, d) {
			name := v.called(s, there)
			if err == nil && name == "" {
				continue
			}
			if !yield(name, err) || err != nil {
				return
			}
		}
	}
}
