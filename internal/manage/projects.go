package manage

import (
	"context"
	"errors"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

// Projects lists the projects that the caller may know of, by name.
func (m *Manager) Projects(ctx context.Context, c *Caller, f ProjectFilter, p Page) (List[Project], error) {
	var out List[Project]
	a, err := m.actor(ctx, c)
	if err != nil {
		return out, err
	}
	filter := meta.ProjectFilter{Deleted: f.Deleted}
	if f.Organization != "" {
		o, err := m.o.Store.Organization(ctx, f.Organization)
		if errors.Is(err, meta.ErrNotFound) {
			return out, nil // as one of which the caller sees nothing
		}
		if err != nil {
			return out, err
		}
		filter.OrganizationID = o.ID
	}
	rows, err := m.o.Store.Projects(ctx, a.view(), filter, p.After, p.size())
	all, err := page(rows, err, p, func(p meta.Project) string { return p.Name })
	out.Next = all.Next
	for _, row := range all.Items {
		if m.sees(a, accessOf(&row)) {
			out.Items = append(out.Items, Project{Project: row, Role: a.role(accessOf(&row))})
		}
	}
	return out, err
}

// CreateProject makes a project; a user who does becomes its owner. For
// maintainers of its organization. Errors: Conflict.
func (m *Manager) CreateProject(ctx context.Context, c *Caller, n NewProject) (Project, error) {
	a, o, err := m.organization(ctx, c, n.Organization, access.Maintainer)
	if err != nil {
		return Project{}, err
	}
	if err := m.checkNewProject(ctx, a, n); err != nil {
		return Project{}, err
	}
	spec := meta.ProjectSpec{
		ID: meta.NewID(), Name: n.Name, OrganizationID: o.ID, Visibility: n.Visibility, Newcomers: n.Newcomers,
		Plan: n.Plan, CreatedAt: m.now(),
	}
	role := a.organizationRole(o.ID)
	if c.Kind == access.User {
		spec.Owner, role = c.ID, min(a.Cap(), access.Owner)
	}
	made := Project{Role: role, Project: meta.Project{
		ID: spec.ID, Name: n.Name, OrganizationID: o.ID, Organization: o.Name, Visibility: n.Visibility, Newcomers: n.Newcomers,
		Claimed: n.Newcomers == "" || n.Newcomers == access.Closed, Plan: n.Plan, CreatedAt: spec.CreatedAt,
	}}
	e := c.event("project.create")
	e.Project, e.Reference = n.Name, n.Name
	return create(c, e, made, func(change meta.Change) error {
		_, err := m.o.Store.CreateProject(ctx, change, spec)
		return err
	})
}

func (m *Manager) checkNewProject(ctx context.Context, a *actor, n NewProject) error {
	if err := access.ValidProjectName(n.Name); err != nil {
		return asked(err)
	}
	if _, err := access.ParseVisibility(string(n.Visibility)); err != nil {
		return invalid("%v", err)
	}
	if n.Newcomers != "" {
		if _, err := access.ParseNewcomers(string(n.Newcomers)); err != nil {
			return invalid("%v", err)
		}
	}
	if n.Plan != "" && !a.isAdmin() {
		return m.refuse(ctx, a.Caller, "only an administrator of the server may choose a plan")
	}
	return nil
}

// Project finds a project that the caller may know of. What it has is for its
// maintainers.
func (m *Manager) Project(ctx context.Context, c *Caller, name string) (Project, error) {
	a, _, err := m.project(ctx, c, name, access.None)
	if err != nil {
		return Project{}, err
	}
	return m.describe(ctx, a, name)
}

// describe tells the actor of a project that may be shown.
func (m *Manager) describe(ctx context.Context, a *actor, name string) (Project, error) {
	row, err := m.o.Store.Project(ctx, name)
	if err != nil {
		return Project{}, asked(err)
	}
	p := Project{Project: row, Role: a.role(accessOf(&row))}
	if p.Role >= access.Maintainer {
		n, err := m.o.Store.CountProject(ctx, row.ID)
		if err != nil {
			return p, asked(err)
		}
		p.Content = &n
	}
	return p, nil
}

// SetProject changes a project. For its owners; the plan for admins; another
// organization for those who are maintainers of that too.
func (m *Manager) SetProject(ctx context.Context, c *Caller, name string, change ProjectChange) (Project, error) {
	a, p, err := m.live(ctx, c, name, access.Owner)
	if err != nil {
		return Project{}, err
	}
	set, err := m.projectChange(ctx, a, change)
	if err != nil {
		return Project{}, err
	}
	e := c.event("project.update")
	e.Project, e.Reference = name, name
	if err := m.o.Store.SetProject(ctx, meta.Change{Event: e}, p.ID, set); err != nil {
		return Project{}, asked(err)
	}
	return m.describe(ctx, a, name)
}

func (m *Manager) projectChange(ctx context.Context, a *actor, change ProjectChange) (meta.ProjectChange, error) {
	set := meta.ProjectChange{Visibility: change.Visibility, Newcomers: change.Newcomers, Plan: change.Plan}
	if change.Visibility != nil {
		if _, err := access.ParseVisibility(string(*change.Visibility)); err != nil {
			return set, invalid("%v", err)
		}
	}
	if change.Newcomers != nil && *change.Newcomers != "" {
		if _, err := access.ParseNewcomers(string(*change.Newcomers)); err != nil {
			return set, invalid("%v", err)
		}
	}
	if change.Plan != nil && !a.isAdmin() {
		return set, m.refuse(ctx, a.Caller, "only an administrator of the server may choose a plan")
	}
	if change.Organization != nil {
		_, o, err := m.organization(ctx, a.Caller, *change.Organization, access.Maintainer)
		if err != nil {
			return set, err
		}
		set.OrganizationID = &o.ID
	}
	return set, nil
}

func accessOf(p *meta.Project) *access.Project {
	return &access.Project{
		ID: p.ID, Name: p.Name, OrganizationID: p.OrganizationID, Visibility: p.Visibility, Newcomers: p.Newcomers,
		Claimed: p.Claimed, Deleted: !p.DeletedAt.IsZero(),
	}
}
