package metatest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/meta"
)

var loginCases = []testCase{
	{"logins/are taken once", loginTaken},
	{"logins/expire", loginExpires},
	{"logins/are bounded", loginBound},
	{"logins/a user of a provider", loginUser},
	{"logins/names that are taken", loginNames},
	{"logins/many of one name at once", loginNameRace},
	{"logins/one for the first time, twice at once", loginUserRace},
	{"logins/groups", loginGroups},
	{"logins/locked", loginLocked},
	{"logins/keys", loginKeys},
	{"trust/by issuer and audience", trustLookup},
}

func (e *env) saveLogin(id string) {
	e.Helper()
	e.ok(e.db.SaveLogin(e.Context(), id, "document of "+id, e.clock.now().Add(time.Minute)))
}

// visitor is the caller of a log-in, whom nobody knows yet.
func (e *env) visitor() context.Context {
	return audit.WithCaller(e.Context(), &audit.Caller{Request: "r", Address: "192.0.2.1"})
}

// logIn logs somebody of one provider in.
func (e *env) logIn(subject, name string, groups ...string) access.Subject {
	e.Helper()
	u, err := e.db.LogInUser(e.visitor(), meta.ProvidedUser{Issuer: "https://id.example.com", Subject: subject, Name: name, Groups: groups})
	e.ok(err)
	return u
}

func loginTaken(e *env) {
	e.saveLogin("a")
	e.saveLogin("b")
	e.wantErr("save one twice", e.db.SaveLogin(e.Context(), "a", "x", e.clock.now().Add(time.Hour)), meta.ErrExists)
	won := 0
	for _, err := range together(8, func(int) error {
		document, err := e.db.TakeLogin(e.Context(), "a")
		if err == nil && document != "document of a" {
			e.Errorf("took %q", document)
		}
		return err
	}) {
		if err == nil {
			won++
		} else {
			e.wantErr("take what another took", err, meta.ErrNotFound)
		}
	}
	if won != 1 {
		e.Errorf("%d of 8 took it", won)
	}
	_, err := e.db.TakeLogin(e.Context(), "c")
	e.wantErr("take an unknown one", err, meta.ErrNotFound)
	document, err := e.db.TakeLogin(e.Context(), "b")
	if e.ok(err); document != "document of b" {
		e.Errorf("took %q", document)
	}
}

func loginExpires(e *env) {
	e.saveLogin("a")
	e.saveLogin("b")
	e.clock.move(time.Minute - time.Millisecond)
	_, err := e.db.TakeLogin(e.Context(), "a")
	e.ok(err)
	e.clock.move(time.Millisecond)
	_, err = e.db.TakeLogin(e.Context(), "b")
	e.wantErr("take an expired one", err, meta.ErrNotFound)
	e.saveLogin("c") // sweeps
	e.saveLogin("b")
}

func loginBound(e *env) {
	const most = 10_000
	for from := 0; from < most; from += 500 {
		e.ok(errors.Join(together(500, func(i int) error {
			return e.db.SaveLogin(e.Context(), fmt.Sprint(from+i), "x", e.clock.now().Add(time.Minute))
		})...))
	}
	e.wantErr("save one too many", e.db.SaveLogin(e.Context(), "more", "x", e.clock.now().Add(time.Minute)), meta.ErrManyLogins)
	_, err := e.db.TakeLogin(e.Context(), "7")
	e.ok(err)
	e.saveLogin("more")
	e.clock.move(time.Minute)
	e.saveLogin("later")
}

func loginUser(e *env) {
	generation := e.accessGeneration()
	u := e.logIn("1001", "alice")
	if u.Kind != access.User || u.Name != "alice" || e.accessGeneration() != generation+1 {
		e.Errorf("made %+v, generation from %d to %d", u, generation, e.accessGeneration())
	}
	if got := e.findUser("alice"); got.ID != u.ID || got.Issuer != "https://id.example.com" || got.Subject != "1001" ||
		got.HasPassword || got.Admin || got.Locked || !got.CreatedAt.Equal(e.clock.now()) {
		e.Errorf("the user is %+v", got)
	}
	if again := e.logIn("1001", "renamed"); again.ID != u.ID || again.Name != "alice" || e.accessGeneration() != generation+1 {
		e.Errorf("found %+v, generation %d", again, e.accessGeneration())
	}
	other, err := e.db.LogInUser(e.Context(), meta.ProvidedUser{Issuer: "https://other.example.com", Subject: "1001", Name: "bob"})
	if e.ok(err); other.ID == u.ID || other.Name != "bob" {
		e.Errorf("another issuer's is %+v", other)
	}
	for _, event := range e.trail(meta.AuditFilter{}, 10) {
		if event.Action != "login" || event.Identity != "user:alice" || event.Address != "192.0.2.1" || event.Request != "r" || event.Status != 200 {
			e.Errorf("the trail has %+v", event)
		}
	}
	if n := len(e.trail(meta.AuditFilter{}, 10)); n != 2 { // the third was by nobody
		e.Errorf("%d log-ins in the trail", n)
	}
}

func loginNames(e *env) {
	local, long := e.user("alice"), strings.Repeat("a", access.MaxName-2)+".b"
	for n, want := range []string{"alice-2", "alice-3"} {
		if u := e.logIn(fmt.Sprint(n), "alice"); u.Name != want || u.ID == local.ID {
			e.Errorf("made %+v, want %s", u, want)
		}
	}
	for n, want := range []string{long, long[:access.MaxName-2] + "-2"} {
		if u := e.logIn(fmt.Sprint("long", n), long); u.Name != want {
			e.Errorf("made %+v, want %s", u, want)
		}
	}
	if got := e.findUser("alice"); got.Issuer != "" {
		e.Errorf("the user with a password became %+v", got)
	}
}

func loginNameRace(e *env) {
	names := make([]string, 8)
	e.ok(errors.Join(together(8, func(i int) error {
		u, err := e.db.LogInUser(e.Context(), meta.ProvidedUser{Issuer: "https://id.example.com", Subject: fmt.Sprint(i), Name: "alice"})
		names[i] = u.Name
		return err
	})...))
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "alice alice-2 alice-3 alice-4 alice-5 alice-6 alice-7 alice-8" {
		e.Errorf("the users are %s", got)
	}
}

func loginUserRace(e *env) {
	ids := make([]string, 8)
	e.ok(errors.Join(together(8, func(i int) error {
		u, err := e.db.LogInUser(e.Context(), meta.ProvidedUser{Issuer: "https://id.example.com", Subject: "1001", Name: "alice"})
		ids[i] = u.ID
		return err
	})...))
	if slices.Sort(ids); ids[0] != ids[7] {
		e.Errorf("one person became %v", ids)
	}
}

func loginGroups(e *env) {
	for _, name := range []string{"devs", "ops", "given"} {
		e.group(name)
	}
	_, err := e.db.CreateGroup(e.Context(), changing("group.create"), meta.Group{Name: "admins", Claim: "cn=admins", Admin: true})
	e.ok(err)
	e.logIn("1001", "alice", "devs", "cn=admins", "unknown", "devs")
	e.ok(e.db.AddGroupUser(e.Context(), changing("group.add"), "given", "alice"))
	e.wantMemberships("alice", "admins:claim devs:claim given")
	generation := e.accessGeneration()
	e.logIn("1001", "alice", "cn=admins", "devs")
	if got := e.accessGeneration(); got != generation {
		e.Errorf("nothing changed, yet the generation went from %d to %d", generation, got)
	}
	u := e.logIn("1001", "alice", "ops", "admins", "given")
	e.wantMemberships("alice", "given ops:claim")
	if got := e.accessGeneration(); got != generation+1 {
		e.Errorf("the generation went from %d to %d", generation, got)
	}
	if s, err := e.db.UserAccess(e.Context(), u.ID); err != nil || s.Admin {
		e.Errorf("alice is %+v, %v", s, err)
	}
	_, err = e.db.CreateGroup(e.Context(), changing("group.create"), meta.Group{Name: "roots", Admin: true})
	e.ok(err)
	u = e.logIn("1001", "alice", "roots")
	e.wantMemberships("alice", "given")
	if s, err := e.db.UserAccess(e.Context(), u.ID); err != nil || s.Admin {
		e.Errorf("a group of admins without a claim took alice in: %+v, %v", s, err)
	}
}

// wantMemberships wants the groups of a user, those by claim marked.
func (e *env) wantMemberships(user, want string) {
	e.Helper()
	var got []string
	for _, group := range []string{"admins", "devs", "given", "ops"} {
		users, err := e.db.GroupUsers(e.Context(), group, "", 10)
		e.ok(err)
		for _, u := range users {
			if u.Name == user && u.ByClaim {
				got = append(got, group+":claim")
			} else if u.Name == user {
				got = append(got, group)
			}
		}
	}
	if strings.Join(got, " ") != want {
		e.Errorf("%s is in %v, want %s", user, got, want)
	}
}

func loginLocked(e *env) {
	e.user("root")
	e.group("devs")
	e.group("admins")
	e.group("given")
	e.group("ops")
	e.logIn("1001", "alice", "ops")
	e.ok(e.db.SetUser(e.Context(), changing("user.set"), "alice", meta.UserChange{Locked: new(true)}))
	_, err := e.db.LogInUser(e.visitor(), meta.ProvidedUser{Issuer: "https://id.example.com", Subject: "1001", Name: "alice", Groups: []string{"devs"}})
	e.wantErr("log in, locked", err, meta.ErrLocked)
	e.wantMemberships("alice", "ops:claim")
	trail := e.trail(meta.AuditFilter{Action: "login"}, 10)
	if last := trail[len(trail)-1]; len(trail) != 2 || last.Status != 403 || last.Reason == "" || last.Identity != "user:alice" {
		e.Errorf("the trail is %+v", trail)
	}
}

func loginKeys(e *env) {
	e.user("root")
	u := e.logIn("1001", "alice")
	expires := e.clock.now().Add(time.Hour)
	for n, want := range []string{"laptop", "laptop-2"} {
		generation := e.accessGeneration()
		hash := fmt.Sprint("hash", n)
		name, err := e.db.CreateLoginKey(e.visitor(), access.Key{UserID: u.ID, Name: "laptop", ExpiresAt: expires}, hash)
		e.ok(err)
		k, err := e.db.KeyByHash(e.Context(), hash)
		e.ok(err)
		if name != "alice" || k.Name != want || k.UserID != u.ID || k.Role != access.None || k.CreatedBy != "alice" ||
			!k.ExpiresAt.Equal(expires) || !k.CreatedAt.Equal(e.clock.now()) || e.accessGeneration() != generation+1 {
			e.Errorf("%s has %+v, generation from %d to %d", name, k, generation, e.accessGeneration())
		}
		trail := e.trail(meta.AuditFilter{Action: "key.create"}, 10)
		if last := trail[len(trail)-1]; last.Identity != "user:alice" || last.Key != k.ID || last.Reference != want {
			e.Errorf("the trail has %+v", last)
		}
	}
	e.ok(e.db.SetUser(e.Context(), changing("user.set"), "alice", meta.UserChange{Locked: new(true)}))
	for id, want := range map[string]error{u.ID: meta.ErrLocked, "none": meta.ErrNotFound} {
		_, err := e.db.CreateLoginKey(e.Context(), access.Key{UserID: id, Name: "laptop"}, "another")
		e.wantErr("a key for one who may not have it", err, want)
	}
	_, err := e.db.KeyByHash(e.Context(), "another")
	e.wantErr("find a key that was refused", err, meta.ErrNotFound)
}

func trustLookup(e *env) {
	const issuer = "https://token.example.com"
	p := e.project(meta.ProjectSpec{Name: "acme"})
	want := map[string]string{}
	for _, r := range []access.TrustRule{
		{Name: "one", Issuer: issuer, Audience: "berth"}, {Name: "two", Issuer: issuer, Audience: "berth"},
		{Name: "other audience", Issuer: issuer, Audience: "other"}, {Name: "other issuer", Issuer: issuer + "/", Audience: "berth"},
	} {
		r.ProjectID, r.Role, r.Claims = p.ID, access.Writer, map[string]string{"repository": "acme/*"}
		made, err := e.db.CreateTrustRule(e.Context(), changing("trust.create"), r)
		e.ok(err)
		want[made.Name] = made.ID
	}
	rules, err := e.db.TrustRules(e.Context(), issuer, "berth")
	if e.ok(err); len(rules) != 2 {
		e.Errorf("rules %+v", rules)
	}
	for _, r := range rules {
		if r.ID != want[r.Name] || r.Claims["repository"] != "acme/*" || r.Role != access.Writer || r.ProjectID != p.ID {
			e.Errorf("rule %+v", r)
		}
	}
	e.wantTrusted(map[string]bool{issuer: true, issuer + "/": true, "https://none.example.com": false, "": false})
	_, err = e.db.DeleteProject(e.Context(), changing("project.delete"), p.ID)
	e.ok(err)
	e.wantTrusted(map[string]bool{issuer: false, issuer + "/": false})
	rules, err = e.db.TrustRules(e.Context(), issuer, "berth")
	if e.ok(err); len(rules) != 0 {
		e.Errorf("rules of a deleted project %+v", rules)
	}
}

func (e *env) wantTrusted(want map[string]bool) {
	e.Helper()
	for issuer, yes := range want {
		got, err := e.db.TrustsIssuer(e.Context(), issuer)
		if e.ok(err); got != yes {
			e.Errorf("%q is trusted: %t", issuer, got)
		}
	}
}
