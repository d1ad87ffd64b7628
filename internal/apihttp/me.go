package apihttp

import (
	"context"
	"net/http"

	"github.com/berth-registry/berth/internal/manage"
)

func me(a *api) {
	m := a.Manage
	const tag, one = "me", "/me"
	add(a, op{
		method: http.MethodGet, path: one, id: "get-me", tag: tag,
		summary: "Get yourself", description: "Who the credential makes you. For everybody who is logged in.",
	}, func(ctx context.Context, c *manage.Caller, _ *struct{}) (*body[Me], error) {
		s, err := m.Self(ctx, c)
		return answer(Me{Kind: s.Kind.String(), Name: s.Name, Admin: s.Admin, Key: s.KeyID, Server: a.Version}, err)
	})
	add(a, op{
		method: http.MethodPut, path: one + "/password", id: "change-password", tag: tag, status: http.StatusNoContent,
		summary: "Change your password", description: "It ends your sessions. For users who have one.",
	}, func(ctx context.Context, c *manage.Caller, in *struct{ Body PasswordChange }) (*none, error) {
		return empty(m.ChangePassword(ctx, c, in.Body.Old, in.Body.New))
	})
	add(a, op{
		method: http.MethodDelete, path: one + "/sessions", id: "end-my-sessions", tag: tag,
		summary: "End your sessions", description: "No token that you were given until now counts any more; keys and the password do. For users.",
	}, func(ctx context.Context, c *manage.Caller, _ *struct{}) (*none, error) {
		return empty(m.EndSessions(ctx, c, ""))
	})
	myKeys(a)
	myTokens(a)
}

func myKeys(a *api) {
	m := a.Manage
	const tag, all = "me", "/me/keys"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-my-keys", tag: tag,
		summary: "List your keys", description: "Without their secrets; also those that are revoked or expired. For users.",
	}, func(ctx context.Context, c *manage.Caller, in *Paging) (*body[List[Key]], error) {
		page, err := m.UserKeys(ctx, c, "", in.page())
		return list(page, err, key)
	})
	add(a, op{
		method: http.MethodPost, path: all, id: "create-my-key", tag: tag, status: http.StatusCreated,
		summary: "Create a key of yours", description: "It can do what you can, or less; no more than the credential that you use for this. For users.",
	}, func(ctx context.Context, c *manage.Caller, in *struct{ Body NewKey }) (*body[CreatedKey], error) {
		k, err := m.CreateUserKey(ctx, c, "", newKey(in.Body))
		return answer(createdKey(k), err)
	})
	add(a, op{
		method: http.MethodDelete, path: all + "/{key}", id: "revoke-my-key", tag: tag,
		summary: "Revoke a key of yours", description: "At once and for good. For users.",
	}, func(ctx context.Context, c *manage.Caller, in *InKey) (*none, error) {
		return empty(m.RevokeUserKey(ctx, c, "", in.Key))
	})
}

func myTokens(a *api) {
	m := a.Manage
	const tag, all = "me", "/me/tokens"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-my-tokens", tag: tag,
		summary: "List your refresh tokens", description: "Long-lived ones that clients got with your log-in. For users.",
	}, func(ctx context.Context, c *manage.Caller, in *Paging) (*body[List[RefreshToken]], error) {
		page, err := m.MyTokens(ctx, c, in.page())
		return list(page, err, refreshToken)
	})
	add(a, op{
		method: http.MethodDelete, path: all + "/{token}", id: "revoke-my-token", tag: tag,
		summary: "Revoke a refresh token of yours", description: "For users.",
	}, func(ctx context.Context, c *manage.Caller, in *InToken) (*none, error) {
		return empty(m.RevokeToken(ctx, c, in.Token))
	})
}
