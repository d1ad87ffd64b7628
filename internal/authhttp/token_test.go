package authhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/authhttp"
	"github.com/berth-registry/berth/internal/meta"
)

// query is what docker asks with.
const query = "account=alice&client_id=docker&offline_token=true&service=" + service

func TestGet(t *testing.T) {
	s := newServer(t)
	secret, key := s.key()
	both := "&scope=repository:acme/app:pull,push&scope=repository:other/secret:pull"
	for _, tt := range []struct {
		query       string
		credentials []string
		who, scopes string
	}{
		{query, nil, "", ""},
		{"", nil, "", ""},
		{query, []string{"alice", "wonderland"}, "user:alice", ""},
		{query + both, []string{"alice", "wonderland"}, "user:alice", "repository:acme/app:pull,push"},
		{query + "&scope=repository:acme/app:*", []string{"alice", "wonderland"}, "user:alice", "repository:acme/app:pull,push,delete"},
		{query + "&scope=repository:acme/a:pull%20repository:acme/b:push", []string{"alice", "wonderland"}, "user:alice", "repository:acme/a:pull repository:acme/b:push"},
		{query + "&scope=repository(plugin):acme/a:pull", []string{"alice", "wonderland"}, "user:alice", "repository:acme/a:pull"},
		{query + both, []string{"bob", "builder"}, "user:bob", ""},
		{query + "&scope=repository:public/app:pull,push", nil, "", "repository:public/app:pull"},
		{query + "&scope=registry:catalog:*", []string{"bob", "builder"}, "user:bob", "registry:catalog:*"},
		{query + "&scope=repository:acme/app:pull,push,delete", []string{"any", secret}, "robot:acme/" + key.Name, "repository:acme/app:pull,push"},
		{query + "&scope=repository:acme/app:pull", []string{"", secret}, "robot:acme/" + key.Name, "repository:acme/app:pull"},
		{query + "&scope=repository:ACME/App:pull&scope=repository:a:5000/acme:pull&scope=aws:x:pull&scope=repository:acme/app:fly", []string{"alice", "wonderland"}, "user:alice", ""},
		{"account=bob", []string{"alice", "wonderland"}, "user:alice", ""}, // the account is ignored
	} {
		s.grants(s.get(tt.query, tt.credentials...), tt.who, tt.scopes)
	}
	s.hides("wonderland", "builder", secret)
}

func TestPost(t *testing.T) {
	s := newServer(t)
	secret, key := s.key()
	login := []string{"grant_type", "password", "service", service, "client_id", "containerd-client", "username", "alice", "password", "wonderland"}
	a := s.post(append(login, "scope", "repository:acme/app:pull,push repository:other/x:pull registry:catalog:*")...)
	s.grants(a, "user:alice", "repository:acme/app:pull,push registry:catalog:*")
	if a.Scope != "repository:acme/app:pull,push registry:catalog:*" || a.Refresh != "" {
		t.Errorf("scope %q, refresh token %q", a.Scope, a.Refresh)
	}
	a = s.post(append(login, "scope", "repository:acme/a:pull", "scope", "repository:acme/b:pull", "access_type", "offline")...)
	s.grants(a, "user:alice", "repository:acme/a:pull repository:acme/b:pull")
	for range 2 {
		b := s.post("grant_type", "refresh_token", "refresh_token", a.Refresh, "service", service, "scope", "repository:acme/c:push")
		s.grants(b, "user:alice", "repository:acme/c:push")
	}
	// Without a user name the secret is sent as a refresh token.
	s.grants(s.post("grant_type", "refresh_token", "refresh_token", secret, "service", service), "robot:acme/"+key.Name, "")
	s.grants(s.post("grant_type", "password", "username", "", "password", secret), "robot:acme/"+key.Name, "")
	s.hides("wonderland", secret, a.Refresh, a.Token)
}

func TestRefreshTokens(t *testing.T) {
	s := newServer(t)
	a := s.get(query, "alice", "wonderland")
	s.grants(a, "user:alice", "")
	if !strings.HasPrefix(a.Refresh, "berth_r_") {
		t.Fatalf("refresh token %q", a.Refresh)
	}
	list, err := s.db.ListRefreshTokens(t.Context(), "", "", 10)
	if err != nil || len(list) != 1 || list[0].Client != "docker" || list[0].Service != service || list[0].Address != "127.0.0.1" || list[0].User != "alice" {
		t.Errorf("%+v, %v", list, err)
	}
	s.ok(s.db.RevokeRefreshToken(t.Context(), meta.Change{}, list[0].ID))
	s.post("grant_type", "refresh_token", "refresh_token", a.Refresh).fails(401, "UNAUTHORIZED")
	for _, asked := range []string{"", "offline_token=false", "offline_token=1"} {
		if a := s.get(asked, "alice", "wonderland"); a.Refresh != "" {
			t.Errorf("%q: a refresh token that was not asked for", asked)
		}
	}
	if a := s.get(query); a.Refresh != "" {
		t.Error("nobody has a refresh token")
	}
	s.hides(a.Refresh)
}

func TestNoRefreshTokens(t *testing.T) {
	s := newServer(t)
	h := authhttp.New(authhttp.Options{Authenticator: s.auth, Tokens: s.tokens, Allow: func(context.Context, auth.Identity, auth.Scope) ([]string, error) { return nil, nil }})
	s.Server = httptest.NewServer(h)
	defer s.Server.Close()
	if a := s.get(query, "alice", "wonderland"); a.status != 200 || a.Refresh != "" {
		t.Errorf("%d %s", a.status, a.text)
	}
	unknown, _ := auth.NewKey('r')
	s.post("grant_type", "refresh_token", "refresh_token", unknown).fails(401, "UNAUTHORIZED")
}

// TestBadCredentials all look the same.
func TestBadCredentials(t *testing.T) {
	s := newServer(t)
	secret, _ := s.key()
	mistyped := secret[:20] + "é" + secret[21:]
	locked := s.user("carol", "swordfish", false)
	s.ok(s.db.SetUser(t.Context(), meta.Change{}, "carol", meta.UserChange{Locked: new(true)}))
	want := s.get(query, "alice", "x").fails(401, "UNAUTHORIZED").text
	refresh := s.get(query, "alice", "wonderland").Refresh
	token := s.get(query, "alice", "wonderland").Token
	for what, a := range map[string]*answer{
		"unknown":       s.get(query, "nobody", "x"),
		"locked":        s.get(query, "carol", "swordfish"),
		"no password":   s.get(query, "alice", ""),
		"nothing":       s.get(query, "", ""),
		"mistyped key":  s.get(query, "any", mistyped),
		"another's key": s.get(query, "alice", secret),
		"form":          s.post("grant_type", "password", "username", "alice", "password", "x2"),
		"refresh token": s.post("grant_type", "refresh_token", "refresh_token", refresh[:30]),
		"its service":   s.get(query, "alice", refresh),
		"job":           s.post("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token", token),
		"long":          s.get(query, "alice", strings.Repeat("x", 1023)),
	} {
		a.fails(401, "UNAUTHORIZED")
		if a.text != want {
			t.Errorf("%s is told apart: %s", what, a.text)
		}
	}
	for what, header := range map[string]string{"token": "Bearer " + token, "key": "Bearer " + secret, "scheme": "Digest x", "base64": "Basic ?", "empty": ""} {
		r := s.request(http.MethodGet, "", nil)
		r.Header["Authorization"] = []string{header}
		if a := s.do(r).fails(401, "UNAUTHORIZED"); a.text != want {
			t.Errorf("%s is told apart: %s", what, a.text)
		}
	}
	s.hides(mistyped, secret, token, refresh, "swordfish", locked, "nobody")
}

func TestMalformed(t *testing.T) {
	s := newServer(t)
	for _, query := range []string{
		"service=elsewhere.test", "service=a%22b", "service=a%0d%0ab", "account=a%22", "account=a%0a", "client_id=%00", "service=" + service + "&service=" + service, "account=a&account=b",
		"scope=pull", "scope=repository:a%0d%0a:pull", "scope=repository:a%22:pull", "%zz", "a=b;c=d",
		"account=" + strings.Repeat("a", 256), "scope=" + strings.Repeat("repository:a", 100) + ":pull",
		"scope=" + manyScopes(101),
	} {
		s.get(query, "alice", "wonderland").fails(400, "UNSUPPORTED")
		s.get(query).fails(400, "UNSUPPORTED")
	}
	for _, form := range [][]string{
		{}, {"grant_type", ""}, {"grant_type", "client_credentials"}, {"grant_type", "password", "grant_type", "password"},
		{"grant_type", "password", "username", "alice"}, {"grant_type", "password", "username", "alice", "password", "a", "password", "b"},
		{"grant_type", "password", "username", "alice", "username", "bob", "password", "a"}, {"grant_type", "refresh_token"},
		{"grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"},
		{"grant_type", "password", "username", "alice", "password", "wonderland", "service", "elsewhere.test"},
		{"grant_type", "password", "username", "alice", "password", "wonderland", "scope", "pull"},
		{"grant_type", "password", "username", strings.Repeat("a", 256), "password", "x"},
	} {
		s.post(form...).fails(400, "UNSUPPORTED")
	}
	for _, body := range []string{"%zz", "a=b;c=d"} {
		r := s.request(http.MethodPost, "", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		s.do(r).fails(400, "UNSUPPORTED")
	}
	if events := s.events(); len(events) != 0 {
		t.Errorf("the trail has %+v", events)
	}
	s.hides("wonderland")
}

func manyScopes(n int) string {
	var texts []string
	for i := range n {
		texts = append(texts, fmt.Sprintf("repository:a%d:pull", i))
	}
	return strings.Join(texts, "%20")
}

// TestLargeScopes: as many as a token holds are granted, more are refused.
func TestLargeScopes(t *testing.T) {
	s := newServer(t)
	form := func(length int) *answer {
		var texts []string
		for i := range 100 {
			texts = append(texts, fmt.Sprintf("repository:acme/%03d%s:pull", i, strings.Repeat("a", length)))
		}
		return s.post("grant_type", "password", "username", "alice", "password", "wonderland", "scope", strings.Join(texts, " "))
	}
	if a := form(20); a.status != 200 {
		t.Errorf("%d %s", a.status, a.text)
	}
	form(130).fails(400, "UNSUPPORTED")
	form(200).fails(400, "UNSUPPORTED")
}

func TestContentTypeAndSize(t *testing.T) {
	s := newServer(t)
	const good = "grant_type=password&username=alice&password=wonderland"
	for _, kind := range []string{"", "application/json", "multipart/form-data; boundary=x", "text/plain", ";"} {
		r := s.request(http.MethodPost, "", strings.NewReader(good))
		r.Header.Set("Content-Type", kind)
		s.do(r).fails(415, "UNSUPPORTED")
	}
	r := s.request(http.MethodPost, "", strings.NewReader(good))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	s.grants(s.do(r), "user:alice", "")

	giant := "scope=" + strings.Repeat("x", 1<<20) + "&" + good
	for what, body := range map[string]io.Reader{"with a length": strings.NewReader(giant), "in chunks": struct{ io.Reader }{strings.NewReader(giant)}} {
		r := s.request(http.MethodPost, "", body)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if a := s.do(r); a.status != 413 {
			t.Errorf("%s: %d %s", what, a.status, a.text)
		}
	}
	// Credentials in a POST's URL are not looked at.
	r = s.request(http.MethodPost, "?"+good, strings.NewReader(""))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	s.do(r).fails(400, "UNSUPPORTED")
}

func TestMethods(t *testing.T) {
	s := newServer(t)
	for _, method := range []string{"PUT", "DELETE", "PATCH", "OPTIONS"} {
		if a := s.do(s.request(method, "", nil)).fails(405, "UNSUPPORTED"); a.header.Get("Allow") != "GET, POST" {
			t.Errorf("%s: %v", method, a.header)
		}
	}
	s.do(s.request("GET", "/x", nil)).fails(404, "UNSUPPORTED")
}

func TestThrottle(t *testing.T) {
	s := newServer(t)
	secret, key := s.key()
	for i := range 10 {
		// helm posts a wrong password, and then sends it once more.
		s.post("grant_type", "password", "username", "alice", "password", fmt.Sprint("x", i)).fails(401, "UNAUTHORIZED")
		s.get(query, "alice", fmt.Sprint("x", i)).fails(401, "UNAUTHORIZED")
		s.get(query)
	}
	s.events()
	a := s.get(query, "alice", "wonderland").fails(429, "TOOMANYREQUESTS")
	if wait, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || wait < 1 || wait > 901 {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	if e := s.events(); len(e) != 1 || e[0].Action != "login" || e[0].Status != 429 || e[0].Reference != "alice" {
		t.Errorf("%+v", e)
	}
	s.grants(s.get(query, "alice-ci", secret), "robot:acme/"+key.Name, "")
	s.grants(s.get(query, "bob", "builder"), "user:bob", "")
}

func TestTrail(t *testing.T) {
	s := newServer(t)
	secret, key := s.key()
	strip := func(events []audit.Event) []audit.Event {
		for i := range events {
			e := &events[i]
			if e.Request != "r-1" || e.Address != "127.0.0.1" || e.Agent != "docker/28" {
				t.Errorf("%+v", e)
			}
			e.Request, e.Address, e.Agent = "", "", ""
		}
		return events
	}
	ask := func(query, name, secret string) []audit.Event {
		r := s.request(http.MethodGet, "?"+query, nil)
		r.Header.Set("X-Request-Id", "r-1")
		r.Header.Set("User-Agent", "docker/28")
		if name != "" {
			r.SetBasicAuth(name, secret)
		}
		if a := s.do(r); a.header.Get("X-Request-Id") != "r-1" {
			t.Errorf("request id %q", a.header.Get("X-Request-Id"))
		}
		return strip(s.events())
	}
	robot := "robot:acme/" + key.Name
	for _, tt := range []struct {
		query, name, secret string
		want                []audit.Event
	}{
		{"", "", "", nil},
		{"scope=repository:public/app:pull,push", "", "", nil},
		{"scope=repository:acme/app:pull,push&scope=repository:x/y:pull", "ci", secret, []audit.Event{
			{Action: "login", Identity: robot, Key: key.ID, Status: 200},
			{Action: "token.grant", Identity: robot, Key: key.ID, Repository: "acme/app", Reference: "pull,push", Status: 200}}},
		{"", "alice", "x", []audit.Event{{Action: "login", Reference: "alice", Status: 401, Reason: "wrong user name or password"}}},
		{"", "hunter2", "x", []audit.Event{{Action: "login", Status: 401, Reason: "wrong user name or password"}}},
	} {
		if got := ask(tt.query, tt.name, tt.secret); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s as %q: %+v, want %+v", tt.query, tt.name, got, tt.want)
		}
	}
	_, err := s.db.RevokeKey(t.Context(), meta.Change{}, key.ProjectID, key.ID)
	s.ok(err)
	want := []audit.Event{{Action: "login", Key: key.ID, Status: 401, Reason: "the key is revoked"}}
	if got := ask("", "ci", secret); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

var goodJob = "eyJhbGciOiJFUzI1NiJ9." + strings.Repeat("a", 80) + ".c2lnbmF0dXJl"

func TestWorkload(t *testing.T) {
	broken := errors.New("the disk is broken")
	var rule access.TrustRule
	s := newServer(t, func(o *auth.Options, _ *authhttp.Options) {
		o.Exchange = func(_ context.Context, token string) (access.Principal, error) {
			switch {
			case token == goodJob:
				return access.Principal{Kind: access.Workload, ID: rule.ID, Name: "acme/main"}, nil
			case strings.HasSuffix(token, "unreachable"):
				return access.Principal{}, fmt.Errorf("%w: no route to 192.0.2.9", auth.ErrUnavailable)
			case strings.HasSuffix(token, "away"):
				return access.Principal{}, fmt.Errorf("%w: 192.0.2.9 refused", access.ErrUnavailable)
			case strings.HasSuffix(token, "broken"):
				return access.Principal{}, broken
			}
			return access.Principal{}, fmt.Errorf("no rule admits it: %w", auth.ErrInvalidToken)
		}
	})
	p, err := s.db.ProjectAccess(t.Context(), "acme")
	s.ok(err)
	rule, err = s.db.CreateTrustRule(t.Context(), meta.Change{}, access.TrustRule{
		ProjectID: p.ID, Name: "main", Issuer: "https://ci.test", Audience: service, Claims: map[string]string{"sub": "x"}, Role: access.Writer})
	s.ok(err)
	const kind, scope = "urn:ietf:params:oauth:grant-type:token-exchange", "repository:acme/app:pull,push"
	s.grants(s.get("scope="+scope, "oidc", goodJob), "workload:acme/main", scope)
	for _, name := range []string{"subject_token", "id_token"} {
		s.grants(s.post("grant_type", kind, name, goodJob, "scope", scope), "workload:acme/main", scope)
	}
	s.post("grant_type", kind, "subject_token", goodJob+"x").fails(401, "UNAUTHORIZED")
	s.get("", "oidc", goodJob+"x").fails(401, "UNAUTHORIZED")
	s.get("", "oidc", "x").fails(401, "UNAUTHORIZED")
	for ending, status := range map[string]int{"unreachable": 503, "away": 503, "broken": 500} {
		a := s.get("", "oidc", goodJob+ending)
		a.fails(status, map[int]string{503: "UNAVAILABLE", 500: "UNKNOWN"}[status])
		if strings.Contains(a.text, "192.0.2.9") || strings.Contains(a.text, "disk") || (a.header.Get("Retry-After") != "") != (status == 503) {
			t.Errorf("%s: %v %s", ending, a.header, a.text)
		}
	}
	s.hides(goodJob)
}

// TestDatabaseGone: the cause is in the log alone.
func TestDatabaseGone(t *testing.T) {
	s := newServer(t)
	s.ok(s.db.Close())
	a := s.get(query, "nobody", "x").fails(500, "UNKNOWN")
	if id := a.header.Get("X-Request-Id"); id == "" || !strings.Contains(a.text, id) || strings.Contains(a.text, "database") {
		t.Errorf("%s", a.text)
	}
	s.hides("nobody")
	if !strings.Contains(s.log.String(), "closed") {
		t.Errorf("the log does not hold the cause:\n%s", &s.log)
	}
}

// TestPanic is answered, and stays in its request.
func TestPanic(t *testing.T) {
	s := newServer(t, func(_ *auth.Options, o *authhttp.Options) {
		o.Allow = func(context.Context, auth.Identity, auth.Scope) ([]string, error) { panic("swordfish") }
	})
	if a := s.get("scope=repository:a:pull").fails(500, "UNKNOWN"); strings.Contains(a.text, "swordfish") {
		t.Errorf("%s", a.text)
	}
	s.grants(s.get(""), "", "")
}

func TestKeys(t *testing.T) {
	s := newServer(t)
	token := s.get("", "alice", "wonderland").Token
	resp, err := s.Client().Get(s.URL + "/.well-known/jwks.json")
	s.ok(err)
	defer resp.Body.Close()
	var set jose.JSONWebKeySet
	s.ok(json.NewDecoder(resp.Body).Decode(&set))
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	s.ok(err)
	if _, err := signed.Verify(set); err != nil || resp.Header.Get("Content-Type") != "application/jwk-set+json" {
		t.Errorf("%v, %v", err, resp.Header)
	}
	for method, want := range map[string]int{"HEAD": 200, "POST": 405} {
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL+authhttp.KeysPath, nil)
		s.ok(err)
		resp, err := s.Client().Do(r)
		s.ok(err)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d", method, resp.StatusCode)
		}
	}
}

// TestBrokenForm: one that ends early is not taken for whole.
func TestBrokenForm(t *testing.T) {
	s := newServer(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	s.ok(err)
	defer conn.Close()
	fmt.Fprint(conn, "POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 99\r\n\r\ngrant_type=password&username=alice&password=wonderland")
	s.ok(conn.(*net.TCPConn).CloseWrite())
	text, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 400 ") {
		t.Errorf("%q, %v", text, err)
	}
}

// BenchmarkToken is a token request with a key, through the handler.
func BenchmarkToken(b *testing.B) {
	s := newServer(b)
	secret, _ := s.key()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r := s.request(http.MethodGet, "?"+strings.Replace(query, "offline_token", "x", 1)+"&scope=repository:acme/app:pull,push", nil)
			r.SetBasicAuth("ci", secret)
			r.RemoteAddr = "192.0.2.1:1234"
			w := httptest.NewRecorder()
			s.Config.Handler.ServeHTTP(w, r)
			if w.Code != http.StatusOK {
				b.Errorf("%d %s", w.Code, w.Body)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}
