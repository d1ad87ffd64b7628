package test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// pair is the shared fleet as its administrator sees it at each replica, with a
// repository of the test's own.
type pair struct {
	*fleet
	g1, g2   *guarded // at the replicas
	one, two *api     // the administrator there
	repo     string
}

func newPair(t *testing.T) *pair {
	t.Helper()
	f := sharedFleet(t)
	p := &pair{fleet: f, g1: f.replica(t, 1), g2: f.replica(t, 2), repo: strings.ReplaceAll(nameOf(t), "_", "-") + "/app"}
	p.one, p.two = p.g1.root(), p.g2.root()
	return p
}

// begin opens a session on a replica for content of that size.
func (p *pair) begin(t *testing.T, a *api, seed uint64, size int64) *session {
	t.Helper()
	path, err := a.startUpload(p.repo)
	if err != nil {
		t.Fatal(err)
	}
	return &session{repo: p.repo, path: path, content: stuff{seed, size}}
}

// patch sends n bytes more to a replica.
func (p *pair) patch(t *testing.T, a *api, s *session, n int64) {
	t.Helper()
	if err := s.patch(a, n); err != nil {
		t.Fatal(err)
	}
}

// finish ends a session on a replica, and wants both to serve its bytes.
func (p *pair) finish(t *testing.T, a *api, s *session) {
	t.Helper()
	if err := s.finish(a, s.content.digest()); err != nil {
		t.Fatal(err)
	}
	p.serve(t, s.content)
}

// serve wants both replicas to serve the content.
func (p *pair) serve(t *testing.T, content stuff) {
	t.Helper()
	for i, a := range []*api{p.one, p.two} {
		if err := a.checkBlob(p.repo, content.digest(), content.size); err != nil {
			t.Errorf("berth-%d: %v", i+1, err)
		}
	}
}

// TestReplicasContinue: each request of an upload goes to the other replica.
func TestReplicasContinue(t *testing.T) {
	p := newPair(t)
	s := p.begin(t, p.one, 5000, 20<<20)
	for _, a := range []*api{p.two, p.one, p.two} {
		p.patch(t, a, s, 6<<20)
		if _, offset, err := p.one.uploadOffset(s.path); err != nil || offset != s.acked {
			t.Fatalf("berth-1 tells byte %d, %d were acknowledged: %v", offset, s.acked, err)
		}
	}
	p.finish(t, p.one, s)
}

// TestReplicaKilledInPatch: a session whose replica dies in the middle of a
// request goes on at the other one, behind what was acknowledged.
func TestReplicaKilledInPatch(t *testing.T) {
	p := newPair(t)
	s := p.begin(t, p.one, 5010, 40<<20)
	p.patch(t, p.one, s, 16<<20)
	running := *s
	running.content.seed = 5011 // other bytes than those that are sent later
	slowPatch(p.one, &running)
	time.Sleep(300 * time.Millisecond) // it has surely begun, and leases the session
	p.kill(t, "berth-1")

	// At once there is a true answer.
	_, offset, err := p.two.uploadOffset(s.path)
	if err != nil || offset != s.acked {
		t.Fatalf("berth-2 tells byte %d, %d were acknowledged: %v", offset, s.acked, err)
	}
	// The client goes on, and tries again as long as it is told that somebody
	// else writes.
	killed, refused := time.Now(), 0
	for {
		err := s.patch(p.two, s.content.size)
		if err == nil {
			break
		}
		var status *statusError
		if !errors.As(err, &status) || status.got != 416 || time.Since(killed) > time.Minute {
			t.Fatal(err)
		}
		refused++
		time.Sleep(500 * time.Millisecond)
	}
	t.Logf("berth-2 took the session over %v after the kill; refused before: %d times", time.Since(killed).Round(time.Millisecond), refused)
	if err := s.finish(p.two, s.content.digest()); err != nil {
		t.Fatal(err)
	}
	p.must(t, "start", "berth-1")
	p.serve(t, s.content)
}

// TestTwoWritersOfOneUpload: one wins, the other is told where the session stands.
func TestTwoWritersOfOneUpload(t *testing.T) {
	p := newPair(t)
	s := p.begin(t, p.one, 5020, 16<<20)
	for s.acked < s.content.size {
		n := int64(2 << 20)
		var wait sync.WaitGroup
		var errs [2]error
		tries := [2]session{*s, *s}
		for i, a := range []*api{p.one, p.two} {
			wait.Go(func() { errs[i] = tries[i].patch(a, n) })
		}
		wait.Wait()
		won := -1
		for i, err := range errs {
			var status *statusError
			switch {
			case err == nil && won < 0:
				won = i
			case err == nil:
				t.Fatal("both writers won")
			case !errors.As(err, &status) || status.got != 416:
				t.Fatal(err)
			}
		}
		if won < 0 {
			t.Fatal(errors.Join(errs[:]...))
		}
		s.acked = tries[won].acked
		for i, a := range []*api{p.one, p.two} {
			if _, offset, err := a.uploadOffset(s.path); err != nil || offset != s.acked {
				t.Fatalf("berth-%d tells byte %d, %d were acknowledged: %v", i+1, offset, s.acked, err)
			}
		}
	}
	p.finish(t, p.two, s)
}

// TestSecondWriterIsTold: while one writes, the other gets 416 with the Range
// that is durable.
func TestSecondWriterIsTold(t *testing.T) {
	p := newPair(t)
	s := p.begin(t, p.one, 5030, 16<<20)
	p.patch(t, p.one, s, 8<<20)
	rest := *s
	finish := slowPatch(p.one, &rest)
	time.Sleep(300 * time.Millisecond) // it has surely begun
	res, err := p.two.call("PATCH", s.path, bytes.NewReader(make([]byte, 1000)), []string{
		"Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("%d-%d", s.acked, s.acked+999)}, 416)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if end, err := rangeEnd(res.Header.Get("Range")); err != nil || end != s.acked {
		t.Errorf("Range %q, %d bytes were acknowledged", res.Header.Get("Range"), s.acked)
	}
	if err := finish(); err != nil {
		t.Fatal(err)
	}
	s.acked = s.content.size
	p.finish(t, p.two, s)
}

// TestSameBlobThroughBoth: the same bytes are pushed through both at once, and
// once is what stays of them.
func TestSameBlobThroughBoth(t *testing.T) {
	p := newPair(t)
	for i := range 10 {
		content := stuff{uint64(5040 + i), 300_000}
		if err := together([]*api{p.one, p.two, p.one, p.two}, func(a *api) error {
			_, err := a.pushBlob(p.repo, content.bytes())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		p.serve(t, content)
	}
}

// TestTagMovesAreSeenAtOnce by the other replica, as are deletes.
func TestTagMovesAreSeenAtOnce(t *testing.T) {
	p := newPair(t)
	here, there := &repo{t, p.one, p.repo}, &repo{t, p.two, p.repo}
	for i := range 20 {
		image := here.pushImage("latest", uint64(5060+i))
		there.same("latest", image.Digest)
		here, there = there, here
	}
	if _, err := p.one.send("DELETE", "/v2/"+p.repo+"/manifests/latest", nil, nil, 202); err != nil {
		t.Fatal(err)
	}
	(&repo{t, p.two, p.repo}).gone("latest")
}

// TestRevocationReachesBoth: a second after a key is revoked at one replica, it
// opens nothing at the other any more, and neither do tokens that it got.
func TestRevocationReachesBoth(t *testing.T) {
	p := newPair(t)
	project, _, _ := strings.Cut(p.repo, "/")
	p.g1.berth("project", "create", project)
	key := p.g1.key("ci", "--project", project, "--role", "writer")
	(&repo{t, p.one, p.repo}).pushImage("v1", 5080)
	holder := p.g2.as(key)
	scope := "repository:" + p.repo + ":pull,push"
	bearer := p.g2.bearer(p.g2.token(key, scope).Token)
	s := p.begin(t, bearer, 5081, 8<<20)
	p.patch(t, bearer, s, 4<<20)
	for _, a := range []*api{holder, bearer} {
		if _, err := a.send("GET", "/v2/"+p.repo+"/manifests/v1", nil, nil, 200); err != nil {
			t.Fatal(err)
		}
	}

	p.g1.berth("key", "revoke", "ci", "--project", project)
	time.Sleep(time.Second)
	for what, a := range map[string]*api{"key": holder, "token of the key": bearer} {
		for _, request := range [][2]string{{"GET", "/v2/" + p.repo + "/manifests/v1"}, {"GET", s.path}, {"POST", "/v2/" + p.repo + "/blobs/uploads/"}} {
			if _, err := a.send(request[0], request[1], nil, nil, 401); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	q := url.Values{"service": {p.g2.service}, "account": {key.user}, "scope": {scope}}
	if _, err := holder.send("GET", "/auth/token?"+q.Encode(), nil, nil, 401); err != nil {
		t.Error(err)
	}
	if err := s.patch(bearer, 1<<20); err == nil {
		t.Error("the upload goes on")
	}
}

// TestTokensOfEither: a token of one replica is good at the other at once, also
// right after the signing key was replaced at one of them; a second after all
// keys were revoked, because the other goes on with its own until it notices.
func TestTokensOfEither(t *testing.T) {
	p := newPair(t)
	(&repo{t, p.one, p.repo}).pushImage("v1", 5090)
	admin := credential{"admin", p.key}
	for _, rotate := range [][]string{nil, {"token", "rotate-keys"}, {"token", "rotate-keys", "--revoke"}} {
		if rotate != nil {
			p.g1.berth(rotate...)
		}
		if slices.Contains(rotate, "--revoke") {
			time.Sleep(time.Second)
		}
		for range 5 {
			for from, to := range map[*guarded]*guarded{p.g1: p.g2, p.g2: p.g1} {
				token := from.token(admin, "repository:"+p.repo+":pull").Token
				if _, err := to.bearer(token).send("GET", "/v2/"+p.repo+"/manifests/v1", nil, nil, 200); err != nil {
					t.Errorf("after %q: %v", rotate, err)
				}
			}
		}
	}
}

// TestPasswordChangedElsewhere: a second after a password was changed at one
// replica, the other takes the new one and not the old one.
func TestPasswordChangedElsewhere(t *testing.T) {
	p := newPair(t)
	name := "changed-elsewhere"
	old := p.g1.user(name)
	if _, err := p.g2.as(old).send("GET", "/v2/", nil, nil, 200); err != nil {
		t.Fatal(err)
	}
	changed := credential{name, "another/password:of 1"}
	p.g1.berthIn(changed.secret, "user", "password", name, "--password-stdin")
	time.Sleep(time.Second)
	if _, err := p.g2.as(changed).send("GET", "/v2/", nil, nil, 200); err != nil {
		t.Error("the new one:", err)
	}
	if _, err := p.g2.as(old).send("GET", "/v2/", nil, nil, 401); err != nil {
		t.Error("the old one:", err)
	}
}

// TestRatesOfBoth: the replicas let pass together exactly what the plan says.
func TestRatesOfBoth(t *testing.T) {
	p := newPair(t)
	project, _, _ := strings.Cut(p.repo, "/")
	p.g1.berth("project", "create", project)
	(&repo{t, p.one, p.repo}).pushImage("v1", 5100)
	p.g1.berth("plan", "create", "fifty", "--rate", "project=50/minute")
	p.g1.berth("project", "set", project, "--plan", "fifty")
	time.Sleep(time.Second) // for the other to notice
	total := map[int]int{}
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, a := range []*api{p.one, p.two} {
		wait.Go(func() {
			count, _ := burst(t, a, 40, "/v2/"+p.repo+"/tags/list")
			mu.Lock()
			defer mu.Unlock()
			for status, n := range count {
				total[status] += n
			}
		})
	}
	wait.Wait()
	if want := map[int]int{200: 50, 429: 30}; !maps.Equal(total, want) {
		t.Errorf("%v, want %v", total, want)
	}
}

// TestReplicasExample types what the example says to type next, and finds all
// of its commands in its README.
func TestReplicasExample(t *testing.T) {
	f := sharedFleet(t)
	docker := newDocker(t)
	docker.run("build", "-t", "local", docker.buildContext(5200))
	said, err := f.script("up").Output() // once more: all runs already
	if err != nil {
		t.Fatal(err)
	}
	_, next, _ := strings.Cut(string(said), "\n")
	if n := strings.Count(next, "\n"); n != 2 {
		t.Fatalf("it says to type %d lines: %s", n, said)
	}
	next = strings.ReplaceAll(strings.ReplaceAll(next, "/IMAGE", "/local"), "IMAGE", "local")
	shell(t, docker.home, append(docker.env, "DOCKER_HOST="+docker.args[1]), next)
	(&repo{t, f.through(t).root(), "demo/local"}).verify("latest")

	readme := readFile(t, filepath.Dir(fleetScript), "README.md")
	for _, command := range append([]string{"run DIR up", "run DIR down", "run DIR start PART", "run DIR kill PART", "run DIR env"}, parts...) {
		if !strings.Contains(readme, "`"+command+"`") {
			t.Errorf("README.md lacks %q", command)
		}
	}
	for _, name := range []string{"BERTH_1", "BERTH_2", "ADMIN_1", "ADMIN_2"} {
		if _, err := newAPI(f.env[name]).send("GET", "/readyz", nil, nil, 200); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
