package metatest

import (
	"fmt"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

var groupCases = []testCase{
	{"groups/life", groupLife},
	{"groups/users", groupUsers},
	{"groups/admins", groupAdmins},
	{"groups/deleted whole", groupDeleted},
	{"groups/refused", groupRefused},
}

func (e *env) group(name string) meta.Group {
	e.Helper()
	g, err := e.db.CreateGroup(e.Context(), changing("group.create"), meta.Group{Name: name})
	e.ok(err)
	return g
}

func (e *env) setGroup(name string, g meta.GroupChange) func(meta.Change) error {
	return func(c meta.Change) error { return e.db.SetGroup(e.Context(), c, name, g) }
}

func (e *env) wantGroupUsers(group string, want ...string) {
	e.Helper()
	pages(e, "users of "+group, func(u meta.GroupUser) string { return u.ID },
		func(u meta.GroupUser) string {
			if u.ByClaim {
				return u.Name + " by claim"
			}
			return u.Name
		},
		func(after string, n int) ([]meta.GroupUser, error) {
			return e.db.GroupUsers(e.Context(), group, after, n)
		}, want...)
}

func groupLife(e *env) {
	want := meta.Group{ID: meta.NewID(), Name: "devs", Claim: "acme-devs", Admin: true, CreatedAt: e.clock.now().Add(-time.Minute)}
	e.managed(func(c meta.Change) error {
		got, err := e.db.CreateGroup(e.Context(), c, want)
		if got != want {
			e.Errorf("created %+v, want %+v", got, want)
		}
		return err
	})
	wantGroup := func() {
		e.Helper()
		if got, err := e.db.Group(e.Context(), want.Name); err != nil || got != want {
			e.Errorf("found %+v, %v; want %+v", got, err, want)
		}
	}
	wantGroup()
	e.managed(e.setGroup("devs", meta.GroupChange{Name: new("ops"), Claim: new("")}))
	want.Name, want.Claim = "ops", ""
	wantGroup()
	e.managed(e.setGroup("ops", meta.GroupChange{Admin: new(false)}))
	want.Admin = false
	wantGroup()
	e.managed(e.setGroup("ops", meta.GroupChange{Claim: new("acme-ops")}))
	e.managed(e.setGroup("ops", meta.GroupChange{Claim: new("acme-ops")}))
	want.Claim = "acme-ops"
	wantGroup()
	e.group("c")
	e.group("b")
	name := func(g meta.Group) string { return g.Name }
	pages(e, "groups", name, name, func(after string, n int) ([]meta.Group, error) {
		return e.db.Groups(e.Context(), after, n)
	}, "b", "c", "ops")
}

func groupUsers(e *env) {
	e.group("devs")
	var names []string
	for i := range 5 {
		names = append(names, e.user(fmt.Sprint("user", i)).Name)
		e.managed(func(c meta.Change) error { return e.db.AddGroupUser(e.Context(), c, "devs", names[i]) })
	}
	e.managed(func(c meta.Change) error { return e.db.AddGroupUser(e.Context(), c, "devs", "user0") })
	e.wantGroupUsers("devs", names...)
	remove := func(c meta.Change) error { return e.db.RemoveGroupUser(e.Context(), c, "devs", "user1") }
	e.managed(remove)
	e.refused("remove who is gone", meta.ErrNotFound, remove)
	e.wantGroupUsers("devs", "user0", "user2", "user3", "user4")
}

func groupAdmins(e *env) {
	e.user("root")
	alice := e.user("alice")
	e.group("admins")
	e.ok(e.db.AddGroupUser(e.Context(), changing("group.add"), "admins", "alice"))
	for _, admin := range []bool{true, false} {
		e.ok(e.setGroup("admins", meta.GroupChange{Admin: &admin})(changing("group.set")))
		if s, err := e.db.UserAccess(e.Context(), alice.ID); err != nil || s.Admin != admin {
			e.Errorf("a user of a group of admins (%v) is %+v, %v", admin, s, err)
		}
	}
}

func groupDeleted(e *env) {
	alice := e.user("alice")
	e.group("devs")
	p := e.project(meta.ProjectSpec{Name: "acme"})
	e.ok(e.db.AddGroupUser(e.Context(), changing("group.add"), "devs", "alice"))
	e.member(meta.Member{Group: "devs", ProjectID: p.ID, Role: access.Owner})
	e.managed(func(c meta.Change) error { return e.db.DeleteGroup(e.Context(), c, "devs") })
	e.wantMembers(p.ID)
	if s, err := e.db.UserAccess(e.Context(), alice.ID); err != nil || len(s.Grants) != 0 {
		e.Errorf("roles are left: %+v, %v", s, err)
	}
	_, err := e.db.Group(e.Context(), "devs")
	e.wantErr("find a deleted group", err, meta.ErrNotFound)
}

func groupRefused(e *env) {
	e.user("alice")
	e.group("devs")
	_, err := e.db.CreateGroup(e.Context(), changing("group.create"), meta.Group{Name: "ops", Claim: "ops"})
	e.ok(err)
	for what, g := range map[string]meta.Group{"name": {Name: "ops"}, "claim": {Name: "new", Claim: "ops"}} {
		e.refused("create with a "+what+" that is taken", meta.ErrExists, func(c meta.Change) error {
			_, err := e.db.CreateGroup(e.Context(), c, g)
			return err
		})
	}
	e.refused("take another's name", meta.ErrExists, e.setGroup("devs", meta.GroupChange{Name: new("ops"), Claim: new("x")}))
	e.refused("take another's claim", meta.ErrExists, e.setGroup("devs", meta.GroupChange{Claim: new("ops")}))
	e.refused("set an unknown group", meta.ErrNotFound, e.setGroup("none", meta.GroupChange{Admin: new(true)}))
	for what, step := range map[string]func(meta.Change) error{
		"delete an unknown group":             func(c meta.Change) error { return e.db.DeleteGroup(e.Context(), c, "none") },
		"add an unknown user":                 func(c meta.Change) error { return e.db.AddGroupUser(e.Context(), c, "devs", "none") },
		"add to an unknown group":             func(c meta.Change) error { return e.db.AddGroupUser(e.Context(), c, "none", "alice") },
		"remove an unknown user":              func(c meta.Change) error { return e.db.RemoveGroupUser(e.Context(), c, "devs", "none") },
		"remove from an unknown group":        func(c meta.Change) error { return e.db.RemoveGroupUser(e.Context(), c, "none", "alice") },
		"remove a user who is in other group": func(c meta.Change) error { return e.db.RemoveGroupUser(e.Context(), c, "devs", "alice") },
		"list an unknown group": func(c meta.Change) error {
			_, err := e.db.GroupUsers(e.Context(), "none", "", 1)
			return err
		},
	} {
		e.refused(what, meta.ErrNotFound, step)
	}
	if g, err := e.db.Group(e.Context(), "devs"); err != nil || g.Claim != "" {
		e.Errorf("a refused change made %+v, %v", g, err)
	}
}
