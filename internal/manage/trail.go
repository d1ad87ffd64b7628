package manage

import (
	"context"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/meta"
)

// Audit lists events, the oldest first unless the filter says otherwise; a page
// may be short and yet not be the last. That of one project is for its
// maintainers, the whole for admins.
func (m *Manager) Audit(ctx context.Context, c *Caller, f meta.AuditFilter, p Page) (List[audit.Event], error) {
	if err := m.mayAudit(ctx, c, &f); err != nil {
		return List[audit.Event]{}, err
	}
	events, next, err := m.o.Store.ListAudit(ctx, f, p.After, p.size())
	return List[audit.Event]{Items: events, Next: next}, err
}

// ExportAudit is Audit of all events, the oldest first. What can be found out
// before the first event has an error of its own; each then gives the events in
// turn, until yield fails or the rest cannot be read.
func (m *Manager) ExportAudit(ctx context.Context, c *Caller, f meta.AuditFilter) (each func(yield func(audit.Event) error) error, err error) {
	if err := m.mayAudit(ctx, c, &f); err != nil {
		return nil, err
	}
	events, next, err := m.o.Store.ListAudit(ctx, f, "", MaxPage)
	if err != nil {
		return nil, err
	}
	return func(yield func(audit.Event) error) error {
		for {
			for _, e := range events {
				if err := yield(e); err != nil {
					return err
				}
			}
			if next == "" {
				return nil
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if events, next, err = m.o.Store.ListAudit(ctx, f, next, MaxPage); err != nil {
				return err
			}
		}
	}, nil
}

func (m *Manager) mayAudit(ctx context.Context, c *Caller, f *meta.AuditFilter) error {
	if f.Project == "" {
		f.Project = access.ProjectOf(f.Repository)
	}
	if f.Project == "" {
		_, err := m.admin(ctx, c)
		return err
	}
	a, err := m.actor(ctx, c)
	if err != nil || a.isAdmin() { // who may look at what was done in projects that are gone
		return err
	}
	if _, _, err = m.project(ctx, c, f.Project, access.Maintainer); err != nil {
		return err
	}
	// The trail knows projects by name: another may have had it before.
	row, err := m.o.Store.Project(ctx, f.Project)
	if err == nil && f.Since.Before(row.NamedAt) {
		f.Since = row.NamedAt
	}
	return asked(err)
}
