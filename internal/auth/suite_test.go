package auth_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/directory"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
)

const (
	issuer  = "https://registry.test"
	service = "registry.test"
	ttl     = 5 * time.Minute
)

// clock stands still until it is moved.
type clock struct{ ahead atomic.Int64 }

var start = time.Now().Truncate(time.Second)

func (c *clock) now() time.Time       { return start.Add(time.Duration(c.ahead.Load())) }
func (c *clock) move(d time.Duration) { c.ahead.Add(int64(d)) }

// server is all that log-in needs, over a real database.
type server struct {
	*testing.T
	clock   *clock
	path    string
	db      *meta.DB
	hasher  *auth.Hasher
	tokens  *auth.Tokens
	auth    *auth.Authenticator
	refresh *auth.Refresh
}

// newServer starts on a new database; change may alter its options.
func newServer(t *testing.T, change ...func(*auth.Options)) *server {
	t.Helper()
	s := replica(t, &clock{}, metatest.File(t), change...)
	_, err := s.db.CreateUser(t.Context(), meta.Change{}, meta.UserSpec{Name: "root", Admin: true})
	s.ok(err)
	return s
}

func replica(t *testing.T, c *clock, path string, change ...func(*auth.Options)) *server {
	t.Helper()
	s := &server{T: t, clock: c, path: path, hasher: auth.NewHasher()}
	var err error
	s.db, err = meta.Open(t.Context(), meta.Options{Path: path, Now: c.now, Shared: true})
	s.ok(err)
	t.Cleanup(func() { s.db.Close() })
	s.tokens = s.newTokens(nil)
	o := auth.Options{Directory: directory.New(s.db), Tokens: s.tokens, Failures: s.db, TouchKeys: s.db.TouchKeys, Hasher: s.hasher, Now: c.now}
	for _, f := range change {
		f(&o)
	}
	s.auth = auth.NewAuthenticator(o)
	t.Cleanup(s.auth.Close)
	s.refresh = auth.NewRefresh(auth.RefreshOptions{Store: s.db, Authenticator: s.auth, TTL: time.Hour, Now: c.now})
	return s
}

func (s *server) newTokens(change func(*auth.TokenOptions)) *auth.Tokens {
	s.Helper()
	o := auth.TokenOptions{Store: s.db, Issuer: issuer, Services: []string{service, "other.test"}, TTL: ttl, Rotation: 24 * time.Hour, Now: s.clock.now}
	if change != nil {
		change(&o)
	}
	t, err := auth.NewTokens(s.Context(), o)
	s.ok(err)
	return t
}

func (s *server) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// user makes a user with a password, or without.
func (s *server) user(name, password string) meta.User {
	s.Helper()
	hash := ""
	if password != "" {
		hash = cheap(password)
	}
	u, err := s.db.CreateUser(s.Context(), meta.Change{}, meta.UserSpec{Name: name, Password: hash})
	s.ok(err)
	return u
}

// cheap is a hash of a password that is stored with less work than new ones
// have: who has it is checked at once.
func cheap(password string) string {
	const salt = "somesalt"
	b64 := base64.RawStdEncoding
	hash := argon2.IDKey([]byte(password), []byte(salt), 1, 64, 1, 32)
	return "$argon2id$v=19$m=64,t=1,p=1$" + b64.EncodeToString([]byte(salt)) + "$" + b64.EncodeToString(hash)
}

// key makes a key of a user or project.
func (s *server) key(k access.Key) (secret string, made access.Key) {
	s.Helper()
	kind := auth.UserKey
	if k.ProjectID != "" {
		kind, k.Role = auth.ProjectKey, access.Writer
	}
	secret, hash := auth.NewKey(kind)
	if k.Name == "" {
		k.Name = hash[:8]
	}
	made, err := s.db.CreateKey(s.Context(), meta.Change{}, k, hash)
	s.ok(err)
	return secret, made
}

func (s *server) project(name string) meta.Project {
	s.Helper()
	p, err := s.db.CreateProject(s.Context(), meta.Change{}, meta.ProjectSpec{Name: name, Visibility: access.Private})
	s.ok(err)
	return p
}

// mint makes a token for who has logged in.
func (s *server) mint(id auth.Identity, scopes ...auth.Scope) string {
	s.Helper()
	token, _, err := s.tokens.Mint(s.Context(), id.Principal, service, scopes)
	s.ok(err)
	return token
}

// from is a request from an address; headers stand as Authorization values.
func from(address string, authorization ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	r.RemoteAddr = address + ":1234"
	for _, value := range authorization {
		r.Header.Add("Authorization", value)
	}
	return r
}

func basic(name, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+secret))
}

// identify asks who sent a header from 192.0.2.1.
func (s *server) identify(authorization ...string) (auth.Identity, error) {
	return s.auth.Identify(from("192.0.2.1", authorization...))
}

func (s *server) lets(want, authorization string) auth.Identity {
	s.Helper()
	id, err := s.identify(authorization)
	if err != nil || id.String() != want {
		s.Errorf("%q, %v; want %q", id.String(), err, want)
	}
	return id
}

// refuses checks that credentials are refused with a reason, which stands for
// the trail, and that no secret stands in the error.
func (s *server) refuses(kind error, reason, authorization string) {
	s.Helper()
	id, err := s.identify(authorization)
	var refusal *auth.Refusal
	if !errors.Is(err, kind) || !errors.As(err, &refusal) || !strings.Contains(refusal.AuditReason(), reason) {
		s.Errorf("%q, %v; want %v because of %q", id.String(), err, kind, reason)
	}
	if kind == auth.ErrCredentials && errors.Is(err, auth.ErrInvalidToken) {
		s.Errorf("%v is of a token, which there was none of", err)
	}
	if id.Kind != access.Anonymous || id.ID != "" {
		s.Errorf("a refusal has an identity: %+v", id)
	}
}

func (s *server) throttles(authorization string) *auth.ThrottledError {
	s.Helper()
	_, err := s.identify(authorization)
	var throttled *auth.ThrottledError
	if !errors.As(err, &throttled) {
		s.Fatalf("%v, want to be throttled", err)
	}
	if errors.Is(err, auth.ErrCredentials) {
		s.Error("a throttled log-in tells something of the credentials")
	}
	return throttled
}

// exchange stands for the log-in of jobs: it knows one token.
func exchange(p access.Principal) func(context.Context, string) (access.Principal, error) {
	return func(_ context.Context, token string) (access.Principal, error) {
		if token != goodJob {
			return access.Principal{}, auth.ErrInvalidToken
		}
		return p, nil
	}
}

var goodJob = "eyJhbGciOiJFUzI1NiJ9." + strings.Repeat("a", 80) + ".c2lnbmF0dXJl"
