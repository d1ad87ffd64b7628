package manage

import (
	"context"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

// Plans lists all plans, by name. For admins, as are all verbs of plans.
func (m *Manager) Plans(ctx context.Context, c *Caller, p Page) (List[access.Plan], error) {
	if _, err := m.admin(ctx, c); err != nil {
		return List[access.Plan]{}, err
	}
	all, err := m.o.Store.Plans(ctx, p.After, p.size())
	return page(all, err, p, func(p access.Plan) string { return p.Name })
}

// CreatePlan makes a plan. Errors: Conflict.
func (m *Manager) CreatePlan(ctx context.Context, c *Caller, p access.Plan) (access.Plan, error) {
	if _, err := m.admin(ctx, c); err != nil {
		return p, err
	}
	if err := access.ValidName("plan", p.Name); err != nil {
		return p, asked(err)
	}
	if err := checkBounds(p.Rates, &p.MaxBlob, &p.MaxManifest, &p.Storage, &p.Repositories); err != nil {
		return p, err
	}
	p.ID, p.CreatedAt = meta.NewID(), m.now()
	e := c.event("plan.create")
	e.Reference = p.Name
	return create(c, e, p, func(change meta.Change) error {
		_, err := m.o.Store.CreatePlan(ctx, change, p)
		return err
	})
}

// Plan finds a plan.
func (m *Manager) Plan(ctx context.Context, c *Caller, name string) (access.Plan, error) {
	if _, err := m.admin(ctx, c); err != nil {
		return access.Plan{}, err
	}
	p, err := m.o.Store.Plan(ctx, name)
	return p, asked(err)
}

// SetPlan changes a plan. Errors: Conflict.
func (m *Manager) SetPlan(ctx context.Context, c *Caller, name string, change meta.PlanChange) (access.Plan, error) {
	if _, err := m.admin(ctx, c); err != nil {
		return access.Plan{}, err
	}
	var rates []access.Rate
	if change.Rates != nil {
		rates = *change.Rates
	}
	if err := checkBounds(rates, change.MaxBlob, change.MaxManifest, change.Storage, change.Repositories); err != nil {
		return access.Plan{}, err
	}
	if change.Name != nil {
		if err := access.ValidName("plan", *change.Name); err != nil {
			return access.Plan{}, asked(err)
		}
	}
	e := c.event("plan.update")
	e.Reference = name
	if err := m.o.Store.SetPlan(ctx, meta.Change{Event: e}, name, change); err != nil {
		return access.Plan{}, asked(err)
	}
	if change.Name != nil {
		name = *change.Name
	}
	p, err := m.o.Store.Plan(ctx, name)
	return p, asked(err)
}

// DeletePlan deletes a plan that nobody has. Errors: Conflict.
func (m *Manager) DeletePlan(ctx context.Context, c *Caller, name string) error {
	if _, err := m.admin(ctx, c); err != nil {
		return err
	}
	e := c.event("plan.delete")
	e.Reference = name
	return asked(m.o.Store.DeletePlan(ctx, meta.Change{Event: e}, name))
}
