// Package policy decides who may do what. Its one idea: one function judges a
// subject as the directory knows it now against a repository, and everything
// that asks (an operation, the grant of a token, an item of a list) asks it.
package policy

import (
	"context"
	"errors"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/directory"
	"github.com/berth-registry/berth/internal/registry"
)

// Store is the database that the directory remembers; *meta.DB is one.
type Store interface {
	// ClaimProject makes a user the owner of a project that nobody has claimed,
	// which is made if it does not exist. won says whether it was this call.
	// Errors: access.ErrNotFound, of a user who is gone or locked.
	ClaimProject(ctx context.Context, name, userID string) (won bool, err error)

	// CatchUp makes look-ups that begin from now on see all that was changed
	// before, by whatever process.
	CatchUp(ctx context.Context) error
}

// Options of New; the zero value lets only those in who have a role.
type Options struct {
	// Newcomers holds for projects that have no setting of their own; "" is
	// access.Closed.
	Newcomers access.Newcomers
	// Reserved says of which projects nobody becomes the owner by writing to them,
	// and which are closed to newcomers unless their own setting says otherwise:
	// what stands behind them is not this registry's alone. nil: of none.
	Reserved func(project string) bool
	// ReadOnly refuses everything that writes or deletes, whoever asks.
	ReadOnly bool
}

// Policy decides from what the directory knows at that moment and remembers
// nothing itself. It is safe for concurrent use.
type Policy struct {
	dir   *directory.Directory
	store Store
	o     Options
}

// New returns a policy over a directory and the database that it remembers.
func New(dir *directory.Directory, store Store, o Options) *Policy {
	if o.Newcomers == "" {
		o.Newcomers = access.Closed
	}
	if o.Reserved == nil {
		o.Reserved = func(string) bool { return false }
	}
	return &Policy{dir: dir, store: store, o: o}
}

// For is what id may do, as a check of every operation. It asks, in order:
// whether the credential still counts, whether the repository is there for the
// subject, whether role, key and token allow the action, and whether the
// registry takes changes. Each refusal wraps a *Refusal:
//
//   - Unauthorized: log-in is required, or another token.
//   - NameUnknown: a signed-in caller may not read this. It says the same of a
//     repository that does not exist.
//   - Denied: a signed-in caller may not write or delete this.
//   - Unsupported: the registry is read-only and the caller may do this
//     otherwise. A client then neither asks for other credentials, as after
//     Denied, nor tries again, as after Unavailable.
//
// The first write to an unclaimed project by a user who may claim it makes that
// user its owner. Other errors mean that nothing could be found out.
func (p *Policy) For(id auth.Identity) registry.Check {
	return func(ctx context.Context, op registry.Op) error { return p.check(ctx, &id, &op) }
}

// Behind is what id may do with repositories that stand behind another name,
// under which it asked and For let it in. It is For, but for what a token was asked
// for: nobody can have asked for these names. The anonymous are not asked to log in
// for what they may not read: what they asked for may be elsewhere. Of all
// repositories together nothing is said: each is asked for.
func (p *Policy) Behind(id auth.Identity) registry.Check {
	id.Scopes = nil
	return func(ctx context.Context, op registry.Op) error {
		switch {
		case op.Repo != "":
		case op.Action == registry.RepositoriesList:
			return nil
		default:
			return refused(&id, &op, rightFor(op.Action), verdict{reason: "no right on the whole registry"})
		}
		err := p.check(ctx, &id, &op)
		if rightFor(op.Action) == access.Pull && registry.IsCode(err, registry.Unauthorized) {
			return &registry.Error{Code: registry.NameUnknown, Repo: op.Repo, Err: err}
		}
		return err
	}
}

func (p *Policy) check(ctx context.Context, id *auth.Identity, op *registry.Op) error {
	if op.Repo == "" {
		return p.checkWhole(ctx, id, op)
	}
	right := rightFor(op.Action)
	v, err := p.ask(ctx, id, op.Repo, right)
	if err == nil && v.reason != "" && right == access.Push && id.Kind == access.User {
		// Another request of the same push may just have claimed the project.
		v, err = p.askAgain(ctx, id, op.Repo, right)
	}
	switch {
	case err != nil:
		return err
	case v.reason != "":
		return refused(id, op, right, v)
	case !v.public && !unnamed(op.Action) && !scoped(id, op.Repo, right):
		return insufficientScope(op)
	case p.o.ReadOnly && right != access.Pull:
		return readOnly(op)
	case v.claims:
		return p.claim(ctx, id, op, right)
	}
	return nil
}

// ask judges the caller by what the directory knows.
func (p *Policy) ask(ctx context.Context, id *auth.Identity, repo string, right access.Right) (verdict, error) {
	s, err := p.standing(ctx, id)
	if err != nil {
		return verdict{}, err
	}
	project, err := p.dir.Project(ctx, access.ProjectOf(repo)) // nil: there is none
	if err != nil && !errors.Is(err, access.ErrNotFound) {
		return verdict{}, err
	}
	return p.judge(&s, project, repo, right), nil
}

// askAgain is ask by what the database holds at this moment: of what was changed
// meanwhile, here or by another server, the directory may know a part.
func (p *Policy) askAgain(ctx context.Context, id *auth.Identity, repo string, right access.Right) (verdict, error) {
	if err := p.store.CatchUp(ctx); err != nil {
		return verdict{}, err
	}
	return p.ask(ctx, id, repo, right)
}

// standing is what the caller is now. It fails with Unauthorized where the
// credential does not count any more.
func (p *Policy) standing(ctx context.Context, id *auth.Identity) (directory.Standing, error) {
	s, err := p.dir.Standing(ctx, &id.Principal)
	if err == nil {
		return s, nil
	}
	if lapsed := (*directory.LapsedError)(nil); errors.As(err, &lapsed) {
		err = lapsedCredential(id, lapsed)
	}
	return s, err
}

// claim makes a user the owner of the project that is first written to. Who
// comes too late is judged by what holds then.
func (p *Policy) claim(ctx context.Context, id *auth.Identity, op *registry.Op, right access.Right) error {
	won, err := p.store.ClaimProject(ctx, access.ProjectOf(op.Repo), id.ID)
	if won || err != nil && !errors.Is(err, access.ErrNotFound) {
		return err
	}
	v, err := p.askAgain(ctx, id, op.Repo, right)
	if v.claims {
		v.reason = "the project was not to be claimed"
	}
	if err != nil || v.reason == "" {
		return err
	}
	return refused(id, op, right, v)
}

// rightFor is the right that an action needs.
func rightFor(a registry.Action) access.Right {
	switch {
	case a.Reads():
		return access.Pull
	case a.Writes():
		return access.Push
	}
	return access.Delete
}
