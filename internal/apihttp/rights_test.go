package apihttp

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
)

// callers are the columns of the table of rights. part is owner of app/part
// alone, robot a maintainer's key of app, narrow a reader's key of root, who is
// an administrator, and scoped has a registry token of root.
var callers = []string{
	"anonymous", "scoped", "stranger", "part", "reader", "writer", "maintainer", "robot", "owner", "orgowner", "narrow", "root",
}

// asks are one good request for each operation.
var asks = [][2]string{
	{"GET /organizations", ""},
	{"POST /organizations", `{"name":"new"}`},
	{"GET /organizations/team", ""},
	{"PATCH /organizations/team", `{"plan":"small"}`},
	{"DELETE /organizations/empty", ""},
	{"GET /organizations/team/members", ""},
	{"PUT /organizations/team/members/user/reader", `{"role":"owner"}`},
	{"DELETE /organizations/team/members/user/orgowner", ""},
	{"GET /projects", ""},
	{"POST /projects", `{"name":"new","organization":"team"}`},
	{"GET /projects/app", ""},
	{"GET /projects/lib", ""},
	{"PATCH /projects/app", `{"visibility":"public"}`},
	{"PATCH /projects/app", `{"plan":"small"}`},
	{"PATCH /projects/app", `{"organization":"default"}`},
	{"PATCH /projects/lib", `{"visibility":"private"}`},
	{"POST /projects/app/rename", `{"name":"new"}`},
	{"DELETE /projects/app?confirm=app", ""},
	{"POST /projects/gone/restore", ""},
	{"GET /projects/gone", ""},
	{"GET /projects/app/members", ""},
	{"PUT /projects/app/members/user/stranger", `{"role":"owner"}`},
	{"DELETE /projects/app/members/user/reader", ""},
	{"GET /projects/app/keys", ""},
	{"POST /projects/app/keys", `{"name":"new","role":"reader"}`},
	{"POST /projects/app/keys", `{"name":"new","role":"owner"}`},
	{"DELETE /projects/app/keys/old", ""},
	{"GET /projects/app/trust-rules", ""},
	{"POST /projects/app/trust-rules", `{"name":"new","issuer":"https://ci.example.com","audience":"berth","claims":{"ref":"main"},"role":"owner"}`},
	{"DELETE /projects/app/trust-rules/release", ""},
	{"GET /users", ""},
	{"POST /users", `{"name":"new"}`},
	{"GET /users/owner", ""},
	{"PATCH /users/owner", `{"locked":true}`},
	{"DELETE /users/owner", ""},
	{"DELETE /users/owner/sessions", ""},
	{"GET /users/owner/keys", ""},
	{"POST /users/owner/keys", `{"name":"new"}`},
	{"DELETE /users/owner/keys/old", ""},
	{"GET /me", ""},
	{"PUT /me/password", `{"old":"not the password","new":"a new password"}`},
	{"DELETE /me/sessions", ""},
	{"GET /me/keys", ""},
	{"POST /me/keys", `{"name":"new"}`},
	{"POST /me/keys", `{"name":"new","role":"reader"}`},
	{"DELETE /me/keys/old", ""},
	{"GET /me/tokens", ""},
	{"DELETE /me/tokens/{token}", ""},
	{"GET /groups", ""},
	{"POST /groups", `{"name":"new"}`},
	{"GET /groups/crew", ""},
	{"PATCH /groups/crew", `{"admin":true}`},
	{"DELETE /groups/crew", ""},
	{"GET /groups/crew/members", ""},
	{"PUT /groups/crew/members/owner", ""},
	{"DELETE /groups/crew/members/reader", ""},
	{"GET /plans", ""},
	{"POST /plans", `{"name":"new"}`},
	{"GET /plans/small", ""},
	{"PATCH /plans/small", `{"storage":5}`},
	{"DELETE /plans/small", ""},
	{"GET /audit", ""},
	{"GET /audit?project=app", ""},
	{"GET /audit/export", ""},
	{"GET /audit/export?project=app", ""},
	{"GET /tokens", ""},
	{"GET /tokens?user=owner", ""},
	{"DELETE /tokens/{token}", ""},
	{"GET /signing-keys", ""},
	{"POST /signing-keys", `{}`},
	{"GET /proxies", ""},
	{"PUT /proxies/docker.io", `{"name":"docker.io"}`},
	{"GET /proxies/quay.io", ""},
	{"DELETE /proxies/quay.io", ""},
	{"GET /proxies/quay.io/stats", ""},
	{"POST /proxies/quay.io/refresh", `{}`},
	{"POST /proxies/quay.io/purge", `{}`},
	{"POST /proxies/quay.io/prefetch", `{"repository":"a","reference":"1"}`},
	{"POST /proxies/quay.io/test", `{}`},
}

// TestRights asks for everything on behalf of everybody. Each success of a
// change has a world of its own.
func TestRights(t *testing.T) {
	tpl := newTemplate(t)
	var table bytes.Buffer
	out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "%s\trequest\n", strings.Join(callers, "\t"))
	s := tpl.world(t)
	asked := map[string]bool{}
	for _, ask := range asks {
		for _, who := range callers {
			what := strings.Replace(ask[0], "{token}", tpl.token, 1)
			a := s.do(who, what, ask[1])
			fmt.Fprintf(out, "%d\t", a.status)
			if a.status < 300 && !strings.HasPrefix(what, "GET ") {
				s = tpl.world(t)
			}
		}
		fmt.Fprintf(out, "%s %s\n", ask[0], ask[1])
		asked[s.operation(request(ask[0])).OperationID] = true
	}
	out.Flush()
	for path, item := range s.handler.huma.OpenAPI().Paths {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
			if op := s.operation(request(method + " " + path)); op != nil && !asked[op.OperationID] {
				t.Errorf("nobody asks for %s %s: %v", method, path, item)
			}
		}
	}
	golden(t, "testdata/rights.golden", table.Bytes())
}

// golden compares with a file, or writes it.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("not as %s has it:\n%s", file, got)
	}
}
