package apihttp

import (
	"context"
	"net/http"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/manage"
)

// InKey names a key in a path.
type InKey struct {
	Key string `path:"key" maxLength:"128" doc:"Name of the key, or its id" example:"ci"`
}

func projectKeys(a *api) {
	m := a.Manage
	const tag, all, one = "keys", "/projects/{project}/keys", "/projects/{project}/keys/{key}"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-project-keys", tag: tag,
		summary: "List the keys of a project", description: "Without their secrets; also those that are revoked or expired. For its maintainers.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProject
		Paging
	}) (*body[List[Key]], error) {
		page, err := m.ProjectKeys(ctx, c, in.Project, in.page())
		return list(page, err, key)
	})
	add(a, op{
		method: http.MethodPost, path: all, id: "create-project-key", tag: tag, status: http.StatusCreated,
		summary: "Create a key of a project", description: "For programs. It can do no more than you can. For maintainers of the project.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProject
		Body NewKey
	}) (*body[CreatedKey], error) {
		k, err := m.CreateProjectKey(ctx, c, in.Project, newKey(in.Body))
		return answer(createdKey(k), err)
	})
	add(a, op{
		method: http.MethodDelete, path: one, id: "revoke-project-key", tag: tag,
		summary: "Revoke a key of a project", description: "At once and for good. For maintainers of the project.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProject
		InKey
	}) (*none, error) {
		return empty(m.RevokeProjectKey(ctx, c, in.Project, in.Key))
	})
}

func newKey(k NewKey) manage.NewKey {
	out := manage.NewKey{Name: k.Name, Role: roleOf(k.Role), Prefixes: k.Prefixes, Addresses: k.Addresses}
	if k.Expires != nil {
		out.ExpiresAt = *k.Expires
	}
	return out
}

func key(k access.Key) Key {
	out := Key{
		ID: k.ID, Name: k.Name, Prefixes: k.Prefixes, Created: k.CreatedAt.UTC(), CreatedBy: k.CreatedBy,
		Expires: maybe(k.ExpiresAt), Revoked: maybe(k.RevokedAt), LastUsed: maybe(k.LastUsed),
	}
	if k.Role != access.None {
		out.Role = k.Role.String()
	}
	for _, a := range k.Addresses {
		out.Addresses = append(out.Addresses, a.String())
	}
	return out
}

func createdKey(k manage.CreatedKey) CreatedKey { return CreatedKey{Key: key(k.Key), Secret: k.Secret} }
