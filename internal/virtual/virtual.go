// Package virtual joins registries under one name, so that teams pull from it and
// push to it whatever lies behind. Its one idea: the sources stand in an order,
// and no answer of a later one may take the place of one that an earlier source
// would have given, had it answered.
package virtual

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// Source is a registry behind a virtual one.
type Source struct {
	// Prefix is what its repositories begin with: NAME/x is PREFIX/x there.
	Prefix   string
	Registry registry.Registry
	// Pushes says that pushes, uploads and deletions go here. At most one source
	// takes them.
	Pushes bool
}

// Registry is several registries under one name. Who may read it may read what
// its sources give out: rights to these are their own business, and what they do
// not show to somebody is not there for him.
type Registry struct {
	name    string
	sources []Source
	pushes  *Source // nil: none
}

var _ registry.Registry = (*Registry)(nil)

// New joins the sources, in their order, under a name of one part.
func New(name string, sources []Source) (*Registry, error) {
	if err := oci.CheckRepository(name); err != nil {
		return nil, fmt.Errorf("virtual name: %w", err)
	}
	if strings.Contains(name, "/") {
		return nil, fmt.Errorf("virtual name %q has several parts; use one", name)
	}
	if len(sources) == 0 {
		return nil, fmt.Errorf("%s has no sources; name one at least", name)
	}
	v := &Registry{name: name, sources: append([]Source(nil), sources...)}
	seen := map[string]bool{}
	for i := range v.sources {
		s := &v.sources[i]
		if err := oci.CheckRepository(s.Prefix); err != nil {
			return nil, fmt.Errorf("a source of %s: %w", name, err)
		}
		switch {
		case s.Registry == nil:
			return nil, fmt.Errorf("%s: the source %s leads to no registry", name, s.Prefix)
		case seen[s.Prefix]:
			return nil, fmt.Errorf("%s: the source %s is given twice; keep one", name, s.Prefix)
		case s.Pushes && v.pushes != nil:
			return nil, fmt.Errorf("%s: the sources %s and %s both take pushes; let one", name, v.pushes.Prefix, s.Prefix)
		case s.Pushes:
			v.pushes = s
		}
		seen[s.Prefix] = true
	}
	return v, nil
}

// rest is what a repository is called behind the prefix of any source.
func (v *Registry) rest(repo string) (string, error) {
	if rest, ok := strings.CutPrefix(repo, v.name+"/"); ok {
		return rest, nil
	}
	return "", &registry.Error{Code: registry.NameUnknown, Repo: repo}
}

// at is the name of a repository in a source. Errors: NameUnknown where no
// repository of the source can have it.
func (s *Source) at(rest string) (string, error) {
	name := s.Prefix + "/" + rest
	if err := oci.CheckRepository(name); err != nil {
		return "", &registry.Error{Code: registry.NameUnknown, Repo: name, Err: err}
	}
	return name, nil
}

// writes finds the source that takes pushes, and the name of a repository there.
func (v *Registry) writes(repo string) (*Source, string, error) {
	rest, err := v.rest(repo)
	if err != nil {
		return nil, "", err
	}
	if v.pushes == nil {
		return nil, "", registry.Errorf(registry.Unsupported, repo, "%s can only be read: none of its sources takes pushes; push to a project of your own", v.name)
	}
	name, err := v.pushes.at(rest)
	if err != nil {
		return nil, "", registry.Errorf(registry.NameInvalid, repo, "the name is too long to be kept in %s", v.pushes.Prefix)
	}
	return v.pushes, name, nil
}

// absent reports whether an error says that a source does not have something.
func absent(err error) bool {
	switch registry.CodeOf(err) {
	case registry.NameUnknown, registry.ManifestUnknown, registry.BlobUnknown:
		return err != nil
	}
	return false
}

// one asks the sources in their order and answers with the first that has what is
// asked for. One that fails ends that, for it may have it; anyone says that any
// source has the same, if it has it, so that the next can be asked.
func one[T any](ctx context.Context, v *Registry, repo string, anyone bool, ask func(ctx context.Context, r registry.Registry, repo string) (T, error)) (T, error) {
	var none T
	rest, err := v.rest(repo)
	if err != nil {
		return none, err
	}
	missing := error(&registry.Error{Code: registry.NameUnknown, Repo: repo})
	var failure error
	for i := range v.sources {
		found, err := askSource(ctx, &v.sources[i], rest, ask)
		switch {
		case err == nil:
			return found, nil
		case absent(err):
			if registry.IsCode(missing, registry.NameUnknown) {
				missing = err
			}
		case !anyone || ctx.Err() != nil:
			return none, err
		default:
			failure = errors.Join(failure, err)
		}
	}
	if failure != nil {
		return none, failure
	}
	return none, missing
}

// askSource asks one source. Where its answer came from is passed on unless the
// answer is that it has nothing: then another's counts.
func askSource[T any](ctx context.Context, s *Source, rest string, ask func(ctx context.Context, r registry.Registry, repo string) (T, error)) (T, error) {
	name, err := s.at(rest)
	if err != nil {
		var none T
		return none, err
	}
	noting, told := registry.WithFreshness(ctx)
	found, err := ask(noting, s.Registry, name)
	if f := told(); f != nil && !absent(err) {
		registry.NoteFreshness(ctx, *f)
	}
	return found, err
}
