package apihttp

import (
	"context"
	"net/http"

	"github.com/berth-registry/berth/internal/manage"
)

func members(a *api) {
	m := a.Manage
	const tag, all, one = "members", "/projects/{project}/members", "/projects/{project}/members/{kind}/{member}"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-project-members", tag: tag,
		summary: "List the members of a project", description: "Those with a role in the project itself; roles in its organization hold besides. For its members.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProject
		Paging
	}) (*body[List[Member]], error) {
		page, err := m.ProjectMembers(ctx, c, in.Project, in.page())
		return list(page, err, member)
	})
	add(a, op{
		method: http.MethodPut, path: one, id: "put-project-member", tag: tag,
		summary:     "Give a user or group a role in a project",
		description: "In place of the one given before for the same prefix. The highest of all roles that somebody has counts. For owners of the project.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProject
		InMember
		InPrefix
		Body RoleGrant
	}) (*body[Member], error) {
		got, err := m.SetProjectMember(ctx, c, in.Project, in.who(in.Prefix, in.Body.Role))
		return answer(member(got), err)
	})
	add(a, op{
		method: http.MethodDelete, path: one, id: "delete-project-member", tag: tag,
		summary: "Take the role of a user or group in a project away", description: "The one for the same prefix. For owners of the project.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProject
		InMember
		InPrefix
	}) (*none, error) {
		return empty(m.RemoveProjectMember(ctx, c, in.Project, in.who(in.Prefix, "")))
	})
}

type InPrefix struct {
	Prefix string `query:"prefix" maxLength:"255" doc:"Repository at and below which the role holds; absent: the whole project" example:"acme/app"`
}
