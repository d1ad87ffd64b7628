package auth

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/berth-registry/berth/internal/access"
)

// RefreshStore keeps refresh tokens; *meta.DB is one.
type RefreshStore interface {
	// CreateRefreshToken gives the token its id. It fails with
	// access.ErrNotFound where its user or key does not count any more, or the
	// user's sessions were ended after the token's Since.
	CreateRefreshToken(ctx context.Context, t access.RefreshToken, hash string) error
	// RefreshTokenByHash fails with access.ErrNotFound.
	RefreshTokenByHash(ctx context.Context, hash string) (access.RefreshToken, error)
	TouchRefreshToken(ctx context.Context, id string, at time.Time) error
}

// RefreshOptions of NewRefresh. Store and Authenticator are required.
type RefreshOptions struct {
	Store         RefreshStore
	Authenticator *Authenticator
	TTL           time.Duration    // 0: 90 days
	Now           func() time.Time // nil: time.Now
}

// Refresh gives clients a token to keep in place of their password. It stands
// for the log-in that it was got with and ends with it: with the user, the key,
// or when the user's sessions are ended.
type Refresh struct{ o RefreshOptions }

// NewRefresh returns a Refresh.
func NewRefresh(o RefreshOptions) *Refresh {
	if o.TTL == 0 {
		o.TTL = 90 * 24 * time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Refresh{o}
}

// Issue makes a refresh token for who has just logged in, good for one service.
// The anonymous and workloads get none: "".
func (r *Refresh) Issue(ctx context.Context, p *access.Principal, service, client string) (string, error) {
	if p.Kind != access.User && p.Kind != access.Robot {
		return "", nil
	}
	now := r.o.Now()
	t := access.RefreshToken{KeyID: p.KeyID, Service: service, Client: client, CreatedAt: now, ExpiresAt: now.Add(r.o.TTL)}
	if p.Kind == access.User {
		t.UserID, t.Since = p.ID, p.Since
		if !p.IssuedAt.IsZero() { // a refresh token was logged in with
			t.Since = p.IssuedAt
		}
	}
	if p.Address.IsValid() {
		t.Address = p.Address.String()
	}
	secret, hash := NewKey(refreshKey)
	err := r.o.Store.CreateRefreshToken(ctx, t, hash)
	switch {
	case errors.Is(err, access.ErrNotFound):
		return "", refuse("the log-in has just ended")
	case err != nil:
		return "", err
	}
	return secret, nil
}

// Redeem says whose refresh token it is. Wrong ones are not throttled: nobody
// guesses one, and looking one up is cheap.
func (r *Refresh) Redeem(ctx context.Context, secret, service string, from netip.Addr) (Identity, error) {
	kind, hash, err := parseSecret(secret)
	if err != nil || kind != refreshKey {
		return Identity{}, refuse("malformed refresh token")
	}
	t, err := r.o.Store.RefreshTokenByHash(ctx, hash)
	now := r.o.Now()
	switch {
	case errors.Is(err, access.ErrNotFound):
		return Identity{}, refuse("unknown or revoked refresh token")
	case err != nil:
		return Identity{}, err
	case !now.Before(t.ExpiresAt):
		return Identity{}, refuse("the refresh token has expired")
	case t.Service != service:
		return Identity{}, refuse("the refresh token is for another service")
	}
	p := principalOf(t.UserID, t.KeyID, from)
	p.IssuedAt = t.CreatedAt
	id, err := r.o.Authenticator.standing(ctx, p, ErrCredentials)
	if err != nil {
		return Identity{}, err
	}
	if now.Sub(t.LastUsed) >= touchEvery {
		err = r.o.Store.TouchRefreshToken(ctx, t.ID, now)
	}
	return id, err
}
