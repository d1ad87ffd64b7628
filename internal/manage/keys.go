package manage

import (
	"context"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/meta"
)

// ProjectKeys lists the keys of a project, also those that are revoked. For its
// maintainers.
func (m *Manager) ProjectKeys(ctx context.Context, c *Caller, project string, p Page) (List[access.Key], error) {
	_, found, err := m.project(ctx, c, project, access.Maintainer)
	if err != nil {
		return List[access.Key]{}, err
	}
	return m.keys(ctx, found.ID, p)
}

// CreateProjectKey makes a key of a project that can do no more than the
// caller. For its maintainers. Errors: Conflict.
func (m *Manager) CreateProjectKey(ctx context.Context, c *Caller, project string, n NewKey) (CreatedKey, error) {
	a, p, err := m.live(ctx, c, project, access.Maintainer)
	if err != nil {
		return CreatedKey{}, err
	}
	if n.Role == access.None {
		return CreatedKey{}, invalid("a project's key needs a role: reader, writer, maintainer or owner")
	}
	if err := m.mayGive(ctx, a, a.role(p), n.Role); err != nil {
		return CreatedKey{}, err
	}
	k, err := m.newKey(ctx, a, n, project)
	if err != nil {
		return k, err
	}
	k.ProjectID = p.ID
	return m.createKey(ctx, a, auth.ProjectKey, k, project)
}

// RevokeProjectKey makes a key of a project worthless. ref is its name or id.
// For the project's maintainers.
func (m *Manager) RevokeProjectKey(ctx context.Context, c *Caller, project, ref string) error {
	a, p, err := m.project(ctx, c, project, access.Maintainer)
	if err != nil {
		return err
	}
	k, err := m.o.Store.Key(ctx, p.ID, ref)
	if err == nil {
		if err := m.mayGive(ctx, a, a.role(p), k.Role); err != nil {
			return err
		}
	}
	e := c.event("key.revoke")
	e.Project, e.Reference = project, ref
	_, err = m.o.Store.RevokeKey(ctx, meta.Change{Event: e}, p.ID, ref)
	return asked(err)
}

// UserKeys lists the keys of a user, also those that are revoked. For the user,
// whose name may then be "", and for admins.
func (m *Manager) UserKeys(ctx context.Context, c *Caller, user string, p Page) (List[access.Key], error) {
	_, id, err := m.person(ctx, c, user)
	if err != nil {
		return List[access.Key]{}, err
	}
	return m.keys(ctx, id, p)
}

// CreateUserKey makes a key of a user: the user may do so, as far as the
// credential reaches that is used for it, and admins. Errors: Conflict.
func (m *Manager) CreateUserKey(ctx context.Context, c *Caller, user string, n NewKey) (CreatedKey, error) {
	a, id, err := m.person(ctx, c, user)
	if err != nil {
		return CreatedKey{}, err
	}
	role := n.Role
	if role == access.None {
		role = access.Owner
	}
	if err := m.mayGive(ctx, a, a.Cap(), role); err != nil {
		return CreatedKey{}, err
	}
	k, err := m.newKey(ctx, a, n, "")
	if err != nil {
		return k, err
	}
	k.UserID = id
	return m.createKey(ctx, a, auth.UserKey, k, user)
}

// RevokeUserKey makes a key of a user worthless. For the user and admins; a
// key that was made narrower revokes none but itself.
func (m *Manager) RevokeUserKey(ctx context.Context, c *Caller, user, ref string) error {
	a, id, err := m.person(ctx, c, user)
	if err != nil {
		return err
	}
	if k, err := m.o.Store.Key(ctx, id, ref); err != nil || k.ID != c.KeyID {
		if err := m.needWhole(ctx, a); err != nil {
			return err
		}
	}
	e := c.event("key.revoke")
	e.Reference = ref
	if user != "" {
		e.Reference = user + "/" + ref
	}
	_, err = m.o.Store.RevokeKey(ctx, meta.Change{Event: e}, id, ref)
	return asked(err)
}

func (m *Manager) keys(ctx context.Context, owner string, p Page) (List[access.Key], error) {
	all, err := m.o.Store.Keys(ctx, owner, true, p.After, p.size())
	return page(all, err, p, func(k access.Key) string { return k.ID })
}

// newKey checks what is asked for and holds it against the credential that it
// is asked for with. The repositories must lie in project, if one is named.
func (m *Manager) newKey(ctx context.Context, a *actor, n NewKey, project string) (CreatedKey, error) {
	k := CreatedKey{Key: access.Key{
		ID: meta.NewID(), Name: n.Name, Role: n.Role, Prefixes: n.Prefixes, CreatedAt: m.now(), CreatedBy: a.String(),
	}}
	if err := access.ValidLabel("key", n.Name); err != nil {
		return k, asked(err)
	}
	if err := checkPrefixes(n.Prefixes, project); err != nil {
		return k, err
	}
	var err error
	if k.Addresses, err = addresses(n.Addresses); err != nil {
		return k, err
	}
	if k.ExpiresAt, err = m.expiry(n.ExpiresAt); err != nil {
		return k, err
	}
	if why := a.wider(&k.Key); why != "" {
		return k, m.refuse(ctx, a.Caller, "the new key must not be good for more than the credential it is asked for with: "+why)
	}
	return k, nil
}

// wider says how k reaches further than the credential of the actor; "": it
// does not.
func (a *actor) wider(k *access.Key) string {
	for _, prefix := range k.Prefixes {
		if !a.Covers(prefix) {
			return "repositories at or below " + prefix
		}
	}
	switch {
	case a.Kind == access.Workload:
		return "that of a job ends with the job"
	case len(k.Prefixes) == 0 && !a.Covers(""):
		return "name its prefixes"
	case a.Key == nil || a.stands():
		return ""
	case !within(k.Addresses, a.Key.Addresses):
		return "name addresses among those of the credential"
	case !a.Key.ExpiresAt.IsZero() && (k.ExpiresAt.IsZero() || k.ExpiresAt.After(a.Key.ExpiresAt)):
		return "let it expire by " + a.Key.ExpiresAt.UTC().Format("2006-01-02T15:04:05Z")
	}
	return ""
}

// stands reports whether the key that is used stands for its user in every way,
// like that of a log-in: it may make keys that outlive it.
func (a *actor) stands() bool {
	return a.Kind == access.User && a.whole() && len(a.Key.Addresses) == 0
}

// lasts reports whether the credential is good for ever and from everywhere, as
// what it makes may be that has no bounds of its own.
func (a *actor) lasts() bool {
	switch {
	case a.Kind == access.Workload:
		return false
	case a.Key == nil || a.stands():
		return true
	}
	return a.Key.ExpiresAt.IsZero() && len(a.Key.Addresses) == 0
}

// createKey stores k with a secret of its own.
func (m *Manager) createKey(ctx context.Context, a *actor, kind auth.KeyKind, k CreatedKey, owner string) (CreatedKey, error) {
	if err := m.guardable(ctx, a); err != nil {
		return k, err
	}
	var hash string
	k.Secret, hash = auth.NewKey(kind)
	e := a.event("key.create")
	e.Reference = k.Name
	if k.ProjectID != "" {
		e.Project = owner
	} else if owner != "" {
		e.Reference = owner + "/" + k.Name
	}
	return create(a.Caller, e, k, func(change meta.Change) error {
		_, err := m.o.Store.CreateKey(ctx, change, k.Key, hash)
		return err
	})
}

// guardable refuses to make the first credential of a server that asks for none
// as long as there is no user: nobody could manage it any more.
func (m *Manager) guardable(ctx context.Context, a *actor) error {
	if a.Kind != access.Local {
		return nil
	}
	users, err := m.o.Store.Users(ctx, "", 1)
	if err == nil && len(users) == 0 {
		err = conflict("with the first key the server begins to ask for log-in, and there is nobody yet who could manage it: create the first user, who becomes an administrator, or run `berth admin reset --data DIR`")
	}
	return err
}
