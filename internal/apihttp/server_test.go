package apihttp

import (
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/directory"
	"github.com/berth-registry/berth/internal/manage"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oidc"
)

// server is the API on a database of its own, with the parts it has in use.
type server struct {
	t       testing.TB
	db      *meta.DB
	tokens  *auth.Tokens
	handler *handler
	secrets map[string]string // Authorization by who it is of

	mu      sync.Mutex
	refused []audit.Event
}

// serve opens a server on the database in file, which is made where needed.
func serve(t testing.TB, file string) *server {
	t.Helper()
	db, err := meta.Open(t.Context(), meta.Options{Path: file})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, db: db, secrets: map[string]string{"anonymous": ""}}
	dir := directory.New(db)
	if s.tokens, err = auth.NewTokens(t.Context(), auth.TokenOptions{Store: db, Issuer: "berth", Services: []string{"registry"}}); err != nil {
		t.Fatal(err)
	}
	identify := auth.NewAuthenticator(auth.Options{
		Directory: dir, Tokens: s.tokens, Failures: db, TouchKeys: db.TouchKeys,
		Open: func(ctx context.Context) (bool, error) {
			guarded, err := dir.Guarded(ctx)
			return !guarded, err
		},
	})
	o := Options{
		Identify: identify.Identify, Version: "1.2.3",
		Manage: manage.New(manage.Options{
			Store: db, Directory: dir, Passwords: identify, ValidateRule: oidc.ValidateRule,
			Refused: s.note, Restorable: time.Hour, Proxies: &caches{db: db},
		}),
	}
	s.handler = New(o).(*handler)
	t.Cleanup(func() {
		identify.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *server) note(_ context.Context, e audit.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = append(s.refused, e)
}

// answered is an answer.
type answered struct {
	t      testing.TB
	what   string
	status int
	header http.Header
	body   string
}

// request makes one like "GET /me".
func request(what string) *http.Request {
	method, path, _ := strings.Cut(what, " ")
	return httptest.NewRequest(method, Prefix+path, nil)
}

// do sends a request like "GET /me" of somebody, with a body unless it is "".
// Headers come in pairs.
func (s *server) do(who, what, content string, headers ...string) answered {
	s.t.Helper()
	method, path, _ := strings.Cut(what, " ")
	var body io.Reader
	if content != "" {
		body = strings.NewReader(content)
	}
	r := httptest.NewRequest(method, Prefix+path, body)
	if content != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	credential, known := s.secrets[who]
	if !known {
		s.t.Fatalf("nobody is called %q", who)
	}
	if credential != "" {
		r.Header.Set("Authorization", credential)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	a := answered{s.t, who + ": " + what + " " + clip(content, 512), w.Code, w.Header(), w.Body.String()}
	s.check(r, a)
	return a
}

func (a answered) wants(status int) answered {
	a.t.Helper()
	if a.status != status {
		a.t.Errorf("%s: %d, want %d: %s", a.what, a.status, status, a.body)
	}
	return a
}

// says wants a text in the body.
func (a answered) says(text string) answered {
	a.t.Helper()
	if !strings.Contains(a.body, text) {
		a.t.Errorf("%s: no %q in %s", a.what, text, a.body)
	}
	return a
}

// into reads the body.
func (a answered) into(v any) {
	a.t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		a.t.Fatalf("%s: %v in %s", a.what, err, a.body)
	}
}

// operation is what the document says of a request, nil for nothing.
func (s *server) operation(r *http.Request) *huma.Operation {
	_, pattern := s.handler.mux.Handler(r)
	method, path, _ := strings.Cut(pattern, " ")
	item := s.handler.huma.OpenAPI().Paths[strings.TrimPrefix(path, Prefix)]
	if item == nil {
		return nil
	}
	return map[string]*huma.Operation{
		"GET": item.Get, "POST": item.Post, "PUT": item.Put, "PATCH": item.Patch, "DELETE": item.Delete,
	}[method]
}

// check holds an answer against the document.
func (s *server) check(r *http.Request, a answered) {
	s.t.Helper()
	if a.header.Get("X-Request-Id") == "" || a.header.Get("Cache-Control") != "no-store" {
		s.t.Errorf("%s: headers %v", a.what, a.header)
	}
	if (a.status == http.StatusUnauthorized) != (a.header.Get("Www-Authenticate") != "") {
		s.t.Errorf("%s: %d with the challenge %q", a.what, a.status, a.header.Get("Www-Authenticate"))
	}
	op := s.operation(r)
	if op == nil || a.status == http.StatusNotFound && r.URL.EscapedPath() != path.Clean(r.URL.EscapedPath()) {
		return
	}
	said := op.Responses[strconv.Itoa(a.status)]
	if said == nil {
		s.t.Errorf("%s: the document does not say that it may answer %d: %s", a.what, a.status, a.body)
		return
	}
	if len(said.Content) == 0 {
		if a.body != "" {
			s.t.Errorf("%s: the document says nothing of the body %s", a.what, a.body)
		}
		return
	}
	media, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	form := said.Content[media]
	if err != nil || form == nil {
		s.t.Errorf("%s: the document does not say that it may answer with %q", a.what, a.header.Get("Content-Type"))
		return
	}
	s.checkBody(form.Schema, media, a)
}

func (s *server) checkBody(schema *huma.Schema, media string, a answered) {
	s.t.Helper()
	bodies := []string{a.body}
	switch media {
	case "text/csv":
		return // has no schema but that it is text
	case "application/x-ndjson":
		bodies = slices.Collect(strings.Lines(a.body))
		schema = s.handler.huma.OpenAPI().Components.Schemas.Map()[schema.Extensions[lineSchema].(string)]
	}
	for _, text := range bodies {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			s.t.Errorf("%s: %v in %s", a.what, err, text)
			return
		}
		var res huma.ValidateResult
		huma.Validate(s.handler.huma.OpenAPI().Components.Schemas, schema, huma.NewPathBuffer(nil, 0), huma.ModeReadFromServer, v, &res)
		for _, err := range res.Errors {
			s.t.Errorf("%s: the document does not allow this: %v: %s", a.what, err, text)
		}
	}
}

// populate makes a world: project app of organization team and the public
// project lib of the default one, and people with roles.
func (s *server) populate() {
	s.t.Helper()
	s.user("root", "admin")
	for _, name := range []string{"orgowner", "owner", "maintainer", "writer", "reader", "part", "stranger"} {
		s.user(name, "")
	}
	for _, request := range [][2]string{
		{"POST /organizations", `{"name":"team"}`},
		{"PUT /organizations/team/members/user/orgowner", `{"role":"owner"}`},
		{"POST /projects", `{"name":"app","organization":"team"}`},
		{"POST /projects", `{"name":"lib","visibility":"public"}`},
		{"PUT /projects/app/members/user/owner", `{"role":"owner"}`},
		{"PUT /projects/app/members/user/maintainer", `{"role":"maintainer"}`},
		{"PUT /projects/app/members/user/writer", `{"role":"writer"}`},
		{"PUT /projects/app/members/user/reader", `{"role":"reader"}`},
		{"PUT /projects/app/members/user/part?prefix=app/part", `{"role":"owner"}`},
		{"POST /projects/app/keys", `{"name":"old","role":"reader"}`},
		{"POST /projects/app/trust-rules", `{"name":"release","issuer":"https://ci.example.com","audience":"berth","claims":{"repository":"acme/app"},"role":"writer"}`},
		{"POST /groups", `{"name":"crew"}`},
		{"PUT /groups/crew/members/reader", ``},
		{"POST /plans", `{"name":"small","storage":1000}`},
		{"POST /users/owner/keys", `{"name":"old"}`},
		{"POST /organizations", `{"name":"empty"}`},
		{"POST /projects", `{"name":"gone","organization":"team"}`},
		{"PUT /projects/gone/members/user/owner", `{"role":"owner"}`},
		{"PUT /projects/gone/members/user/reader", `{"role":"reader"}`},
		{"DELETE /projects/gone?confirm=gone", ``},
		{"PUT /proxies/quay.io", `{"name":"quay.io"}`},
	} {
		if a := s.do("root", request[0], request[1]); a.status >= 300 {
			s.t.Fatalf("%s: %d %s", a.what, a.status, a.body)
		}
	}
	var robot CreatedKey
	s.do("root", "POST /projects/app/keys", `{"name":"ci","role":"maintainer"}`).wants(201).into(&robot)
	s.secrets["robot"] = "Bearer " + robot.Secret
	var narrow CreatedKey
	s.do("root", "POST /me/keys", `{"name":"narrow","role":"reader"}`).wants(201).into(&narrow)
	s.secrets["narrow"] = "Bearer " + narrow.Secret
	s.refreshToken("owner", "owners-token")
	s.token("root")
}

// user makes a user with a key, by way of the database.
func (s *server) user(name, kind string) {
	s.t.Helper()
	ctx := context.Background()
	u, err := s.db.CreateUser(ctx, meta.Change{}, meta.UserSpec{Name: name, Admin: kind == "admin"})
	if err != nil {
		s.t.Fatal(err)
	}
	secret, hash := auth.NewKey(auth.UserKey)
	if _, err := s.db.CreateKey(ctx, meta.Change{}, access.Key{Name: "test", UserID: u.ID, CreatedBy: "test"}, hash); err != nil {
		s.t.Fatal(err)
	}
	s.secrets[name] = "Bearer " + secret
}

// refreshToken gives a user a refresh token.
func (s *server) refreshToken(name, hash string) {
	s.t.Helper()
	u, err := s.db.User(context.Background(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	now := time.Now()
	err = s.db.CreateRefreshToken(context.Background(), access.RefreshToken{
		UserID: u.ID, Service: "registry", Client: "test", Address: "192.0.2.1", CreatedAt: now, ExpiresAt: now.Add(time.Hour),
	}, hash)
	if err != nil {
		s.t.Fatal(err)
	}
}

// token makes "scoped", who has a registry token of a user.
func (s *server) token(name string) {
	s.t.Helper()
	u, err := s.db.User(context.Background(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	token, _, err := s.tokens.Mint(context.Background(), access.Principal{Kind: access.User, ID: u.ID, Name: name}, "registry",
		[]auth.Scope{{Type: "repository", Name: "app/x", Actions: []string{"pull"}}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.secrets["scoped"] = "Bearer " + token
}

// populated is a server with a world of its own.
func populated(t *testing.T) *server {
	t.Helper()
	s := serve(t, metatest.File(t))
	s.populate()
	return s
}

// template is a database with a world in it, which copies are made of.
type template struct {
	t       *testing.T
	file    string
	secrets map[string]string
	token   string // id of the owner's refresh token
}

func newTemplate(t *testing.T) *template {
	t.Helper()
	tpl := &template{t: t, file: metatest.File(t)}
	t.Run("populate", func(t *testing.T) {
		s := serve(t, tpl.file)
		s.populate()
		tpl.secrets = s.secrets
		var list List[RefreshToken]
		s.do("root", "GET /tokens?user=owner", "").wants(200).into(&list)
		tpl.token = list.Items[0].ID
	})
	return tpl
}

// world is a server on a copy of the template.
func (tpl *template) world(t *testing.T) *server {
	t.Helper()
	content, err := os.ReadFile(tpl.file)
	if err != nil {
		t.Fatal(err)
	}
	file := metatest.File(t)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, file)
	s.secrets = tpl.secrets
	return s
}
