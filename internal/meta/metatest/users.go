package metatest

import (
	"fmt"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

var userCases = []testCase{
	{"users/life", userLife},
	{"users/the first is an admin", userFirst},
	{"users/one of many firsts is an admin", userFirsts},
	{"users/refused", userRefused},
	{"users/deleted whole", userDeleted},
	{"users/sessions end", userSessions},
	{"users/the last admin stays", userLastAdmin},
	{"users/two last admins at once", userLastAdmins},
	{"users/two of one name at once", func(e *env) {
		e.wantOneWinner(func(int) error {
			_, err := e.db.CreateUser(e.Context(), changing("user.create"), meta.UserSpec{Name: "alice"})
			return err
		}, meta.ErrExists)
	}},
	{"admin reset/of nobody", adminMade},
	{"admin reset/of a locked user", adminUnlocked},
	{"admin reset/first start", adminFirst},
}

func (e *env) user(name string) meta.User {
	e.Helper()
	u, err := e.db.CreateUser(e.Context(), changing("user.create"), meta.UserSpec{Name: name})
	e.ok(err)
	return u
}

func (e *env) findUser(name string) meta.User {
	e.Helper()
	u, err := e.db.User(e.Context(), name)
	e.ok(err)
	return u
}

func (e *env) setUser(name string, u meta.UserChange) func(meta.Change) error {
	return func(c meta.Change) error { return e.db.SetUser(e.Context(), c, name, u) }
}

func (e *env) wantUsers(want ...string) {
	e.Helper()
	name := func(u meta.User) string { return u.Name }
	pages(e, "users", name, name, func(after string, n int) ([]meta.User, error) {
		return e.db.Users(e.Context(), after, n)
	}, want...)
}

func userLife(e *env) {
	e.user("root")
	e.plan("small")
	want := meta.User{ID: meta.NewID(), Name: "alice", HasPassword: true, Issuer: "https://id.example", Subject: "1", Plan: "small",
		ValidAfter: time.UnixMilli(0), CreatedAt: e.clock.now().Add(-time.Minute)}
	e.managed(func(c meta.Change) error {
		got, err := e.db.CreateUser(e.Context(), c, meta.UserSpec{ID: want.ID, Name: "alice", Password: "$argon2id$1",
			Issuer: want.Issuer, Subject: want.Subject, Plan: "small", CreatedAt: want.CreatedAt})
		if got != want {
			e.Errorf("created %+v, want %+v", got, want)
		}
		return err
	})
	if got := e.findUser("alice"); got != want {
		e.Errorf("found %+v, want %+v", got, want)
	}
	if l, err := e.db.Login(e.Context(), "alice"); err != nil || l.UserID != want.ID || l.Password != "$argon2id$1" {
		e.Errorf("logs in by %+v, %v", l, err)
	}
	e.user("carol")
	e.user("bob")
	e.wantUsers("alice", "bob", "carol", "root")
	e.managed(e.setUser("alice", meta.UserChange{Locked: new(true)}))
	e.managed(e.setUser("alice", meta.UserChange{Admin: new(true), Plan: new("")}))
	want.Locked, want.Admin, want.Plan = true, true, ""
	if got := e.findUser("alice"); got != want {
		e.Errorf("set to %+v, want %+v", got, want)
	}
	e.managed(e.setUser("alice", meta.UserChange{Locked: new(false), Admin: new(false)}))
	if got := e.findUser("alice"); got.Locked || got.Admin {
		e.Errorf("set back to %+v", got)
	}
	e.managed(func(c meta.Change) error { return e.db.DeleteUser(e.Context(), c, "alice") })
	e.wantUsers("bob", "carol", "root")
}

func userFirst(e *env) {
	if u := e.user("first"); !u.Admin || u.Locked {
		e.Errorf("the first user is %+v", u)
	}
	if u := e.user("second"); u.Admin {
		e.Errorf("the second user is %+v", u)
	}
}

func userFirsts(e *env) {
	admins := 0
	together(8, func(i int) error {
		_, err := e.db.CreateUser(e.Context(), changing("user.create"), meta.UserSpec{Name: fmt.Sprint("user", i)})
		return err
	})
	users, err := e.db.Users(e.Context(), "", 10)
	e.ok(err)
	for _, u := range users {
		if u.Admin {
			admins++
		}
	}
	if len(users) != 8 || admins != 1 {
		e.Errorf("%d of %d users are admins", admins, len(users))
	}
}

func userRefused(e *env) {
	e.user("root")
	_, err := e.db.CreateUser(e.Context(), changing("user.create"), meta.UserSpec{Name: "alice", Issuer: "https://id.example", Subject: "1"})
	e.ok(err)
	for what, c := range map[string]struct {
		s    meta.UserSpec
		want error
	}{
		"a user of a name that is taken":      {meta.UserSpec{Name: "root"}, meta.ErrExists},
		"a second user of one outer identity": {meta.UserSpec{Name: "bob", Issuer: "https://id.example", Subject: "1"}, meta.ErrExists},
		"a user of an unknown plan":           {meta.UserSpec{Name: "bob", Plan: "none"}, meta.ErrNotFound},
	} {
		e.refused(what, c.want, func(change meta.Change) error {
			_, err := e.db.CreateUser(e.Context(), change, c.s)
			return err
		})
	}
	e.refused("an unknown plan", meta.ErrNotFound, e.setUser("alice", meta.UserChange{Locked: new(true), Plan: new("none")}))
	if e.findUser("alice").Locked {
		e.Error("a refused change locked the user")
	}
	e.refused("set an unknown user", meta.ErrNotFound, e.setUser("none", meta.UserChange{}))
	e.refused("delete an unknown user", meta.ErrNotFound, func(c meta.Change) error { return e.db.DeleteUser(e.Context(), c, "none") })
	e.refused("end the sessions of an unknown user", meta.ErrNotFound, func(c meta.Change) error { return e.db.EndSessions(e.Context(), c, "none") })
	_, err = e.db.User(e.Context(), "none")
	e.wantErr("find an unknown user", err, meta.ErrNotFound)
}

func userDeleted(e *env) {
	e.user("root")
	e.group("devs")
	alice := e.user("alice")
	p := e.project(meta.ProjectSpec{Name: "acme", Owner: alice.ID})
	e.ok(e.db.AddGroupUser(e.Context(), changing("group.add"), "devs", "alice"))
	k := e.key(access.Key{Name: "laptop", UserID: alice.ID}, "hash")
	e.managed(func(c meta.Change) error { return e.db.DeleteUser(e.Context(), c, "alice") })
	e.wantMembers(p.ID)
	e.wantGroupUsers("devs")
	_, err := e.db.KeyByID(e.Context(), k.ID)
	e.wantErr("find a deleted user's key", err, meta.ErrNotFound)
	_, err = e.db.UserAccess(e.Context(), alice.ID)
	e.wantErr("find a deleted user", err, meta.ErrNotFound)
	e.user("alice")
}

func userSessions(e *env) {
	u := e.user("root")
	valid := func() time.Time {
		s, err := e.db.UserAccess(e.Context(), u.ID)
		e.ok(err)
		return s.ValidAfter
	}
	for _, end := range []func(meta.Change) error{
		e.setUser("root", meta.UserChange{Password: new("$argon2id$2")}),
		func(c meta.Change) error { return e.db.EndSessions(e.Context(), c, "root") },
		e.setUser("root", meta.UserChange{Password: new("")}),
	} {
		e.clock.move(time.Minute)
		e.ok(e.setUser("root", meta.UserChange{Plan: new("")})(changing("user.set")))
		if valid().Equal(e.clock.now()) {
			e.Error("a change of plan ended the sessions")
		}
		e.managed(end)
		if !valid().Equal(e.clock.now()) {
			e.Errorf("tokens count from %v on, want %v", valid(), e.clock.now())
		}
	}
	if e.findUser("root").HasPassword {
		e.Error("a password is left")
	}
	e.clock.move(-time.Hour)
	e.ok(e.db.EndSessions(e.Context(), changing("user.end"), "root"))
	if valid().Before(e.clock.now().Add(time.Hour)) {
		e.Error("a clock that went back made old tokens count again")
	}
}

func userLastAdmin(e *env) {
	e.user("root")
	e.user("alice")
	drops := map[string]func(meta.Change) error{
		"locked":  e.setUser("root", meta.UserChange{Locked: new(true)}),
		"demoted": e.setUser("root", meta.UserChange{Admin: new(false)}),
		"deleted": func(c meta.Change) error { return e.db.DeleteUser(e.Context(), c, "root") },
	}
	refused := func(when string) {
		e.Helper()
		for what, drop := range drops {
			e.refused("the last admin "+what+" "+when, meta.ErrLastAdmin, drop)
		}
		if u := e.findUser("root"); !u.Admin || u.Locked {
			e.Fatalf("the last admin is %+v", u)
		}
	}
	refused("beside a user")
	e.managed(e.setUser("root", meta.UserChange{Admin: new(true), Locked: new(false), Password: new("x")}))
	e.ok(e.setUser("alice", meta.UserChange{Admin: new(true), Locked: new(true)})(changing("user.set")))
	refused("beside a locked admin")
	e.managed(e.setUser("alice", meta.UserChange{Admin: new(false), Locked: new(false)}))
	_, err := e.db.CreateGroup(e.Context(), changing("group.create"), meta.Group{Name: "admins", Admin: true})
	e.ok(err)
	e.ok(e.db.AddGroupUser(e.Context(), changing("group.add"), "admins", "alice"))
	refused("beside an admin by group")
	e.ok(e.setUser("alice", meta.UserChange{Admin: new(true)})(changing("user.set")))
	for _, what := range []string{"locked", "demoted", "deleted"} {
		e.managed(drops[what])
	}
}

func userLastAdmins(e *env) {
	for i := range 10 {
		a, b := fmt.Sprint("a", i), fmt.Sprint("b", i)
		for _, name := range []string{a, b} {
			_, err := e.db.CreateUser(e.Context(), changing("user.create"), meta.UserSpec{Name: name, Admin: true})
			e.ok(err)
		}
		if i > 0 {
			e.ok(e.setUser("last", meta.UserChange{Admin: new(false)})(changing("user.set")))
		} else {
			e.user("last")
		}
		drops := []func(meta.Change) error{
			e.setUser(a, meta.UserChange{Locked: new(true)}),
			func(c meta.Change) error { return e.db.DeleteUser(e.Context(), c, b) },
		}
		errs := together(2, func(k int) error { return drops[k](changing("drop")) })
		if (errs[0] == nil) == (errs[1] == nil) {
			e.Fatalf("lock: %v, delete: %v; one of them must fail", errs[0], errs[1])
		}
		for _, err := range errs {
			if err != nil {
				e.wantErr("the one too many", err, meta.ErrLastAdmin)
			}
		}
		e.ok(e.setUser("last", meta.UserChange{Admin: new(true)})(changing("user.set")))
		for _, name := range []string{a, b} {
			if _, err := e.db.User(e.Context(), name); err == nil {
				e.ok(e.db.DeleteUser(e.Context(), changing("user.delete"), name))
			}
		}
	}
}

// wantAdminKey wants the key of a hash to be a live one of an admin.
func (e *env) wantAdminKey(hash string) {
	e.Helper()
	k, err := e.db.KeyByHash(e.Context(), hash)
	e.ok(err)
	s, err := e.db.UserAccess(e.Context(), k.UserID)
	e.ok(err)
	if !k.RevokedAt.IsZero() || s.Name != "admin" || !s.Admin || s.Locked {
		e.Errorf("key %+v is of %+v", k, s)
	}
}

func (e *env) resetAdmin(hash string) {
	e.Helper()
	generation, lines := e.state()
	e.ok(e.db.AdminReset(e.Context(), access.Key{Name: "admin"}, hash))
	if after, more := e.state(); after != generation+1 || len(more) != len(lines)+1 || more[len(lines)] != "admin.reset" {
		e.Errorf("generation went from %d to %d, the trail is %v", generation, after, more)
	}
}

func adminMade(e *env) {
	e.user("root")
	e.resetAdmin("hash1")
	e.wantAdminKey("hash1")
	e.resetAdmin("hash2")
	e.wantAdminKey("hash2")
	if k, err := e.db.KeyByHash(e.Context(), "hash1"); err != nil || k.RevokedAt.IsZero() {
		e.Errorf("the former key is %+v, %v", k, err)
	}
	e.wantUsers("admin", "root")
}

func adminUnlocked(e *env) {
	e.user("root")
	u := e.user("admin")
	e.key(access.Key{Name: "laptop", UserID: u.ID}, "other")
	e.ok(e.setUser("admin", meta.UserChange{Locked: new(true)})(changing("user.set")))
	e.resetAdmin("hash")
	e.wantAdminKey("hash")
	e.wantAdminKey("other")
	if got := e.findUser("admin"); got.ID != u.ID {
		e.Errorf("another user was made: %+v", got)
	}
}

func adminFirst(e *env) {
	won := 0
	errs := together(8, func(i int) error {
		done, err := e.db.FirstAdmin(e.Context(), access.Key{Name: "admin"}, fmt.Sprint("hash", i))
		if err == nil && !done {
			return meta.ErrExists
		}
		return err
	})
	for i, err := range errs {
		_, found := e.db.KeyByHash(e.Context(), fmt.Sprint("hash", i))
		if (err == nil) != (found == nil) {
			e.Errorf("%d: %v, but its key: %v", i, err, found)
		}
		if err == nil {
			won++
			e.wantAdminKey(fmt.Sprint("hash", i))
		} else {
			e.wantErr("the loser of a race", err, meta.ErrExists)
		}
	}
	if _, lines := e.state(); won != 1 || len(lines) != 1 {
		e.Errorf("%d won, the trail is %v", won, lines)
	}
}
