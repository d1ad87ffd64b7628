package apihttp

import (
	"context"
	"net/http"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/manage"
)

// InRule names a trust rule in a path.
type InRule struct {
	Rule string `path:"rule" maxLength:"128" doc:"Name of the trust rule" example:"release"`
}

func trustRules(a *api) {
	m := a.Manage
	const tag, all, one = "trust rules", "/projects/{project}/trust-rules", "/projects/{project}/trust-rules/{rule}"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-trust-rules", tag: tag,
		summary: "List the trust rules of a project", description: "For its owners.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProject
		Paging
	}) (*body[List[TrustRule]], error) {
		page, err := m.TrustRules(ctx, c, in.Project, in.page())
		return list(page, err, trustRule)
	})
	add(a, op{
		method: http.MethodPost, path: all, id: "create-trust-rule", tag: tag, status: http.StatusCreated,
		summary: "Create a trust rule", description: "Jobs whose ID token matches log in as user oidc with the token as the password. For owners of the project.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProject
		Body NewTrustRule
	}) (*body[TrustRule], error) {
		b := in.Body
		r, err := m.CreateTrustRule(ctx, c, in.Project, access.TrustRule{
			Name: b.Name, Issuer: b.Issuer, Audience: b.Audience, Claims: b.Claims, Role: roleOf(b.Role), Prefixes: b.Prefixes,
		})
		return answer(trustRule(r), err)
	})
	add(a, op{
		method: http.MethodDelete, path: one, id: "delete-trust-rule", tag: tag,
		summary: "Delete a trust rule", description: "Tokens of its jobs count no more. For owners of the project.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProject
		InRule
	}) (*none, error) {
		return empty(m.DeleteTrustRule(ctx, c, in.Project, in.Rule))
	})
}

func trustRule(r access.TrustRule) TrustRule {
	return TrustRule{
		ID: r.ID, Name: r.Name, Issuer: r.Issuer, Audience: r.Audience, Claims: r.Claims, Role: r.Role.String(),
		Prefixes: r.Prefixes, Created: r.CreatedAt.UTC(), CreatedBy: r.CreatedBy,
	}
}
