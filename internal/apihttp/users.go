package apihttp

import (
	"context"
	"net/http"

	"github.com/berth-registry/berth/internal/manage"
	"github.com/berth-registry/berth/internal/meta"
)

// InUser names a user in a path.
type InUser struct {
	User string `path:"user" maxLength:"255" doc:"Name of the user" example:"alice"`
}

func users(a *api) {
	m := a.Manage
	const tag, all, one = "users", "/users", "/users/{user}"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-users", tag: tag,
		summary: "List users", description: "For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *Paging) (*body[List[User]], error) {
		page, err := m.Users(ctx, c, in.page())
		return list(page, err, user)
	})
	add(a, op{
		method: http.MethodPost, path: all, id: "create-user", tag: tag, status: http.StatusCreated,
		summary: "Create a user", description: "The first one of all becomes an administrator. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct{ Body NewUser }) (*body[User], error) {
		b := in.Body
		u, err := m.CreateUser(ctx, c, manage.NewUser{Name: b.Name, Password: b.Password, Admin: b.Admin, Plan: b.Plan})
		return answer(user(u), err)
	})
	add(a, op{
		method: http.MethodGet, path: one, id: "get-user", tag: tag,
		summary: "Get a user", description: "For administrators and that user.",
	}, func(ctx context.Context, c *manage.Caller, in *InUser) (*body[User], error) {
		u, err := m.User(ctx, c, in.User)
		return answer(user(u), err)
	})
	add(a, op{
		method: http.MethodPatch, path: one, id: "update-user", tag: tag,
		summary: "Change a user", description: "The last administrator who is not locked stays one. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InUser
		Body UserChange
	}) (*body[User], error) {
		b := in.Body
		u, err := m.SetUser(ctx, c, in.User, meta.UserChange{Password: b.Password, Admin: b.Admin, Locked: b.Locked, Plan: b.Plan})
		return answer(user(u), err)
	})
	add(a, op{
		method: http.MethodDelete, path: one, id: "delete-user", tag: tag,
		summary: "Delete a user", description: "With all roles, memberships, keys and tokens. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *InUser) (*none, error) {
		return empty(m.DeleteUser(ctx, c, in.User))
	})
	add(a, op{
		method: http.MethodDelete, path: one + "/sessions", id: "end-user-sessions", tag: tag,
		summary: "End the sessions of a user", description: "No token that the user was given until now counts any more; keys and the password do. For administrators and that user.",
	}, func(ctx context.Context, c *manage.Caller, in *InUser) (*none, error) {
		return empty(m.EndSessions(ctx, c, in.User))
	})
	userKeys(a)
}

func userKeys(a *api) {
	m := a.Manage
	const tag, all, one = "keys", "/users/{user}/keys", "/users/{user}/keys/{key}"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-user-keys", tag: tag,
		summary: "List the keys of a user", description: "Without their secrets; also those that are revoked or expired. For administrators and that user.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InUser
		Paging
	}) (*body[List[Key]], error) {
		page, err := m.UserKeys(ctx, c, in.User, in.page())
		return list(page, err, key)
	})
	add(a, op{
		method: http.MethodPost, path: all, id: "create-user-key", tag: tag, status: http.StatusCreated,
		summary: "Create a key of a user", description: "It can do what the user can, or less. For administrators and that user.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InUser
		Body NewKey
	}) (*body[CreatedKey], error) {
		k, err := m.CreateUserKey(ctx, c, in.User, newKey(in.Body))
		return answer(createdKey(k), err)
	})
	add(a, op{
		method: http.MethodDelete, path: one, id: "revoke-user-key", tag: tag,
		summary: "Revoke a key of a user", description: "At once and for good. For administrators and that user.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InUser
		InKey
	}) (*none, error) {
		return empty(m.RevokeUserKey(ctx, c, in.User, in.Key))
	})
}

func user(u meta.User) User {
	return User{
		Name: u.Name, Admin: u.Admin, Locked: u.Locked, Password: u.HasPassword, Issuer: u.Issuer, Plan: u.Plan, Created: u.CreatedAt.UTC(),
	}
}
