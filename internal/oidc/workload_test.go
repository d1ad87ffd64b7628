package oidc

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/meta"
)

// jobs is a Workloads with one provider and a project acme.
type jobs struct {
	*testing.T
	*Workloads
	clock    *clock
	provider *provider
	db       *meta.DB
	project  meta.Project
	log      *logBook
}

func newJobs(t *testing.T, keys ...string) *jobs {
	t.Helper()
	c := newClock()
	j := &jobs{T: t, clock: c, provider: newProvider(t, c, keys...), db: openDB(t, c), log: &logBook{}}
	j.Workloads = NewWorkloads(WorkloadOptions{Store: j.db, Log: j.log.logger(), Now: c.now})
	var err error
	if j.project, err = j.db.CreateProject(t.Context(), meta.Change{}, meta.ProjectSpec{Name: "acme", Visibility: access.Private}); err != nil {
		t.Fatal(err)
	}
	return j
}

// rule adds a trust rule; what r leaves open is usual.
func (j *jobs) rule(r access.TrustRule) access.TrustRule {
	j.Helper()
	if r.Name == "" {
		r.Name = "ci"
	}
	if r.Issuer == "" {
		r.Issuer = j.provider.URL
	}
	if r.Audience == "" {
		r.Audience = "berth"
	}
	if r.Claims == nil {
		r.Claims = map[string]string{"repository": "acme/app"}
	}
	if r.Role == access.None {
		r.Role = access.Writer
	}
	if r.ProjectID == "" {
		r.ProjectID = j.project.ID
	}
	if err := ValidateRule(r); err != nil {
		j.Fatal(err)
	}
	r, err := j.db.CreateTrustRule(j.Context(), meta.Change{}, r)
	if err != nil {
		j.Fatal(err)
	}
	return r
}

// good exchanges a token that must be good.
func (j *jobs) good(raw string) access.Principal {
	j.Helper()
	p, err := j.Exchange(j.Context(), raw)
	if err != nil {
		j.Errorf("a good token is refused: %v", err)
	}
	return p
}

// bad exchanges a token that must fail with want, and whose failure must not
// hold it.
func (j *jobs) bad(what, raw string, want error) {
	j.Helper()
	p, err := j.Exchange(j.Context(), raw)
	if !errors.Is(err, want) || p != (access.Principal{}) {
		j.Errorf("%s: %+v, %v; want %v", what, p, err, want)
	}
	if errors.Is(err, auth.ErrCredentials) == errors.Is(err, auth.ErrUnavailable) {
		j.Errorf("%s: %v is not one of: bad token, issuer unreachable", what, err)
	}
	parts := strings.Split(raw, ".")
	if last := parts[len(parts)-1]; len(last) > 8 && (strings.Contains(err.Error(), last) || strings.Contains(j.log.String(), last)) {
		j.Errorf("%s: the token is in the error or the log", what)
	}
}

func TestExchange(t *testing.T) {
	j := newJobs(t, "one", "curve")
	r := j.rule(access.TrustRule{Claims: map[string]string{
		"repository": "acme/*", "ref": "refs/heads/main", "run": "7", "protected": "true", "kubernetes.io.namespace": "ci", "teams": "red",
	}})
	claims := map[string]any{
		"aud": []string{"other", "berth"}, "run": 7, "protected": true, "teams": []string{"blue", "red"},
		"kubernetes.io": map[string]any{"namespace": "ci"},
	}
	for _, key := range []string{"one", "curve"} {
		want := access.Principal{Kind: access.Workload, ID: r.ID, Name: "acme/ci"}
		if p := j.good(j.provider.token(t, key, claims)); p != want {
			t.Errorf("%+v, want %+v", p, want)
		}
	}
	for claim := range r.Claims {
		for _, v := range []any{nil, "else", map[string]any{}, []any{}} {
			top, _, _ := strings.Cut(claim, ".namespace")
			changed := map[string]any{}
			for k, v := range claims {
				changed[k] = v
			}
			changed[top] = v
			j.bad(fmt.Sprintf("%s is %v", claim, v), j.provider.token(t, "one", changed), auth.ErrInvalidToken)
		}
	}
}

func TestExchangeBestRule(t *testing.T) {
	j := newJobs(t, "one")
	other, err := j.db.CreateProject(t.Context(), meta.Change{}, meta.ProjectSpec{Name: "zeta", Visibility: access.Private})
	if err != nil {
		t.Fatal(err)
	}
	j.rule(access.TrustRule{Name: "reader", Role: access.Reader})
	first := j.rule(access.TrustRule{Name: "first", Role: access.Maintainer, ProjectID: other.ID})
	j.rule(access.TrustRule{Name: "second", Role: access.Maintainer})
	j.rule(access.TrustRule{Name: "no-match", Role: access.Owner, Claims: map[string]string{"repository": "acme/other"}})
	j.rule(access.TrustRule{Name: "no-audience", Role: access.Owner, Audience: "elsewhere"})
	j.rule(access.TrustRule{Name: "no-issuer", Role: access.Owner, Issuer: "https://token.example.com"})
	token := j.provider.token(t, "one", nil)
	if p := j.good(token); p.ID != first.ID || p.Name != "zeta/first" {
		t.Errorf("the best rule is %+v", p)
	}
	if err := j.db.DeleteTrustRule(t.Context(), meta.Change{}, other.ID, "first"); err != nil {
		t.Fatal(err)
	}
	if p := j.good(token); p.Name != "acme/second" {
		t.Errorf("the next best rule is %+v", p)
	}
}

func TestRefusedTokens(t *testing.T) {
	j := newJobs(t, "one")
	j.rule(access.TrustRule{})
	good := j.provider.token(t, "one", nil)
	j.good(good)
	parts := strings.Split(good, ".")
	now := j.clock.now().Unix()
	change := func(claim string, v any) string { return j.provider.token(t, "one", map[string]any{claim: v}) }
	for what, raw := range map[string]string{
		"expired":                change("exp", now-61),
		"no expiry":              change("exp", nil),
		"expiry is no number":    change("exp", "tomorrow"),
		"without time of issue":  change("iat", nil),
		"issued in the future":   j.provider.token(t, "one", map[string]any{"iat": now + 61, "exp": now + 300}),
		"not yet valid":          change("nbf", now+61),
		"not yet valid, as text": change("nbf", "1"),
		"valid for too long":     change("exp", now+24*3600+1),
		"another audience":       change("aud", "berth.example.com"),
		"no audience":            change("aud", nil),
		"too many audiences":     change("aud", strings.Split(strings.Repeat("berth ", 16)+"berth", " ")),
		"another claim":          change("repository", "acme/app2"),
		"a claim's case":         change("repository", "Acme/app"),
		"no issuer":              change("iss", nil),
		"issuer is no text":      change("iss", []string{j.provider.URL}),
		"issuer with a slash":    change("iss", j.provider.URL+"/"),
		"unknown issuer":         change("iss", "https://token.example.com"),
		"empty":                  "",
		"a word":                 "swordfish",
		"truncated":              good[:len(good)-4],
		"without its signature":  parts[0] + "." + parts[1] + ".",
		"another payload":        parts[0] + "." + strings.Split(change("repository", "x"), ".")[1] + "." + parts[2],
		"payload is no JSON":     parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte("{")) + "." + parts[2],
		"two payloads":           parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte("{}{}")) + "." + parts[2],
		"five parts":             good + ".x.y",
		"a JSON serialisation":   fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2]),
		"large":                  change("pad", strings.Repeat("x", maxToken)),
		"giant":                  strings.Repeat("x.", 1<<20),
		"the key of another":     forged(t, j.provider, jose.RS256, "one", testKeys()["two"]),
		"an unknown key":         j.provider.token(t, "two", nil),
		"another kind of key":    forged(t, j.provider, jose.ES256, "one", testKeys()["curve"]),
		"no algorithm":           unsigned(t, j.provider),
		"HMAC with public key":   forged(t, j.provider, jose.HS256, "one", publicPEM(t)),
		"HMAC with the modulus":  forged(t, j.provider, jose.HS256, "one", publicJWK(t)),
		"a key that it brings":   embedded(t, j.provider),
	} {
		j.bad(what, raw, auth.ErrInvalidToken)
	}
	if n := j.provider.looks(keysPath); n > 2 {
		t.Errorf("the keys were asked for %d times", n)
	}
	j.clock.move(59 * time.Second)
	j.good(j.provider.token(t, "one", map[string]any{"exp": now, "iat": now + 118, "nbf": now + 118}))
}

// forged is a good token that is signed with what the issuer does not use.
func forged(t *testing.T, p *provider, alg jose.SignatureAlgorithm, kid string, key any) string {
	t.Helper()
	return sign(t, jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, p.claims(nil))
}

func unsigned(t *testing.T, p *provider) string {
	t.Helper()
	text, err := json.Marshal(p.claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"one"}`)) + "." + base64.RawURLEncoding.EncodeToString(text) + "."
}

func publicPEM(t *testing.T) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(testKeys()["one"].Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func publicJWK(t *testing.T) []byte {
	t.Helper()
	text, err := json.Marshal(jwks("one").Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// embedded is signed with a key that stands in its own header.
func embedded(t *testing.T, p *provider) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: testKeys()["two"]}, &jose.SignerOptions{EmbedJWK: true})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(p.claims(nil))
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

func TestIssuersThatNobodyTrustsAreNotContacted(t *testing.T) {
	j := newJobs(t, "one")
	token := j.provider.token(t, "one", nil)
	j.bad("no rule", token, auth.ErrInvalidToken)
	j.rule(access.TrustRule{Issuer: "https://token.example.com"})
	j.bad("rules of others", token, auth.ErrInvalidToken)
	j.rule(access.TrustRule{Name: "doomed"})
	if _, err := j.db.DeleteProject(t.Context(), meta.Change{}, j.project.ID); err != nil {
		t.Fatal(err)
	}
	j.bad("a rule of a deleted project", token, auth.ErrInvalidToken)
	if n := j.provider.looks(discoveryPath); n != 0 {
		t.Errorf("the issuer was contacted %d times", n)
	}
}

func TestKeysRotate(t *testing.T) {
	j := newJobs(t, "one")
	j.rule(access.TrustRule{})
	j.good(j.provider.token(t, "one", nil))
	j.provider.publish("one", "two")
	j.good(j.provider.token(t, "two", nil))
	j.good(j.provider.token(t, "one", nil))
	j.provider.publish("one", "two", "curve")
	j.bad("a second new key at once", j.provider.token(t, "curve", nil), auth.ErrInvalidToken)
	if n := j.provider.looks(keysPath); n != 2 {
		t.Errorf("the keys were asked for %d times, want 2", n)
	}
	j.clock.move(pause)
	j.good(j.provider.token(t, "curve", nil))
	j.provider.publish("two")
	j.clock.move(refreshAfter)
	j.good(j.provider.token(t, "two", nil)) // has the keys asked for behind its back
	j.eventually(func() bool { return j.provider.looks(keysPath) == 4 })
	j.eventually(func() bool {
		_, err := j.Exchange(t.Context(), j.provider.token(t, "one", nil))
		return errors.Is(err, auth.ErrInvalidToken)
	})
	j.good(j.provider.token(t, "two", nil))
}

func (j *jobs) eventually(ok func() bool) {
	j.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			j.Fatal("it never came to be")
		}
	}
}

// Forged tokens with ever new key ids must not become a flood at the issuer.
func TestUnknownKeysAreAskedForOnce(t *testing.T) {
	j := newJobs(t, "one")
	j.rule(access.TrustRule{})
	j.good(j.provider.token(t, "one", nil))
	j.clock.move(pause)
	var wait sync.WaitGroup
	for n := range 200 {
		raw := forged(t, j.provider, jose.RS256, fmt.Sprint("key-", n), testKeys()["two"])
		wait.Go(func() {
			if _, err := j.Exchange(t.Context(), raw); !errors.Is(err, auth.ErrInvalidToken) {
				t.Errorf("forged: %v", err)
			}
		})
	}
	wait.Wait()
	if n := j.provider.looks(keysPath); n != 2 {
		t.Errorf("the keys were asked for %d times, want 2", n)
	}
	j.good(j.provider.token(t, "one", nil))
}

func TestUnreachableIssuer(t *testing.T) {
	j := newJobs(t, "one")
	j.rule(access.TrustRule{})
	j.provider.spoil(keysPath, says(http.StatusInternalServerError, "swordfish"))
	token := j.provider.token(t, "one", nil)
	for range 50 {
		j.bad("unreachable", token, auth.ErrUnavailable)
	}
	if n := j.provider.looks(keysPath); n != 1 {
		t.Errorf("the issuer was asked %d times, want once", n)
	}
	if text := j.log.String(); j.log.lines() != 1 || !strings.Contains(text, j.provider.URL) || !strings.Contains(text, "answers 500") || strings.Contains(text, "swordfish") {
		t.Errorf("the log is:\n%s", text)
	}
	for range 5 {
		j.clock.move(pause)
		j.bad("unreachable", token, auth.ErrUnavailable)
	}
	if n := j.provider.looks(keysPath); n != 6 || j.log.lines() != 1 {
		t.Errorf("asked %d times, %d lines in the log", n, j.log.lines())
	}
	j.provider.spoil(keysPath, nil)
	j.clock.move(pause)
	j.good(j.provider.token(t, "one", nil))
	if j.log.lines() != 2 || !strings.Contains(j.log.String(), "answers again") {
		t.Errorf("the log is:\n%s", j.log)
	}
}

// What was learnt holds for an hour, and no longer.
func TestIssuerGoesAway(t *testing.T) {
	j := newJobs(t, "one")
	j.rule(access.TrustRule{})
	j.good(j.provider.token(t, "one", nil))
	j.provider.Close()
	for spent := time.Duration(0); spent < goodFor-refreshAfter; spent += refreshAfter {
		j.clock.move(refreshAfter)
		j.good(j.provider.token(t, "one", nil))
	}
	j.eventually(func() bool { return j.log.lines() > 0 })
	j.bad("an unknown key", j.provider.token(t, "two", nil), auth.ErrUnavailable)
	j.clock.move(refreshAfter)
	j.bad("after an hour", j.provider.token(t, "one", nil), auth.ErrUnavailable)
}

func TestUnusableIssuers(t *testing.T) {
	elsewhere := newProvider(t, newClock(), "one")
	for what, spoil := range map[string]func(*provider){
		"says 404":         func(p *provider) { p.spoil(discoveryPath, says(404, "")) },
		"sends no JSON":    func(p *provider) { p.spoil(discoveryPath, says(200, "<html>")) },
		"sends JSON twice": func(p *provider) { p.spoil(keysPath, says(200, `{"keys":[]}{}`)) },
		"sends too much": func(p *provider) {
			p.spoil(keysPath, says(200, string(publicJWKS(t))+strings.Repeat(" ", maxDocument)))
		},
		"sends without end":    func(p *provider) { p.spoil(keysPath, endless) },
		"has too many keys":    func(p *provider) { p.spoil(keysPath, says(200, `{"keys":[`+strings.Repeat("{},", maxKeys)+`{}]}`)) },
		"has no key":           func(p *provider) { p.publish() },
		"has weak keys only":   func(p *provider) { p.publish("weak") },
		"has secret keys only": func(p *provider) { p.spoil(keysPath, says(200, `{"keys":[{"kty":"oct","kid":"one","k":"c2VjcmV0"}]}`)) },
		"has keys to encrypt": func(p *provider) {
			p.spoil(keysPath, says(200, strings.Replace(string(publicJWKS(t)), `"sig"`, `"enc"`, 1)))
		},
		"redirects elsewhere":   func(p *provider) { p.spoil(keysPath, redirectTo(elsewhere.URL+keysPath)) },
		"redirects for ever":    func(p *provider) { p.spoil(keysPath, redirectTo(p.URL+keysPath)) },
		"is another":            func(p *provider) { p.answer(map[string]any{"issuer": elsewhere.URL}) },
		"is another by a slash": func(p *provider) { p.answer(map[string]any{"issuer": p.URL + "/"}) },
		"names no keys":         func(p *provider) { p.answer(map[string]any{"jwks_uri": ""}) },
		"has keys on another":   func(p *provider) { p.answer(map[string]any{"jwks_uri": elsewhere.URL + keysPath}) },
		"has keys in a file":    func(p *provider) { p.answer(map[string]any{"jwks_uri": "file:///etc/passwd"}) },
		"has a user in its URL": func(p *provider) {
			p.answer(map[string]any{"jwks_uri": strings.Replace(p.URL, "://", "://a:b@", 1) + keysPath})
		},
		"breaks off its document": func(p *provider) { p.spoil(keysPath, broken) },
	} {
		t.Run(what, func(t *testing.T) {
			j := newJobs(t, "one")
			j.rule(access.TrustRule{})
			spoil(j.provider)
			token := j.provider.token(t, "one", nil)
			j.bad(what, token, auth.ErrUnavailable)
			if j.log.lines() != 1 {
				t.Errorf("the log is:\n%s", j.log)
			}
			j.provider.spoil(discoveryPath, nil)
			j.provider.spoil(keysPath, nil)
			j.provider.publish("one")
			j.clock.move(pause)
			j.good(j.provider.token(t, "one", nil))
		})
	}
	if elsewhere.looks(keysPath) != 0 {
		t.Error("another host was contacted")
	}
}

// answer has the provider describe itself otherwise.
func (p *provider) answer(change map[string]any) {
	p.spoil(discoveryPath, func(w http.ResponseWriter, _ *http.Request) {
		m := p.metadata()
		for k, v := range change {
			m[k] = v
		}
		answerJSON(w, m)
	})
}

func publicJWKS(t *testing.T) []byte {
	t.Helper()
	text, err := json.Marshal(jwks("one"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func endless(w http.ResponseWriter, r *http.Request) {
	block := []byte(strings.Repeat(" ", 64<<10))
	for r.Context().Err() == nil {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

func broken(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	fmt.Fprint(w, `{"keys":[`)
}

func TestRedirectsOnOneHost(t *testing.T) {
	j := newJobs(t, "one")
	j.rule(access.TrustRule{})
	j.provider.spoil(discoveryPath, redirectTo("/moved"))
	j.provider.spoil("/moved", func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, j.provider.metadata()) })
	j.good(j.provider.token(t, "one", nil))
}

// A slow issuer holds a request no longer than its client waits, and no longer
// than the limit; who asked first does not spoil it for the others.
func TestSlowIssuer(t *testing.T) {
	t.Parallel()
	j := newJobs(t, "one")
	j.rule(access.TrustRule{})
	release := make(chan struct{})
	j.provider.spoil(keysPath, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
			answerJSON(w, jwks("one"))
		case <-r.Context().Done():
		}
	})
	token := j.provider.token(t, "one", nil)
	hasty, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := j.Exchange(hasty, token); !errors.Is(err, auth.ErrUnavailable) {
		t.Errorf("a hasty client: %v", err)
	}
	close(release)
	j.good(token)

	j = newJobs(t, "one")
	j.rule(access.TrustRule{})
	j.provider.spoil(discoveryPath, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	began := time.Now()
	j.bad("for ever", j.provider.token(t, "one", nil), auth.ErrUnavailable)
	if took := time.Since(began); took > fetchTimeout+2*time.Second {
		t.Errorf("it took %v", took)
	}
}
