package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/rogpeppe/go-internal/testscript"
)

// address NAME sets NAME to an address of this machine that nobody listens on.
func addressCommand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "address NAME")
	at, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Check(at.Close())
	ts.Setenv(args[0], at.Addr().String())
}

// provider NAME runs an identity provider that lets everybody in as NAME, whose
// groups are developers. Then ISSUER is set.
func providerCommand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "provider NAME")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	p := &provider{user: args[0], key: jose.JSONWebKey{Key: key, KeyID: "one", Use: "sig", Algorithm: "ES256"}, nonces: map[string]url.Values{}}
	p.server = httptest.NewServer(p)
	ts.Defer(p.server.Close)
	ts.Setenv("ISSUER", p.server.URL)
}

type provider struct {
	server *httptest.Server
	user   string
	key    jose.JSONWebKey

	mu     sync.Mutex
	nonces map[string]url.Values // what was asked for, by code
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	self := p.server.URL
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		answer(w, map[string]any{
			"issuer": self, "jwks_uri": self + "/keys", "authorization_endpoint": self + "/authorize", "token_endpoint": self + "/token",
			"response_types_supported": []string{"code"}, "id_token_signing_alg_values_supported": []string{"ES256"},
		})
	case "/keys":
		answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{p.key.Public()}})
	case "/authorize":
		code, q := rand.Text(), r.URL.Query()
		p.mu.Lock()
		p.nonces[code] = q
		p.mu.Unlock()
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
	case "/token":
		p.token(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	asked, known := p.nonces[r.FormValue("code")]
	delete(p.nonces, r.FormValue("code"))
	p.mu.Unlock()
	if !known {
		http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
		return
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: p.key}, nil)
	if err != nil {
		panic(err)
	}
	token, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": p.server.URL, "aud": asked.Get("client_id"), "sub": "subject-of-" + p.user, "nonce": asked.Get("nonce"),
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
		"preferred_username": p.user, "groups": []string{"developers"},
	}).Serialize()
	if err != nil {
		panic(err)
	}
	answer(w, map[string]any{"access_token": "opaque", "token_type": "Bearer", "expires_in": 60, "id_token": token})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(err)
	}
}

// browser is the program that opens a page: it follows where that leads, with
// cookies, and keeps what it sees at the end in the file BROWSER_SAW.
func browser() {
	jar, err := cookiejar.New(nil)
	if err != nil {
		panic(err)
	}
	resp, err := (&http.Client{Jar: jar, Timeout: patience}).Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err == nil {
		err = os.WriteFile(os.Getenv("BROWSER_SAW"), page, 0o600)
	}
	if err != nil {
		panic(err)
	}
}
