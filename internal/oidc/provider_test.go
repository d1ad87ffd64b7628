package oidc

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
)

// testKeys are made once: RSA keys take long.
var testKeys = sync.OnceValue(func() map[string]crypto.Signer {
	keys := map[string]crypto.Signer{}
	for name, bits := range map[string]int{"one": 2048, "two": 2048, "weak": 1024} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			panic(err)
		}
		keys[name] = key
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	keys["curve"] = key
	return keys
})

// provider is an identity provider whose answers a test can spoil.
type provider struct {
	*httptest.Server
	clock *clock

	mu        sync.Mutex
	published []string                    // names of its keys
	spoiled   map[string]http.HandlerFunc // by path
	asked     map[string]int              // by path
}

const (
	discoveryPath = "/.well-known/openid-configuration"
	keysPath      = "/keys"
)

func newProvider(t *testing.T, c *clock, keys ...string) *provider {
	t.Helper()
	p := &provider{clock: c, published: keys, spoiled: map[string]http.HandlerFunc{}, asked: map[string]int{}}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked[r.URL.Path]++
	spoiled, published := p.spoiled[r.URL.Path], p.published
	p.mu.Unlock()
	switch {
	case spoiled != nil:
		spoiled(w, r)
	case r.URL.Path == discoveryPath:
		answerJSON(w, p.metadata())
	case r.URL.Path == keysPath:
		answerJSON(w, jwks(published...))
	default:
		http.NotFound(w, r)
	}
}

func (p *provider) metadata() map[string]any {
	return map[string]any{
		"issuer": p.URL, "jwks_uri": p.URL + keysPath,
		"authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "userinfo_endpoint": p.URL + "/me",
	}
}

func jwks(names ...string) jose.JSONWebKeySet {
	var set jose.JSONWebKeySet
	for _, name := range names {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: testKeys()[name].Public(), KeyID: name, Use: "sig"})
	}
	return set
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func (p *provider) publish(keys ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.published = keys
}

// spoil has a path answered otherwise; nil mends it.
func (p *provider) spoil(path string, h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spoiled[path] = h
}

// looks is how often the provider was asked for its keys or its document.
func (p *provider) looks(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}

// claims of a good token, changed: a nil value takes a claim away.
func (p *provider) claims(change map[string]any) map[string]any {
	now := p.clock.now().Unix()
	c := map[string]any{
		"iss": p.URL, "sub": "repo:acme/app", "aud": "berth", "iat": now, "nbf": now, "exp": now + 300,
		"repository": "acme/app", "ref": "refs/heads/main",
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// token signs good claims, changed, with a key of that name.
func (p *provider) token(t *testing.T, key string, change map[string]any) string {
	t.Helper()
	alg := jose.RS256
	if key == "curve" {
		alg = jose.ES256
	}
	return sign(t, jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: testKeys()[key], KeyID: key}}, p.claims(change))
}

func sign(t *testing.T, key jose.SigningKey, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// clock stands still until it is moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func openDB(t *testing.T, c *clock) *meta.DB {
	t.Helper()
	db, err := meta.Open(t.Context(), meta.Options{Path: metatest.File(t), Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// logBook is a log that tests read.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logBook) lines() int { return strings.Count(l.String(), "\n") }

func (l *logBook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// redirectTo answers with a redirect.
func redirectTo(url string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, url, http.StatusFound) }
}

// says answers with text.
func says(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	}
}
