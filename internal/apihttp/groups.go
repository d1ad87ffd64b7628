package apihttp

import (
	"context"
	"net/http"

	"github.com/berth-registry/berth/internal/manage"
	"github.com/berth-registry/berth/internal/meta"
)

// InGroup names a group in a path.
type InGroup struct {
	Group string `path:"group" maxLength:"64" doc:"Name of the group" example:"developers"`
}

func groups(a *api) {
	m := a.Manage
	const tag, all, one = "groups", "/groups", "/groups/{group}"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-groups", tag: tag,
		summary: "List groups", description: "For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *Paging) (*body[List[Group]], error) {
		page, err := m.Groups(ctx, c, in.page())
		return list(page, err, group)
	})
	add(a, op{
		method: http.MethodPost, path: all, id: "create-group", tag: tag, status: http.StatusCreated,
		summary: "Create a group", description: "For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct{ Body NewGroup }) (*body[Group], error) {
		g, err := m.CreateGroup(ctx, c, meta.Group{Name: in.Body.Name, Claim: in.Body.Claim, Admin: in.Body.Admin})
		return answer(group(g), err)
	})
	add(a, op{
		method: http.MethodGet, path: one, id: "get-group", tag: tag,
		summary: "Get a group", description: "For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *InGroup) (*body[Group], error) {
		g, err := m.Group(ctx, c, in.Group)
		return answer(group(g), err)
	})
	add(a, op{
		method: http.MethodPatch, path: one, id: "update-group", tag: tag,
		summary: "Change a group", description: "For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InGroup
		Body GroupChange
	}) (*body[Group], error) {
		g, err := m.SetGroup(ctx, c, in.Group, meta.GroupChange{Name: in.Body.Name, Claim: in.Body.Claim, Admin: in.Body.Admin})
		return answer(group(g), err)
	})
	add(a, op{
		method: http.MethodDelete, path: one, id: "delete-group", tag: tag,
		summary: "Delete a group", description: "With its roles; its users stay. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *InGroup) (*none, error) {
		return empty(m.DeleteGroup(ctx, c, in.Group))
	})
	groupMembers(a)
}

func groupMembers(a *api) {
	m := a.Manage
	const tag, all, one = "groups", "/groups/{group}/members", "/groups/{group}/members/{user}"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-group-members", tag: tag,
		summary: "List the users in a group", description: "For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InGroup
		Paging
	}) (*body[List[GroupMember]], error) {
		page, err := m.GroupUsers(ctx, c, in.Group, in.page())
		return list(page, err, func(u meta.GroupUser) GroupMember { return GroupMember{Name: u.Name, ByClaim: u.ByClaim} })
	})
	add(a, op{
		method: http.MethodPut, path: one, id: "put-group-member", tag: tag, status: http.StatusNoContent,
		summary: "Put a user into a group", description: "To stay, whatever an identity provider says. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InGroup
		InUser
	}) (*none, error) {
		return empty(m.AddGroupUser(ctx, c, in.Group, in.User))
	})
	add(a, op{
		method: http.MethodDelete, path: one, id: "delete-group-member", tag: tag,
		summary: "Take a user out of a group", description: "One whom an identity provider put there comes back with the next log-in. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InGroup
		InUser
	}) (*none, error) {
		return empty(m.RemoveGroupUser(ctx, c, in.Group, in.User))
	})
}

func group(g meta.Group) Group {
	return Group{Name: g.Name, Claim: g.Claim, Admin: g.Admin, Created: g.CreatedAt.UTC()}
}
