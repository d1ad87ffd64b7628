package manage

import (
	"context"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/meta"
)

// Tokens lists the refresh tokens of a user, for that user and admins; those of
// everybody where the name is "", for admins.
func (m *Manager) Tokens(ctx context.Context, c *Caller, user string, p Page) (List[access.RefreshToken], error) {
	id := ""
	var err error
	if user == "" {
		_, err = m.admin(ctx, c)
	} else {
		_, id, err = m.person(ctx, c, user)
	}
	if err != nil {
		return List[access.RefreshToken]{}, err
	}
	return m.tokens(ctx, id, p)
}

// MyTokens lists the caller's refresh tokens. For users.
func (m *Manager) MyTokens(ctx context.Context, c *Caller, p Page) (List[access.RefreshToken], error) {
	_, id, err := m.person(ctx, c, "")
	if err != nil {
		return List[access.RefreshToken]{}, err
	}
	return m.tokens(ctx, id, p)
}

func (m *Manager) tokens(ctx context.Context, userID string, p Page) (List[access.RefreshToken], error) {
	all, err := m.o.Store.ListRefreshTokens(ctx, userID, p.After, p.size())
	return page(all, err, p, func(r access.RefreshToken) string { return r.ID })
}

// RevokeToken makes a refresh token worthless. For the user it belongs to and
// admins; others do not learn whether there is such a token.
func (m *Manager) RevokeToken(ctx context.Context, c *Caller, id string) error {
	a, err := m.actor(ctx, c)
	if err != nil {
		return err
	}
	r, err := m.o.Store.RefreshTokenByID(ctx, id)
	own := err == nil && c.Kind == access.User && r.UserID == c.ID
	switch {
	case !own && !a.isAdmin():
		return missing("refresh token", id)
	case err != nil:
		return asked(err)
	}
	if err := m.needWhole(ctx, a); err != nil {
		return err
	}
	e := c.event("token.revoke")
	e.Reference = id
	return asked(m.o.Store.RevokeRefreshToken(ctx, meta.Change{Event: e}, id))
}

// SigningKeys lists the keys that sign tokens, the newest first, without their
// secrets. For admins.
func (m *Manager) SigningKeys(ctx context.Context, c *Caller) ([]access.SigningKey, error) {
	if _, err := m.admin(ctx, c); err != nil {
		return nil, err
	}
	keys, err := m.o.Store.SigningKeys(ctx)
	for i := range keys {
		keys[i].Private = nil
	}
	return keys, err
}

// RotateSigningKey makes a new key that signs from now on; where revoke is set,
// tokens that the old ones signed are worth nothing at once. For admins.
func (m *Manager) RotateSigningKey(ctx context.Context, c *Caller, revoke bool) (access.SigningKey, error) {
	if _, err := m.admin(ctx, c); err != nil {
		return access.SigningKey{}, err
	}
	key, err := auth.NewSigningKey()
	if err != nil {
		return access.SigningKey{}, err
	}
	key.CreatedAt = m.now()
	public := key
	public.Private = nil
	e := c.event("signing-key.rotate")
	e.Reference = key.ID
	return create(c, e, public, func(change meta.Change) error {
		return m.o.Store.ReplaceSigningKey(ctx, change, key, revoke)
	})
}
