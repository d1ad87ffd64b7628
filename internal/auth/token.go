package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/berth-registry/berth/internal/access"
)

const (
	maxToken    = 16 << 10 // bytes
	maxVerified = 1 << 13  // tokens that are remembered
	maxUsual    = 4 << 10  // bytes of one that is; few are as long
	maxSkew     = time.Minute
)

// algorithm of all tokens. There is only one, so that a token cannot choose.
const algorithm = jose.ES256

// TokenOptions of NewTokens. Store, Issuer and Services are required.
type TokenOptions struct {
	Store SigningKeyStore
	// Issuer names this registry; all replicas have the same.
	Issuer string
	// Services are the audiences of tokens, the usual one first.
	Services []string
	TTL      time.Duration    // of a token; 0: five minutes
	Rotation time.Duration    // age at which a key is replaced; 0: 30 days
	Now      func() time.Time // nil: time.Now
}

// Tokens makes and verifies the registry's tokens. A token says who its bearer
// is and what it was asked for; what the bearer may do is looked up elsewhere,
// each time. It is safe for concurrent use.
type Tokens struct {
	o        TokenOptions
	mu       sync.Mutex // held while loading keys
	keys     atomic.Pointer[keySet]
	looked   time.Time // when an unknown key was last looked for; under mu
	verified *memory[[sha256.Size]byte, *verifiedToken]
}

// claims of a token.
type claims struct {
	Issuer    string  `json:"iss"`
	Subject   string  `json:"sub"` // kind:id, "" for the anonymous
	Audience  string  `json:"aud"`
	Expires   int64   `json:"exp"`
	NotBefore int64   `json:"nbf"`
	IssuedAt  int64   `json:"iat"`
	ID        string  `json:"jti"`
	Access    []Scope `json:"access"`
	Private   private `json:"berth"`
}

// private claims are read by nobody but the registry.
type private struct {
	Name   string `json:"name,omitempty"`
	Key    string `json:"key,omitempty"`
	Millis int64  `json:"ms"` // issue time
}

// verifiedToken is what a token said whose signature was good.
type verifiedToken struct {
	principal          access.Principal
	scopes             []Scope
	key                string
	notBefore, expires time.Time
}

// NewTokens makes a signing key, if there is none yet.
func NewTokens(ctx context.Context, o TokenOptions) (*Tokens, error) {
	if o.TTL == 0 {
		o.TTL = 5 * time.Minute
	}
	if o.Rotation == 0 {
		o.Rotation = 30 * 24 * time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(o.Services) == 0 || slices.Contains(o.Services, "") || o.Issuer == "" {
		return nil, errors.New("tokens need an issuer and a service")
	}
	t := &Tokens{o: o, verified: newMemory[[sha256.Size]byte, *verifiedToken](maxVerified)}
	return t, t.Maintain(ctx)
}

// TTL is how long a token is good.
func (t *Tokens) TTL() time.Duration { return t.o.TTL }

// Service is the audience to use where a client asks for name; "" is the usual
// one. It is not ok where there is none of that name.
func (t *Tokens) Service(name string) (service string, ok bool) {
	if name == "" {
		return t.o.Services[0], true
	}
	return name, slices.Contains(t.o.Services, name)
}

// Mint makes a token for a service, which must be one of the options'. It fails
// with ErrScope for more scopes than a token may hold.
func (t *Tokens) Mint(ctx context.Context, p access.Principal, service string, scopes []Scope) (token string, issued time.Time, err error) {
	keys, err := t.current(ctx)
	if err != nil {
		return "", time.Time{}, err
	}
	issued = t.o.Now()
	key := keys.signing(issued)
	if key == nil {
		return "", time.Time{}, errors.New("there is no key to sign tokens with")
	}
	var id [16]byte
	rand.Read(id[:])
	payload, err := json.Marshal(claims{
		Issuer: t.o.Issuer, Subject: p.Owner(), Audience: service,
		Expires: issued.Add(t.o.TTL).Unix(), NotBefore: issued.Unix(), IssuedAt: issued.Unix(),
		ID:      base64.RawURLEncoding.EncodeToString(id[:]),
		Access:  append([]Scope{}, scopes...),
		Private: private{Name: p.Name, Key: p.KeyID, Millis: issued.UnixMilli()},
	})
	if err != nil {
		return "", time.Time{}, err
	}
	signed, err := key.signer.Sign(payload)
	if err != nil {
		return "", time.Time{}, err
	}
	token, err = signed.CompactSerialize()
	if len(token) > maxToken {
		return "", time.Time{}, fmt.Errorf("%w: a token cannot hold all of them; ask for fewer at once", ErrScope)
	}
	return token, issued, err
}

// Verify says whom a token was made for, and with which scopes; the caller must
// not change them. Its errors are ErrInvalidToken, or the store's.
func (t *Tokens) Verify(ctx context.Context, token string) (access.Principal, []Scope, error) {
	if len(token) > maxToken {
		return access.Principal{}, nil, invalid("the token is too long")
	}
	keys, err := t.current(ctx)
	if err != nil {
		return access.Principal{}, nil, err
	}
	sum := sha256.Sum256([]byte(token))
	v, known := t.verified.get(sum)
	if !known {
		if v, err = t.verify(ctx, keys, token); err != nil {
			return access.Principal{}, nil, err
		}
		if len(token) <= maxUsual {
			t.verified.put(sum, v)
		}
	}
	now := t.o.Now()
	switch {
	case !now.Before(v.expires):
		t.verified.forget(sum)
		return access.Principal{}, nil, invalid("the token has expired")
	case now.Before(v.notBefore.Add(-maxSkew)):
		return access.Principal{}, nil, invalid("the token is of the future")
	case known && keys.verifying(v.key, now) == nil:
		t.verified.forget(sum)
		return access.Principal{}, nil, invalid("the key that signed the token is gone")
	}
	return v.principal, v.scopes, nil
}

// verify checks all of a token but its times.
func (t *Tokens) verify(ctx context.Context, keys *keySet, token string) (*verifiedToken, error) {
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{algorithm})
	if err != nil || len(signed.Signatures) != 1 {
		return nil, invalid("the token is malformed")
	}
	id := signed.Signatures[0].Header.KeyID
	key := keys.verifying(id, t.o.Now())
	if key == nil {
		// Another replica may have made it a moment ago.
		if keys, err = t.look(ctx); err != nil {
			return nil, err
		}
		if key = keys.verifying(id, t.o.Now()); key == nil {
			return nil, invalid("the token is signed with an unknown key")
		}
	}
	payload, err := signed.Verify(key.public)
	if err != nil {
		return nil, invalid("the token's signature is wrong")
	}
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, invalid("the token's claims are malformed")
	}
	switch {
	case c.Issuer != t.o.Issuer:
		return nil, invalid("the token is of another issuer")
	case !slices.Contains(t.o.Services, c.Audience):
		return nil, invalid("the token is for another service")
	}
	return c.verified(id)
}

func (c *claims) verified(key string) (*verifiedToken, error) {
	p := access.Principal{Name: c.Private.Name, KeyID: c.Private.Key, IssuedAt: time.UnixMilli(c.Private.Millis)}
	kind, id, _ := strings.Cut(c.Subject, ":")
	for _, k := range [...]access.Kind{access.User, access.Robot, access.Workload} {
		if kind == k.String() && id != "" {
			p.Kind, p.ID = k, id
		}
	}
	if p.Kind == access.Anonymous && c.Subject != "" {
		return nil, invalid("the token's subject is unknown")
	}
	notBefore := time.Unix(max(c.NotBefore, c.IssuedAt), 0)
	return &verifiedToken{p, c.Access, key, notBefore, time.Unix(c.Expires, 0)}, nil
}

// JWKS is the JSON Web Key Set of all keys whose tokens may still be good.
func (t *Tokens) JWKS(ctx context.Context) ([]byte, error) {
	keys, err := t.current(ctx)
	if err != nil {
		return nil, err
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	now := t.o.Now()
	for _, k := range keys.list {
		if keys.verifying(k.id, now) != nil {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.public, KeyID: k.id, Algorithm: string(algorithm), Use: "sig"})
		}
	}
	text, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	return text, nil
}
