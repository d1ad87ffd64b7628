package manage

import (
	"context"
	"errors"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/directory"
	"github.com/berth-registry/berth/internal/meta"
)

// actor is a caller as the directory knows it at this moment.
type actor struct {
	*Caller
	directory.Standing
}

// actor looks the caller up. Errors: Unauthorized, Denied for the token of a
// registry client, which manages nothing.
func (m *Manager) actor(ctx context.Context, c *Caller) (*actor, error) {
	if c.Kind == access.Anonymous {
		return nil, errorf(Unauthorized, "log in with a user name and password, or with a key as the password")
	}
	if c.Scopes != nil {
		return nil, m.refuse(ctx, c, "a registry token manages nothing; use a password or a key instead")
	}
	s, err := m.o.Directory.Standing(ctx, &c.Principal)
	var lapsed *directory.LapsedError
	if errors.As(err, &lapsed) {
		return nil, &Error{Code: Unauthorized, Detail: "log in again: the credential does not count any more", Err: err}
	}
	if err != nil {
		return nil, err
	}
	return &actor{c, s}, nil
}

// admin is actor for those who may do everything.
func (m *Manager) admin(ctx context.Context, c *Caller) (*actor, error) {
	a, err := m.actor(ctx, c)
	if err == nil && !a.isAdmin() {
		err = m.refuse(ctx, c, "only an administrator of the server may do this")
	}
	return a, err
}

// refuse records that the caller may not, and says why.
func (m *Manager) refuse(ctx context.Context, c *Caller, why string) error {
	return m.refuseIn(ctx, c, "", why)
}

// refuseIn is refuse of what is about a project.
func (m *Manager) refuseIn(ctx context.Context, c *Caller, project, why string) error {
	e := c.event("manage.refused")
	e.Project, e.Status, e.Reason = project, 403, why
	m.o.Refused(ctx, e)
	return errorf(Denied, "%s", why)
}

// whole reports whether the credential is good for all that its subject is.
func (a *actor) whole() bool { return a.Cap() == access.Owner && a.Covers("") }

// isAdmin: a key that was made narrower does not carry its user's admin right.
func (a *actor) isAdmin() bool { return a.Subject.Admin && a.whole() }

// role is what the actor may do with a project as a whole.
func (a *actor) role(p *access.Project) access.Role {
	switch {
	case a.isAdmin():
		return access.Owner
	case !a.Covers(""):
		return access.None
	case a.Subject.Admin:
		return a.Cap()
	}
	return min(a.Cap(), access.RoleIn(a.Subject.Grants, p, ""))
}

// organizationRole is what the actor may do with an organization.
func (a *actor) organizationRole(id string) access.Role {
	return a.role(&access.Project{OrganizationID: id})
}

// belongs reports whether the actor has any role in the project.
func (a *actor) belongs(p *access.Project) bool {
	if a.Subject.Admin {
		return true
	}
	for i := range a.Subject.Grants {
		g := &a.Subject.Grants[i]
		if g.ProjectID == p.ID || g.OrganizationID != "" && g.OrganizationID == p.OrganizationID {
			return true
		}
	}
	return false
}

// reaches reports whether the credential is good for any part of a project.
func (a *actor) reaches(p *access.Project) bool {
	prefixes := a.Prefixes
	if a.Key != nil {
		prefixes = a.Key.Prefixes
	}
	for _, prefix := range prefixes {
		if access.ProjectOf(prefix) == p.Name {
			return true
		}
	}
	return len(prefixes) == 0
}

// sees reports whether the actor may know of a project: its members and those
// who may pull. A deleted one is there for its owners only.
func (m *Manager) sees(a *actor, p *access.Project) bool {
	if p.Deleted {
		return a.role(p) >= access.Owner
	}
	newcomers := p.Newcomers
	if newcomers == "" {
		newcomers = m.o.Newcomers
	}
	everybody := p.Visibility != access.Private || !p.Claimed && newcomers != access.Closed
	return a.reaches(p) && (everybody || a.belongs(p))
}

// project finds a project that the caller has at least the role in. Errors:
// NotFound where the caller may not even see it, Denied.
func (m *Manager) project(ctx context.Context, c *Caller, name string, least access.Role) (*actor, *access.Project, error) {
	a, err := m.actor(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	p, err := m.o.Directory.Project(ctx, name)
	if errors.Is(err, access.ErrNotFound) {
		return nil, nil, missing("project", name)
	}
	if err != nil {
		return nil, nil, err
	}
	if !m.sees(a, p) {
		return nil, nil, missing("project", name)
	}
	if a.role(p) < least {
		return nil, nil, m.refuseIn(ctx, c, name, "this needs the role "+least.String()+" in project "+name)
	}
	return a, p, nil
}

// live is project for what cannot be done to a deleted one.
func (m *Manager) live(ctx context.Context, c *Caller, name string, least access.Role) (*actor, *access.Project, error) {
	a, p, err := m.project(ctx, c, name, least)
	if err == nil && p.Deleted {
		err = conflict("project %s is deleted; restore it first", name)
	}
	return a, p, err
}

// defaultOrganization is the id of the one that every server has.
const defaultOrganization = "default"

// organization finds an organization that the caller has at least the role in.
// Errors: as of project.
func (m *Manager) organization(ctx context.Context, c *Caller, name string, least access.Role) (*actor, meta.Organization, error) {
	a, err := m.actor(ctx, c)
	if err != nil {
		return nil, meta.Organization{}, err
	}
	o, err := m.o.Store.Organization(ctx, name)
	if err != nil {
		return nil, o, asked(err)
	}
	if !a.seesOrganization(o.ID) {
		return nil, o, missing("organization", name)
	}
	if a.organizationRole(o.ID) < least {
		return nil, o, m.refuse(ctx, c, "this needs the role "+least.String()+" in organization "+name)
	}
	return a, o, nil
}

// seesOrganization reports whether the actor may know of an organization.
func (a *actor) seesOrganization(id string) bool {
	return id == defaultOrganization || a.organizationRole(id) > access.None // the default one nobody need hide
}

// mayGive holds a role that is to be given against the giver's own.
func (m *Manager) mayGive(ctx context.Context, a *actor, own, given access.Role) error {
	if given > own {
		return m.refuse(ctx, a.Caller, "nobody can give the role "+given.String()+" who has the role "+own.String())
	}
	return nil
}
