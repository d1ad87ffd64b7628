package policy_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/policy"
	"github.com/berth-registry/berth/internal/registry"
)

func (w *world) wantAllowed(id auth.Identity, s auth.Scope, want ...string) {
	w.Helper()
	got, err := w.Allow(w.Context(), id, s)
	if err != nil || !slices.Equal(got, want) {
		w.Errorf("%s of %s:%s%q gets %q, %v; want %q", id.String(), s.Type, s.Name, s.Actions, got, err, want)
	}
}

func TestAllow(t *testing.T) {
	w := newWorld(t, policy.Options{Newcomers: access.Claim})
	acme := w.project("acme", "")
	all := []string{"delete", "*", "push", "pull", "pull", "fly", ""}
	for role, want := range map[access.Role][]string{
		access.Reader: {"pull"}, access.Writer: {"pull", "push"}, access.Maintainer: {"pull", "push", "delete"}, access.Owner: {"pull", "push", "delete"},
	} {
		id := w.member(role.String(), acme, "", role)
		w.wantAllowed(id, scope("acme/app", all...), want...)
		w.wantAllowed(id, scope("acme/app", "*"), want...)
		w.wantAllowed(id, scope("acme/app", "pull"), "pull")
		w.wantAllowed(id, scope("acme/app"))
	}
	alice := w.user("alice")
	w.wantAllowed(alice, scope("acme/app", all...))
	w.wantAllowed(anonymous, scope("acme/app", all...))
	w.show(acme, access.Internal)
	w.wantAllowed(alice, scope("acme/app", all...), "pull")
	w.wantAllowed(anonymous, scope("acme/app", all...))
	w.show(acme, access.Public)
	w.wantAllowed(anonymous, scope("acme/app", all...), "pull")
	w.wantAllowed(local, scope("acme/app", all...), "pull", "push", "delete")

	w.wantAllowed(alice, scope("new/app", all...), "pull", "push")
	w.wantAllowed(anonymous, scope("new/app", all...), "pull", "push")
	if _, err := w.db.Project(t.Context(), "new"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("asking for a token has made a project: %v", err)
	}
	w.may("the first push", alice, push, "new/app")
	w.wantAllowed(alice, scope("new/app", all...), "pull", "push", "delete")
	w.wantAllowed(anonymous, scope("new/app", all...))
}

func TestAllowOtherThings(t *testing.T) {
	w := newWorld(t, policy.Options{Newcomers: access.Open})
	alice := w.user("alice")
	for _, id := range []auth.Identity{alice, anonymous, local} {
		w.wantAllowed(id, catalog, "*")
		for _, s := range []auth.Scope{
			{}, {Type: "registry", Name: "catalog", Actions: []string{"pull"}}, {Type: "registry", Name: "other", Actions: []string{"*"}},
			{Type: "plugin", Name: "acme/app", Actions: []string{"pull"}}, scope("", "pull"), scope("ACME/app", "pull"),
			scope("acme//app", "pull"), scope("../app", "*"), scope("acme/app\n", "pull"), {Name: "acme/app", Actions: []string{"pull"}},
		} {
			w.wantAllowed(id, s)
		}
	}
	w.wantAllowed(token(alice, scope("acme/app", "pull")), scope("acme/app", "pull", "push"), "pull")
	w.wantAllowed(token(alice), catalog)
}

func TestTokensAreBoundByTheirScopes(t *testing.T) {
	w := newWorld(t, policy.Options{})
	acme := w.project("acme", "")
	owner, alice := w.member("owner", acme, "", access.Owner), w.user("alice")
	reading := token(owner, scope("acme/other", "*"), scope("acme/app", "pull"))
	w.may("a token that may pull", reading, pull, "acme/app")
	for _, id := range []auth.Identity{reading, token(owner), token(owner, scope("acme/app/sub", "*")), token(owner, auth.Scope{Type: "x", Name: "acme/app", Actions: []string{"*"}})} {
		for _, a := range []registry.Action{push, remove} {
			if err := w.mayNot("a token that was not asked for it", id, a, "acme/app", registry.Unauthorized); !errors.Is(err, auth.ErrInsufficientScope) {
				t.Errorf("%s without a scope: %v", a, err)
			}
		}
	}
	for _, a := range []registry.Action{pull, push, remove} {
		w.may("a token for everything", token(owner, scope("acme/app", "*")), a, "acme/app")
	}
	for _, id := range []auth.Identity{token(alice), token(alice, scope("acme/app", "*"))} {
		w.wantRights("a token of who has no right", id, "acme/app")
	}
	for _, id := range []auth.Identity{token(anonymous), token(anonymous, scope("acme/app", "*"))} {
		for _, a := range []registry.Action{pull, push, remove} {
			if err := w.mayNot("an anonymous token", id, a, "acme/app", registry.Unauthorized); errors.Is(err, auth.ErrInsufficientScope) {
				t.Errorf("an anonymous token would do for %s: %v", a, err)
			}
		}
	}
	w.show(acme, access.Public)
	w.may("a token for nothing, where everybody may pull", token(alice), pull, "acme/app")
	w.may("an anonymous token for nothing, where everybody may pull", token(anonymous), pull, "acme/app")
	w.show(acme, access.Internal)
	if err := w.mayNot("a token for nothing, where all users may pull", token(alice), pull, "acme/app", registry.Unauthorized); !errors.Is(err, auth.ErrInsufficientScope) {
		t.Errorf("pull without a scope: %v", err)
	}
}

func TestRepositoriesList(t *testing.T) {
	w := newWorld(t, policy.Options{})
	acme := w.project("acme", "")
	reader, alice := w.member("reader", acme, "", access.Reader), w.user("alice")
	for what, id := range map[string]auth.Identity{
		"a user": alice, "a token for it": token(alice, catalog), "an anonymous token for it": token(anonymous, catalog), "local": local,
	} {
		w.may(what, id, registry.RepositoriesList, "")
	}
	w.mayNot("nobody", anonymous, registry.RepositoriesList, "", registry.Unauthorized)
	for _, id := range []auth.Identity{token(alice), token(anonymous), token(alice, scope("catalog", "*"))} {
		if err := w.mayNot("a token for other things", id, registry.RepositoriesList, "", registry.Unauthorized); !errors.Is(err, auth.ErrInsufficientScope) {
			t.Errorf("a list without a scope: %v", err)
		}
	}
	w.may("an item", token(reader, catalog), registry.RepositoriesList, "acme/app")
	w.mayNot("an item that is hidden", token(alice, catalog), registry.RepositoriesList, "acme/app", registry.NameUnknown)
	w.mayNot("an item that is hidden", token(anonymous, catalog), registry.RepositoriesList, "acme/app", registry.Unauthorized)
}
