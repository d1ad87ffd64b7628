package authhttp_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/authhttp"
	"github.com/berth-registry/berth/internal/directory"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/policy"
)

const service = "registry.test"

// server is the token endpoint over a real database and policy, behind a real
// socket.
type server struct {
	*httptest.Server
	t      testing.TB
	db     *meta.DB
	auth   *auth.Authenticator
	tokens *auth.Tokens

	mu    sync.Mutex
	log   bytes.Buffer
	trail []audit.Event
}

// newServer starts with user alice (wonderland), who owns project acme, and
// user bob (builder), who owns nothing; change may alter its options.
func newServer(t testing.TB, change ...func(*auth.Options, *authhttp.Options)) *server {
	t.Helper()
	s := &server{t: t}
	var err error
	s.db, err = meta.Open(t.Context(), meta.Options{Path: metatest.File(t)})
	s.ok(err)
	t.Cleanup(func() { s.db.Close() })
	s.tokens, err = auth.NewTokens(t.Context(), auth.TokenOptions{Store: s.db, Issuer: "https://registry.test", Services: []string{service}})
	s.ok(err)
	dir := directory.New(s.db)
	ao := auth.Options{Directory: dir, Tokens: s.tokens, Failures: s.db, TouchKeys: s.db.TouchKeys}
	ho := authhttp.Options{Tokens: s.tokens, Allow: policy.New(dir, s.db, policy.Options{}).Allow, Record: s.record, Log: slog.New(slog.NewTextHandler(s, nil))}
	for _, f := range change {
		f(&ao, &ho)
	}
	s.auth = auth.NewAuthenticator(ao)
	ho.Authenticator = s.auth
	ho.Refresh = auth.NewRefresh(auth.RefreshOptions{Store: s.db, Authenticator: s.auth})
	t.Cleanup(s.auth.Close)
	s.people()
	s.Server = httptest.NewServer(authhttp.New(ho))
	t.Cleanup(s.Close)
	return s
}

func (s *server) people() {
	s.t.Helper()
	s.user("root", "", true)
	alice := s.user("alice", "wonderland", false)
	s.user("bob", "builder", false)
	_, err := s.db.CreateProject(s.t.Context(), meta.Change{}, meta.ProjectSpec{Name: "acme", Visibility: access.Private, Owner: alice})
	s.ok(err)
	_, err = s.db.CreateProject(s.t.Context(), meta.Change{}, meta.ProjectSpec{Name: "public", Visibility: access.Public, Owner: alice})
	s.ok(err)
}

func (s *server) user(name, password string, admin bool) string {
	s.t.Helper()
	spec := meta.UserSpec{Name: name, Admin: admin}
	if password != "" {
		spec.Password = cheap(password)
	}
	u, err := s.db.CreateUser(s.t.Context(), meta.Change{}, spec)
	s.ok(err)
	return u.ID
}

// cheap is a hash of a password that is stored with less work than new ones
// have: who has it is checked at once.
func cheap(password string) string {
	const salt = "somesalt"
	b64 := base64.RawStdEncoding
	hash := argon2.IDKey([]byte(password), []byte(salt), 1, 64, 1, 32)
	return "$argon2id$v=19$m=64,t=1,p=1$" + b64.EncodeToString([]byte(salt)) + "$" + b64.EncodeToString(hash)
}

// key makes a key of project acme.
func (s *server) key() (secret string, made access.Key) {
	s.t.Helper()
	p, err := s.db.ProjectAccess(s.t.Context(), "acme")
	s.ok(err)
	secret, hash := auth.NewKey(auth.ProjectKey)
	made, err = s.db.CreateKey(s.t.Context(), meta.Change{}, access.Key{Name: hash[:8], ProjectID: p.ID, Role: access.Writer}, hash)
	s.ok(err)
	return secret, made
}

func (s *server) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) record(e audit.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trail = append(s.trail, e)
}

// events takes what was recorded so far.
func (s *server) events() []audit.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	trail := s.trail
	s.trail = nil
	return trail
}

// Write takes a line of the log.
func (s *server) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

// hides checks that a secret is neither in the log nor in the trail.
func (s *server) hides(secrets ...string) {
	s.t.Helper()
	trail, err := json.Marshal(s.events())
	s.ok(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log.Len() == 0 {
		s.t.Error("nothing was logged")
	}
	for _, secret := range secrets {
		if strings.Contains(s.log.String(), secret) || bytes.Contains(trail, []byte(secret)) {
			s.t.Errorf("%q is told", secret)
		}
	}
}

// answer is a response that was read to its end.
type answer struct {
	t      testing.TB
	status int
	header http.Header
	text   string

	Token       string `json:"token"`
	AccessToken string `json:"access_token"`
	ExpiresIn   int    `json:"expires_in"`
	IssuedAt    string `json:"issued_at"`
	Scope       string `json:"scope"`
	Refresh     string `json:"refresh_token"`
	Errors      []struct{ Code, Message string }
}

func (s *server) do(r *http.Request) *answer {
	s.t.Helper()
	resp, err := s.Client().Do(r)
	s.ok(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	s.ok(err)
	a := &answer{t: s.t, status: resp.StatusCode, header: resp.Header, text: string(body)}
	if resp.Header.Get("Content-Type") != "application/json" || json.Unmarshal(body, a) != nil {
		s.t.Errorf("status %d, %s: not JSON: %.200s", a.status, resp.Header.Get("Content-Type"), body)
	}
	return a
}

func (s *server) request(method, query string, body io.Reader) *http.Request {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+"/auth/token"+query, body)
	s.ok(err)
	return r
}

// get asks as docker does; credentials are a name and a secret, or none.
func (s *server) get(query string, credentials ...string) *answer {
	s.t.Helper()
	r := s.request(http.MethodGet, "?"+query, nil)
	if len(credentials) > 0 {
		r.SetBasicAuth(credentials[0], credentials[1])
	}
	return s.do(r)
}

// post sends a form of names and values in turns.
func (s *server) post(fields ...string) *answer {
	s.t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	r := s.request(http.MethodPost, "", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return s.do(r)
}

// grants checks a token: whom it is for, and the scopes in it.
func (s *server) grants(a *answer, identity, scopes string) {
	s.t.Helper()
	if a.status != http.StatusOK || a.Token == "" || a.Token != a.AccessToken || a.ExpiresIn != 300 || a.header.Get("Cache-Control") != "no-store" {
		s.t.Fatalf("status %d, %v: %s", a.status, a.header, a.text)
	}
	if at, err := time.Parse(time.RFC3339, a.IssuedAt); err != nil || time.Since(at).Abs() > time.Minute {
		s.t.Errorf("issued at %q", a.IssuedAt)
	}
	p, granted, err := s.tokens.Verify(s.t.Context(), a.Token)
	if got := joined(granted); err != nil || p.String() != identity || got != scopes {
		s.t.Errorf("a token for %q: %q, %v; want %q: %q", p.String(), got, err, identity, scopes)
	}
}

func joined(scopes []auth.Scope) string {
	var texts []string
	for _, s := range scopes {
		texts = append(texts, s.String())
	}
	return strings.Join(texts, " ")
}

// fails checks an error's form on the wire.
func (a *answer) fails(status int, code string) *answer {
	a.t.Helper()
	if a.status != status || len(a.Errors) != 1 || a.Errors[0].Code != code || a.Errors[0].Message == "" || a.Token != "" {
		a.t.Errorf("status %d, %.300s; want %d %s", a.status, a.text, status, code)
	}
	if a.header.Get("Www-Authenticate") != "" || a.header.Get("Cache-Control") != "no-store" {
		a.t.Errorf("headers of an error: %v", a.header)
	}
	return a
}
