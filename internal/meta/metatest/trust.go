package metatest

import (
	"reflect"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

var trustCases = []testCase{
	{"trust/life", trustLife},
	{"trust/lists", trustLists},
	{"trust/refused", trustRefused},
}

func (e *env) trust(r access.TrustRule) access.TrustRule {
	e.Helper()
	r.Role = access.Writer
	r, err := e.db.CreateTrustRule(e.Context(), changing("trust.create"), r)
	e.ok(err)
	return r
}

func trustLife(e *env) {
	p, other := e.project(meta.ProjectSpec{Name: "acme"}), e.project(meta.ProjectSpec{Name: "other"})
	want := access.TrustRule{ID: meta.NewID(), ProjectID: p.ID, Name: "main", Issuer: "https://ci.example", Audience: "berth",
		Claims: map[string]string{"repository": "acme/app", "ref": "refs/heads/*"}, Role: access.Writer, Prefixes: []string{"acme/app"},
		CreatedAt: e.clock.now().Add(-time.Minute), CreatedBy: "alice"}
	e.managed(func(c meta.Change) error {
		got, err := e.db.CreateTrustRule(e.Context(), c, want)
		if !reflect.DeepEqual(got, want) {
			e.Errorf("created %+v, want %+v", got, want)
		}
		return err
	})
	if got, err := e.db.TrustRule(e.Context(), p.ID, "main"); err != nil || !reflect.DeepEqual(got, want) {
		e.Errorf("found %+v, %v; want %+v", got, err, want)
	}
	remove := func(project string) func(meta.Change) error {
		return func(c meta.Change) error { return e.db.DeleteTrustRule(e.Context(), c, project, "main") }
	}
	e.refused("delete another project's rule", meta.ErrNotFound, remove(other.ID))
	e.managed(remove(p.ID))
	e.refused("delete what is gone", meta.ErrNotFound, remove(p.ID))
	_, err := e.db.TrustRule(e.Context(), p.ID, "main")
	e.wantErr("find a deleted rule", err, meta.ErrNotFound)
	_, err = e.db.TrustRuleByID(e.Context(), want.ID)
	e.wantErr("find a deleted rule by id", err, meta.ErrNotFound)
}

func trustLists(e *env) {
	p, other := e.project(meta.ProjectSpec{Name: "acme"}), e.project(meta.ProjectSpec{Name: "other"})
	for _, name := range []string{"d", "b", "a", "c"} {
		e.trust(access.TrustRule{Name: name, ProjectID: p.ID})
	}
	e.trust(access.TrustRule{Name: "a", ProjectID: other.ID})
	name := func(r access.TrustRule) string { return r.Name }
	for project, want := range map[string][]string{p.ID: {"a", "b", "c", "d"}, other.ID: {"a"}, "none": nil} {
		pages(e, "rules", name, name, func(after string, n int) ([]access.TrustRule, error) {
			return e.db.ProjectTrustRules(e.Context(), project, after, n)
		}, want...)
	}
}

func trustRefused(e *env) {
	p, gone := e.project(meta.ProjectSpec{Name: "acme"}), e.project(meta.ProjectSpec{Name: "gone"})
	e.deleteProject(gone)
	e.trust(access.TrustRule{Name: "taken", ProjectID: p.ID})
	for what, c := range map[string]struct {
		r    access.TrustRule
		want error
	}{
		"a name that is taken":     {access.TrustRule{Name: "taken", ProjectID: p.ID}, meta.ErrExists},
		"an unknown project":       {access.TrustRule{Name: "new", ProjectID: "none"}, meta.ErrNotFound},
		"a deleted project":        {access.TrustRule{Name: "new", ProjectID: gone.ID}, meta.ErrNotFound},
		"another project's prefix": {access.TrustRule{Name: "new", ProjectID: p.ID, Prefixes: []string{"gone/app"}}, access.ErrInvalid},
	} {
		e.refused("a rule of "+what, c.want, func(change meta.Change) error {
			c.r.Role = access.Writer
			_, err := e.db.CreateTrustRule(e.Context(), change, c.r)
			return err
		})
	}
}
