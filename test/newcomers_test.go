package test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// newDockerWith is a docker with an image of its own, and how it pushes that.
func newDockerWith(t *testing.T, seed uint64) (docker *client, push func(ref string) (said string, err error)) {
	t.Helper()
	docker = newDocker(t)
	docker.run("build", "-t", "local", docker.buildContext(seed))
	return docker, func(ref string) (string, error) {
		docker.run("tag", "local", ref)
		return docker.all("push", ref)
	}
}

// TestNewcomersOpen: anybody pushes to a project that nobody has, and it stays
// so, whoever pushes.
func TestNewcomersOpen(t *testing.T) {
	w := newTeam(t, "BERTH_PROJECTS_NEWCOMERS=open")
	docker, push := newDockerWith(t, 2000)
	ref := w.host() + "/free/app:"
	for i, c := range []*credential{nil, &w.alice, nil} {
		if c != nil {
			docker.run("login", "-u", c.user, "-p", c.secret, w.host())
		}
		if said, err := push(fmt.Sprint(ref, "v", i)); err != nil {
			t.Fatalf("push %d: %v\n%s", i, err, said)
		}
		docker.run("rmi", fmt.Sprint(ref, "v", i))
		if c != nil {
			docker.run("logout", w.host())
		}
		docker.run("pull", fmt.Sprint(ref, "v", i))
	}
	w.repo(w.api, "free/app").hasTags("v0", "v1", "v2")
	equal(t, "members", w.owners("free"), "")
	refusal(t, w.api, "DELETE", "/v2/free/app/manifests/v1", 401, "UNAUTHORIZED")
	refusal(t, w.as(w.alice), "DELETE", "/v2/free/app/manifests/v1", 403, "DENIED")
	refusal(t, w.api, "POST", "/v2/acme/app/blobs/uploads/", 401, "UNAUTHORIZED")
	refusal(t, w.as(w.alice), "POST", "/v2/secret/app/blobs/uploads/", 403, "DENIED")
}

// TestNewcomersClosed is how a server is that was told nothing.
func TestNewcomersClosed(t *testing.T) {
	w := newTeam(t)
	docker, push := newDockerWith(t, 2010)
	if said, err := push(w.host() + "/free/app:v1"); err == nil || !strings.Contains(said, "unauthorized: authentication required") {
		t.Errorf("%v\n%s", err, said)
	}
	// One for each layer: a 401 is no reason to try again.
	if tries := strings.Count(readFile(t, w.log), "path=/v2/free/app/blobs/uploads/"); tries > 3 {
		t.Errorf("docker tries %d times to upload 3 layers", tries)
	}
	docker.run("login", "-u", w.alice.user, "-p", w.alice.secret, w.host())
	if said, err := push(w.host() + "/free/app:v1"); err == nil || !strings.Contains(said, "denied") {
		t.Errorf("%v\n%s", err, said)
	}
	if list := w.berth("project", "ls"); strings.Contains(list, "free") {
		t.Errorf("a refused push makes a project:\n%s", list)
	}
}

// owners are the members of a project that own it.
func (w *team) owners(project string) (names string) {
	w.t.Helper()
	var list []struct{ Name, Role string }
	text := w.berth("member", "ls", project, "--json")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		w.t.Fatalf("%v: %s", err, text)
	}
	for _, m := range list {
		if m.Role == "owner" {
			names += m.Name
		}
	}
	return names
}

// TestNewcomersClaim: who pushes first with a log-in owns what nobody had.
func TestNewcomersClaim(t *testing.T) {
	w := newTeam(t, "BERTH_PROJECTS_NEWCOMERS=claim")
	docker, push := newDockerWith(t, 2020)
	ref := w.host() + "/found/app:"
	if said, err := push(ref + "v1"); err != nil {
		t.Fatalf("anonymous push: %v\n%s", err, said)
	}
	// Neither a project's key nor a pull claims anything.
	docker.run("login", "-u", w.projectKey.user, "-p", w.projectKey.secret, w.host())
	if said, err := push(ref + "v2"); err != nil {
		t.Fatalf("push by a key of another project: %v\n%s", err, said)
	}
	docker.run("login", "-u", w.bob.user, "-p", w.bob.secret, w.host())
	docker.run("pull", ref+"v1")
	equal(t, "owners before the claim", w.owners("found"), "")

	docker.run("login", "-u", w.alice.user, "-p", w.alice.secret, w.host())
	if said, err := push(ref + "v3"); err != nil {
		t.Fatalf("the push that claims: %v\n%s", err, said)
	}
	equal(t, "owners", w.owners("found"), "alice")
	docker.run("pull", ref+"v1")
	docker.run("logout", w.host())
	if said, err := push(ref + "v1"); err == nil || !strings.Contains(said, "unauthorized: authentication required") {
		t.Errorf("anonymous push to alice's project: %v\n%s", err, said)
	}
	if said, err := docker.all("pull", ref+"v1"); err == nil {
		t.Errorf("anonymous pull from alice's project: %s", said)
	}
	refusal(t, w.api, "POST", "/v2/found/app/blobs/uploads/", 401, "UNAUTHORIZED")
	refusal(t, w.as(w.bob), "POST", "/v2/found/app/blobs/uploads/", 403, "DENIED")
	refusal(t, w.as(w.projectKey), "POST", "/v2/found/app/blobs/uploads/", 403, "DENIED")
	if _, err := w.as(w.alice).send("DELETE", "/v2/found/app/manifests/v2", nil, nil, 202); err != nil {
		t.Error(err)
	}
}

// TestClaimRace has two users push to a new project at once, again and again.
func TestClaimRace(t *testing.T) {
	w := newTeam(t, "BERTH_PROJECTS_NEWCOMERS=claim")
	type racer struct {
		credential
		crane *client
		layer string
	}
	var racers [2]racer
	for i, c := range []credential{w.alice, w.bob} {
		crane := newClient(t, "crane")
		crane.run("auth", "login", w.host(), "-u", c.user, "-p", c.secret)
		racers[i] = racer{c, crane, crane.file("layer.tar", layerTar(c.user, stuff{2030 + uint64(i), 50_000}.bytes()))}
	}
	wins := map[string]int{}
	for round := range 20 {
		name := fmt.Sprintf("race%d/app", round)
		type result struct {
			racer int
			said  string
			err   error
		}
		results := make(chan result)
		for i, r := range racers {
			go func() {
				said, err := r.crane.all("append", "--oci-empty-base", "-f", r.layer, "-t", w.host()+"/"+name+":"+r.user)
				results <- result{i, said, err}
			}()
		}
		winner := ""
		for range racers {
			r := <-results
			switch {
			case r.err == nil:
				winner += racers[r.racer].user
			case !strings.Contains(r.said, "DENIED"):
				t.Errorf("round %d: %s: %v\n%s", round, racers[r.racer].user, r.err, r.said)
			}
		}
		if winner != "alice" && winner != "bob" {
			t.Fatalf("round %d: the winners are %q", round, winner)
		}
		wins[winner]++
		equal(t, "owner", w.owners(strings.Split(name, "/")[0]), winner)
		w.repo(w.root(), name).hasTags(winner)
	}
	t.Logf("wins: %v", wins)
}
