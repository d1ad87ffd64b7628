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

var organizationCases = []testCase{
	{"organizations/life", organizationLife},
	{"organizations/in use", organizationInUse},
	{"organizations/lists", organizationLists},
	{"organizations/two of one name at once", func(e *env) {
		e.wantOneWinner(func(i int) error {
			_, err := e.db.CreateOrganization(e.Context(), changing("organization.create"), meta.Organization{Name: "acme"})
			return err
		}, meta.ErrExists)
	}},
	{"once/the same answer", onceAnswers},
	{"once/two at once", onceAtOnce},
	{"once/is forgotten", onceForgotten},
}

// changing begins a management step.
func changing(action string) meta.Change {
	return meta.Change{Event: audit.Event{Action: action, Identity: "user:root", Status: 200}}
}

// state is what every management step changes: the generation and the trail.
func (e *env) state() (generation int64, lines []string) {
	e.Helper()
	generation, err := e.db.Generation(e.Context())
	e.ok(err)
	for _, event := range e.trail(meta.AuditFilter{}, 100) {
		lines = append(lines, event.Action)
	}
	return generation, lines
}

// managed runs a step that must raise the generation and leave one line.
func (e *env) managed(step func(meta.Change) error) {
	e.Helper()
	generation, lines := e.state()
	e.ok(step(changing("step")))
	after, more := e.state()
	if after != generation+1 || len(more) != len(lines)+1 || more[len(lines)] != "step" {
		e.Errorf("generation went from %d to %d, the trail from %v to %v", generation, after, lines, more)
	}
}

// refused runs a step that must change nothing and whose error is for people.
func (e *env) refused(what string, want error, step func(meta.Change) error) {
	e.Helper()
	generation, lines := e.state()
	err := step(changing("step"))
	e.wantErr(what, err, want)
	if err != nil && strings.Contains(err.Error(), "constraint") {
		e.Errorf("%s: %v speaks of the engine", what, err)
	}
	if after, more := e.state(); after != generation || len(more) != len(lines) {
		e.Errorf("%s: refused, yet generation went from %d to %d, the trail from %v to %v", what, generation, after, lines, more)
	}
}

// wantOneWinner runs f eight times at once; all but one fail with loser.
func (e *env) wantOneWinner(f func(i int) error, loser error) {
	e.Helper()
	won := 0
	for _, err := range together(8, f) {
		if err == nil {
			won++
		} else {
			e.wantErr("the loser of a race", err, loser)
		}
	}
	if _, lines := e.state(); won != 1 || len(lines) != 1 {
		e.Errorf("%d won, the trail is %v", won, lines)
	}
}

// pages lists everything two by two and wants the names, in their order.
func pages[T any](e *env, what string, cursor, name func(T) string, list func(after string, n int) ([]T, error), want ...string) {
	e.Helper()
	var got []string
	for after := ""; ; {
		page, err := list(after, 2)
		e.ok(err)
		if len(page) > 2 {
			e.Fatalf("%s: a page of 2 has %d entries", what, len(page))
		}
		for _, v := range page {
			got = append(got, name(v))
			after = cursor(v)
		}
		if len(page) < 2 {
			break
		}
	}
	if !slices.Equal(got, want) {
		e.Errorf("%s are %q, want %q", what, got, want)
	}
}

func (e *env) organization(name string) meta.Organization {
	e.Helper()
	o, err := e.db.CreateOrganization(e.Context(), changing("organization.create"), meta.Organization{Name: name})
	e.ok(err)
	return o
}

func (e *env) plan(name string) access.Plan {
	e.Helper()
	p, err := e.db.CreatePlan(e.Context(), changing("plan.create"), access.Plan{Name: name})
	e.ok(err)
	return p
}

func organizationLife(e *env) {
	plan := e.plan("small").Name
	want := meta.Organization{ID: meta.NewID(), Name: "acme", Plan: plan, CreatedAt: e.clock.now().Add(-time.Minute)}
	e.managed(func(c meta.Change) error {
		got, err := e.db.CreateOrganization(e.Context(), c, want)
		if got != want {
			e.Errorf("created %+v, want %+v", got, want)
		}
		return err
	})
	if got, err := e.db.Organization(e.Context(), "acme"); err != nil || got != want {
		e.Errorf("found %+v, %v; want %+v", got, err, want)
	}
	e.organization("other")
	set := func(o meta.OrganizationChange) func(meta.Change) error {
		return func(c meta.Change) error { return e.db.SetOrganization(e.Context(), c, want.ID, o) }
	}
	e.refused("take another's name", meta.ErrExists, set(meta.OrganizationChange{Name: new("other")}))
	e.refused("an unknown plan", meta.ErrNotFound, set(meta.OrganizationChange{Name: new("new"), Plan: new("none")}))
	e.managed(set(meta.OrganizationChange{Name: new("new")}))
	if got, err := e.db.Organization(e.Context(), "new"); err != nil || got.Plan != plan {
		e.Errorf("renamed to %+v, %v", got, err)
	}
	e.managed(set(meta.OrganizationChange{Plan: new("")}))
	if got, err := e.db.Organization(e.Context(), "new"); err != nil || got.Plan != "" {
		e.Errorf("without a plan it is %+v, %v", got, err)
	}
	e.managed(func(c meta.Change) error { return e.db.DeleteOrganization(e.Context(), c, want.ID) })
	_, err := e.db.Organization(e.Context(), "new")
	e.wantErr("find a deleted organization", err, meta.ErrNotFound)
	e.refused("set what is gone", meta.ErrNotFound, set(meta.OrganizationChange{Plan: new("")}))
	e.refused("delete what is gone", meta.ErrNotFound, func(c meta.Change) error { return e.db.DeleteOrganization(e.Context(), c, want.ID) })
	e.refused("create with an unknown plan", meta.ErrNotFound, func(c meta.Change) error {
		_, err := e.db.CreateOrganization(e.Context(), c, meta.Organization{Name: "x", Plan: "none"})
		return err
	})
}

func organizationInUse(e *env) {
	remove := func(id string) func(meta.Change) error {
		return func(c meta.Change) error { return e.db.DeleteOrganization(e.Context(), c, id) }
	}
	e.refused("delete the default organization", meta.ErrInUse, remove("default"))
	a, b := e.organization("a"), e.organization("b")
	p := e.project(meta.ProjectSpec{Name: "acme", OrganizationID: a.ID})
	e.refused("delete an organization with a project", meta.ErrInUse, remove(a.ID))
	e.ok(e.db.SetProject(e.Context(), changing("move"), p.ID, meta.ProjectChange{OrganizationID: &b.ID}))
	e.managed(remove(a.ID))
	c := e.organization("c")
	m := meta.Member{User: e.user("alice").Name, OrganizationID: c.ID, Role: access.Reader}
	e.member(m)
	e.refused("delete an organization with a member", meta.ErrInUse, remove(c.ID))
	e.ok(e.db.RemoveMember(e.Context(), changing("member.remove"), m))
	e.managed(remove(c.ID))
}

func organizationLists(e *env) {
	var ids []string
	for _, name := range []string{"d", "b", "c", "a"} {
		ids = append(ids, e.organization(name).ID)
	}
	for what, c := range map[string]struct {
		view meta.View
		want []string
	}{
		"all organizations":     {meta.View{Everything: true}, []string{"a", "b", "c", "d", "default"}},
		"nobody's":              {meta.View{SignedIn: true}, nil},
		"granted organizations": {meta.View{Grants: []access.Grant{{OrganizationID: ids[0]}, {OrganizationID: ids[1]}, {OrganizationID: ids[0]}, {OrganizationID: ids[3]}, {OrganizationID: "gone"}}}, []string{"a", "b", "d"}},
	} {
		name := func(o meta.Organization) string { return o.Name }
		pages(e, what, name, name, func(after string, n int) ([]meta.Organization, error) {
			return e.db.Organizations(e.Context(), c.view, after, n)
		}, c.want...)
	}
}

// asking is a step that is to happen once.
func asking(id, request, answer string) meta.Change {
	c := changing("step")
	c.Once = &meta.Once{ID: id, Request: request, Answer: []byte(answer)}
	return c
}

// wantRepeated wants err to hold the answer of the first time.
func (e *env) wantRepeated(err error, answer string) {
	e.Helper()
	var repeated *meta.RepeatedError
	if !errors.As(err, &repeated) || string(repeated.Answer) != answer {
		e.Errorf("asked again: %v (%+v), want the answer %q", err, repeated, answer)
	}
}

func onceAnswers(e *env) {
	create := func(ctx context.Context, c meta.Change, name string) error {
		_, err := e.db.CreateOrganization(ctx, c, meta.Organization{Name: name})
		return err
	}
	e.organization("taken")
	e.wantErr("a step that fails", create(e.Context(), asking("1", "x", "no"), "taken"), meta.ErrExists)
	e.ok(create(e.Context(), asking("1", "x", "first"), "acme"))
	generation, lines := e.state()
	e.wantRepeated(create(e.Context(), asking("1", "x", "second"), "acme"), "first")
	e.wantErr("another request under one id", create(e.Context(), asking("1", "y", "second"), "other"), meta.ErrKeyReused)
	if after, more := e.state(); after != generation || len(more) != len(lines) {
		e.Errorf("what is repeated changed something: %v", more)
	}
	e.ok(create(e.Context(), asking("2", "x", "second"), "other"))
}

func onceAtOnce(e *env) {
	won := ""
	errs := together(8, func(i int) error {
		_, err := e.db.CreateOrganization(e.Context(), asking("1", "x", fmt.Sprint(i)), meta.Organization{Name: "acme"})
		return err
	})
	for i, err := range errs {
		if err == nil {
			won += fmt.Sprint(i)
		}
	}
	for _, err := range errs {
		if err != nil {
			e.wantRepeated(err, won)
		}
	}
	if _, lines := e.state(); len(won) != 1 || len(lines) != 1 {
		e.Errorf("%q did it, the trail is %v", won, lines)
	}
}

func onceForgotten(e *env) {
	for i := range 5 {
		_, err := e.db.CreatePlan(e.Context(), asking(fmt.Sprint(i), "x", ""), access.Plan{Name: fmt.Sprint("p", i)})
		e.ok(err)
		e.clock.move(time.Hour)
	}
	for _, want := range []int{2, 1, 0} { // of the three that are two hours old and more
		n, err := e.db.PruneIdempotency(e.Context(), e.clock.now().Add(-2*time.Hour-time.Millisecond), 2)
		if e.ok(err); n != want {
			e.Errorf("forgot %d requests, want %d", n, want)
		}
	}
	_, err := e.db.CreatePlan(e.Context(), asking("2", "x", ""), access.Plan{Name: "new"})
	e.ok(err)
	_, err = e.db.CreatePlan(e.Context(), asking("3", "x", ""), access.Plan{Name: "newer"})
	e.wantRepeated(err, "")
}
