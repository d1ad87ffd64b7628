package test

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// through is the address of a proxy in front of the server, which calls see
// before it lets a request pass.
func (g *guarded) through(see func(*http.Request)) (host string) {
	g.t.Helper()
	to := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", g.host() },
		ErrorLog: log.New(io.Discard, "", 0), // of clients that leave when they are refused
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		see(r)
		to.ServeHTTP(w, r)
	}))
	g.t.Cleanup(proxy.Close)
	return strings.TrimPrefix(proxy.URL, "http://")
}

// onFirst makes a hook for through, which runs a command before the first
// request that is meant; done says whether there was one.
func (g *guarded) onFirst(meant func(*http.Request) bool, command ...string) (see func(*http.Request), done *atomic.Bool) {
	var once sync.Once
	done = new(atomic.Bool)
	return func(r *http.Request) {
		if !meant(r) {
			return
		}
		once.Do(func() {
			if _, err := g.tryBerth("", command...); err != nil {
				g.t.Error(err)
			}
			done.Store(true)
		})
	}, done
}

// isBlobRead reports whether a request fetches a blob.
func isBlobRead(r *http.Request) bool {
	return r.Method == "GET" && strings.Contains(r.URL.Path, "/blobs/")
}

// wantAccess wants a token to grant these scopes and no more.
func (g *guarded) wantAccess(token *grant, want ...string) {
	g.t.Helper()
	if got := token.access(g.t); !slices.Equal(got, want) {
		g.t.Errorf("the token grants %q, want %q", got, want)
	}
}

// TestTwoScopes has one token for two repositories. What the caller may not do
// is absent from it, and refused as if the token had not been there.
func TestTwoScopes(t *testing.T) {
	w := newTeam(t)
	w.repo(w.root(), "secret/app").pushImage("v1", 1700)
	const app, lib = "repository:acme/app:pull,push", "repository:acme/lib:pull,push"
	token := w.token(w.alice, app, lib+" repository:secret/app:pull,push")
	w.wantAccess(token, app, lib)
	a := w.bearer(token.Token)
	for _, name := range []string{"acme/app", "acme/lib"} {
		r := w.repo(a, name)
		image := r.pushImage("v1", 1701)
		r.same("v1", image.Digest)
	}
	for _, path := range []string{"/v2/secret/app/manifests/v1", "/v2/secret/app/tags/list", "/v2/nosuch/app/manifests/v1", "/v2/nosuch/app/tags/list"} {
		refusal(t, a, "GET", path, 404, "NAME_UNKNOWN")
	}
	refusal(t, a, "POST", "/v2/secret/app/blobs/uploads/", 403, "DENIED")
	refusal(t, a, "DELETE", "/v2/acme/app/manifests/v1", 403, "DENIED")
	w.wantAccess(w.token(w.bob, app), "repository:acme/app:pull")
	w.wantAccess(w.token(w.alice, "repository:acme/app:delete"))
	w.wantAccess(w.token(w.alice, "repository:acme/app:*"), app)
	w.wantAccess(w.token(w.projectKey, app, "repository:secret/app:pull"), app)

	form := url.Values{"service": {"berth"}, "client_id": {"test"}, "grant_type": {"password"}, "username": {w.alice.user},
		"password": {w.alice.secret}, "scope": {app + " " + lib + " repository:secret/app:pull"}}
	posted := w.post(form, 200)
	w.wantAccess(posted, app, lib)
	equal(t, "granted scope", posted.Scope, app+" "+lib)
	w.repo(w.bearer(posted.Token), "acme/lib").verify("v1")

	t.Run("a token that was not asked for it", func(t *testing.T) {
		for _, tt := range []struct{ scope, method, path, want string }{
			{"", "GET", "/v2/acme/app/manifests/v1", "repository:acme/app:pull"},
			{"repository:acme/app:pull", "GET", "/v2/acme/lib/manifests/v1", "repository:acme/lib:pull"},
			{"repository:acme/app:pull", "POST", "/v2/acme/app/blobs/uploads/", "repository:acme/app:pull,push"},
		} {
			a := w.bearer(w.token(w.alice, tt.scope).Token)
			challenge := refusal(t, a, tt.method, tt.path, 401, "UNAUTHORIZED").Get("Www-Authenticate")
			if !strings.Contains(challenge, `scope="`+tt.want+`"`) || !strings.Contains(challenge, `error="insufficient_scope"`) {
				t.Errorf("%s %s: challenge %s", tt.method, tt.path, challenge)
			}
		}
	})
}

// TestTwoRepositoriesInOneSession: what clients do that read one repository and
// write another.
func TestTwoRepositoriesInOneSession(t *testing.T) {
	w, crane := newTeam(t), newClient(t, "crane")
	base := w.repo(w.as(w.alice), "acme/base").pushImage("v1", 1710, 1711)
	both := false // some token request named two repositories
	var mu sync.Mutex
	host := w.through(func(r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		q := r.URL.Query()
		both = both || len(q["scope"]) == 2 && strings.Contains(fmt.Sprint(q["scope"]), "acme/base") && strings.Contains(fmt.Sprint(q["scope"]), "acme/copy")
	})
	crane.run("auth", "login", host, "-u", w.alice.user, "-p", w.alice.secret)
	crane.run("copy", host+"/acme/base:v1", host+"/acme/copy:v1")
	w.repo(w.as(w.alice), "acme/copy").same("v1", base.Digest)
	if !both {
		t.Error("crane asked for no token for two repositories")
	}

	docker := newDocker(t)
	docker.run("login", "-u", w.projectKey.user, "-p", w.projectKey.secret, w.host())
	docker.file("build/more", []byte("more"))
	dockerfile := docker.file("build/Dockerfile", []byte("FROM "+w.host()+"/acme/base:v1\nCOPY more /more\n"))
	docker.run("build", "-t", w.host()+"/acme/built:v1", "-f", dockerfile, docker.home+"/build")
	docker.run("push", w.host()+"/acme/built:v1")
	w.repo(w.as(w.bob), "acme/built").verify("v1")
	docker.file("build/Dockerfile", []byte("FROM "+w.host()+"/secret/base:v1\nCOPY more /more\n"))
	if said, err := docker.all("build", "-f", dockerfile, docker.home+"/build"); err == nil || !strings.Contains(said, "name unknown") {
		t.Errorf("a build from what the key may not see: %v\n%s", err, said)
	}
}

// change takes something away from a caller, and gives it back.
type change struct {
	name       string
	begin      func() (c credential, take []string) // a caller who may write to acme, and the command
	give       []string                             // nil: there is no way back
	push, pull string                               // what clients are told then
}

func (w *team) changes() []change {
	same := func(c credential, take ...string) func() (credential, []string) {
		return func() (credential, []string) { return c, take }
	}
	keys := 0
	revoked := func(flags ...string) func() (credential, []string) {
		return func() (credential, []string) {
			keys++
			name := fmt.Sprint("key", keys)
			return w.key(name, append(flags, "--role", "writer")...), append([]string{"key", "revoke", name}, flags...)
		}
	}
	unlock := []string{"user", "unlock", "alice"}
	return []change{
		{"role removed", same(w.alice, "member", "remove", "acme", "alice"), []string{"member", "add", "acme", "alice", "--role", "writer"}, "DENIED", "NAME_UNKNOWN"},
		{"user locked", same(w.alice, "user", "lock", "alice"), unlock, "UNAUTHORIZED", "UNAUTHORIZED"},
		{"key of a user who is locked", same(w.aliceKey, "user", "lock", "alice"), unlock, "UNAUTHORIZED", "UNAUTHORIZED"},
		{"user key revoked", revoked("--user", "alice"), nil, "UNAUTHORIZED", "UNAUTHORIZED"},
		{"project key revoked", revoked("--project", "acme"), nil, "UNAUTHORIZED", "UNAUTHORIZED"},
	}
}

// TestChangeDuringSession takes a right away in the middle of what crane does
// with a token that is good for minutes.
func TestChangeDuringSession(t *testing.T) {
	w, crane := newTeam(t), newClient(t, "crane")
	layer := crane.file("layer.tar", layerTar("file", stuff{1800, 100_000}.bytes()))
	w.repo(w.root(), "acme/app").pushImage("v1", 1801)
	for i, c := range w.changes() {
		w.duringSession(crane, c, c.push, func(r *http.Request) bool { return r.Method == "PATCH" },
			func(host string) []string {
				return []string{"append", "--oci-empty-base", "-f", layer, "-t", fmt.Sprintf("%s/acme/new%d:v1", host, i)}
			})
		w.duringSession(crane, c, c.pull, isBlobRead,
			func(host string) []string { return []string{"pull", host + "/acme/app:v1", crane.home + "/pulled.tar"} })
	}
}

// duringSession runs crane and makes a change when a request comes.
func (w *team) duringSession(crane *client, c change, want string, at func(*http.Request) bool, args func(host string) []string) {
	w.t.Helper()
	credential, take := c.begin()
	see, taken := w.onFirst(at, take...)
	host := w.through(see)
	crane.run("auth", "login", host, "-u", credential.user, "-p", credential.secret)
	said, err := crane.all(args(host)...)
	if err == nil || !taken.Load() || !strings.Contains(said, want) {
		w.t.Errorf("%s, crane %s: %v, want %s in:\n%s", c.name, args(host)[0], err, want, said)
	}
	if c.give != nil {
		w.berth(c.give...)
		crane.run(args(host)...)
	}
}

// TestChangeBitesOnNextRequest: neither an unexpired token nor a running upload
// outlives the right; an upload goes on when the right is given back.
func TestChangeBitesOnNextRequest(t *testing.T) {
	w := newTeam(t)
	image := w.repo(w.root(), "acme/app").pushImage("v1", 1810)
	for _, c := range w.changes() {
		for _, byToken := range []bool{false, true} {
			credential, take := c.begin()
			a := w.as(credential)
			if byToken {
				a = w.bearer(w.token(credential, "repository:acme/app:pull,push").Token)
			}
			w.bites(c, a, take, "/v2/acme/app/manifests/"+image.Digest)
		}
	}
}

func (w *team) bites(c change, a *api, take []string, manifest string) {
	w.t.Helper()
	content := stuff{1811, 100_000}.bytes()
	session, err := a.startUpload("acme/app")
	if err == nil {
		_, err = a.send("GET", manifest, nil, nil, 200)
	}
	if err != nil {
		w.t.Fatalf("%s: %v", c.name, err)
	}
	w.berth(take...)
	write, read := 401, 401
	if c.push == "DENIED" {
		write, read = 403, 404
	}
	refusal(w.t, a, "GET", manifest, read, c.pull)
	refusal(w.t, a, "HEAD", manifest, read, c.pull)
	refusal(w.t, a, "GET", "/v2/acme/app/tags/list", read, c.pull)
	refusal(w.t, a, "POST", "/v2/acme/app/blobs/uploads/", write, c.push)
	refusal(w.t, a, "PATCH", session, write, c.push)
	refusal(w.t, a, "PUT", session+"?digest="+digestOf(content), write, c.push)
	if c.give == nil {
		return
	}
	w.berth(c.give...)
	if err := a.finishUpload(session, digestOf(content), bytes.NewReader(content)); err != nil {
		w.t.Errorf("%s, given back: %v", c.name, err)
	}
}

// TestVisibility: who has no role sees what the project shows, from the next
// request on.
func TestVisibility(t *testing.T) {
	w, crane := newTeam(t), newClient(t, "crane")
	carol := w.user("carol")
	w.repo(w.root(), "acme/app").pushImage("v1", 1820)
	nobody := w.api
	member := w.bearer(w.token(w.bob, "repository:acme/app:pull").Token)
	stranger := w.bearer(w.token(carol, "repository:acme/app:pull").Token)
	const path = "/v2/acme/app/manifests/v1"
	for _, tt := range []struct {
		visibility       string
		stranger, nobody int
	}{{"private", 404, 401}, {"public", 200, 200}, {"internal", 401, 401}, {"private", 404, 401}} {
		w.berth("project", "set", "acme", "--visibility", tt.visibility)
		for _, ask := range []struct {
			who  string
			a    *api
			want int
		}{{"a member", member, 200}, {"a stranger", w.as(carol), tt.stranger}, {"a stranger's token", stranger, tt.stranger}, {"nobody", nobody, tt.nobody}} {
			want := ask.want
			if tt.visibility == "internal" && ask.who == "a stranger" {
				want = 200 // and the token was not granted it when it was made
			}
			if _, err := ask.a.send("GET", path, nil, []string{"Accept", manifestTypes}, want); err != nil {
				t.Errorf("%s, %s: %v", tt.visibility, ask.who, err)
			}
		}
	}

	w.berth("project", "set", "acme", "--visibility", "internal")
	see, changed := w.onFirst(isBlobRead, "project", "set", "acme", "--visibility", "private")
	host := w.through(see)
	crane.run("auth", "login", host, "-u", carol.user, "-p", carol.secret)
	crane.run("manifest", host+"/acme/app:v1")
	if said, err := crane.all("pull", host+"/acme/app:v1", crane.home+"/pulled.tar"); err == nil || !changed.Load() || !strings.Contains(said, "NAME_UNKNOWN") {
		t.Errorf("crane pulls on when the project has become private: %v\n%s", err, said)
	}
}

// TestDockerIsRefused takes the role away between two commands of docker, and
// while it pushes.
func TestDockerIsRefused(t *testing.T) {
	w, docker := newTeam(t), newDocker(t)
	docker.run("build", "-t", "local", docker.buildContext(1830))
	see, removed := w.onFirst(func(r *http.Request) bool {
		return r.Method == "PATCH" && strings.HasPrefix(r.URL.Path, "/v2/acme/second/")
	}, "member", "remove", "acme", "alice")
	host := w.through(see)
	docker.run("login", "-u", w.alice.user, "-p", w.alice.secret, host)
	push := func(name string) (string, error) {
		docker.run("tag", "local", host+"/acme/"+name+":v1")
		return docker.all("push", host+"/acme/"+name+":v1")
	}
	if said, err := push("first"); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	// Nothing may be mounted, or there would be no PATCH.
	docker.run("build", "-t", "local", docker.buildContext(1840))
	for _, name := range []string{"second", "third"} {
		if said, err := push(name); err == nil || !removed.Load() || !strings.Contains(said, "denied") {
			t.Errorf("push of %s without the role: %v\n%s", name, err, said)
		}
	}
	if said, err := docker.all("pull", host+"/acme/first:v1"); err == nil || !strings.Contains(said, "name unknown") {
		t.Errorf("pull without the role: %v\n%s", err, said)
	}
	w.berth("member", "add", "acme", "alice", "--role", "writer")
	if said, err := push("second"); err != nil {
		t.Errorf("push with the role again: %v\n%s", err, said)
	}
	w.berth("user", "lock", "alice")
	if said, err := push("fourth"); err == nil || !strings.Contains(said, "wrong user name, password or token") && !strings.Contains(said, "unauthorized") {
		t.Errorf("push by a locked user: %v\n%s", err, said)
	}
}

// TestMount mounts blobs between repositories with and without the right to read them.
func TestMount(t *testing.T) {
	w := newTeam(t)
	a, root := w.as(w.alice), w.root()
	content := stuff{1900, 100_000}.bytes()
	hidden := stuff{1901, 100_000}.bytes()
	for _, put := range []struct {
		a       *api
		repo    string
		content []byte
	}{{a, "acme/source", content}, {root, "secret/source", hidden}} {
		if _, err := put.a.pushBlob(put.repo, put.content); err != nil {
			t.Fatal(err)
		}
	}
	both := w.bearer(w.token(w.alice, "repository:acme/target:pull,push", "repository:acme/source:pull").Token)
	for _, tt := range []struct {
		what, to, from string
		a              *api
		content        []byte
		want           int
	}{
		{"with right", "acme/target", "acme/source", both, content, 201},
		{"with right, by password", "acme/target2", "acme/source", a, content, 201},
		{"to itself", "acme/source", "acme/source", a, content, 201},
		{"without right", "acme/target3", "secret/source", a, hidden, 202},
		{"without naming where from, readable", "acme/target5", "", a, content, 201},
		{"without naming where from, hidden", "acme/target3", "", a, hidden, 202},
		{"absent", "acme/target3", "acme/source", a, []byte("absent"), 202},
		{"absent there", "acme/target3", "acme/source", a, hidden, 202},
		{"no such repository", "acme/target3", "nosuch/source", a, content, 202},
	} {
		q := url.Values{"mount": {digestOf(tt.content)}}
		if tt.from != "" {
			q.Set("from", tt.from)
		}
		h, err := tt.a.send("POST", "/v2/"+tt.to+"/blobs/uploads/?"+q.Encode(), nil, nil, tt.want)
		if err != nil {
			t.Errorf("%s: %v", tt.what, err)
			continue
		}
		if tt.want == 201 {
			if err := tt.a.checkBlob(tt.to, digestOf(tt.content), int64(len(tt.content))); err != nil {
				t.Errorf("%s: %v", tt.what, err)
			}
			continue
		}
		if _, err := tt.a.send("HEAD", "/v2/"+tt.to+"/blobs/"+digestOf(tt.content), nil, nil, 404); err != nil {
			t.Errorf("%s: %v", tt.what, err)
		}
		session, err := sessionPath(h)
		if err != nil {
			t.Errorf("%s: %v", tt.what, err)
			continue
		}
		other := []byte(tt.what) // the session goes on as any other
		if err := tt.a.finishUpload(session, digestOf(other), bytes.NewReader(other)); err != nil {
			t.Errorf("%s: %v", tt.what, err)
		}
	}
	if err := a.checkBlob("acme/source", digestOf(content), int64(len(content))); err != nil {
		t.Errorf("after all mounts: %v", err)
	}
	if err := root.checkBlob("secret/source", digestOf(hidden), int64(len(hidden))); err != nil {
		t.Errorf("after all mounts: %v", err)
	}
	// Who may read the source, but has no token for it, saves sending the bytes
	// by getting one.
	target := w.bearer(w.token(w.alice, "repository:acme/target4:pull,push").Token)
	challenge := refusal(t, target, "POST", "/v2/acme/target4/blobs/uploads/?from=acme/source&mount="+digestOf(content), 401, "UNAUTHORIZED").Get("Www-Authenticate")
	if !strings.Contains(challenge, `scope="repository:acme/target4:pull,push repository:acme/source:pull",error="insufficient_scope"`) {
		t.Errorf("challenge %s", challenge)
	}
	refusal(t, a, "POST", "/v2/secret/target/blobs/uploads/?mount="+digestOf(content)+"&from=acme/source", 403, "DENIED")
}

// TestSessionOfAnother: a session is its owner's in its repository, whoever
// else knows its id.
func TestSessionOfAnother(t *testing.T) {
	w := newTeam(t)
	carol := w.user("carol")
	w.berth("member", "add", "acme", "carol", "--role", "owner")
	a := w.as(w.alice)
	u := &session{repo: "acme/app", content: stuff{1910, 300_000}}
	var err error
	if u.path, err = a.startUpload(u.repo); err != nil {
		t.Fatal(err)
	}
	if err := u.patch(a, 100_000); err != nil {
		t.Fatal(err)
	}
	elsewhere := strings.Replace(u.path, "/acme/app/", "/acme/other/", 1)
	for _, tt := range []struct {
		who  string
		a    *api
		path string
	}{
		{"another user", w.as(carol), u.path},
		{"another user's token", w.bearer(w.token(carol, "repository:acme/app:pull,push").Token), u.path},
		{"a project's key", w.as(w.projectKey), u.path},
		{"the administrator", w.root(), u.path},
		{"another repository", a, elsewhere},
		{"another user in another repository", w.as(carol), elsewhere},
	} {
		for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} {
			path := tt.path
			if method == "PUT" {
				path += "?digest=" + u.content.digest()
			}
			refusal(t, tt.a, method, path, 404, "BLOB_UPLOAD_UNKNOWN")
		}
	}
	path, offset, err := a.uploadOffset(u.path)
	if err != nil || offset != 100_000 {
		t.Fatalf("the session holds %d bytes: %v", offset, err)
	}
	u.path, u.acked = path, offset
	if err := u.patch(a, u.content.size); err != nil {
		t.Fatal(err)
	}
	if err := u.finish(a, u.content.digest()); err != nil {
		t.Fatal(err)
	}
	if err := w.as(carol).checkBlob(u.repo, u.content.digest(), u.content.size); err != nil {
		t.Error(err)
	}
}
