package apihttp

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/meta/metatest"
)

// TestOpenServer: from a server that asks for no log-in to one that does.
func TestOpenServer(t *testing.T) {
	s := serve(t, metatest.File(t))
	s.do("anonymous", "GET /me", "").wants(200).says(`"kind":"local"`).says(`"admin":true`)
	s.do("anonymous", "POST /projects", `{"name":"app"}`).wants(201)
	s.do("anonymous", "POST /projects/app/keys", `{"name":"ci","role":"writer"}`).wants(409).says("berth admin reset")
	s.do("anonymous", "POST /me/keys", `{"name":"mine"}`).wants(403)
	s.do("anonymous", "POST /users", `{"name":"alice","password":"wonderland"}`).wants(201).says(`"admin":true`)
	s.do("anonymous", "GET /me", "").wants(401)
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth("alice", "wonderland")
	s.secrets["alice"] = r.Header.Get("Authorization")
	s.do("alice", "GET /me", "").wants(200).says(`"name":"alice"`)
	s.do("alice", "POST /projects/app/keys", `{"name":"ci","role":"owner"}`).wants(201)
}

// TestKeysAreNotWider: a key makes no key that is good for more than itself.
func TestKeysAreNotWider(t *testing.T) {
	s := populated(t)
	soon := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	late := time.Now().Add(2 * time.Hour).UTC().Format(time.RFC3339)
	bounds := func(prefixes, addresses, expires string) string {
		return `"prefixes":[` + prefixes + `],"addresses":[` + addresses + `],"expires":"` + expires + `"`
	}
	var k CreatedKey
	s.do("owner", "POST /me/keys", `{"name":"bound","role":"writer",`+bounds(`"app/web"`, `"192.0.2.0/24"`, soon)+`}`).wants(201).into(&k)
	s.secrets["bound"] = "Bearer " + k.Secret
	for _, tt := range []struct {
		body   string
		status int
	}{
		{`{"name":"a",` + bounds(`"app/web"`, `"192.0.2.1"`, soon) + `}`, 403}, // all of the user's role
		{`{"name":"a","role":"maintainer",` + bounds(`"app/web"`, `"192.0.2.1"`, soon) + `}`, 403},
		{`{"name":"a","role":"writer",` + bounds(``, `"192.0.2.1"`, soon) + `}`, 403},
		{`{"name":"a","role":"writer",` + bounds(`"app"`, `"192.0.2.1"`, soon) + `}`, 403},
		{`{"name":"a","role":"writer",` + bounds(`"app/webs"`, `"192.0.2.1"`, soon) + `}`, 403},
		{`{"name":"a","role":"writer",` + bounds(`"app/web"`, ``, soon) + `}`, 403},
		{`{"name":"a","role":"writer",` + bounds(`"app/web"`, `"192.0.0.0/16"`, soon) + `}`, 403},
		{`{"name":"a","role":"writer",` + bounds(`"app/web"`, `"192.0.2.1","::1"`, soon) + `}`, 403},
		{`{"name":"a","role":"writer",` + bounds(`"app/web"`, `"192.0.2.1"`, late) + `}`, 403},
		{`{"name":"a","role":"writer","prefixes":["app/web"],"addresses":["192.0.2.1"]}`, 403},
		{`{"name":"a","role":"reader",` + bounds(`"app/web/x"`, `"192.0.2.128/25"`, soon) + `}`, 201},
		{`{"name":"b","role":"writer",` + bounds(`"app/web"`, `"192.0.2.0/24"`, soon) + `}`, 201},
	} {
		s.do("bound", "POST /me/keys", tt.body).wants(tt.status)
	}
	s.do("bound", "DELETE /me/keys/test", "").wants(403)
	var some CreatedKey
	s.do("orgowner", "POST /me/keys", `{"name":"bound","prefixes":["app/web"]}`).wants(201).into(&some)
	s.secrets["some"] = "Bearer " + some.Secret
	var places List[Organization]
	s.do("orgowner", "GET /organizations", "").wants(200).says(`"team"`)
	if s.do("some", "GET /organizations", "").wants(200).into(&places); len(places.Items) != 0 {
		t.Errorf("a key of some repositories lists %+v", places)
	}
	s.do("bound", "DELETE /me/sessions", "").wants(403)
	s.do("bound", "POST /projects/app/keys", `{"name":"a","role":"reader","prefixes":["app/web"]}`).wants(403)
	s.do("bound", "DELETE /me/keys/bound", "").wants(204) // itself
	s.do("bound", "GET /me", "").wants(401)
}

// TestKeysOfALogIn: a key that is good for all that its user may makes keys that
// outlive it; a project's key does not.
func TestKeysOfALogIn(t *testing.T) {
	s := populated(t)
	soon := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	var k CreatedKey
	s.do("owner", "POST /me/keys", `{"name":"login","expires":"`+soon+`"}`).wants(201).into(&k)
	s.secrets["login"] = "Bearer " + k.Secret
	s.do("login", "POST /me/keys", `{"name":"laptop"}`).wants(201)
	s.do("login", "POST /projects/app/keys", `{"name":"lasting","role":"owner"}`).wants(201)
	s.do("login", "POST /projects/app/keys", `{"name":"job","role":"owner","expires":"`+soon+`"}`).wants(201).into(&k)
	s.secrets["job"] = "Bearer " + k.Secret
	s.do("job", "POST /projects/app/keys", `{"name":"more","role":"reader"}`).wants(403).says("let it expire by")
	s.do("job", "POST /projects/app/keys", `{"name":"more","role":"reader","expires":"`+soon+`"}`).wants(201)
}

// TestNothingOutlivesItsMaker: what is bound to a time, an address or a job
// makes no credential that is not.
func TestNothingOutlivesItsMaker(t *testing.T) {
	s := populated(t)
	soon := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	rule := func(name string) string {
		return `{"name":"` + name + `","issuer":"https://ci.example.com","audience":"berth","claims":{"ref":"main"},"role":"owner"}`
	}
	for name, bounds := range map[string]string{"brief": `"expires":"` + soon + `"`, "near": `"addresses":["192.0.2.0/24"]`} {
		var k CreatedKey
		s.do("owner", "POST /projects/app/keys", `{"name":"`+name+`","role":"owner",`+bounds+`}`).wants(201).into(&k)
		s.secrets[name] = "Bearer " + k.Secret
		s.do(name, "POST /projects/app/trust-rules", rule(name)).wants(403).says("bound to")
	}
	var k CreatedKey
	s.do("owner", "POST /projects/app/keys", `{"name":"free","role":"owner"}`).wants(201).into(&k)
	s.secrets["free"] = "Bearer " + k.Secret
	s.do("free", "POST /projects/app/trust-rules", rule("lasting")).wants(201)

	project, err := s.db.Project(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	job, err := s.db.TrustRule(t.Context(), project.ID, "lasting")
	if err != nil {
		t.Fatal(err)
	}
	s.handler.Identify = func(*http.Request) (auth.Identity, error) {
		return auth.Identity{Principal: access.Principal{Kind: access.Workload, ID: job.ID, Name: "app/lasting"}}, nil
	}
	s.do("anonymous", "GET /projects/app/keys", "").wants(200)
	s.do("anonymous", "POST /projects/app/keys", `{"name":"kept","role":"reader"}`).wants(403).says("ends with the job")
	s.do("anonymous", "POST /projects/app/trust-rules", rule("more")).wants(403).says("bound to")
}

// TestRevocationBites: what is taken away is gone with the next request.
func TestRevocationBites(t *testing.T) {
	s := populated(t)
	s.do("maintainer", "GET /projects/app/keys", "").wants(200)
	s.do("owner", "PUT /projects/app/members/user/maintainer", `{"role":"reader"}`).wants(200)
	s.do("maintainer", "GET /projects/app/keys", "").wants(403)
	s.do("owner", "DELETE /projects/app/members/user/maintainer", "").wants(204)
	s.do("maintainer", "GET /projects/app", "").wants(404)
	s.do("robot", "GET /projects/app/keys", "").wants(200)
	s.do("owner", "DELETE /projects/app/keys/ci", "").wants(204)
	s.do("robot", "GET /projects/app/keys", "").wants(401)
	s.do("root", "PATCH /users/owner", `{"locked":true}`).wants(200)
	s.do("owner", "GET /me", "").wants(401)
}

func TestWrongPasswords(t *testing.T) {
	s := populated(t)
	s.do("root", "PATCH /users/owner", `{"password":"the right password"}`).wants(200)
	for range 10 {
		s.do("owner", "PUT /me/password", `{"old":"always the same wrong one","new":"the new password"}`).wants(403)
	}
	s.do("owner", "PUT /me/password", `{"old":"the right password","new":"the new password"}`).wants(204)
	for i := range 10 {
		s.do("reader", "PUT /me/password", `{"old":"wrong one no `+string(rune('a'+i))+`","new":"the new password"}`).wants(403)
	}
	a := s.do("reader", "PUT /me/password", `{"old":"another wrong one","new":"the new password"}`).wants(429)
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// TestTrail: what is done and what is refused leave a line without a secret.
func TestTrail(t *testing.T) {
	s := populated(t)
	var k CreatedKey
	s.do("owner", "POST /projects/app/keys", `{"name":"traced","role":"writer"}`, "User-Agent", "a test", "X-Request-Id", "the-id").wants(201).into(&k)
	var list List[Event]
	a := s.do("root", "GET /audit?project=app&action=key.create&identity=user:owner", "").wants(200)
	a.into(&list)
	if len(list.Items) != 1 {
		t.Fatalf("events: %s", a.body)
	}
	e := list.Items[0]
	if e.Request != "the-id" || e.Agent != "a test" || e.Reference != "traced" || e.Status != 201 || e.Address != "192.0.2.1" || e.Key == "" {
		t.Errorf("event: %+v", e)
	}
	if strings.Contains(a.body, k.Secret) {
		t.Error("the trail tells a secret")
	}
	before := len(s.refused)
	s.do("reader", "GET /projects/app/keys", "", "X-Request-Id", "refused").wants(403)
	if len(s.refused) != before+1 {
		t.Fatalf("refusals: %+v", s.refused[before:])
	}
	if got := s.refused[before]; got.Identity != "user:reader" || got.Request != "refused" || got.Status != 403 || got.Project != "app" || got.Reason == "" {
		t.Errorf("refusal: %+v", got)
	}
}

// TestNamesInPaths: names of users from an identity provider may hold anything.
func TestNamesInPaths(t *testing.T) {
	s := populated(t)
	for _, name := range []string{"a b", "a/b", "ä%2F", `"quoted"`, "a?b"} {
		s.user(name, "")
		var u User
		s.do("root", "GET /users/"+url.PathEscape(name), "").wants(200).into(&u)
		if u.Name != name {
			t.Errorf("%q was found as %q", name, u.Name)
		}
		s.do("root", "PUT /projects/app/members/user/"+url.PathEscape(name), `{"role":"reader"}`).wants(200)
	}
}

func TestUnclaimed(t *testing.T) {
	s := populated(t)
	s.do("root", "POST /projects", `{"name":"free","newcomers":"claim"}`).wants(201).says(`"claimed":false`)
	s.do("stranger", "GET /projects/free", "").wants(200)
	s.do("root", "PUT /projects/free/members/user/owner", `{"role":"owner"}`).wants(200)
	s.do("stranger", "GET /projects/free", "").wants(404)
	s.do("owner", "GET /projects/free", "").wants(200).says(`"claimed":true`)
}

// TestTrailOfANameUsedBefore: who gets a project of a name that another had does
// not get that one's trail.
func TestTrailOfANameUsedBefore(t *testing.T) {
	s := populated(t)
	s.do("root", "POST /projects", `{"name":"first"}`).wants(201)
	s.do("root", "POST /projects/first/rename", `{"name":"other"}`).wants(200)
	time.Sleep(2 * time.Millisecond) // the trail's clock has milliseconds
	s.do("orgowner", "POST /projects", `{"name":"first","organization":"team"}`).wants(201)
	var list List[Event]
	a := s.do("orgowner", "GET /audit?project=first", "").wants(200)
	a.into(&list)
	for _, e := range list.Items {
		if e.Identity != "user:orgowner" {
			t.Errorf("the new owner sees %+v", e)
		}
	}
	if len(list.Items) != 1 {
		t.Errorf("events: %s", a.body)
	}
	s.do("root", "GET /audit?project=first", "").wants(200).says("project.rename")

	// Nor does who had a project before and renames it.
	s.do("owner", "POST /projects/app/rename", `{"name":"hers"}`).wants(200)
	time.Sleep(2 * time.Millisecond)
	s.do("root", "POST /projects/lib/rename", `{"name":"app"}`).wants(200)
	s.do("root", "PUT /projects/app/members/user/stranger", `{"role":"maintainer"}`).wants(200)
	list = List[Event]{}
	a = s.do("stranger", "GET /audit?project=app&since=2000-01-01T00:00:00Z", "").wants(200)
	a.into(&list)
	if len(list.Items) != 1 || list.Items[0].Action != "member.set" {
		t.Errorf("the project that took the name shows %s", a.body)
	}
}
