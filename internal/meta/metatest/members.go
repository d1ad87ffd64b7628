package metatest

import (
	"fmt"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

var memberCases = []testCase{
	{"members/life", memberLife},
	{"members/roles count", memberRoles},
	{"members/claim the project", memberClaims},
	{"members/refused", memberRefused},
	{"members/two roles at once are one", memberRace},
}

func (e *env) member(m meta.Member) meta.Member {
	e.Helper()
	m, err := e.db.PutMember(e.Context(), changing("member.put"), m)
	e.ok(err)
	return m
}

// wantMembers wants the members of a place as who:prefix:role.
func (e *env) wantMembers(place string, want ...string) {
	e.Helper()
	pages(e, "members", func(m meta.Member) string { return m.ID },
		func(m meta.Member) string { return fmt.Sprintf("%s%s:%s:%v", m.User, m.Group, m.Prefix, m.Role) },
		func(after string, n int) ([]meta.Member, error) {
			return e.db.Members(e.Context(), place, after, n)
		}, want...)
}

func memberLife(e *env) {
	e.user("alice")
	e.group("devs")
	p, org := e.project(meta.ProjectSpec{Name: "acme"}), e.organization("acme")
	want := meta.Member{ID: meta.NewID(), User: "alice", ProjectID: p.ID, Role: access.Reader, CreatedAt: e.clock.now().Add(-time.Hour)}
	e.managed(func(c meta.Change) error {
		got, err := e.db.PutMember(e.Context(), c, want)
		if got != want {
			e.Errorf("put %+v, want %+v", got, want)
		}
		return err
	})
	e.managed(func(c meta.Change) error {
		changed := meta.Member{User: "alice", ProjectID: p.ID, Role: access.Owner}
		got, err := e.db.PutMember(e.Context(), c, changed)
		if got.ID != want.ID || !got.CreatedAt.Equal(want.CreatedAt) || got.Role != access.Owner {
			e.Errorf("changed to %+v, which was %+v", got, want)
		}
		return err
	})
	e.member(meta.Member{User: "alice", ProjectID: p.ID, Prefix: "acme/app", Role: access.Writer})
	e.member(meta.Member{Group: "devs", ProjectID: p.ID, Role: access.Maintainer})
	e.member(meta.Member{Group: "devs", OrganizationID: org.ID, Role: access.Reader})
	e.wantMembers(p.ID, "alice::owner", "alice:acme/app:writer", "devs::maintainer")
	e.wantMembers(org.ID, "devs::reader")
	remove := func(m meta.Member) func(meta.Change) error {
		return func(c meta.Change) error { return e.db.RemoveMember(e.Context(), c, m) }
	}
	e.managed(remove(meta.Member{User: "alice", ProjectID: p.ID}))
	e.wantMembers(p.ID, "alice:acme/app:writer", "devs::maintainer")
	e.refused("remove who is gone", meta.ErrNotFound, remove(meta.Member{User: "alice", ProjectID: p.ID}))
	e.refused("remove from another prefix", meta.ErrNotFound, remove(meta.Member{User: "alice", ProjectID: p.ID, Prefix: "acme/ap"}))
	e.refused("remove from another place", meta.ErrNotFound, remove(meta.Member{User: "alice", OrganizationID: org.ID, Prefix: "acme/app"}))
	e.managed(remove(meta.Member{User: "alice", ProjectID: p.ID, Prefix: "acme/app"}))
	e.managed(remove(meta.Member{Group: "devs", OrganizationID: org.ID}))
	e.wantMembers(p.ID, "devs::maintainer")
	e.wantMembers(org.ID)
}

func memberRoles(e *env) {
	alice, bob := e.user("alice"), e.user("bob")
	e.group("devs")
	e.ok(e.db.AddGroupUser(e.Context(), changing("group.add"), "devs", "bob"))
	project := e.project(meta.ProjectSpec{Name: "acme"})
	e.member(meta.Member{User: "alice", ProjectID: project.ID, Prefix: "acme/app", Role: access.Writer})
	e.member(meta.Member{User: "alice", OrganizationID: "default", Role: access.Reader})
	e.member(meta.Member{Group: "devs", ProjectID: project.ID, Role: access.Maintainer})
	p, err := e.db.ProjectAccess(e.Context(), "acme")
	e.ok(err)
	for _, c := range []struct {
		user meta.User
		repo string
		want access.Role
	}{
		{alice, "acme/app", access.Writer}, {alice, "acme/app/x", access.Writer}, {alice, "acme/apple", access.Reader},
		{bob, "acme/app", access.Maintainer},
	} {
		s, err := e.db.UserAccess(e.Context(), c.user.ID)
		e.ok(err)
		if got := access.RoleIn(s.Grants, &p, c.repo); got != c.want {
			e.Errorf("%s is %v of %s, want %v", c.user.Name, got, c.repo, c.want)
		}
	}
}

func memberClaims(e *env) {
	e.user("alice")
	e.push("team/app", "a")
	e.member(meta.Member{User: "alice", OrganizationID: "default", Role: access.Owner})
	if p := e.findProject("team"); p.Claimed {
		e.Error("a role in the organization claims its projects")
	}
	e.member(meta.Member{User: "alice", ProjectID: e.findProject("team").ID, Prefix: "team/app", Role: access.Reader})
	if p := e.findProject("team"); !p.Claimed {
		e.Error("a member does not claim the project")
	}
}

func memberRefused(e *env) {
	e.user("alice")
	p, gone := e.project(meta.ProjectSpec{Name: "acme"}), e.project(meta.ProjectSpec{Name: "gone"})
	e.deleteProject(gone)
	for _, c := range []struct {
		m    meta.Member
		want error
	}{
		{meta.Member{User: "bob", ProjectID: p.ID}, meta.ErrNotFound},
		{meta.Member{Group: "devs", ProjectID: p.ID}, meta.ErrNotFound},
		{meta.Member{User: "alice", ProjectID: "none"}, meta.ErrNotFound},
		{meta.Member{User: "alice", ProjectID: gone.ID}, meta.ErrNotFound},
		{meta.Member{User: "alice", ProjectID: gone.ID, Prefix: "gone/x"}, meta.ErrNotFound},
		{meta.Member{User: "alice", OrganizationID: "none"}, meta.ErrNotFound},
		{meta.Member{User: "alice", OrganizationID: "default", Prefix: "acme/app"}, access.ErrInvalid},
		{meta.Member{User: "alice", ProjectID: p.ID, Prefix: "acmes"}, access.ErrInvalid},
		{meta.Member{User: "alice", ProjectID: p.ID, Prefix: "acmes/app"}, access.ErrInvalid},
		{meta.Member{User: "alice", ProjectID: p.ID, Prefix: "acme/"}, access.ErrInvalid},
		{meta.Member{User: "alice", ProjectID: p.ID, Prefix: "acme/*"}, access.ErrInvalid},
	} {
		e.refused(fmt.Sprintf("member %+v", c.m), c.want, func(change meta.Change) error {
			c.m.Role = access.Reader
			_, err := e.db.PutMember(e.Context(), change, c.m)
			return err
		})
	}
	e.wantMembers(p.ID)
}

func memberRace(e *env) {
	e.user("alice")
	p := e.project(meta.ProjectSpec{Name: "acme"})
	for _, err := range together(8, func(i int) error {
		_, err := e.db.PutMember(e.Context(), changing("member.put"), meta.Member{User: "alice", ProjectID: p.ID, Role: access.Writer})
		return err
	}) {
		e.ok(err)
	}
	e.wantMembers(p.ID, "alice::writer")
}
