package metatest

import (
	"reflect"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

var planCases = []testCase{
	{"plans/life", planLife},
	{"plans/default", planDefault},
	{"plans/in use", planInUse},
	{"plans/lists", planLists},
	{"plans/refused", planRefused},
}

func (e *env) setPlan(name string, p meta.PlanChange) func(meta.Change) error {
	return func(c meta.Change) error { return e.db.SetPlan(e.Context(), c, name, p) }
}

func (e *env) deletePlan(name string) func(meta.Change) error {
	return func(c meta.Change) error { return e.db.DeletePlan(e.Context(), c, name) }
}

func planLife(e *env) {
	rates := []access.Rate{{Per: access.PerAddress, Unit: access.Requests, Window: time.Minute, Amount: 10}}
	want := access.Plan{ID: meta.NewID(), Name: "small", Rates: rates, MaxBlob: 1, MaxManifest: 2, Storage: 3, Repositories: 4,
		CreatedAt: e.clock.now().Add(-time.Minute)}
	e.managed(func(c meta.Change) error {
		got, err := e.db.CreatePlan(e.Context(), c, want)
		if !reflect.DeepEqual(got, want) {
			e.Errorf("created %+v, want %+v", got, want)
		}
		return err
	})
	wantPlan := func() {
		e.Helper()
		if got, err := e.db.Plan(e.Context(), want.Name); err != nil || !reflect.DeepEqual(got, want) {
			e.Errorf("found %+v, %v; want %+v", got, err, want)
		}
	}
	wantPlan()
	e.managed(e.setPlan("small", meta.PlanChange{Name: new("tiny"), Storage: new(int64(0))}))
	want.Name, want.Storage = "tiny", 0
	wantPlan()
	e.managed(e.setPlan("tiny", meta.PlanChange{Rates: &[]access.Rate{}, MaxBlob: new(int64(9)), MaxManifest: new(int64(8)), Repositories: new(int64(7))}))
	want.Rates, want.MaxBlob, want.MaxManifest, want.Repositories = []access.Rate{}, 9, 8, 7
	wantPlan()
	e.managed(e.setPlan("tiny", meta.PlanChange{Rates: &rates}))
	want.Rates = rates
	wantPlan()
	e.managed(e.deletePlan("tiny"))
	_, err := e.db.Plan(e.Context(), "tiny")
	e.wantErr("find a deleted plan", err, meta.ErrNotFound)
}

func planDefault(e *env) {
	e.refused("delete the default plan", meta.ErrInUse, e.deletePlan("default"))
	e.refused("rename the default plan", meta.ErrInUse, e.setPlan("default", meta.PlanChange{Name: new("other")}))
	e.managed(e.setPlan("default", meta.PlanChange{Name: new("default"), Storage: new(int64(5))}))
	if p, err := e.db.PlanByID(e.Context(), access.DefaultPlan); err != nil || p.Storage != 5 || p.Name != "default" {
		e.Errorf("the default plan is %+v, %v", p, err)
	}
}

func planInUse(e *env) {
	e.plan("small")
	org, user, project := e.organization("acme"), e.user("alice"), e.project(meta.ProjectSpec{Name: "acme"})
	for what, set := range map[string]func(c meta.Change, plan string) error{
		"an organization": func(c meta.Change, plan string) error {
			return e.db.SetOrganization(e.Context(), c, org.ID, meta.OrganizationChange{Plan: &plan})
		},
		"a user": func(c meta.Change, plan string) error {
			return e.db.SetUser(e.Context(), c, user.Name, meta.UserChange{Plan: &plan})
		},
		"a project": func(c meta.Change, plan string) error {
			return e.db.SetProject(e.Context(), c, project.ID, meta.ProjectChange{Plan: &plan})
		},
	} {
		e.ok(set(changing("set"), "small"))
		e.refused("delete the plan of "+what, meta.ErrInUse, e.deletePlan("small"))
		e.ok(set(changing("set"), ""))
	}
	e.managed(e.deletePlan("small"))
}

func planLists(e *env) {
	for _, name := range []string{"c", "e", "b"} {
		e.plan(name)
	}
	name := func(p access.Plan) string { return p.Name }
	pages(e, "plans", name, name, func(after string, n int) ([]access.Plan, error) {
		return e.db.Plans(e.Context(), after, n)
	}, "b", "c", "default", "e")
}

func planRefused(e *env) {
	e.plan("a")
	e.plan("b")
	e.refused("create a plan that exists", meta.ErrExists, func(c meta.Change) error {
		_, err := e.db.CreatePlan(e.Context(), c, access.Plan{Name: "a"})
		return err
	})
	e.refused("take another's name", meta.ErrExists, e.setPlan("a", meta.PlanChange{Name: new("b")}))
	for _, name := range []string{"none", ""} {
		e.refused("set an unknown plan", meta.ErrNotFound, e.setPlan(name, meta.PlanChange{Name: new("c")}))
		e.refused("delete an unknown plan", meta.ErrNotFound, e.deletePlan(name))
	}
}
