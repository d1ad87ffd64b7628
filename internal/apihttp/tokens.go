package apihttp

import (
	"context"
	"net/http"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/manage"
)

// InToken names a refresh token in a path.
type InToken struct {
	Token string `path:"token" maxLength:"64" doc:"Id of the refresh token" example:"0198c5f0-5c1e-7d7e-9a63-5b8f6a3d2c10"`
}

func tokens(a *api) {
	m := a.Manage
	const tag, all = "tokens", "/tokens"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-tokens", tag: tag,
		summary: "List refresh tokens", description: "Those of everybody, or of one user. For administrators; those of one user for that user too.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		Paging
		User string `query:"user" maxLength:"255" doc:"Only those of this user" example:"alice"`
	}) (*body[List[RefreshToken]], error) {
		page, err := m.Tokens(ctx, c, in.User, in.page())
		return list(page, err, refreshToken)
	})
	add(a, op{
		method: http.MethodDelete, path: all + "/{token}", id: "revoke-token", tag: tag,
		summary: "Revoke a refresh token", description: "For administrators and the user it belongs to.",
	}, func(ctx context.Context, c *manage.Caller, in *InToken) (*none, error) {
		return empty(m.RevokeToken(ctx, c, in.Token))
	})
}

func refreshToken(t access.RefreshToken) RefreshToken {
	return RefreshToken{
		ID: t.ID, User: t.User, Key: t.KeyID, Service: t.Service, Client: t.Client, Address: t.Address,
		Created: t.CreatedAt.UTC(), Expires: t.ExpiresAt.UTC(), LastUsed: maybe(t.LastUsed),
	}
}

func signingKeys(a *api) {
	m := a.Manage
	const tag, all = "signing keys", "/signing-keys"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-signing-keys", tag: tag,
		summary: "List signing keys", description: "The newest first. Their public halves are at /.well-known/jwks.json. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, _ *struct{}) (*body[List[SigningKey]], error) {
		keys, err := m.SigningKeys(ctx, c)
		return list(manage.List[access.SigningKey]{Items: keys}, err, signingKey)
	})
	add(a, op{
		method: http.MethodPost, path: all, id: "rotate-signing-key", tag: tag, status: http.StatusCreated,
		summary: "Make a new signing key", description: "It signs from now on. Tokens of the old ones stay good until they expire, unless they are revoked. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct{ Body Rotation }) (*body[SigningKey], error) {
		k, err := m.RotateSigningKey(ctx, c, in.Body.Revoke)
		return answer(signingKey(k), err)
	})
}

func signingKey(k access.SigningKey) SigningKey {
	return SigningKey{ID: k.ID, Algorithm: k.Algorithm, Created: k.CreatedAt.UTC(), Retired: maybe(k.RetiredAt)}
}
