package manage

import (
	"context"
	"slices"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

// Organizations lists those that the caller has a role in, by name.
func (m *Manager) Organizations(ctx context.Context, c *Caller, p Page) (List[meta.Organization], error) {
	a, err := m.actor(ctx, c)
	if err != nil {
		return List[meta.Organization]{}, err
	}
	rows, err := m.o.Store.Organizations(ctx, a.view(), p.After, p.size())
	all, err := page(rows, err, p, func(o meta.Organization) string { return o.Name })
	all.Items = slices.DeleteFunc(all.Items, func(o meta.Organization) bool { return !a.seesOrganization(o.ID) })
	return all, err
}

// CreateOrganization makes an organization. For admins. Errors: Conflict.
func (m *Manager) CreateOrganization(ctx context.Context, c *Caller, name, plan string) (meta.Organization, error) {
	o := meta.Organization{ID: meta.NewID(), Name: name, Plan: plan, CreatedAt: m.now()}
	if _, err := m.admin(ctx, c); err != nil {
		return o, err
	}
	if err := access.ValidName("organization", name); err != nil {
		return o, asked(err)
	}
	e := c.event("organization.create")
	e.Reference = name
	return create(c, e, o, func(change meta.Change) error {
		_, err := m.o.Store.CreateOrganization(ctx, change, o)
		return err
	})
}

// Organization finds an organization that the caller has a role in.
func (m *Manager) Organization(ctx context.Context, c *Caller, name string) (meta.Organization, error) {
	_, o, err := m.organization(ctx, c, name, access.Reader)
	return o, err
}

// SetOrganization changes an organization; nil stays. For admins. Errors:
// Conflict.
func (m *Manager) SetOrganization(ctx context.Context, c *Caller, name string, change meta.OrganizationChange) (meta.Organization, error) {
	if _, err := m.admin(ctx, c); err != nil {
		return meta.Organization{}, err
	}
	o, err := m.o.Store.Organization(ctx, name)
	if err != nil {
		return o, asked(err)
	}
	if change.Name != nil {
		if err := access.ValidName("organization", *change.Name); err != nil {
			return o, asked(err)
		}
		name = *change.Name
	}
	e := c.event("organization.update")
	e.Reference = o.Name
	if err := m.o.Store.SetOrganization(ctx, meta.Change{Event: e}, o.ID, change); err != nil {
		return o, asked(err)
	}
	o, err = m.o.Store.Organization(ctx, name)
	return o, asked(err)
}

// DeleteOrganization deletes an organization that holds nothing. For admins.
// Errors: Conflict.
func (m *Manager) DeleteOrganization(ctx context.Context, c *Caller, name string) error {
	if _, err := m.admin(ctx, c); err != nil {
		return err
	}
	o, err := m.o.Store.Organization(ctx, name)
	if err != nil {
		return asked(err)
	}
	e := c.event("organization.delete")
	e.Reference = name
	return asked(m.o.Store.DeleteOrganization(ctx, meta.Change{Event: e}, o.ID))
}

// OrganizationMembers lists who has a role in an organization. For its members.
func (m *Manager) OrganizationMembers(ctx context.Context, c *Caller, name string, p Page) (List[Member], error) {
	_, o, err := m.organization(ctx, c, name, access.Reader)
	if err != nil {
		return List[Member]{}, err
	}
	return m.members(ctx, o.ID, p)
}

// SetOrganizationMember gives a role in an organization. For its owners.
func (m *Manager) SetOrganizationMember(ctx context.Context, c *Caller, name string, who Member) (Member, error) {
	a, o, err := m.organization(ctx, c, name, access.Owner)
	if err != nil {
		return who, err
	}
	e := c.event("organization.member.set")
	e.Reference = name + " " + who.String()
	return m.setMember(ctx, a, e, a.organizationRole(o.ID), meta.Member{OrganizationID: o.ID}, who)
}

// RemoveOrganizationMember takes a role in an organization away. For its owners.
func (m *Manager) RemoveOrganizationMember(ctx context.Context, c *Caller, name string, who Member) error {
	_, o, err := m.organization(ctx, c, name, access.Owner)
	if err != nil {
		return err
	}
	e := c.event("organization.member.remove")
	e.Reference = name + " " + who.String()
	return m.removeMember(ctx, e, meta.Member{OrganizationID: o.ID}, who)
}

// view is what lists show to the actor.
func (a *actor) view() meta.View {
	return meta.View{Everything: a.Subject.Admin, SignedIn: true, Grants: a.Subject.Grants}
}
