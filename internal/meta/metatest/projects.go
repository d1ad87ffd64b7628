package metatest

import (
	"errors"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

var projectCases = []testCase{
	{"projects/create", projectCreate},
	{"projects/newcomers", projectNewcomers},
	{"projects/made by a push", projectPushed},
	{"projects/refused", projectRefused},
	{"projects/set", projectSet},
	{"projects/claimed by a setting", projectClaimedBySetting},
	{"projects/usage and limits", projectLimits},
	{"projects/lists", projectLists},
	{"projects/lists of an organization", projectListsOfOne},
	{"projects/two of one name at once", func(e *env) {
		e.wantOneWinner(func(int) error {
			_, err := e.db.CreateProject(e.Context(), changing("project.create"), meta.ProjectSpec{Name: "acme", Visibility: access.Private})
			return err
		}, meta.ErrExists)
	}},
}

func (e *env) project(s meta.ProjectSpec) meta.Project {
	e.Helper()
	if s.Visibility == "" {
		s.Visibility = access.Private
	}
	p, err := e.db.CreateProject(e.Context(), changing("project.create"), s)
	e.ok(err)
	return p
}

func (e *env) findProject(name string) meta.Project {
	e.Helper()
	p, err := e.db.Project(e.Context(), name)
	e.ok(err)
	return p
}

func (e *env) deleteProject(p meta.Project) {
	e.Helper()
	_, err := e.db.DeleteProject(e.Context(), changing("project.delete"), p.ID)
	e.ok(err)
}

func projectCreate(e *env) {
	org, owner := e.organization("acme"), e.user("alice")
	want := meta.Project{ID: meta.NewID(), Name: "app", OrganizationID: org.ID, Organization: "acme", Visibility: access.Internal,
		Claimed: true, Plan: "default", CreatedAt: e.clock.now().Add(-time.Minute)}
	want.NamedAt = want.CreatedAt
	e.managed(func(c meta.Change) error {
		got, err := e.db.CreateProject(e.Context(), c, meta.ProjectSpec{ID: want.ID, Name: "app", OrganizationID: org.ID,
			Visibility: access.Internal, Plan: "default", Owner: owner.ID, CreatedAt: want.CreatedAt})
		if got != want {
			e.Errorf("created %+v, want %+v", got, want)
		}
		return err
	})
	if got := e.findProject("app"); got != want {
		e.Errorf("found %+v, want %+v", got, want)
	}
	p, err := e.db.ProjectAccess(e.Context(), "app")
	e.ok(err)
	if role := e.roleOf(owner, p); role != access.Owner {
		e.Errorf("who made a project is its %v", role)
	}
	if p := e.project(meta.ProjectSpec{Name: "lonely"}); p.Organization != "default" || !p.Claimed {
		e.Errorf("made without an organization or owner: %+v", p)
	}
}

// roleOf is a user's role in a project as a whole.
func (e *env) roleOf(u meta.User, p access.Project) access.Role {
	e.Helper()
	s, err := e.db.UserAccess(e.Context(), u.ID)
	e.ok(err)
	return access.RoleIn(s.Grants, &p, "")
}

func projectNewcomers(e *env) {
	for newcomers, claimed := range map[access.Newcomers]bool{"": true, access.Closed: true, access.Open: false, access.Claim: false} {
		p := e.project(meta.ProjectSpec{Name: "for-" + string(newcomers) + "x", Newcomers: newcomers})
		if p.Claimed != claimed || p.Newcomers != newcomers {
			e.Errorf("for newcomers %q: %+v", newcomers, p)
		}
	}
}

func projectPushed(e *env) {
	e.push("team/app", "a")
	p := e.findProject("team")
	if p.Claimed || p.Visibility != access.Private {
		e.Fatalf("a push made %+v", p)
	}
	e.refused("make a project that a push made", meta.ErrExists, func(c meta.Change) error {
		_, err := e.db.CreateProject(e.Context(), c, meta.ProjectSpec{Name: "team", Visibility: access.Public})
		return err
	})
	e.managed(func(c meta.Change) error {
		return e.db.SetProject(e.Context(), c, p.ID, meta.ProjectChange{Claimed: new(true)})
	})
	if p := e.findProject("team"); !p.Claimed {
		e.Errorf("claimed is %+v", p)
	}
}

func projectRefused(e *env) {
	for what, s := range map[string]meta.ProjectSpec{
		"an unknown organization": {Name: "x", OrganizationID: "none"},
		"an unknown plan":         {Name: "x", Plan: "none"},
		"an unknown owner":        {Name: "x", Owner: "none"},
	} {
		e.refused(what, meta.ErrNotFound, func(c meta.Change) error {
			s.Visibility = access.Private
			_, err := e.db.CreateProject(e.Context(), c, s)
			return err
		})
	}
	_, err := e.db.Project(e.Context(), "x")
	e.wantErr("find a refused project", err, meta.ErrNotFound)
	p := e.project(meta.ProjectSpec{Name: "acme"})
	e.deleteProject(p)
	var deleted *access.DeletedError
	_, err = e.db.CreateProject(e.Context(), changing("step"), meta.ProjectSpec{Name: "acme", Visibility: access.Private})
	e.wantErr("take the name of a deleted project", err, meta.ErrExists)
	if !errors.As(err, &deleted) || deleted.Project != "acme" {
		e.Errorf("the name of a deleted project is refused with %v", err)
	}
	e.refused("set a deleted project", meta.ErrNotFound, func(c meta.Change) error {
		return e.db.SetProject(e.Context(), c, p.ID, meta.ProjectChange{Visibility: new(access.Public)})
	})
	if got := e.findProject("acme"); got.Visibility != access.Private || got.DeletedAt.IsZero() {
		e.Errorf("the deleted project is %+v", got)
	}
}

func projectSet(e *env) {
	plan, org := e.plan("small"), e.organization("acme")
	p := e.project(meta.ProjectSpec{Name: "app"})
	set := func(change meta.ProjectChange) func(meta.Change) error {
		return func(c meta.Change) error { return e.db.SetProject(e.Context(), c, p.ID, change) }
	}
	e.managed(set(meta.ProjectChange{Visibility: new(access.Public)}))
	e.managed(set(meta.ProjectChange{Newcomers: new(access.Claim)}))
	e.managed(set(meta.ProjectChange{OrganizationID: &org.ID}))
	e.managed(set(meta.ProjectChange{Plan: &plan.Name}))
	want := p
	want.Visibility, want.Newcomers, want.OrganizationID, want.Organization, want.Plan = access.Public, access.Claim, org.ID, "acme", "small"
	if got := e.findProject("app"); got != want {
		e.Errorf("set to %+v, want %+v", got, want)
	}
	e.refused("an unknown organization", meta.ErrNotFound, set(meta.ProjectChange{OrganizationID: new("none"), Visibility: new(access.Private)}))
	e.refused("an unknown plan", meta.ErrNotFound, set(meta.ProjectChange{Plan: new("none"), Visibility: new(access.Private)}))
	if got := e.findProject("app"); got != want {
		e.Errorf("refused changes made %+v of %+v", got, want)
	}
	e.managed(set(meta.ProjectChange{Plan: new(""), Newcomers: new(access.Newcomers(""))}))
	if got := e.findProject("app"); got.Plan != "" || got.Newcomers != "" {
		e.Errorf("without plan and policy it is %+v", got)
	}
}

func projectClaimedBySetting(e *env) {
	for _, c := range []struct {
		change meta.ProjectChange
		want   bool
	}{
		{meta.ProjectChange{Plan: new("default")}, false},
		{meta.ProjectChange{Newcomers: new(access.Open)}, false},
		{meta.ProjectChange{Newcomers: new(access.Newcomers(""))}, false},
		{meta.ProjectChange{Visibility: new(access.Public), Newcomers: new(access.Claim)}, false},
		{meta.ProjectChange{Visibility: new(access.Public), Claimed: new(false)}, false},
		{meta.ProjectChange{Visibility: new(access.Private)}, true},
		{meta.ProjectChange{Claimed: new(false)}, false},
		{meta.ProjectChange{Newcomers: new(access.Closed)}, true},
	} {
		if _, err := e.db.Project(e.Context(), "team"); err != nil {
			e.push("team/app", "a")
		}
		e.ok(e.db.SetProject(e.Context(), changing("project.set"), e.findProject("team").ID, c.change))
		if got := e.findProject("team"); got.Claimed != c.want {
			e.Errorf("after %+v claimed is %v", c.change, got.Claimed)
		}
	}
}

func projectLimits(e *env) {
	for name, storage := range map[string]int64{"default": 0, "own": 7, "theirs": 8} {
		if name != "default" {
			e.plan(name)
		}
		e.ok(e.db.SetPlan(e.Context(), changing("plan.set"), name, meta.PlanChange{Storage: &storage, Repositories: new(storage + 10)}))
	}
	org, err := e.db.CreateOrganization(e.Context(), changing("organization.create"), meta.Organization{Name: "acme", Plan: "theirs"})
	e.ok(err)
	for want, s := range map[int64]meta.ProjectSpec{
		0: {Name: "a"},
		8: {Name: "b", OrganizationID: org.ID},
		7: {Name: "c", OrganizationID: org.ID, Plan: "own"},
	} {
		if p := e.project(s); p.MaxStorage != want || p.MaxRepositories != want+10 || p.Plan != s.Plan {
			e.Errorf("limits of %+v are %+v, want %d", s, p, want)
		}
	}
	d, _ := e.push("a/one", "12345")
	e.put(image("a/one", "123", d))
	e.push("a/two", "12345")
	if p := e.findProject("a"); p.Storage != 8 || p.Repositories != 2 {
		e.Errorf("uses %d bytes in %d repositories, want 8 in 2", p.Storage, p.Repositories)
	}
}

// wantProjects wants a list of just these.
func (e *env) wantProjects(what string, v meta.View, f meta.ProjectFilter, want ...string) {
	e.Helper()
	name := func(p meta.Project) string { return p.Name }
	pages(e, what, name, name, func(after string, n int) ([]meta.Project, error) {
		return e.db.Projects(e.Context(), v, f, after, n)
	}, want...)
}

// listed makes an organization "acme" of projects and some outside, whose
// names say their visibility, and returns their ids.
func (e *env) listed() map[string]string {
	ids := map[string]string{"acme": e.organization("acme").ID}
	for name, s := range map[string]meta.ProjectSpec{
		"a-public": {Visibility: access.Public}, "b-internal": {Visibility: access.Internal}, "c-private": {}, "d-private": {},
		"e-public": {Visibility: access.Public, OrganizationID: ids["acme"]}, "f-internal": {Visibility: access.Internal, OrganizationID: ids["acme"]},
		"g-private": {OrganizationID: ids["acme"]}, "h-private": {OrganizationID: ids["acme"]}, "i-deleted": {OrganizationID: ids["acme"]},
		"j-deleted": {Visibility: access.Public},
	} {
		s.Name = name
		p := e.project(s)
		ids[name] = p.ID
		if name == "i-deleted" || name == "j-deleted" {
			e.deleteProject(p)
		}
	}
	return ids
}

func projectLists(e *env) {
	ids := e.listed()
	all := meta.View{Everything: true}
	e.wantProjects("an admin's", all, meta.ProjectFilter{}, "a-public", "b-internal", "c-private", "d-private", "e-public", "f-internal", "g-private", "h-private")
	e.wantProjects("an admin's deleted", all, meta.ProjectFilter{Deleted: true}, "i-deleted", "j-deleted")
	e.wantProjects("anybody's", meta.View{}, meta.ProjectFilter{}, "a-public", "e-public")
	e.wantProjects("anybody's deleted", meta.View{SignedIn: true}, meta.ProjectFilter{Deleted: true})
	e.wantProjects("a stranger's", meta.View{SignedIn: true}, meta.ProjectFilter{}, "a-public", "b-internal", "e-public", "f-internal")
	member := meta.View{SignedIn: true, Grants: []access.Grant{{ProjectID: ids["c-private"]}, {ProjectID: ids["a-public"]}, {ProjectID: ids["c-private"], Prefix: "c-private/x"}, {ProjectID: "gone"}, {ProjectID: ids["j-deleted"]}}}
	e.wantProjects("a member's", member, meta.ProjectFilter{}, "a-public", "b-internal", "c-private", "e-public", "f-internal")
	e.wantProjects("a member's deleted", member, meta.ProjectFilter{Deleted: true}, "j-deleted")
	colleague := meta.View{Grants: []access.Grant{{OrganizationID: ids["acme"]}, {ProjectID: ids["h-private"]}}}
	e.wantProjects("a colleague's", colleague, meta.ProjectFilter{}, "a-public", "e-public", "f-internal", "g-private", "h-private")
	e.wantProjects("a colleague's deleted", colleague, meta.ProjectFilter{Deleted: true}, "i-deleted")
}

func projectListsOfOne(e *env) {
	ids := e.listed()
	in := meta.ProjectFilter{OrganizationID: ids["acme"]}
	e.wantProjects("an admin's", meta.View{Everything: true}, in, "e-public", "f-internal", "g-private", "h-private")
	e.wantProjects("an admin's deleted", meta.View{Everything: true}, meta.ProjectFilter{OrganizationID: ids["acme"], Deleted: true}, "i-deleted")
	e.wantProjects("anybody's", meta.View{}, in, "e-public")
	e.wantProjects("a stranger's", meta.View{SignedIn: true}, in, "e-public", "f-internal")
	e.wantProjects("a member's", meta.View{Grants: []access.Grant{{ProjectID: ids["h-private"]}, {ProjectID: ids["c-private"]}}}, in, "e-public", "h-private")
	e.wantProjects("a colleague's", meta.View{Grants: []access.Grant{{OrganizationID: ids["acme"]}}}, in, "e-public", "f-internal", "g-private", "h-private")
	e.wantProjects("another colleague's", meta.View{Grants: []access.Grant{{OrganizationID: "default"}}}, in, "e-public")
	e.wantProjects("of none", meta.View{Everything: true}, meta.ProjectFilter{OrganizationID: "none"})
}
