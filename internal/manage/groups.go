package manage

import (
	"context"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

// Groups lists all groups, by name. For admins, as are all verbs of groups.
func (m *Manager) Groups(ctx context.Context, c *Caller, p Page) (List[meta.Group], error) {
	if _, err := m.admin(ctx, c); err != nil {
		return List[meta.Group]{}, err
	}
	all, err := m.o.Store.Groups(ctx, p.After, p.size())
	return page(all, err, p, func(g meta.Group) string { return g.Name })
}

// CreateGroup makes a group of what g says of name, claim and admin. Errors:
// Conflict.
func (m *Manager) CreateGroup(ctx context.Context, c *Caller, g meta.Group) (meta.Group, error) {
	if _, err := m.admin(ctx, c); err != nil {
		return g, err
	}
	if err := access.ValidName("group", g.Name); err != nil {
		return g, asked(err)
	}
	if err := checkText("claim", g.Claim, maxClaim); err != nil {
		return g, err
	}
	g.ID, g.CreatedAt = meta.NewID(), m.now()
	e := c.event("group.create")
	e.Reference = g.Name
	return create(c, e, g, func(change meta.Change) error {
		_, err := m.o.Store.CreateGroup(ctx, change, g)
		return err
	})
}

// Group finds a group.
func (m *Manager) Group(ctx context.Context, c *Caller, name string) (meta.Group, error) {
	if _, err := m.admin(ctx, c); err != nil {
		return meta.Group{}, err
	}
	g, err := m.o.Store.Group(ctx, name)
	return g, asked(err)
}

// SetGroup changes a group. Errors: Conflict.
func (m *Manager) SetGroup(ctx context.Context, c *Caller, name string, change meta.GroupChange) (meta.Group, error) {
	if _, err := m.admin(ctx, c); err != nil {
		return meta.Group{}, err
	}
	if change.Claim != nil {
		if err := checkText("claim", *change.Claim, maxClaim); err != nil {
			return meta.Group{}, err
		}
	}
	e := c.event("group.update")
	e.Reference = name
	if change.Name != nil {
		if err := access.ValidName("group", *change.Name); err != nil {
			return meta.Group{}, asked(err)
		}
	}
	if err := m.o.Store.SetGroup(ctx, meta.Change{Event: e}, name, change); err != nil {
		return meta.Group{}, asked(err)
	}
	if change.Name != nil {
		name = *change.Name
	}
	g, err := m.o.Store.Group(ctx, name)
	return g, asked(err)
}

// DeleteGroup deletes a group with its roles.
func (m *Manager) DeleteGroup(ctx context.Context, c *Caller, name string) error {
	if _, err := m.admin(ctx, c); err != nil {
		return err
	}
	e := c.event("group.delete")
	e.Reference = name
	return asked(m.o.Store.DeleteGroup(ctx, meta.Change{Event: e}, name))
}

// GroupUsers lists the users in a group.
func (m *Manager) GroupUsers(ctx context.Context, c *Caller, group string, p Page) (List[meta.GroupUser], error) {
	if _, err := m.admin(ctx, c); err != nil {
		return List[meta.GroupUser]{}, err
	}
	all, err := m.o.Store.GroupUsers(ctx, group, p.After, p.size())
	return page(all, err, p, func(u meta.GroupUser) string { return u.ID })
}

// AddGroupUser puts a user into a group.
func (m *Manager) AddGroupUser(ctx context.Context, c *Caller, group, user string) error {
	if _, err := m.admin(ctx, c); err != nil {
		return err
	}
	e := c.event("group.user.add")
	e.Reference = group + " " + user
	return asked(m.o.Store.AddGroupUser(ctx, meta.Change{Event: e}, group, user))
}

// RemoveGroupUser takes a user out of a group.
func (m *Manager) RemoveGroupUser(ctx context.Context, c *Caller, group, user string) error {
	if _, err := m.admin(ctx, c); err != nil {
		return err
	}
	e := c.event("group.user.remove")
	e.Reference = group + " " + user
	return asked(m.o.Store.RemoveGroupUser(ctx, meta.Change{Event: e}, group, user))
}
