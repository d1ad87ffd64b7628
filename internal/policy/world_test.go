package policy_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/directory"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/policy"
	"github.com/berth-registry/berth/internal/registry"
)

// world is a policy over a database of its own.
type world struct {
	testing.TB
	path string
	db   *meta.DB
	dir  *directory.Directory
	*policy.Policy
}

// none is a change that nobody made.
var none meta.Change

func newWorld(t testing.TB, o policy.Options) *world {
	t.Helper()
	w := &world{TB: t, path: metatest.File(t)}
	w.open(o, false)
	w.user("root") // the first one is an admin
	return w
}

// open opens the database for this world.
func (w *world) open(o policy.Options, shared bool) {
	w.Helper()
	db, err := meta.Open(w.Context(), meta.Options{Path: w.path, Shared: shared})
	w.ok(err)
	w.Cleanup(func() { db.Close() })
	w.db, w.dir = db, directory.New(db)
	w.Policy = policy.New(w.dir, db, o)
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// user makes a user.
func (w *world) user(name string) auth.Identity {
	w.Helper()
	u, err := w.db.CreateUser(w.Context(), none, meta.UserSpec{Name: name})
	w.ok(err)
	return auth.Identity{Principal: access.Principal{Kind: access.User, ID: u.ID, Name: name}}
}

// project makes a private project; one with a setting for newcomers is not
// claimed.
func (w *world) project(name string, newcomers access.Newcomers) string {
	w.Helper()
	p, err := w.db.CreateProject(w.Context(), none, meta.ProjectSpec{Name: name, Visibility: access.Private, Newcomers: newcomers})
	w.ok(err)
	return p.ID
}

func (w *world) show(project string, v access.Visibility) {
	w.Helper()
	w.ok(w.db.SetProject(w.Context(), none, project, meta.ProjectChange{Visibility: &v}))
}

// member makes a user with a role at a prefix of a project.
func (w *world) member(name, project, prefix string, role access.Role) auth.Identity {
	w.Helper()
	id := w.user(name)
	_, err := w.db.PutMember(w.Context(), none, meta.Member{User: name, ProjectID: project, Prefix: prefix, Role: role})
	w.ok(err)
	return id
}

// key makes a key; a user's comes with the user's identity.
func (w *world) key(k access.Key) auth.Identity {
	w.Helper()
	k, err := w.db.CreateKey(w.Context(), none, k, "hash of "+k.Name)
	w.ok(err)
	p := access.Principal{Kind: access.User, ID: k.UserID, KeyID: k.ID}
	if k.ProjectID != "" {
		p.Kind, p.ID = access.Robot, k.ID
	}
	return auth.Identity{Principal: p}
}

// rule makes a trust rule and returns a job that it let in.
func (w *world) rule(r access.TrustRule) auth.Identity {
	w.Helper()
	r, err := w.db.CreateTrustRule(w.Context(), none, r)
	w.ok(err)
	return auth.Identity{Principal: access.Principal{Kind: access.Workload, ID: r.ID}}
}

// token is the identity with a token that was asked for the scopes.
func token(id auth.Identity, scopes ...auth.Scope) auth.Identity {
	scopes = slices.Clip(scopes)
	id.Scopes = &scopes
	return id
}

func scope(repo string, actions ...string) auth.Scope {
	return auth.Scope{Type: "repository", Name: repo, Actions: actions}
}

var catalog = auth.Scope{Type: "registry", Name: "catalog", Actions: []string{"*"}}

var (
	pull   = registry.ManifestRead
	push   = registry.UploadStart
	remove = registry.ManifestDelete
)

// ask asks the check of an identity.
func (w *world) ask(id auth.Identity, a registry.Action, repo string) error {
	return w.For(id)(w.Context(), registry.Op{Action: a, Repo: repo})
}

func (w *world) may(what string, id auth.Identity, a registry.Action, repo string) {
	w.Helper()
	if err := w.ask(id, a, repo); err != nil {
		w.Errorf("%s: %s of %q: %v", what, a, repo, err)
	}
}

// mayNot checks the code of a refusal, which says why.
func (w *world) mayNot(what string, id auth.Identity, a registry.Action, repo string, want registry.Code) error {
	w.Helper()
	err := w.ask(id, a, repo)
	if !registry.IsCode(err, want) {
		w.Errorf("%s: %s of %q: %v, want %v", what, a, repo, err, want)
	}
	if r := (*policy.Refusal)(nil); !errors.As(err, &r) || r.AuditReason() == "" {
		w.Errorf("%s: %s of %q is refused without a reason: %v", what, a, repo, err)
	}
	return err
}

// wantRights checks which of pull, push and delete an identity has; what it has
// not is refused as it must be.
func (w *world) wantRights(what string, id auth.Identity, repo string, rights ...registry.Action) {
	w.Helper()
	for _, a := range []registry.Action{pull, push, remove} {
		switch {
		case slices.Contains(rights, a):
			w.may(what, id, a, repo)
		case id.Kind == access.Anonymous:
			w.mayNot(what, id, a, repo, registry.Unauthorized)
		case a == pull:
			w.mayNot(what, id, a, repo, registry.NameUnknown)
		default:
			w.mayNot(what, id, a, repo, registry.Denied)
		}
	}
}

var (
	anonymous = auth.Identity{}
	local     = auth.Identity{Principal: access.Principal{Kind: access.Local}}
)

// claimer is a store where every claim fails, or is lost.
type claimer struct{ err error }

func (c claimer) ClaimProject(context.Context, string, string) (bool, error) { return false, c.err }

func (c claimer) CatchUp(context.Context) error { return nil }
