package manage

import (
	"context"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

// Deleted is what a deleted project held, and until when it can be had back.
type Deleted struct {
	Name string
	meta.Counts
	Until time.Time
}

// RenameProject gives a project another name. For its owners. Errors: Conflict.
func (m *Manager) RenameProject(ctx context.Context, c *Caller, name, wanted string) (Project, error) {
	a, p, err := m.live(ctx, c, name, access.Owner)
	if err != nil {
		return Project{}, err
	}
	if err := access.ValidProjectName(wanted); err != nil {
		return Project{}, asked(err)
	}
	if err := m.noProxy(ctx, name); err != nil {
		return Project{}, err
	}
	e := c.event("project.rename")
	e.Project, e.Reference = name, wanted
	if err := m.o.Store.RenameProject(ctx, meta.Change{Event: e}, p.ID, wanted); err != nil {
		return Project{}, asked(err)
	}
	return m.describe(ctx, a, wanted)
}

// DeleteProject deletes a project; confirm is its name once more. For its
// owners.
func (m *Manager) DeleteProject(ctx context.Context, c *Caller, name, confirm string) (Deleted, error) {
	_, p, err := m.live(ctx, c, name, access.Owner)
	if err != nil {
		return Deleted{}, err
	}
	if confirm != name {
		return Deleted{}, invalid("confirm: repeat the project's name, %s, to delete it", name)
	}
	e := c.event("project.delete")
	e.Project, e.Reference = name, name
	until := m.now().Add(m.o.Restorable)
	n, err := m.o.Store.DeleteProject(ctx, meta.Change{Event: e}, p.ID)
	return Deleted{Name: name, Counts: n, Until: until}, asked(err)
}

// RestoreProject undoes DeleteProject. For the project's owners. Errors:
// Conflict where it is not deleted.
func (m *Manager) RestoreProject(ctx context.Context, c *Caller, name string) (Project, error) {
	a, p, err := m.project(ctx, c, name, access.Owner)
	if err != nil {
		return Project{}, err
	}
	if !p.Deleted {
		return Project{}, conflict("project %s is not deleted", name)
	}
	e := c.event("project.restore")
	e.Project, e.Reference = name, name
	if err := m.o.Store.RestoreProject(ctx, meta.Change{Event: e}, p.ID); err != nil {
		return Project{}, asked(err)
	}
	return m.describe(ctx, a, name)
}
