package manage

import (
	"context"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

// TrustRules lists the trust rules of a project, by name. For its owners.
func (m *Manager) TrustRules(ctx context.Context, c *Caller, project string, p Page) (List[access.TrustRule], error) {
	_, found, err := m.project(ctx, c, project, access.Owner)
	if err != nil {
		return List[access.TrustRule]{}, err
	}
	all, err := m.o.Store.ProjectTrustRules(ctx, found.ID, p.After, p.size())
	return page(all, err, p, func(r access.TrustRule) string { return r.Name })
}

// CreateTrustRule makes a trust rule of what r says of names, issuer, audience,
// claims, role and prefixes. For the project's owners, with a credential that is
// bound to no time or address. Errors: Conflict.
func (m *Manager) CreateTrustRule(ctx context.Context, c *Caller, project string, r access.TrustRule) (access.TrustRule, error) {
	a, p, err := m.live(ctx, c, project, access.Owner)
	if err != nil {
		return r, err
	}
	if err := m.checkTrustRule(&r, project); err != nil {
		return r, err
	}
	if err := m.mayGive(ctx, a, a.role(p), r.Role); err != nil {
		return r, err
	}
	if !a.lasts() {
		return r, m.refuse(ctx, c, "a trust rule lets jobs in from everywhere and until it is deleted: make it with a credential that is not bound to addresses or a time")
	}
	r.ID, r.ProjectID, r.CreatedAt, r.CreatedBy = meta.NewID(), p.ID, m.now(), c.String()
	e := c.event("trust.create")
	e.Project, e.Reference = project, r.Name
	return create(c, e, r, func(change meta.Change) error {
		_, err := m.o.Store.CreateTrustRule(ctx, change, r)
		return err
	})
}

// DeleteTrustRule deletes a trust rule. For the project's owners.
func (m *Manager) DeleteTrustRule(ctx context.Context, c *Caller, project, name string) error {
	_, p, err := m.project(ctx, c, project, access.Owner)
	if err != nil {
		return err
	}
	e := c.event("trust.delete")
	e.Project, e.Reference = project, name
	return asked(m.o.Store.DeleteTrustRule(ctx, meta.Change{Event: e}, p.ID, name))
}
