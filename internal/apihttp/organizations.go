package apihttp

import (
	"context"
	"net/http"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/manage"
	"github.com/berth-registry/berth/internal/meta"
)

// InOrganization names an organization in a path.
type InOrganization struct {
	Organization string `path:"organization" maxLength:"64" doc:"Name of the organization" example:"acme"`
}

// InMember names a member in a path.
type InMember struct {
	Kind   string `path:"kind" enum:"user,group" doc:"What the name is of" example:"user"`
	Member string `path:"member" maxLength:"255" doc:"Name of the user or group" example:"alice"`
}

func organizations(a *api) {
	m := a.Manage
	const tag, all, one = "organizations", "/organizations", "/organizations/{organization}"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-organizations", tag: tag,
		summary: "List organizations", description: "Those in which you have a role, sorted by name.",
	}, func(ctx context.Context, c *manage.Caller, in *Paging) (*body[List[Organization]], error) {
		page, err := m.Organizations(ctx, c, in.page())
		return list(page, err, organization)
	})
	add(a, op{
		method: http.MethodPost, path: all, id: "create-organization", tag: tag, status: http.StatusCreated,
		summary: "Create an organization", description: "For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct{ Body NewOrganization }) (*body[Organization], error) {
		o, err := m.CreateOrganization(ctx, c, in.Body.Name, in.Body.Plan)
		return answer(organization(o), err)
	})
	add(a, op{
		method: http.MethodGet, path: one, id: "get-organization", tag: tag,
		summary: "Get an organization", description: "For its members.",
	}, func(ctx context.Context, c *manage.Caller, in *InOrganization) (*body[Organization], error) {
		o, err := m.Organization(ctx, c, in.Organization)
		return answer(organization(o), err)
	})
	add(a, op{
		method: http.MethodPatch, path: one, id: "update-organization", tag: tag,
		summary: "Change an organization", description: "For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InOrganization
		Body OrganizationChange
	}) (*body[Organization], error) {
		o, err := m.SetOrganization(ctx, c, in.Organization, meta.OrganizationChange{Name: in.Body.Name, Plan: in.Body.Plan})
		return answer(organization(o), err)
	})
	add(a, op{
		method: http.MethodDelete, path: one, id: "delete-organization", tag: tag,
		summary: "Delete an organization", description: "One without projects, also without deleted ones that can be restored, and without members. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *InOrganization) (*none, error) {
		return empty(m.DeleteOrganization(ctx, c, in.Organization))
	})
	organizationMembers(a)
}

func organizationMembers(a *api) {
	m := a.Manage
	const tag, all, one = "organizations", "/organizations/{organization}/members", "/organizations/{organization}/members/{kind}/{member}"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-organization-members", tag: tag,
		summary: "List the members of an organization", description: "For its members.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InOrganization
		Paging
	}) (*body[List[Member]], error) {
		page, err := m.OrganizationMembers(ctx, c, in.Organization, in.page())
		return list(page, err, member)
	})
	add(a, op{
		method: http.MethodPut, path: one, id: "put-organization-member", tag: tag,
		summary:     "Give a user or group a role in an organization",
		description: "It holds in all of its projects, in place of the one given before. For its owners.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InOrganization
		InMember
		Body RoleGrant
	}) (*body[Member], error) {
		got, err := m.SetOrganizationMember(ctx, c, in.Organization, in.who("", in.Body.Role))
		return answer(member(got), err)
	})
	add(a, op{
		method: http.MethodDelete, path: one, id: "delete-organization-member", tag: tag,
		summary: "Take the role of a user or group in an organization away", description: "For its owners.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InOrganization
		InMember
	}) (*none, error) {
		return empty(m.RemoveOrganizationMember(ctx, c, in.Organization, in.who("", "")))
	})
}

func (o InMember) who(prefix, role string) manage.Member {
	return manage.Member{Kind: manage.MemberKind(o.Kind), Name: o.Member, Prefix: prefix, Role: roleOf(role)}
}

// roleOf reads a role that the document's schema let pass.
func roleOf(s string) access.Role {
	r, err := access.ParseRole(s)
	if err != nil {
		return access.None
	}
	return r
}

func organization(o meta.Organization) Organization {
	return Organization{Name: o.Name, Plan: o.Plan, Created: o.CreatedAt.UTC()}
}

func member(m manage.Member) Member {
	return Member{Kind: string(m.Kind), Name: m.Name, Role: m.Role.String(), Prefix: m.Prefix, Since: m.Since.UTC()}
}
