package auth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
)

var someScopes = []auth.Scope{
	{Type: "repository", Name: "acme/app", Actions: []string{"pull", "push"}},
	{Type: "registry", Name: "catalog", Actions: []string{"*"}},
}

func TestToken(t *testing.T) {
	s := newServer(t)
	for _, p := range []access.Principal{
		{},
		{Kind: access.User, ID: "u-1", Name: "alice"},
		{Kind: access.User, ID: "u-1", Name: "alice", KeyID: "k-1"},
		{Kind: access.Robot, ID: "k-2", Name: "acme/ci", KeyID: "k-2"},
		{Kind: access.Workload, ID: "r:1", Name: "acme/main"},
	} {
		for _, scopes := range [][]auth.Scope{nil, someScopes, longScopes(20)} {
			s.clock.move(1234567 * time.Microsecond)
			token, issued, err := s.tokens.Mint(t.Context(), p, service, scopes)
			s.ok(err)
			for range 2 {
				got, granted, err := s.tokens.Verify(t.Context(), token)
				want := p
				want.IssuedAt = time.UnixMilli(issued.UnixMilli())
				if err != nil || got != want || granted == nil || len(granted) != len(scopes) || len(scopes) > 0 && !reflect.DeepEqual(granted, scopes) {
					t.Errorf("%+v %v, %v; want %+v %v", got, granted, err, want, scopes)
				}
			}
		}
	}
}

func parsed(t *testing.T, private []byte) any {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ed25519Key(t *testing.T) []byte {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

// parts are the header and claims of a token.
func parts(t *testing.T, token string) (header, claims map[string]any) {
	t.Helper()
	for i, into := range []*map[string]any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[i])
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

func TestClaims(t *testing.T) {
	s := newServer(t)
	header, claims := parts(t, s.mint(auth.Identity{Principal: access.Principal{Kind: access.User, ID: "u-1", Name: "alice"}}, someScopes...))
	now := float64(s.clock.now().Unix())
	for name, want := range map[string]any{
		"iss": issuer, "sub": "user:u-1", "aud": service, "exp": now + 300, "nbf": now, "iat": now,
		"access": []any{
			map[string]any{"type": "repository", "name": "acme/app", "actions": []any{"pull", "push"}},
			map[string]any{"type": "registry", "name": "catalog", "actions": []any{"*"}},
		},
	} {
		if !reflect.DeepEqual(claims[name], want) {
			t.Errorf("%s is %v, want %v", name, claims[name], want)
		}
	}
	if header["alg"] != "ES256" || header["typ"] != "JWT" || header["kid"] == "" || len(header) != 3 {
		t.Errorf("header %v", header)
	}
	_, other := parts(t, s.mint(auth.Identity{}))
	if other["jti"] == claims["jti"] || len(claims["jti"].(string)) < 20 {
		t.Errorf("ids %v and %v", other["jti"], claims["jti"])
	}
}

// private is the newest signing key of the database, as a forger would have it.
func (s *server) private() jose.JSONWebKey {
	s.Helper()
	keys, err := s.db.SigningKeys(s.Context())
	s.ok(err)
	return jose.JSONWebKey{Key: parsed(s.T, keys[0].Private), KeyID: keys[0].ID}
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, key any, payload string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestForgedTokens are the rows of the acceptance: each is refused as a token,
// so that the client gets a new one.
func TestForgedTokens(t *testing.T) {
	s := newServer(t)
	good := s.mint(auth.Identity{}, someScopes...)
	key := s.private()
	now := s.clock.now().Unix()
	claims := func(changes ...any) string {
		c := map[string]any{"iss": issuer, "sub": "", "aud": service, "exp": now + 300, "nbf": now, "iat": now, "jti": "x",
			"access": []any{}, "berth": map[string]any{"ms": now * 1000}}
		for i := 0; i < len(changes); i += 2 {
			c[changes[i].(string)] = changes[i+1]
		}
		text, err := json.Marshal(c)
		s.ok(err)
		return string(text)
	}
	if _, _, err := s.tokens.Verify(t.Context(), sign(t, jose.ES256, key, claims())); err != nil {
		t.Fatalf("a token that differs from a forged one in nothing else: %v", err)
	}
	public, err := s.tokens.JWKS(t.Context())
	s.ok(err)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.ok(err)
	larger, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	s.ok(err)
	part := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"` + key.KeyID + `"}`))
	for what, token := range map[string]string{
		"expired":              sign(t, jose.ES256, key, claims("exp", now)),
		"no end":               sign(t, jose.ES256, key, claims("exp", 0)),
		"future":               sign(t, jose.ES256, key, claims("nbf", now+61)),
		"issued in the future": sign(t, jose.ES256, key, claims("iat", now+61)),
		"audience":             sign(t, jose.ES256, key, claims("aud", "elsewhere.test")),
		"no audience":          sign(t, jose.ES256, key, claims("aud", "")),
		"issuer":               sign(t, jose.ES256, key, claims("iss", "https://elsewhere.test")),
		"subject":              sign(t, jose.ES256, key, claims("sub", "god:1")),
		"local":                sign(t, jose.ES256, key, claims("sub", "local")),
		"claims":               sign(t, jose.ES256, key, claims("access", "all")),
		"no JSON":              sign(t, jose.ES256, key, "hello"),
		"wrong key":            sign(t, jose.ES256, jose.JSONWebKey{Key: stranger, KeyID: key.KeyID}, claims()),
		"unknown key":          sign(t, jose.ES256, jose.JSONWebKey{Key: stranger, KeyID: "x"}, claims()),
		"no key id":            sign(t, jose.ES256, key.Key, claims()),
		"larger key":           sign(t, jose.ES384, jose.JSONWebKey{Key: larger, KeyID: key.KeyID}, claims()),
		"HS256 with the JWKS":  sign(t, jose.HS256, jose.JSONWebKey{Key: public, KeyID: key.KeyID}, claims()),
		"none":                 none + "." + part[1] + ".",
		"none, signed":         none + "." + part[1] + "." + part[2],
		"no signature":         part[0] + "." + part[1] + ".",
		"two parts":            part[0] + "." + part[1],
		"four parts":           good + ".x",
		"half":                 good[:len(good)/2],
		"cut":                  good[:len(good)-1],
		"other claims":         part[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(claims("sub", "user:1"))) + "." + part[2],
		"space":                " " + good,
		"1 MiB":                strings.Repeat("x", 1<<20),
		"1 MiB behind":         good + strings.Repeat("x", 1<<20),
		"dots":                 strings.Repeat(".", 1<<14),
		"JSON form":            `{"payload":"` + part[1] + `","protected":"` + part[0] + `","signature":"` + part[2] + `"}`,
		"empty":                "",
		"binary":               "\x00\xff.\x00.\r\n",
	} {
		for range 2 {
			if p, _, err := s.tokens.Verify(t.Context(), token); !errors.Is(err, auth.ErrInvalidToken) || !errors.Is(err, auth.ErrCredentials) || p != (access.Principal{}) {
				t.Errorf("%s: %+v, %v", what, p, err)
			}
		}
		s.refuses(auth.ErrInvalidToken, "", "Bearer "+token)
	}
	s.refuses(auth.ErrInvalidToken, "malformed", "Bearer")
	s.refuses(auth.ErrInvalidToken, "malformed", "Bearer  "+good)
	s.lets("", "bearer "+good)
	s.lets("", "Bearer "+sign(t, jose.ES256, key, claims("nbf", now+59, "iat", now+59)))
}

// TestTokenExpires also where it was verified before.
func TestTokenExpires(t *testing.T) {
	s := newServer(t)
	token := s.mint(auth.Identity{})
	s.lets("", "Bearer "+token)
	s.clock.move(ttl - time.Second)
	s.lets("", "Bearer "+token)
	s.clock.move(time.Second)
	s.refuses(auth.ErrInvalidToken, "expired", "Bearer "+token)
}

// TestRotation: a new key takes over, tokens of the old one stay good, and two
// replicas that find it due together make one.
func TestRotation(t *testing.T) {
	one := newServer(t)
	two := replica(t, one.clock, one.path)
	if n := one.keys(); n != 1 {
		t.Fatalf("two replicas began with %d keys", n)
	}
	one.clock.move(24*time.Hour - time.Minute)
	one.ok(one.tokens.Maintain(t.Context()))
	if n := one.keys(); n != 1 {
		t.Fatalf("%d keys before rotation is due", n)
	}
	old := one.mint(auth.Identity{})
	one.clock.move(time.Minute)
	var replicas sync.WaitGroup
	for range 4 {
		for _, s := range []*server{one, two} {
			replicas.Go(func() {
				if err := s.tokens.Maintain(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	replicas.Wait()
	if n := one.keys(); n != 2 {
		t.Fatalf("%d keys after a rotation", n)
	}
	if kid(t, one.mint(auth.Identity{})) != kid(t, old) {
		t.Error("the new key signs before every replica can know it")
	}
	one.clock.move(5 * time.Second)
	fresh := one.mint(auth.Identity{})
	if kid(t, fresh) == kid(t, old) {
		t.Error("the old key goes on signing")
	}
	for _, s := range []*server{one, two} {
		s.lets("", "Bearer "+old)
		s.lets("", "Bearer "+fresh)
	}
	one.clock.move(ttl + time.Minute + time.Second)
	one.ok(one.tokens.Maintain(t.Context()))
	if n := one.keys(); n != 1 {
		t.Errorf("%d keys when the old one is of no more use", n)
	}
	last := two.mint(auth.Identity{})
	one.lets("", "Bearer "+last)
	one.refuses(auth.ErrInvalidToken, "expired", "Bearer "+fresh)
}

func kid(t *testing.T, token string) any {
	header, _ := parts(t, token)
	return header["kid"]
}

func (s *server) keys() int {
	s.Helper()
	keys, err := s.db.SigningKeys(s.Context())
	s.ok(err)
	return len(keys)
}

// TestRevokedSigningKey: its tokens are worth nothing, also those that were
// verified before.
func TestRevokedSigningKey(t *testing.T) {
	one := newServer(t)
	two := replica(t, one.clock, one.path)
	token := one.mint(auth.Identity{})
	one.lets("", "Bearer "+token)
	two.lets("", "Bearer "+token)
	key := aKey(t)
	one.ok(one.db.ReplaceSigningKey(t.Context(), meta.Change{}, key, true))
	one.refuses(auth.ErrInvalidToken, "key", "Bearer "+token)
	one.clock.move(time.Second)
	two.refuses(auth.ErrInvalidToken, "key", "Bearer "+token)
	if token := one.mint(auth.Identity{}); kid(t, token) != key.ID {
		t.Errorf("%v signs", kid(t, token))
	}
}

// TestKeyOfAnotherReplica: one that is too new to be known is looked for.
func TestKeyOfAnotherReplica(t *testing.T) {
	one := newServer(t)
	two := replica(t, one.clock, one.path)
	two.lets("", "Bearer "+two.mint(auth.Identity{}))
	key := aKey(t)
	one.ok(one.db.ReplaceSigningKey(t.Context(), meta.Change{}, key, true))
	two.lets("", "Bearer "+one.mint(auth.Identity{}))
}

// outrun is a store in which another replica makes the first key while this one
// is about to.
type outrun struct {
	auth.SigningKeyStore
	other *meta.DB
	key   access.SigningKey
}

func (o outrun) RotateSigningKey(ctx context.Context, key access.SigningKey, unlessAfter time.Time) (bool, error) {
	if _, err := o.other.RotateSigningKey(ctx, o.key, unlessAfter); err != nil {
		return false, err
	}
	return o.SigningKeyStore.RotateSigningKey(ctx, key, unlessAfter)
}

// TestFirstKeyOfAnotherReplica: of two that start for the first time at once,
// one makes the key and both have it.
func TestFirstKeyOfAnotherReplica(t *testing.T) {
	path := metatest.File(t)
	clock := &clock{}
	var dbs [2]*meta.DB
	for i := range dbs {
		db, err := meta.Open(t.Context(), meta.Options{Path: path, Now: clock.now, Shared: true})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		dbs[i] = db
		if _, err := db.Generation(t.Context()); err != nil { // which is good for a while
			t.Fatal(err)
		}
	}
	key := aKey(t)
	tokens, err := auth.NewTokens(t.Context(), auth.TokenOptions{Store: outrun{dbs[0], dbs[1], key}, Issuer: issuer, Services: []string{service}, Now: clock.now})
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := tokens.Mint(t.Context(), access.Principal{}, service, nil)
	if err != nil || kid(t, token) != key.ID {
		t.Errorf("%v signs, not %s; %v", token, key.ID, err)
	}
}

func TestJWKS(t *testing.T) {
	s := newServer(t)
	old := s.mint(auth.Identity{})
	s.clock.move(25 * time.Hour)
	s.ok(s.tokens.Maintain(t.Context()))
	text, err := s.tokens.JWKS(t.Context())
	s.ok(err)
	var set jose.JSONWebKeySet
	s.ok(json.Unmarshal(text, &set))
	if len(set.Keys) != 2 || strings.Contains(string(text), `"d"`) {
		t.Fatalf("%s", text)
	}
	signed, err := jose.ParseSignedCompact(old, []jose.SignatureAlgorithm{jose.ES256})
	s.ok(err)
	found := set.Key(signed.Signatures[0].Header.KeyID)
	if len(found) != 1 || found[0].Use != "sig" || found[0].Algorithm != "ES256" || !found[0].IsPublic() {
		t.Fatalf("%+v", found)
	}
	if _, err := signed.Verify(found[0]); err != nil {
		t.Error(err)
	}
}

func longScopes(n int) (scopes []auth.Scope) {
	for i := range n {
		scopes = append(scopes, auth.Scope{Type: "repository", Name: fmt.Sprint(i, strings.Repeat("a", 200)), Actions: []string{"pull"}})
	}
	return scopes
}

func TestTooManyScopes(t *testing.T) {
	s := newServer(t)
	if _, _, err := s.tokens.Mint(t.Context(), access.Principal{}, service, longScopes(100)); !errors.Is(err, auth.ErrScope) {
		t.Errorf("a token that nobody would take: %v", err)
	}
}

func TestDamagedSigningKey(t *testing.T) {
	s := newServer(t)
	for _, key := range []access.SigningKey{
		{ID: "x", Algorithm: "ES256", Private: []byte("secret")},
		{ID: "y", Algorithm: "ES256", Private: ed25519Key(t)},
	} {
		s.ok(s.db.ReplaceSigningKey(t.Context(), meta.Change{}, key, true))
		_, _, err := s.tokens.Mint(t.Context(), access.Principal{}, service, nil)
		if err == nil || !strings.Contains(err.Error(), key.ID) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
	}
	// One of a later version is left alone, and another is made.
	s.ok(s.db.ReplaceSigningKey(t.Context(), meta.Change{}, access.SigningKey{ID: "z", Algorithm: "ML-DSA-44", Private: []byte("x")}, true))
	if _, _, err := s.tokens.Mint(t.Context(), access.Principal{}, service, nil); err == nil {
		t.Error("a token without a key")
	}
}

// oneKey is a store of one signing key, for a fuzzer that has no testing.T.
type oneKey struct{ access.SigningKey }

func (k *oneKey) Generation(context.Context) (int64, error) { return 1, nil }
func (k *oneKey) SigningKeys(context.Context) ([]access.SigningKey, error) {
	return []access.SigningKey{k.SigningKey}, nil
}
func (k *oneKey) DeleteSigningKeys(context.Context, time.Time) error { return nil }
func (k *oneKey) RotateSigningKey(context.Context, access.SigningKey, time.Time) (bool, error) {
	return false, nil
}

func tokensOf(tb testing.TB, key access.SigningKey) *auth.Tokens {
	tb.Helper()
	tokens, err := auth.NewTokens(tb.Context(), auth.TokenOptions{Store: &oneKey{key}, Issuer: issuer, Services: []string{service}, TTL: time.Hour})
	if err != nil {
		tb.Fatal(err)
	}
	return tokens
}

var alice = access.Principal{Kind: access.User, ID: "u-1", Name: "alice"}

func minted(tb testing.TB, tokens *auth.Tokens) string {
	tb.Helper()
	token, _, err := tokens.Mint(tb.Context(), alice, service, someScopes)
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

func aKey(tb testing.TB) access.SigningKey {
	tb.Helper()
	key, err := auth.NewSigningKey()
	if err != nil {
		tb.Fatal(err)
	}
	key.CreatedAt = time.Now()
	return key
}

// FuzzVerify: nothing but what was minted is good.
func FuzzVerify(f *testing.F) {
	tokens := tokensOf(f, aKey(f))
	good := minted(f, tokens)
	for _, seed := range []string{good, good[:len(good)-1], "..", "eyJhbGciOiJub25lIn0.e30."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		p, scopes, err := tokens.Verify(t.Context(), token)
		if err != nil && !errors.Is(err, auth.ErrInvalidToken) || err == nil && (p.ID != alice.ID || !reflect.DeepEqual(scopes, someScopes)) {
			t.Errorf("%q: %+v, %v, %v", token, p, scopes, err)
		}
	})
}

func BenchmarkMint(b *testing.B) {
	tokens := tokensOf(b, aKey(b))
	for b.Loop() {
		minted(b, tokens)
	}
}

// BenchmarkVerify is of a token that was seen before, as almost all are, and of
// one that was not.
func BenchmarkVerify(b *testing.B) {
	key := aKey(b)
	tokens := tokensOf(b, key)
	token := minted(b, tokens)
	b.Run("remembered", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := tokens.Verify(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := tokensOf(b, key).Verify(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
}
