package apihttp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/registry"
)

func TestForms(t *testing.T) {
	s := populated(t)
	large := `{"name":"` + strings.Repeat("x", maxBody) + `"}`
	for _, tt := range []struct {
		who, what, body string
		headers         []string
		status          int
		says            string
	}{
		{"root", "GET /nothing", "", nil, 404, Prefix + "/openapi.yaml"},
		{"root", "GET /projects/", "", nil, 404, ""},
		{"root", "GET //projects", "", nil, 404, ""},
		{"root", "POST /me/../users", `{"name":"x"}`, nil, 404, ""},
		{"root", "DELETE /projects", "", nil, 405, "use GET, HEAD, POST"},
		{"anonymous", "DELETE /projects", "", nil, 405, ""},
		{"root", "POST /projects", `{"name":"x"}`, []string{"Content-Type", ""}, 415, "application/json"},
		{"root", "POST /projects", `name=x`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "application/json"},
		{"root", "POST /projects", `{"name":"x"}`, []string{"Content-Type", "application/xml+json"}, 415, "application/json"},
		{"root", "POST /projects", large, nil, 413, "1048576"},
		{"root", "POST /projects", large, []string{onceHeader, "a-key-for-this"}, 413, "1048576"},
		{"root", "POST /projects", ``, nil, 400, ""},
		{"root", "POST /projects", `null`, nil, 422, ""},
		{"root", "POST /projects", `{"name":"x"} {}`, nil, 400, ""},
		{"root", "POST /projects", `{"name":"x"}`, []string{"Sec-Fetch-Site", "cross-site"}, 403, "another site"},
		{"root", "POST /projects", `{"name":"x"}`, []string{"Origin", "https://evil.example.com"}, 403, "another site"},
		{"anonymous", "POST /projects", `{`, nil, 401, "log in"},
		{"anonymous", "GET /me", ``, []string{"Authorization", "Bearer berth_u_nonsense"}, 401, "log in"},
		{"anonymous", "GET /me", ``, []string{"Authorization", "Basic ???"}, 401, "log in"},
		{"root", "POST /users", `{"name":"x","pasword":"hunter2hunter2"}`, nil, 422, "unexpected property"},
		{"root", "POST /users", `{"name":"x","password":["hunter2hunter2"]}`, nil, 422, "expected string"},
		{"root", "POST /users", `{"name":"x","password":"` + strings.Repeat("hunter2", 200) + `"}`, nil, 422, "length"},
		{"root", "POST /users", `{"name":"x","password":"berth_hunter2"}`, nil, 422, "must not begin"},
		{"root", "PUT /me/password", `{"old":"hunter2hunter2","new":""}`, nil, 422, "length"},
		{"root", "GET /projects/%2e%2e", "", nil, 404, ""},
		{"root", "GET /projects/app%2Fweb", "", nil, 404, "not found"},
		{"root", "GET /projects/app?x=1", "", nil, 422, "unknown query parameter"},
		{"root", "GET /projects/" + strings.Repeat("x", 300), "", nil, 422, "length"},
	} {
		a := s.do(tt.who, tt.what, tt.body, tt.headers...).wants(tt.status).says(tt.says)
		if got := a.header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("%s: Content-Type %q", a.what, got)
		}
		if strings.Contains(a.body, "hunter2") {
			t.Errorf("%s: the answer tells what was sent: %s", a.what, a.body)
		}
	}
	if allow := s.do("root", "DELETE /projects", "").header.Get("Allow"); allow != "GET, HEAD, POST" {
		t.Errorf("Allow: %q", allow)
	}
}

func TestRequestID(t *testing.T) {
	s := serve(t, t.TempDir()+"/berth.db")
	for sent, keeps := range map[string]bool{"abc-1.2_3": true, "": false, "a b": false, "a\"": false, strings.Repeat("x", 65): false} {
		got := s.do("anonymous", "GET /me", "", "X-Request-Id", sent).wants(200).header.Get("X-Request-Id")
		if (got == sent) != keeps {
			t.Errorf("%q was answered with %q", sent, got)
		}
	}
}

// TestServersFault: what went wrong is in the log alone, under the request's id.
func TestServersFault(t *testing.T) {
	for _, tt := range []struct {
		name       string
		identify   func() error
		status     int
		retryAfter string
		logged     string
	}{
		{"error", func() error { return errors.New("a secret cause") }, 500, "", "a secret cause"},
		{"panic", func() error { panic("a secret cause") }, 500, "", "TestServersFault"},
		{"limit", func() error {
			return &registry.Error{Code: registry.TooManyRequests, Limit: &registry.Limit{RetryAfter: 1500 * time.Millisecond}}
		}, 429, "2", "too many requests"},
		{"throttled", func() error { return &auth.ThrottledError{RetryAfter: time.Minute, Reason: "a secret cause"} }, 429, "60", "a secret cause"},
		{"database away", func() error { return fmt.Errorf("%w: a secret cause", access.ErrUnavailable) }, 503, "5", "a secret cause"},
		{"busy", func() error { return &registry.Error{Code: registry.Unavailable} }, 503, "10", "unavailable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			h := New(Options{
				Log:      slog.New(slog.NewTextHandler(&log, nil)),
				Identify: func(*http.Request) (auth.Identity, error) { return auth.Identity{}, tt.identify() },
			})
			w := httptest.NewRecorder()
			h.ServeHTTP(w, request("GET /me"))
			if w.Code != tt.status || w.Header().Get("Retry-After") != tt.retryAfter || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("%d %v", w.Code, w.Header())
			}
			if strings.Contains(w.Body.String(), "secret") {
				t.Errorf("the answer tells: %s", w.Body)
			}
			for _, want := range []string{tt.logged, w.Header().Get("X-Request-Id")} {
				if !strings.Contains(log.String(), want) {
					t.Errorf("no %q in the log: %s", want, log.String())
				}
			}
		})
	}
}

// TestNoSecretsInTheLog: keys that are pasted where names belong stay out of it.
func TestNoSecretsInTheLog(t *testing.T) {
	s := populated(t)
	var log bytes.Buffer
	s.handler.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	secret, _ := auth.NewKey(auth.UserKey)
	s.do("owner", "DELETE /me/keys/"+secret, "").wants(404)
	s.do("owner", "GET /projects/"+secret, "", "User-Agent", "ci "+secret).wants(404)
	if strings.Contains(log.String(), secret) || !strings.Contains(log.String(), "[hidden]") {
		t.Errorf("the log has %s", log.String())
	}
}

// TestDatabaseFault is TestServersFault behind the identification.
func TestDatabaseFault(t *testing.T) {
	s := populated(t)
	var log bytes.Buffer
	s.handler.Log = slog.New(slog.NewTextHandler(&log, nil))
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	s.handler.Identify = func(*http.Request) (auth.Identity, error) {
		var id auth.Identity
		id.Kind = access.Local // who is looked up nowhere
		return id, nil
	}
	for _, what := range []string{"GET /users", "DELETE /users/owner", "GET /audit/export"} {
		a := s.do("anonymous", what, "")
		if strings.HasPrefix(what, "DELETE") {
			a.wants(503).says("try again")
		} else {
			a.wants(500).says("X-Request-Id")
		}
		if strings.Contains(a.body, "closed") {
			t.Errorf("%s: the answer tells: %s", what, a.body)
		}
	}
	if !strings.Contains(log.String(), "closed") {
		t.Errorf("the cause is not in the log: %s", log.String())
	}
}

func TestPages(t *testing.T) {
	s := populated(t)
	for _, name := range []string{"p1", "p2", "p3"} {
		s.do("root", "POST /projects", `{"name":"`+name+`","visibility":"internal"}`).wants(201)
	}
	var seen []string
	for after, turns := "", 0; ; turns++ {
		var page List[Project]
		s.do("stranger", "GET /projects?limit=2&after="+after, "").wants(200).into(&page)
		for _, p := range page.Items {
			seen = append(seen, p.Name)
		}
		if after = page.Next; after == "" {
			break
		}
		if turns > 10 {
			t.Fatal("the list does not end")
		}
	}
	if got := strings.Join(seen, " "); got != "lib p1 p2 p3" {
		t.Errorf("a stranger sees %s", got)
	}
}

func TestExport(t *testing.T) {
	s := populated(t)
	events := make([]audit.Event, 2500)
	for i := range events {
		events[i] = audit.Event{Time: time.Now(), Action: "manifest.read", Repository: "app/web", Identity: "user:=cmd", Status: 200}
	}
	if err := s.db.AppendAudit(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	lines := s.do("maintainer", "GET /audit/export?repository=app/web&action=manifest.", "").wants(200)
	if n := strings.Count(lines.body, "\n"); n != len(events) {
		t.Errorf("%d lines, want %d", n, len(events))
	}
	table := s.do("maintainer", "GET /audit/export?repository=app/web&action=manifest.read&format=csv", "").wants(200).says("id,time,")
	if n := strings.Count(table.body, "\r\n"); n != len(events)+1 {
		t.Errorf("%d records, want %d", n, len(events)+1)
	}
	if got := table.header.Get("Content-Disposition"); got != `attachment; filename="audit.csv"` {
		t.Errorf("Content-Disposition: %q", got)
	}
}

// TestExportIsCutOff: a part of an export is not taken for the whole.
func TestExportIsCutOff(t *testing.T) {
	a := newAPI(Options{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.export(humago.NewContext(&huma.Operation{}, r, w), "jsonl", func(yield func(audit.Event) error) error {
			return errors.Join(yield(audit.Event{ID: "one"}), errors.New("the rest cannot be read"))
		})
	}))
	defer srv.Close()
	resp, err := http.Get(srv.URL)
	if err == nil {
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
	}
	if err == nil {
		t.Error("the client takes it for whole")
	}
}
