package test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// burst asks n times at once and counts the answers by their status. It returns
// the header of some answer of each status.
func burst(t *testing.T, a *api, n int, path string, header ...string) (count map[int]int, some map[int]http.Header) {
	t.Helper()
	count, some = map[int]int{}, map[int]http.Header{}
	var mu sync.Mutex
	var wait sync.WaitGroup
	work := make(chan int)
	for range 8 {
		wait.Go(func() {
			for range work {
				res, err := a.call("GET", path, nil, header, 200, 401, 404, 429)
				if err != nil {
					t.Error(err)
					continue
				}
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				mu.Lock()
				if err != nil {
					t.Error(err)
				}
				count[res.StatusCode]++
				some[res.StatusCode] = res.Header
				mu.Unlock()
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wait.Wait()
	return count, some
}

// TestRequestsPerMinute: exactly as many pass as the plan says, whoever of the
// project's members asks and whether or not the server is started anew.
func TestRequestsPerMinute(t *testing.T) {
	w := newTeam(t)
	w.repo(w.root(), "acme/app").pushImage("v1", 2100)
	const path = "/v2/acme/app/tags/list"
	w.berth("plan", "create", "small", "--rate", "project=50/minute")
	w.berth("project", "set", "acme", "--plan", "small")
	began := time.Now()
	byAlice, _ := burst(t, w.as(w.alice), 20, path)
	w.restart()
	byBob, _ := burst(t, w.as(w.bob), 20, path)
	w.kill() // what it had not used of its share is lost until the window has passed
	w.start()
	byKey, refused := burst(t, w.as(w.projectKey), 40, path)
	if passed := byAlice[200] + byBob[200] + byKey[200]; passed > 50 || passed < 49 || byAlice[200] != 20 || byBob[200] != 20 {
		t.Errorf("%v, %v and %v passed within %v, want 20, 20 and 10", byAlice, byBob, byKey, time.Since(began))
	}
	h := refused[429]
	if h == nil {
		t.Fatalf("nobody was refused: %v", byKey)
	}
	wait, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || wait < 1 || wait > 62 {
		t.Errorf("Retry-After: %q", h.Get("Retry-After"))
	}
	for name, want := range map[string]string{
		"RateLimit-Limit": "50", "RateLimit-Remaining": "0", "RateLimit-Reset": h.Get("Retry-After"), "RateLimit-Policy": "50;w=60",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	refusal(t, w.as(w.bob), "GET", path, 429, "TOOMANYREQUESTS")

	crane := newClient(t, "crane")
	crane.run("auth", "login", w.host(), "-u", w.alice.user, "-p", w.alice.secret)
	if said, err := crane.all("manifest", w.host()+"/acme/app:v1"); err == nil || !strings.Contains(said, "TOOMANYREQUESTS") {
		t.Errorf("crane: %v\n%s", err, said)
	}
	// Other projects have their own, and whom the policy refuses uses nothing up.
	w.berth("project", "create", "other")
	w.berth("project", "set", "other", "--plan", "small")
	if refused, _ := burst(t, w.as(w.bob), 60, "/v2/other/app/tags/list"); refused[404] != 60 {
		t.Errorf("requests of somebody without a right: %v", refused)
	}
	root, _ := burst(t, w.root(), 60, "/v2/other/app/tags/list")
	if root[404] != 50 || root[429] != 10 {
		t.Errorf("the other project: %v, want 50 times 404 and 10 times 429", root)
	}
}

// TestRequestsPerIdentity counts a user by all that stands for them, and a wait
// as long as the answer says is long enough.
func TestRequestsPerIdentity(t *testing.T) {
	w := newTeam(t)
	w.repo(w.root(), "acme/app").pushImage("v1", 2110)
	const path = "/v2/acme/app/tags/list"
	w.berth("plan", "set", "default", "--rate", "identity=50/minute")
	byPassword, _ := burst(t, w.as(w.alice), 25, path)
	byKey, _ := burst(t, w.as(w.aliceKey), 50, path)
	if passed := byPassword[200] + byKey[200]; passed != 50 || byKey[429] != 25 {
		t.Errorf("%v and %v, want 50 to pass", byPassword, byKey)
	}
	if bob, _ := burst(t, w.as(w.bob), 10, path); bob[200] != 10 {
		t.Errorf("another user: %v", bob)
	}
}

// TestForgedAddress: nobody is somewhere else by saying so.
func TestForgedAddress(t *testing.T) {
	w := newTeam(t)
	w.berth("project", "set", "acme", "--visibility", "public")
	w.repo(w.root(), "acme/app").pushImage("v1", 2120)
	here := w.key("here", "--project", "acme", "--role", "writer", "--address", "192.0.2.0/24")
	const path = "/v2/acme/app/manifests/v1"
	w.berth("plan", "set", "default", "--rate", "address=50/minute")
	const forged = "192.0.2.7"
	headers := [][]string{{"X-Forwarded-For", forged}, {"Forwarded", "for=" + forged}, {"X-Real-IP", forged}, {"X-Forwarded-For", "10.0.0.1, " + forged}}
	total := map[int]int{}
	for _, header := range headers {
		count, _ := burst(t, w.api, 20, path, header...)
		total[200], total[429] = total[200]+count[200], total[429]+count[429]
	}
	if total[200] != 50 || total[429] != 30 {
		t.Errorf("with forged headers: %v, want 50 to pass", total)
	}
	w.berth("plan", "set", "default", "--no-rates")
	for _, header := range headers {
		refusalWith(t, w.as(here), path, 401, header)
	}
	if trail := w.trail(); strings.Contains(trail, forged) {
		t.Error("the audit trail believes a forged address")
	}

	w.settings = append(w.settings, "BERTH_HTTP_TRUSTED_PROXIES=127.0.0.1")
	w.restart()
	w.berth("plan", "set", "default", "--rate", "address=50/minute")
	for _, from := range []string{"198.51.100.1", "198.51.100.2"} {
		if count, _ := burst(t, w.api, 60, path, "X-Forwarded-For", from); count[200] != 50 || count[429] != 10 {
			t.Errorf("from %s: %v, want 50 to pass", from, count)
		}
	}
	// What the client says to the proxy is not the proxy's word.
	if count, _ := burst(t, w.api, 10, path, "X-Forwarded-For", "203.0.113.9, 198.51.100.2"); count[429] != 10 {
		t.Errorf("with a forged address in front of the true one: %v", count)
	}
	refusalWith(t, w.as(here), path, 401, []string{"X-Forwarded-For", "198.51.100.3"})
	refusalWith(t, w.as(here), path, 401, []string{"X-Forwarded-For", forged + ", 198.51.100.3"})
	refusalWith(t, w.as(here), path, 200, []string{"X-Forwarded-For", forged})
	if trail := w.trail(); !strings.Contains(trail, `"address":"`+forged+`"`) {
		t.Error("the audit trail lacks the address that the proxy told")
	}
}

// refusalWith wants a status of a request with one more header.
func refusalWith(t *testing.T, a *api, path string, want int, header []string) {
	t.Helper()
	if _, err := a.send("GET", path, nil, header, want); err != nil {
		t.Errorf("%q: %v", header, err)
	}
}

// trail is the audit trail when all that waits has been written.
func (g *guarded) trail() string {
	g.t.Helper()
	g.restart()
	return g.berth("audit", "export")
}

// TestRefusedLogInsAreBounded: guessing ends with 429, of one name only, and the
// same wrong secret again and again is one guess.
func TestRefusedLogInsAreBounded(t *testing.T) {
	w := newTeam(t)
	wrong := w.as(w.wrong(w.alice))
	for range 30 {
		refusal(t, wrong, "GET", "/v2/", 401, "UNAUTHORIZED")
	}
	refusal(t, w.api, "GET", "/v2/", 401, "UNAUTHORIZED")
	if _, err := w.as(w.alice).send("GET", "/v2/", nil, nil, 200); err != nil {
		t.Errorf("after one wrong secret: %v", err)
	}
	throttled := false
	for i := range 20 {
		guess := w.as(credential{"alice", w.hide("guess number " + strconv.Itoa(i))})
		h, err := guess.send("GET", "/v2/", nil, nil, 401, 429)
		if err != nil {
			t.Fatal(err)
		}
		if wait := h.Get("Retry-After"); wait != "" {
			throttled = true
		}
	}
	if !throttled {
		t.Error("20 guesses were looked at")
	}
	refusal(t, w.as(credential{"alice", w.hide("one guess more")}), "GET", "/v2/", 429, "TOOMANYREQUESTS")
	for _, c := range []credential{w.bob, w.bobReader, w.projectKey} {
		if _, err := w.as(c).send("GET", "/v2/", nil, nil, 200); err != nil {
			t.Errorf("somebody else: %v", err)
		}
	}
}

// TestLogInFlood: guesses at many names from everywhere hold up neither pulls
// nor those who know their password.
func TestLogInFlood(t *testing.T) {
	w := newTeam(t, "BERTH_HTTP_TRUSTED_PROXIES=127.0.0.1")
	image := w.repo(w.as(w.alice), "acme/app").pushImage("v1", 2130)
	carol := w.user("carol") // whom the server does not remember
	puller := w.bearer(w.token(w.bob, "repository:acme/app:pull").Token)
	var wait sync.WaitGroup
	var mu sync.Mutex
	over := make(chan struct{})
	answers := map[int]int{}
	for i := range 32 {
		wait.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-over:
					return
				default:
				}
				from := fmt.Sprintf("10.%d.%d.%d", i, n/250, n%250)
				a := w.with(basicHeader(fmt.Sprint("somebody", i, "-", n), "guess"))
				res, err := a.call("GET", "/v2/", nil, []string{"X-Forwarded-For", from}, 401, 429, 503)
				if err != nil {
					t.Error(err)
					return
				}
				res.Body.Close()
				mu.Lock()
				answers[res.StatusCode]++
				mu.Unlock()
			}
		})
	}
	var took []time.Duration
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		asked := time.Now()
		if _, err := puller.send("GET", "/v2/acme/app/manifests/"+image.Digest, nil, nil, 200); err != nil {
			t.Error(err)
		}
		took = append(took, time.Since(asked))
	}
	asked := time.Now()
	if _, err := w.as(w.aliceKey).send("GET", "/v2/", nil, nil, 200); err != nil {
		t.Errorf("log-in with a key: %v", err)
	}
	if _, err := w.as(carol).send("GET", "/v2/", nil, nil, 200); err != nil {
		t.Errorf("log-in with a password: %v", err)
	}
	loggedIn := time.Since(asked)
	close(over)
	wait.Wait()
	slices.Sort(took)
	median := took[len(took)/2]
	t.Logf("%d pulls, half of them within %v; log-ins within %v; guesses: %v", len(took), median, loggedIn, answers)
	if median > 100*time.Millisecond {
		t.Errorf("a pull takes %v during a flood of log-ins", median)
	}
}
