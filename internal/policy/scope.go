package policy

import (
	"context"
	"slices"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// The resources and actions of scopes.
const (
	typeRepository = "repository"
	typeRegistry   = "registry"
	nameCatalog    = "catalog"
	everything     = "*"
)

// actions of scopes, by the right that each stands for.
var actions = [...]string{access.Pull: "pull", access.Push: "push", access.Delete: "delete"}

// Allow is what of the actions of a scope id may do now, for a token that is
// asked for: in the order pull, push, delete, each once. It is what For would
// allow a caller without a token, and claims nothing; read-only mode takes
// nothing away, so that who is refused later learns of that mode instead of
// asking for a better token for ever. Scopes of unknown types and names have no
// actions. Errors: Unauthorized where the credential does not count any more.
func (p *Policy) Allow(ctx context.Context, id auth.Identity, scope auth.Scope) ([]string, error) {
	if _, err := p.standing(ctx, &id); err != nil {
		return nil, err
	}
	switch scope.Type {
	case typeRegistry:
		if scope.Name == nameCatalog && slices.Contains(scope.Actions, everything) && hasScope(&id, typeRegistry, nameCatalog, everything) {
			return []string{everything}, nil
		}
	case typeRepository:
		return p.allowRepository(ctx, &id, scope)
	}
	return nil, nil
}

func (p *Policy) allowRepository(ctx context.Context, id *auth.Identity, scope auth.Scope) (allowed []string, err error) {
	if oci.CheckRepository(scope.Name) != nil {
		return nil, nil
	}
	for right, action := range actions {
		right := access.Right(right)
		if !slices.Contains(scope.Actions, action) && !slices.Contains(scope.Actions, everything) || !scoped(id, scope.Name, right) {
			continue
		}
		v, err := p.ask(ctx, id, scope.Name, right)
		if err != nil {
			return nil, err
		}
		if v.reason == "" {
			allowed = append(allowed, action)
		}
	}
	return allowed, nil
}

// unnamed actions are about repositories that no client named, so that no token
// can have been asked for them: the items of a list, and what a mount finds.
func unnamed(a registry.Action) bool { return a == registry.RepositoriesList || a == registry.BlobFind }

// scoped reports whether the caller's token, if there is one, was asked for a
// right on a repository.
func scoped(id *auth.Identity, repo string, right access.Right) bool {
	return hasScope(id, typeRepository, repo, actions[right])
}

func hasScope(id *auth.Identity, kind, name, action string) bool {
	if id.Scopes == nil {
		return true
	}
	for i := range *id.Scopes {
		s := &(*id.Scopes)[i]
		if s.Type == kind && s.Name == name && (slices.Contains(s.Actions, action) || slices.Contains(s.Actions, everything)) {
			return true
		}
	}
	return false
}

// checkWhole checks what names no repository: the list of all of them, whose
// items are judged one by one, and a mount from wherever a blob is. The latter
// is for those who may read everything, with a credential that nothing bounds.
func (p *Policy) checkWhole(ctx context.Context, id *auth.Identity, op *registry.Op) error {
	s, err := p.standing(ctx, id)
	switch {
	case err != nil:
		return err
	case op.Action == registry.RepositoriesList && id.Kind == access.Anonymous && id.Scopes == nil:
		return refused(id, op, access.Pull, verdict{reason: "repositories are listed for who has a token"})
	case op.Action == registry.RepositoriesList:
		if !hasScope(id, typeRegistry, nameCatalog, everything) {
			return insufficientScope(op)
		}
		return nil
	case op.Action == registry.BlobFind && s.Subject.Admin && s.Covers("") && id.Scopes == nil:
		return nil
	}
	return refused(id, op, rightFor(op.Action), verdict{reason: "no right on the whole registry"})
}
