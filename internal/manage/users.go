package manage

import (
	"context"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

// Users lists all users, by name. For admins.
func (m *Manager) Users(ctx context.Context, c *Caller, p Page) (List[meta.User], error) {
	if _, err := m.admin(ctx, c); err != nil {
		return List[meta.User]{}, err
	}
	all, err := m.o.Store.Users(ctx, p.After, p.size())
	return page(all, err, p, func(u meta.User) string { return u.Name })
}

// User finds a user. For admins and that user.
func (m *Manager) User(ctx context.Context, c *Caller, name string) (meta.User, error) {
	if _, _, err := m.person(ctx, c, name); err != nil {
		return meta.User{}, err
	}
	u, err := m.o.Store.User(ctx, name)
	return u, asked(err)
}

// CreateUser makes a user; the first one of all becomes an admin. For admins.
// Errors: Conflict.
func (m *Manager) CreateUser(ctx context.Context, c *Caller, n NewUser) (meta.User, error) {
	u := meta.User{ID: meta.NewID(), Name: n.Name, HasPassword: n.Password != "", Admin: n.Admin, Plan: n.Plan, CreatedAt: m.now()}
	if _, err := m.admin(ctx, c); err != nil {
		return u, err
	}
	spec, err := m.userSpec(ctx, n)
	if err != nil {
		return u, err
	}
	first, err := m.o.Store.Users(ctx, "", 1)
	if err != nil {
		return u, err
	}
	if len(first) == 0 && n.Password == "" {
		return u, conflict("with the first user, who becomes an administrator, the server begins to ask for log-in: give the user a password, or run `berth admin reset --data DIR`")
	}
	spec.ID, spec.CreatedAt, u.Admin = u.ID, u.CreatedAt, u.Admin || len(first) == 0
	e := c.event("user.create")
	e.Reference = n.Name
	return create(c, e, u, func(change meta.Change) error {
		_, err := m.o.Store.CreateUser(ctx, change, spec)
		return err
	})
}

func (m *Manager) userSpec(ctx context.Context, n NewUser) (s meta.UserSpec, err error) {
	s = meta.UserSpec{Name: n.Name, Admin: n.Admin, Plan: n.Plan}
	if err := access.ValidUserName(n.Name); err != nil {
		return s, asked(err)
	}
	if n.Password != "" {
		s.Password, err = m.hash(ctx, n.Password)
	}
	return s, err
}

// SetUser changes a user; the Password in change is the new one itself. For
// admins. Errors: Conflict where it is the last admin.
func (m *Manager) SetUser(ctx context.Context, c *Caller, name string, change meta.UserChange) (meta.User, error) {
	if _, err := m.admin(ctx, c); err != nil {
		return meta.User{}, err
	}
	if change.Password != nil && *change.Password != "" {
		hash, err := m.hash(ctx, *change.Password)
		if err != nil {
			return meta.User{}, err
		}
		change.Password = &hash
	}
	e := c.event("user.update")
	e.Reference = name
	if err := m.o.Store.SetUser(ctx, meta.Change{Event: e}, name, change); err != nil {
		return meta.User{}, asked(err)
	}
	u, err := m.o.Store.User(ctx, name)
	return u, asked(err)
}

// DeleteUser deletes a user with all that is theirs. For admins. Errors:
// Conflict where it is the last admin.
func (m *Manager) DeleteUser(ctx context.Context, c *Caller, name string) error {
	if _, err := m.admin(ctx, c); err != nil {
		return err
	}
	e := c.event("user.delete")
	e.Reference = name
	return asked(m.o.Store.DeleteUser(ctx, meta.Change{Event: e}, name))
}

// EndSessions makes the tokens worthless that a user was given until now. For
// the user, whose name may then be "", and for admins.
func (m *Manager) EndSessions(ctx context.Context, c *Caller, name string) error {
	a, _, err := m.person(ctx, c, name)
	if err != nil {
		return err
	}
	if err := m.needWhole(ctx, a); err != nil {
		return err
	}
	if name == "" {
		name = a.Subject.Name
	}
	e := c.event("user.sessions.end")
	e.Reference = name
	return asked(m.o.Store.EndSessions(ctx, meta.Change{Event: e}, name))
}

// Self says who the caller is. For everybody who is logged in.
func (m *Manager) Self(ctx context.Context, c *Caller) (Self, error) {
	a, err := m.actor(ctx, c)
	if err != nil {
		return Self{}, err
	}
	return Self{Kind: c.Kind, Name: a.Subject.Name, Admin: a.isAdmin(), KeyID: c.KeyID}, nil
}

// ChangePassword changes the caller's own password, who must know the old one.
// It ends the caller's sessions. Errors: Denied where the old one is wrong,
// TooMany.
func (m *Manager) ChangePassword(ctx context.Context, c *Caller, old, wanted string) error {
	a, _, err := m.person(ctx, c, "")
	if err != nil {
		return err
	}
	name := a.Subject.Name
	switch right, err := m.o.Passwords.Verify(ctx, name, old); {
	case err != nil:
		return throttled(err)
	case !right:
		return m.refuse(ctx, c, "the old password is wrong")
	}
	hash, err := m.hash(ctx, wanted)
	if err != nil {
		return err
	}
	e := c.event("user.password")
	e.Reference = name
	return asked(m.o.Store.SetUser(ctx, meta.Change{Event: e}, name, meta.UserChange{Password: &hash}))
}

// person finds the user whom something is about: "" is the caller. Errors:
// Denied for others than that user and admins.
func (m *Manager) person(ctx context.Context, c *Caller, name string) (*actor, string, error) {
	a, err := m.actor(ctx, c)
	if err != nil {
		return a, "", err
	}
	if c.Kind == access.User && (name == "" || name == a.Subject.Name) {
		return a, c.ID, nil
	}
	if name == "" {
		return a, "", errorf(Denied, "this is for users, and you are none: %s", c.Kind)
	}
	if !a.isAdmin() {
		return a, "", m.refuse(ctx, c, "only an administrator of the server may do this to another user")
	}
	u, err := m.o.Store.User(ctx, name)
	return a, u.ID, asked(err)
}

// needWhole refuses credentials that were made narrower than their user.
func (m *Manager) needWhole(ctx context.Context, a *actor) error {
	if a.whole() {
		return nil
	}
	return m.refuse(ctx, a.Caller, "this key was made for less; use your password or a key without bounds")
}
