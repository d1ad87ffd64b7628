package apihttp

import (
	"context"
	"net/http"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/manage"
	"github.com/berth-registry/berth/internal/meta"
)

// InProject names a project in a path.
type InProject struct {
	Project string `path:"project" maxLength:"255" doc:"Name of the project" example:"acme"`
}

func projects(a *api) {
	m := a.Manage
	const tag, all, one = "projects", "/projects", "/projects/{project}"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-projects", tag: tag,
		summary: "List projects", description: "Those that you may pull from, sorted by name; private ones that nobody has claimed are for administrators only. A page may hold fewer than the limit and yet not be the last.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		Paging
		Organization string `query:"organization" maxLength:"128" doc:"Only those of this organization" example:"default"`
		Deleted      bool   `query:"deleted" doc:"Those that were deleted and can be restored instead, of which you are owner"`
	}) (*body[List[Project]], error) {
		page, err := m.Projects(ctx, c, manage.ProjectFilter{Organization: in.Organization, Deleted: in.Deleted}, in.page())
		return list(page, err, project)
	})
	add(a, op{
		method: http.MethodPost, path: all, id: "create-project", tag: tag, status: http.StatusCreated,
		summary: "Create a project", description: "You become its owner. For maintainers of the organization.",
	}, func(ctx context.Context, c *manage.Caller, in *struct{ Body NewProject }) (*body[Project], error) {
		p, err := m.CreateProject(ctx, c, newProject(in.Body))
		return answer(project(p), err)
	})
	add(a, op{
		method: http.MethodGet, path: one, id: "get-project", tag: tag,
		summary: "Get a project", description: "With what it uses, for its maintainers. For those who may pull from it.",
	}, func(ctx context.Context, c *manage.Caller, in *InProject) (*body[Project], error) {
		p, err := m.Project(ctx, c, in.Project)
		return answer(project(p), err)
	})
	add(a, op{
		method: http.MethodPatch, path: one, id: "update-project", tag: tag,
		summary: "Change a project", description: "For its owners.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProject
		Body ProjectChange
	}) (*body[Project], error) {
		p, err := m.SetProject(ctx, c, in.Project, projectChange(in.Body))
		return answer(project(p), err)
	})
	projectLife(a)
}

func projectLife(a *api) {
	m := a.Manage
	const tag, one = "projects", "/projects/{project}"
	add(a, op{
		method: http.MethodPost, path: one + "/rename", id: "rename-project", tag: tag, status: http.StatusOK,
		summary: "Rename a project", description: "Its repositories get the new first segment and keep their content; clients must use the new names. For its owners.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProject
		Body Rename
	}) (*body[Project], error) {
		p, err := m.RenameProject(ctx, c, in.Project, in.Body.Name)
		return answer(project(p), err)
	})
	add(a, op{
		method: http.MethodDelete, path: one, id: "delete-project", tag: tag,
		summary: "Delete a project", description: "It is hidden at once and can be restored for a time. For its owners.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProject
		Confirm string `query:"confirm" required:"true" maxLength:"255" doc:"The project's name once more" example:"acme"`
	}) (*body[DeletedProject], error) {
		d, err := m.DeleteProject(ctx, c, in.Project, in.Confirm)
		return answer(DeletedProject{Name: d.Name, Content: content(d.Counts), RestorableUntil: d.Until.UTC()}, err)
	})
	add(a, op{
		method: http.MethodPost, path: one + "/restore", id: "restore-project", tag: tag, status: http.StatusOK,
		summary: "Restore a deleted project", description: "As it was. For its owners.",
	}, func(ctx context.Context, c *manage.Caller, in *InProject) (*body[Project], error) {
		p, err := m.RestoreProject(ctx, c, in.Project)
		return answer(project(p), err)
	})
}

func newProject(p NewProject) manage.NewProject {
	return manage.NewProject{
		Name: p.Name, Organization: p.Organization, Plan: p.Plan,
		Visibility: access.Visibility(p.Visibility), Newcomers: access.Newcomers(p.Newcomers),
	}
}

func projectChange(p ProjectChange) (c manage.ProjectChange) {
	if p.Visibility != nil {
		c.Visibility = new(access.Visibility(*p.Visibility))
	}
	if p.Newcomers != nil {
		c.Newcomers = new(access.Newcomers(*p.Newcomers))
	}
	c.Plan, c.Organization = p.Plan, p.Organization
	return c
}

func project(p manage.Project) Project {
	out := Project{
		Name: p.Name, Organization: p.Organization, Visibility: string(p.Visibility), Newcomers: string(p.Newcomers),
		Claimed: p.Claimed, Plan: p.Plan, Created: p.CreatedAt.UTC(), Deleted: maybe(p.DeletedAt), Role: p.Role.String(),
	}
	if p.Content != nil {
		out.Content = new(content(*p.Content))
		out.Usage = &ProjectUsage{Storage: p.Storage, Repositories: p.Repositories, MaxStorage: p.MaxStorage, MaxRepositories: p.MaxRepositories}
	}
	return out
}

func content(n meta.Counts) ProjectContent {
	return ProjectContent{Repositories: n.Repositories, Tags: n.Tags, Manifests: n.Manifests, Storage: n.Bytes}
}

// maybe is nil for the zero time.
func maybe(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}
