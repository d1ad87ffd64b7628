package metatest

import (
	"fmt"
	"reflect"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/meta"
)

var claimCases = []testCase{
	{"claim/a project that does not exist", func(e *env) {
		alice, before := e.claimant("alice"), e.accessGeneration()
		e.wantClaim("acme", alice, true)
		p, err := e.db.Project(e.Context(), "acme")
		if e.ok(err); !p.Claimed || p.Visibility != access.Private || p.Newcomers != "" || p.Organization != "default" {
			e.Errorf("the project is %+v", p)
		}
		e.wantClaimed(alice, access.Grant{ProjectID: p.ID, Role: access.Owner})
		if after := e.accessGeneration(); after <= before {
			e.Errorf("the generation went from %d to %d", before, after)
		}
	}},
	{"claim/a project that nobody has", func(e *env) {
		bob := e.claimant("bob")
		id := e.claimable("acme", access.Claim)
		_, err := e.db.PutMember(e.Context(), meta.Change{}, meta.Member{User: "bob", ProjectID: id, Role: access.Reader})
		e.ok(err)
		e.ok(e.db.SetProject(e.Context(), meta.Change{}, id, meta.ProjectChange{Claimed: new(false)}))
		e.wantClaim("acme", bob, true)
		e.wantClaimed(bob, access.Grant{ProjectID: id, Role: access.Owner})
	}},
	{"claim/what is not to be had", func(e *env) {
		alice := e.claimant("alice")
		e.claimable("taken", "")
		e.claimable("closed", access.Open)
		_, err := e.db.DeleteProject(e.Context(), meta.Change{}, e.claimable("deleted", access.Claim))
		e.ok(err)
		before := e.accessGeneration()
		for _, name := range []string{"taken", "closed", "deleted"} {
			e.wantClaim(name, alice, false)
		}
		e.wantClaimed(alice)
		if after := e.accessGeneration(); after != before {
			e.Errorf("the generation went from %d to %d", before, after)
		}
	}},
	{"claim/twice", func(e *env) {
		alice, bob := e.claimant("alice"), e.claimant("bob")
		e.wantClaim("acme", alice, true)
		e.wantClaim("acme", bob, false)
		e.wantClaim("acme", alice, false)
		e.wantClaimed(bob)
	}},
	{"claim/by nobody", func(e *env) {
		e.claimant("admin")
		bob := e.claimant("bob")
		e.ok(e.db.SetUser(e.Context(), meta.Change{}, "bob", meta.UserChange{Locked: new(true)}))
		for _, id := range []string{"", "none", bob} {
			_, err := e.db.ClaimProject(e.Context(), "acme", id)
			e.wantErr("claim for "+id, err, meta.ErrNotFound)
		}
		_, err := e.db.Project(e.Context(), "acme")
		e.wantErr("find what was not claimed", err, meta.ErrNotFound)
	}},
	{"claim/is in the trail", func(e *env) {
		alice := e.claimant("alice")
		ctx := audit.WithCaller(e.Context(), &audit.Caller{Identity: "user:alice", Request: "r1"})
		for _, want := range []bool{true, false} {
			if won, err := e.db.ClaimProject(ctx, "acme", alice); err != nil || won != want {
				e.Errorf("claim: %v, %v", won, err)
			}
		}
		events, _, err := e.db.ListAudit(e.Context(), meta.AuditFilter{Project: "acme"}, "", 10)
		e.ok(err)
		if len(events) != 1 || events[0].Action != "project.claim" || events[0].Identity != "user:alice" ||
			events[0].Request != "r1" || events[0].Status != 201 {
			e.Errorf("the trail has %+v", events)
		}
	}},
	{"claim/many at once", func(e *env) {
		users := make([]string, 16)
		for i := range users {
			users[i] = e.claimant(fmt.Sprint("user", i))
		}
		seen := make([]bool, len(users))
		won := make([]bool, len(users))
		for _, err := range together(len(users), func(i int) (err error) {
			if won[i], err = e.db.ClaimProject(e.Context(), "acme", users[i]); err != nil {
				return err
			}
			p, err := e.db.ProjectAccess(e.Context(), "acme")
			seen[i] = p.Claimed
			return err
		}) {
			e.ok(err)
		}
		winners := 0
		for i := range users {
			if won[i] {
				winners++
			}
			if !seen[i] {
				e.Errorf("user %d does not see the outcome", i)
			}
			s, err := e.db.UserAccess(e.Context(), users[i])
			if e.ok(err); (len(s.Grants) == 1) != won[i] {
				e.Errorf("user %d won: %v, and has %+v", i, won[i], s.Grants)
			}
		}
		if winners != 1 {
			e.Errorf("%d winners", winners)
		}
	}},
}

// claimant makes a user and returns the id.
func (e *env) claimant(name string) string {
	e.Helper()
	u, err := e.db.CreateUser(e.Context(), meta.Change{}, meta.UserSpec{Name: name})
	e.ok(err)
	return u.ID
}

// claimable makes a project and returns the id; one with a setting for newcomers
// is not claimed.
func (e *env) claimable(name string, newcomers access.Newcomers) string {
	e.Helper()
	p, err := e.db.CreateProject(e.Context(), meta.Change{}, meta.ProjectSpec{Name: name, Visibility: access.Private, Newcomers: newcomers})
	e.ok(err)
	return p.ID
}

func (e *env) accessGeneration() int64 {
	e.Helper()
	g, err := e.db.Generation(e.Context())
	e.ok(err)
	return g
}

func (e *env) wantClaim(project, user string, want bool) {
	e.Helper()
	won, err := e.db.ClaimProject(e.Context(), project, user)
	if e.ok(err); won != want {
		e.Errorf("claim %s: won is %v, want %v", project, won, want)
	}
}

func (e *env) wantClaimed(user string, want ...access.Grant) {
	e.Helper()
	s, err := e.db.UserAccess(e.Context(), user)
	if e.ok(err); !reflect.DeepEqual(s.Grants, want) {
		e.Errorf("grants are %+v, want %+v", s.Grants, want)
	}
}
