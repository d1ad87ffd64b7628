package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/berth-registry/berth/internal/auth"
)

const (
	refreshAfter = 10 * time.Minute // what an issuer said is asked for anew
	goodFor      = time.Hour        // it counts, should the issuer be gone
	pause        = 10 * time.Second // between two looks at one issuer, at least
	quiet        = time.Minute      // between two log lines about one issuer
	maxKeys      = 256              // of an issuer
	maxModulus   = 8192             // bits of an RSA key: larger ones cost too much
	minModulus   = 2048
)

// algorithms that an ID token may be signed with: none that has a shared key.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// metadata is the part of a provider's discovery document that is used.
type metadata struct {
	Issuer        string   `json:"issuer"`
	JWKS          string   `json:"jwks_uri"`
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	UserInfo      string   `json:"userinfo_endpoint"`
	TokenAuth     []string `json:"token_endpoint_auth_methods_supported"`
	Scopes        []string `json:"scopes_supported"`
}

// knowledge is what an issuer said of itself at one time.
type knowledge struct {
	metadata
	keys []jose.JSONWebKey
	at   time.Time
}

// issuer is one provider, of which it remembers the keys. Forged tokens cannot
// make it ask more often than once per pause, and once more. It is safe for concurrent use.
type issuer struct {
	url    string
	people bool         // its endpoints for log-in are used too
	client *http.Client // guarded
	log    *slog.Logger
	now    func() time.Time

	mu     sync.Mutex
	last   *knowledge    // nil: never reached
	tried  time.Time     // when it was last asked
	unsure bool          // it was asked then for the sake of an unknown key
	failed error         // why it could not be asked then, if so
	asking chan struct{} // closed when the look under way ends; nil: none is
	logged time.Time
}

// know is what the issuer says: other than have, where that is possible now.
// Its errors are auth.ErrUnavailable.
func (i *issuer) know(ctx context.Context, have *knowledge) (*knowledge, error) {
	i.mu.Lock()
	k := i.usable()
	must := k == nil || k == have
	if must || i.now().Sub(k.at) >= refreshAfter {
		i.ask(k != nil && k == have)
	}
	asking := i.asking
	i.mu.Unlock()
	if !must {
		return k, nil
	}
	if asking != nil {
		select {
		case <-asking:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", auth.ErrUnavailable, ctx.Err())
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	k = i.usable()
	switch {
	case i.failed != nil && (k == nil || k == have):
		return nil, fmt.Errorf("%w: %w", auth.ErrUnavailable, i.failed)
	case k == nil:
		return nil, auth.ErrUnavailable
	}
	return k, nil
}

// usable is what is known, unless that is too long ago. The caller holds mu.
func (i *issuer) usable() *knowledge {
	if i.last == nil || i.now().Sub(i.last.at) >= goodFor {
		return nil
	}
	return i.last
}

// ask begins a look at the issuer unless one is under way or was just done; one
// for the sake of an unknown key may follow another at once, so that a new key
// need not wait. It belongs to nobody's request, so that none can spoil it. The
// caller holds mu.
func (i *issuer) ask(unsure bool) {
	now := i.now()
	since := now.Sub(i.tried)
	recent := since >= 0 && since < pause
	if i.asking != nil || recent && (!unsure || i.unsure || i.failed != nil) {
		return
	}
	done := make(chan struct{})
	i.tried, i.unsure, i.asking = now, unsure, done
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		k, err := i.look(ctx)
		i.mu.Lock()
		defer i.mu.Unlock()
		i.learn(k, err)
		i.asking = nil
		close(done)
	}()
}

// learn takes in the outcome of a look. The caller holds mu.
func (i *issuer) learn(k *knowledge, err error) {
	now := i.now()
	switch {
	case err == nil:
		if i.failed != nil {
			i.log.Info("identity provider answers again", "issuer", i.url)
			i.logged = time.Time{}
		}
		k.at, i.last = now, k
	case i.logged.IsZero() || now.Sub(i.logged) >= quiet:
		i.logged = now
		i.log.Error("identity provider cannot be used; its tokens are refused unless its keys are still known",
			"issuer", i.url, "error", err)
	}
	i.failed = err
}

// look fetches all that must be known.
func (i *issuer) look(ctx context.Context) (*knowledge, error) {
	var k knowledge
	discovery := strings.TrimSuffix(i.url, "/") + "/.well-known/openid-configuration"
	if err := fetch(ctx, i.client, discovery, "", &k.metadata); err != nil {
		return nil, err
	}
	if k.Issuer != i.url {
		return nil, fmt.Errorf("%s says that it is %.200q: use exactly that as the issuer, if it is right", discovery, k.Issuer)
	}
	if err := i.check(&k.metadata); err != nil {
		return nil, fmt.Errorf("%s: %w", discovery, err)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := fetch(ctx, i.client, k.JWKS, "", &set); err != nil {
		return nil, err
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("%s has more than %d keys", k.JWKS, maxKeys)
	}
	for _, text := range set.Keys {
		// Keys of unknown kinds are not for us, and do not spoil the others.
		var key jose.JSONWebKey
		if json.Unmarshal(text, &key) == nil && signs(&key) {
			k.keys = append(k.keys, key)
		}
	}
	if len(k.keys) == 0 {
		return nil, fmt.Errorf("%s has no usable key", k.JWKS)
	}
	return &k, nil
}

// check says which of the URLs that are used cannot be.
func (i *issuer) check(m *metadata) error {
	used := map[string]string{"jwks_uri": m.JWKS}
	if i.people {
		used["authorization_endpoint"], used["token_endpoint"] = m.Authorization, m.Token
		if m.UserInfo != "" {
			used["userinfo_endpoint"] = m.UserInfo
		}
	}
	for name, endpoint := range used {
		if err := checkEndpoint(i.url, endpoint); err != nil {
			return fmt.Errorf("%s %w", name, err)
		}
	}
	return nil
}

// signs reports whether a key is a public one for signatures, of a sane size.
func signs(key *jose.JSONWebKey) bool {
	if key.Use != "" && key.Use != "sig" {
		return false
	}
	switch k := key.Key.(type) {
	case *rsa.PublicKey:
		n := k.N.BitLen()
		return n >= minModulus && n <= maxModulus
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// open returns what is signed, if one of the keys did it.
func (k *knowledge) open(signed *jose.JSONWebSignature) ([]byte, bool) {
	header := signed.Signatures[0].Protected
	for n := range k.keys {
		key := &k.keys[n]
		if header.KeyID != "" && key.KeyID != "" && header.KeyID != key.KeyID ||
			key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		if payload, err := signed.Verify(key.Key); err == nil {
			return payload, true
		}
	}
	return nil, false
}

// verify checks that raw is an ID token of this issuer in its time. An empty
// audience allows all. Errors: auth.ErrInvalidToken, auth.ErrUnavailable.
func (i *issuer) verify(ctx context.Context, raw, audience string) (*gooidc.IDToken, map[string]any, error) {
	keys := &keySet{issuer: i}
	algs := make([]string, len(algorithms))
	for n, a := range algorithms {
		algs[n] = string(a)
	}
	token, err := gooidc.NewVerifier(i.url, keys, &gooidc.Config{
		ClientID: audience, SkipClientIDCheck: audience == "", SupportedSigningAlgs: algs,
		SkipExpiryCheck: true, // checkTimes is stricter
	}).Verify(ctx, raw)
	switch {
	case errors.Is(keys.err, auth.ErrUnavailable):
		return nil, nil, keys.err
	case err != nil:
		return nil, nil, invalid("%w", err)
	}
	var text json.RawMessage
	claims := map[string]any{}
	if err := token.Claims(&text); err != nil {
		return nil, nil, invalid("%w", err)
	}
	if err := unmarshal(text, &claims); err != nil {
		return nil, nil, invalid("%w", err)
	}
	if err := checkTimes(token, claims, i.now()); err != nil {
		return nil, nil, err
	}
	return token, claims, nil
}

// keySet is one use of an issuer's keys. It keeps its error, of which the
// verifier passes on no more than the text.
type keySet struct {
	issuer *issuer
	err    error
}

// VerifySignature returns what is signed. Keys that are unknown may be new ones.
func (s *keySet) VerifySignature(ctx context.Context, raw string) (payload []byte, err error) {
	defer func() { s.err = err }()
	signed, err := jose.ParseSignedCompact(raw, algorithms)
	if err != nil {
		return nil, err
	}
	k, err := s.issuer.know(ctx, nil)
	if err != nil {
		return nil, err
	}
	if payload, ok := k.open(signed); ok {
		return payload, nil
	}
	if k, err = s.issuer.know(ctx, k); err != nil {
		return nil, err
	}
	if payload, ok := k.open(signed); ok {
		return payload, nil
	}
	return nil, errors.New("no key of the issuer made its signature")
}
