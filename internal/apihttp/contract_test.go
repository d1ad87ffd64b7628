package apihttp

import "testing"

// exchanges are good and bad requests of an administrator, in this order and in
// one world. What is sent is after the path.
var exchanges = []struct {
	what, body string
	status     int
}{
	{"GET /organizations", "", 200},
	{"GET /organizations?limit=0", "", 422},
	{"GET /organizations?limit=1001", "", 422},
	{"GET /organizations?page=2", "", 422},
	{"POST /organizations", `{"name":"second","plan":"small"}`, 201},
	{"POST /organizations", `{"name":"second"}`, 409},
	{"POST /organizations", `{"name":"Second"}`, 422},
	{"POST /organizations", `{"name":"third","plan":"none"}`, 404},
	{"POST /organizations", `{"name":"third","colour":"red"}`, 422},
	{"POST /organizations", `{"name":3}`, 422},
	{"POST /organizations", `{"name":`, 400},
	{"POST /organizations", `[]`, 422},
	{"GET /organizations/second", "", 200},
	{"GET /organizations/none", "", 404},
	{"PATCH /organizations/second", `{"name":"renamed","plan":""}`, 200},
	{"PATCH /organizations/renamed", `{"name":"team"}`, 409},
	{"PATCH /organizations/none", `{"plan":""}`, 404},
	{"DELETE /organizations/renamed", "", 204},
	{"DELETE /organizations/team", "", 409},
	{"DELETE /organizations/default", "", 409},
	{"GET /organizations/team/members", "", 200},
	{"GET /organizations/none/members", "", 404},
	{"PUT /organizations/team/members/group/crew", `{"role":"writer"}`, 200},
	{"PUT /organizations/team/members/group/crew", `{"role":"none"}`, 422},
	{"PUT /organizations/team/members/robot/crew", `{"role":"writer"}`, 422},
	{"PUT /organizations/team/members/user/nobody", `{"role":"writer"}`, 404},
	{"DELETE /organizations/team/members/group/crew", "", 204},
	{"DELETE /organizations/team/members/group/crew", "", 404},

	{"GET /projects", "", 200},
	{"GET /projects?organization=team&limit=1", "", 200},
	{"GET /projects?organization=none", "", 200},
	{"GET /projects?deleted=maybe", "", 422},
	{"POST /projects", `{"name":"new"}`, 201},
	{"POST /projects", `{"name":"new"}`, 409},
	{"POST /projects", `{"name":"a/b"}`, 422},
	{"POST /projects", `{"name":"x","visibility":"secret"}`, 422},
	{"POST /projects", `{"name":"x","organization":"none"}`, 404},
	{"GET /projects/new", "", 200},
	{"GET /projects/none", "", 404},
	{"PATCH /projects/new", `{"visibility":"internal","newcomers":"claim","plan":"small","organization":"team"}`, 200},
	{"PATCH /projects/new", `{"newcomers":""}`, 200},
	{"PATCH /projects/new", `{"visibility":""}`, 422},
	{"PATCH /projects/new", `{"plan":"none"}`, 404},
	{"POST /projects/new/rename", `{"name":"newer"}`, 200},
	{"POST /projects/newer/rename", `{"name":"app"}`, 409},
	{"POST /projects/newer/rename", `{"name":"New"}`, 422},
	{"DELETE /projects/newer", "", 422},
	{"DELETE /projects/newer?confirm=new", "", 422},
	{"DELETE /projects/newer?confirm=newer", "", 200},
	{"DELETE /projects/newer?confirm=newer", "", 409},
	{"PATCH /projects/newer", `{"visibility":"public"}`, 409},
	{"POST /projects", `{"name":"newer"}`, 409},
	{"GET /projects?deleted=true", "", 200},
	{"POST /projects/newer/restore", "", 200},
	{"POST /projects/newer/restore", "", 409},

	{"GET /projects/app/members", "", 200},
	{"GET /projects/app/members?after=zzz", "", 200},
	{"GET /projects/none/members", "", 404},
	{"PUT /projects/app/members/group/crew?prefix=app/web", `{"role":"maintainer"}`, 200},
	{"PUT /projects/app/members/group/crew?prefix=other/web", `{"role":"maintainer"}`, 422},
	{"PUT /projects/app/members/group/none", `{"role":"maintainer"}`, 404},
	{"DELETE /projects/app/members/group/crew?prefix=app/web", "", 204},
	{"DELETE /projects/app/members/group/crew", "", 404},

	{"GET /projects/app/keys", "", 200},
	{"GET /projects/none/keys", "", 404},
	{"POST /projects/app/keys", `{"name":"k","role":"writer","prefixes":["app/web"],"addresses":["192.0.2.7","2001:db8::/32"],"expires":"2031-01-01T00:00:00Z"}`, 201},
	{"POST /projects/app/keys", `{"name":"k","role":"writer"}`, 409},
	{"POST /projects/app/keys", `{"name":"k2"}`, 422},
	{"POST /projects/app/keys", `{"name":"k2","role":"writer","prefixes":["other"]}`, 422},
	{"POST /projects/app/keys", `{"name":"k2","role":"writer","addresses":["home"]}`, 422},
	{"POST /projects/app/keys", `{"name":"k2","role":"writer","expires":"2001-01-01T00:00:00Z"}`, 422},
	{"POST /projects/app/keys", `{"name":"k2","role":"writer","expires":"2999-01-01T00:00:00Z"}`, 422},
	{"POST /projects/app/keys", `{"name":"k2","role":"writer","expires":"soon"}`, 422},
	{"POST /projects/app/keys", `{"name":"k 2","role":"writer"}`, 422},
	{"DELETE /projects/app/keys/k", "", 204},
	{"DELETE /projects/app/keys/none", "", 404},

	{"GET /projects/app/trust-rules", "", 200},
	{"GET /projects/none/trust-rules", "", 404},
	{"POST /projects/app/trust-rules", `{"name":"r","issuer":"https://ci.example.com","audience":"berth","claims":{"repository":"acme/*"},"role":"reader","prefixes":["app/web"]}`, 201},
	{"POST /projects/app/trust-rules", `{"name":"r","issuer":"https://ci.example.com","audience":"berth","claims":{"repository":"acme/*"},"role":"reader"}`, 409},
	{"POST /projects/app/trust-rules", `{"name":"r2","issuer":"ci","audience":"berth","claims":{"repository":"acme/*"},"role":"reader"}`, 422},
	{"POST /projects/app/trust-rules", `{"name":"r2","issuer":"https://ci.example.com","audience":"berth","claims":{"repository":"*"},"role":"reader"}`, 422},
	{"POST /projects/app/trust-rules", `{"name":"r2","issuer":"https://ci.example.com","audience":"berth","claims":{},"role":"reader"}`, 422},
	{"DELETE /projects/app/trust-rules/r", "", 204},
	{"DELETE /projects/app/trust-rules/r", "", 404},

	{"GET /users", "", 200},
	{"GET /users?limit=x", "", 422},
	{"POST /users", `{"name":"bob","password":"long enough","plan":"small"}`, 201},
	{"POST /users", `{"name":"bob"}`, 409},
	{"POST /users", `{"name":"oidc"}`, 422},
	{"POST /users", `{"name":"carol","password":"short"}`, 422},
	{"GET /users/bob", "", 200},
	{"GET /users/none", "", 404},
	{"PATCH /users/bob", `{"password":"another long one","admin":true,"locked":true,"plan":""}`, 200},
	{"PATCH /users/bob", `{"password":""}`, 200},
	{"PATCH /users/none", `{"locked":true}`, 404},
	{"PATCH /users/root", `{"locked":true}`, 409},
	{"DELETE /users/bob/sessions", "", 204},
	{"DELETE /users/none/sessions", "", 404},
	{"GET /users/bob/keys", "", 200},
	{"GET /users/none/keys", "", 404},
	{"POST /users/bob/keys", `{"name":"laptop"}`, 201},
	{"POST /users/bob/keys", `{"name":"laptop"}`, 409},
	{"POST /users/bob/keys", `{"name":""}`, 422},
	{"DELETE /users/bob/keys/laptop", "", 204},
	{"DELETE /users/bob/keys/none", "", 404},
	{"DELETE /users/bob", "", 204},
	{"DELETE /users/bob", "", 404},
	{"DELETE /users/root", "", 409},

	{"GET /me", "", 200},
	{"GET /me?verbose=1", "", 422},
	{"PATCH /users/root", `{"password":"the first password"}`, 200},
	{"PUT /me/password", `{"old":"wrong password","new":"the next password"}`, 403},
	{"PUT /me/password", `{"old":"the first password","new":"short"}`, 422},
	{"PUT /me/password", `{"old":"the first password","new":"the next password"}`, 204},
	{"GET /me/keys", "", 200},
	{"GET /me/keys?limit=0", "", 422},
	{"POST /me/keys", `{"name":"laptop","role":"writer","prefixes":["app"]}`, 201},
	{"POST /me/keys", `{"name":"laptop"}`, 409},
	{"DELETE /me/keys/laptop", "", 204},
	{"DELETE /me/keys/none", "", 404},
	{"GET /me/tokens", "", 200},
	{"GET /me/tokens?limit=0", "", 422},
	{"DELETE /me/tokens/none", "", 404},
	{"DELETE /me/sessions", "", 204},
	{"DELETE /me/sessions?all=1", "", 422},

	{"GET /groups", "", 200},
	{"GET /groups?limit=0", "", 422},
	{"POST /groups", `{"name":"devs","claim":"idp-devs","admin":true}`, 201},
	{"POST /groups", `{"name":"devs"}`, 409},
	{"POST /groups", `{"name":"others","claim":"idp-devs"}`, 409},
	{"GET /groups/devs", "", 200},
	{"GET /groups/none", "", 404},
	{"PATCH /groups/devs", `{"name":"people","claim":"","admin":false}`, 200},
	{"PATCH /groups/none", `{"admin":false}`, 404},
	{"GET /groups/people/members", "", 200},
	{"GET /groups/none/members", "", 404},
	{"PUT /groups/people/members/owner", "", 204},
	{"PUT /groups/people/members/nobody", "", 404},
	{"GET /groups/people/members?limit=1", "", 200},
	{"DELETE /groups/people/members/owner", "", 204},
	{"DELETE /groups/people/members/owner", "", 404},
	{"DELETE /groups/people", "", 204},
	{"DELETE /groups/people", "", 404},

	{"GET /plans", "", 200},
	{"GET /plans?limit=0", "", 422},
	{"POST /plans", `{"name":"big","rates":[{"per":"identity","unit":"requests","window":"minute","amount":600}],"maxBlob":1}`, 201},
	{"POST /plans", `{"name":"big"}`, 409},
	{"POST /plans", `{"name":"odd","rates":[{"per":"identity","unit":"requests","window":"week","amount":600}]}`, 422},
	{"POST /plans", `{"name":"odd","storage":-1}`, 422},
	{"GET /plans/big", "", 200},
	{"GET /plans/none", "", 404},
	{"PATCH /plans/big", `{"name":"bigger","rates":[],"storage":5}`, 200},
	{"PATCH /plans/default", `{"name":"other"}`, 409},
	{"PATCH /plans/none", `{"storage":5}`, 404},
	{"DELETE /plans/bigger", "", 204},
	{"DELETE /plans/default", "", 409},

	{"GET /audit", "", 200},
	{"GET /audit?order=newest&limit=5&action=project.&identity=user:root&since=2020-01-01T00:00:00Z", "", 200},
	{"GET /audit?project=app&until=2999-01-01T00:00:00Z", "", 200},
	{"GET /audit?since=yesterday", "", 422},
	{"GET /audit/export", "", 200},
	{"GET /audit/export?format=csv&repository=app/web", "", 200},
	{"GET /audit/export?format=xml", "", 422},

	{"GET /tokens", "", 200},
	{"GET /tokens?user=owner", "", 200},
	{"GET /tokens?user=none", "", 404},
	{"DELETE /tokens/none", "", 404},

	{"GET /signing-keys", "", 200},
	{"GET /signing-keys?limit=1", "", 422},
	{"POST /signing-keys", `{}`, 201},
	{"POST /signing-keys", `{"revoke":true}`, 201},
	{"POST /signing-keys", `{"revoke":"yes"}`, 422},

	{"GET /proxies", "", 200},
	{"GET /proxies?limit=0", "", 422},
	{"PUT /proxies/docker.io", `{"name":"docker.io","credential":{"username":"u","password":"p"},"tags":{"ttl":"5m","ttls":[{"match":"latest","ttl":"0s"}]},"cache":{"size":"5GiB","pins":["library/nginx:1.*"]},"referrers":{"push":false},"limits":{"reserve":0}}`, 200},
	{"PUT /proxies/docker.io", `{"name":"docker.io","credential":{"username":"u","password_file":"/etc/shadow"}}`, 422},
	{"PUT /proxies/docker.io", `{"name":"docker.io","tags":{"ttl":"soon"}}`, 422},
	{"PUT /proxies/docker.io", `{"name":"docker.io","tags":{"ttl":60}}`, 422},
	{"PUT /proxies/docker.io", `{"name":"docker.io","upstream":"https://x"}`, 422},
	{"PUT /proxies/docker.io", `{"name":"quay.io"}`, 422},
	{"PUT /proxies/registry.example.com", `{"name":"registry.example.com"}`, 422},
	{"PUT /proxies/hub", `{"name":"hub","upstreams":["https://x"],"namespaces":["index.docker.io"]}`, 409},
	{"PUT /proxies/ghcr.io", `{"name":"ghcr.io"}`, 409},
	{"PUT /proxies/all", `{"name":"all","upstreams":["https://x"]}`, 409},
	{"PUT /proxies/gone", `{"name":"gone","upstreams":["https://x"]}`, 409},
	{"GET /proxies/docker.io", "", 200},
	{"GET /proxies/ghcr.io", "", 200},
	{"GET /proxies/none", "", 404},
	{"GET /proxies/docker.io/stats", "", 200},
	{"GET /proxies/none/stats", "", 404},
	{"POST /proxies/docker.io/refresh", `{}`, 204},
	{"POST /proxies/docker.io/refresh", `{"repository":"library/nginx","reference":"1"}`, 204},
	{"POST /proxies/docker.io/refresh", `{"reference":"1"}`, 422},
	{"POST /proxies/docker.io/purge", `{"repository":"library/nginx"}`, 200},
	{"POST /proxies/docker.io/purge", `{"repository":"Library"}`, 422},
	{"POST /proxies/docker.io/purge", `{"repository":"none"}`, 404},
	{"POST /proxies/docker.io/prefetch", `{"repository":"library/nginx","reference":"1","platforms":["linux/amd64"]}`, 200},
	{"POST /proxies/docker.io/prefetch", `{"repository":"library/nginx"}`, 422},
	{"POST /proxies/docker.io/prefetch", `{"repository":"library/nginx","reference":"a b"}`, 422},
	{"POST /proxies/docker.io/test", `{}`, 200},
	{"POST /proxies/none/test", `{}`, 404},
	{"POST /proxies/docker.io/test", `{"repository":"a"}`, 422},
	{"POST /projects/docker.io/rename", `{"name":"hub"}`, 404},
	{"DELETE /proxies/docker.io", "", 204},
	{"DELETE /proxies/docker.io", "", 404},
	{"DELETE /proxies/ghcr.io", "", 409},
}

// TestContract: every operation of the document answers a good and a bad
// request as the document says, which do checks of each answer.
func TestContract(t *testing.T) {
	s := populated(t)
	good, bad := map[string]bool{}, map[string]bool{}
	note := func(what string, status int) {
		op := s.operation(request(what))
		if op == nil {
			t.Fatalf("no operation for %s", what)
		}
		if status < 300 {
			good[op.OperationID] = true
		} else {
			bad[op.OperationID] = true
		}
	}
	for _, e := range exchanges {
		s.do("root", e.what, e.body).wants(e.status)
		note(e.what, e.status)
	}
	for who, what := range map[string]string{"owner": "/me/tokens/", "root": "/tokens/"} {
		s.refreshToken("owner", "a hash for "+who)
		var list List[RefreshToken]
		s.do("root", "GET /tokens?user=owner", "").wants(200).into(&list)
		id := list.Items[len(list.Items)-1].ID
		s.do(who, "DELETE "+what+id, "").wants(204)
		note("DELETE "+what+id, 204)
	}
	for path, item := range s.handler.huma.OpenAPI().Paths {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
			op := s.operation(request(method + " " + path))
			if op != nil && (!good[op.OperationID] || !bad[op.OperationID]) {
				t.Errorf("%s %s lacks a good or a bad request here: good %t, bad %t", method, path, good[op.OperationID], bad[op.OperationID])
			}
		}
		if item.Head != nil || item.Options != nil || item.Trace != nil {
			t.Errorf("%s has a method that this test does not know", path)
		}
	}
}
