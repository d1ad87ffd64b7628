package credential

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/registry"
)

// world is a registry and its token service, at one address, as a test scripts
// them, and the clock.
type world struct {
	t   *testing.T
	url *url.URL

	mu        sync.Mutex
	challenge string // of the registry, to who has no valid token; %[1]s: the address, %[2]s: the repository
	grant     func(w http.ResponseWriter, r *http.Request)
	valid     map[string]bool // values of Authorization
	asked     []*http.Request // of the token service; with their forms
	seen      []*http.Request // of the registry
	now       time.Time
}

const usualChallenge = `Bearer realm="%[1]s/token",service="s",scope="repository:%[2]s:pull"`

func newWorld(t *testing.T) *world {
	x := &world{t: t, challenge: usualChallenge, valid: map[string]bool{}, now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	server := httptest.NewServer(x)
	t.Cleanup(server.Close)
	x.url, _ = url.Parse(server.URL)
	n := 0
	x.grant = func(w http.ResponseWriter, r *http.Request) {
		n++
		x.give(w, fmt.Sprintf("token-%d", n), `"expires_in":300`)
	}
	return x
}

// give answers with a token, which is valid from then on. The mutex is held.
func (x *world) give(w http.ResponseWriter, token, more string) {
	x.valid["Bearer "+token] = true
	if more != "" {
		more = "," + more
	}
	fmt.Fprintf(w, `{"token":%q%s}`, token, more)
}

func (x *world) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r.ParseForm()
	w.Header()["Date"] = []string{x.now.Format(http.TimeFormat)}
	if r.URL.Path == "/token" {
		x.asked = append(x.asked, r)
		x.grant(w, r)
		return
	}
	x.seen = append(x.seen, r)
	if !x.valid[r.Header.Get("Authorization")] {
		if repo := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v2/"), "/tags/list"); x.challenge != "" {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(x.challenge, "http://"+r.Host, repo))
		}
		w.WriteHeader(http.StatusUnauthorized)
	}
}

func (x *world) authorizer(s Source, listed ...string) *Authorizer {
	return NewAuthorizer(s, http.DefaultTransport, Options{Upstream: x.url, Realms: listed, Now: func() time.Time {
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.now
	}})
}

func (x *world) later(d time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.now = x.now.Add(d)
}

// set changes the script.
func (x *world) set(change func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	change()
}

// requests counts those to the token service.
func (x *world) requests() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.asked)
}

// pull asks for a repository as a client does: once, and once more if it is
// worth it. It returns the last status.
func (x *world) pull(a *Authorizer, repo string) (int, error) {
	for try := 1; ; try++ {
		sent, err := a.Authorization(context.Background(), repo)
		if err != nil {
			return 0, err
		}
		req, _ := http.NewRequest(http.MethodGet, x.url.String()+"/v2/"+repo+"/tags/list", nil)
		if sent != "" {
			req.Header.Set("Authorization", sent)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized || try == 2 {
			return resp.StatusCode, nil
		}
		if retry, err := a.Challenged(context.Background(), repo, sent, resp.Header); !retry {
			return resp.StatusCode, err
		}
	}
}

func (x *world) want(a *Authorizer, repo string, status int) {
	x.t.Helper()
	if got, err := x.pull(a, repo); got != status || err != nil {
		x.t.Fatalf("%s: got %d, %v; want %d", repo, got, err, status)
	}
}

func (x *world) wantRequests(n int) {
	x.t.Helper()
	if got := x.requests(); got != n {
		x.t.Fatalf("the token service was asked %d times, want %d", got, n)
	}
}

func TestTokens(t *testing.T) {
	x := newWorld(t)
	a := x.authorizer(Basic("me", "secret"))
	x.want(a, "team/app", 200)
	x.want(a, "team/app", 200)
	x.wantRequests(1)
	r := x.asked[0]
	if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" || r.Method != http.MethodGet {
		t.Errorf("asked with %s, %q, %q", r.Method, user, password)
	}
	if q := r.URL.Query(); q.Get("service") != "s" || q.Get("scope") != "repository:team/app:pull" || len(q) != 2 {
		t.Errorf("asked for %v", q)
	}
	for _, r := range x.seen {
		if strings.HasPrefix(r.Header.Get("Authorization"), "Basic") {
			t.Error("the password went to a registry that wants tokens")
		}
	}
	// The way is known: no refusal comes before the token of another repository.
	before := len(x.seen)
	x.want(a, "team/other", 200)
	x.wantRequests(2)
	if len(x.seen) != before+1 {
		t.Errorf("%d requests for another repository", len(x.seen)-before)
	}
	if scope := x.asked[1].URL.Query().Get("scope"); scope != "repository:team/other:pull" {
		t.Errorf("asked for %q", scope)
	}
	if _, err := a.Authorization(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if scope := x.asked[2].URL.Query().Get("scope"); scope != "registry:catalog:*" {
		t.Errorf("asked for %q", scope)
	}
}

// TestTokensEnd: a token is got anew when two thirds of its life are over, by
// nobody's waiting; a token that has ended is not sent.
func TestTokensEnd(t *testing.T) {
	header, payload := base64.RawURLEncoding.EncodeToString([]byte(`{}`)), base64.RawURLEncoding.EncodeToString
	for what, c := range map[string]struct {
		token, more string
		life        time.Duration
	}{
		"expires_in":             {"t", `"expires_in":300`, 300 * time.Second},
		"no word":                {"t", ``, time.Minute},
		"zero":                   {"t", `"expires_in":0`, time.Minute},
		"negative":               {"t", `"expires_in":-5`, time.Minute},
		"nonsense":               {"t", `"expires_in":"soon"`, time.Minute},
		"text":                   {"t", `"expires_in":"600"`, 600 * time.Second},
		"a fraction":             {"t", `"expires_in":90.5`, 90500 * time.Millisecond},
		"too much":               {"t", `"expires_in":1e300`, 24 * time.Hour},
		"issued a while ago":     {"t", `"expires_in":300,"issued_at":"2029-12-31T23:58:20Z"`, 200 * time.Second},
		"issued in the future":   {"t", `"expires_in":300,"issued_at":"2030-01-01T00:05:00Z"`, 300 * time.Second},
		"issued at no time":      {"t", `"expires_in":300,"issued_at":"0001-01-01T00:00:00Z"`, 300 * time.Second},
		"a JWT, no word":         {header + "." + payload([]byte(`{"exp":1893459600}`)) + ".x", ``, time.Hour},
		"a JWT that ends before": {header + "." + payload([]byte(`{"exp":1893456100}`)) + ".x", `"expires_in":300`, 100 * time.Second},
		"a JWT that ends later":  {header + "." + payload([]byte(`{"exp":1893459600}`)) + ".x", `"expires_in":300`, 300 * time.Second},
		"a JWT of the past":      {header + "." + payload([]byte(`{"exp":1}`)) + ".x", ``, time.Minute},
	} {
		t.Run(what, func(t *testing.T) {
			x := newWorld(t)
			a := x.authorizer(Anonymous())
			x.grant = func(w http.ResponseWriter, r *http.Request) { x.give(w, c.token, c.more) }
			x.want(a, "a", 200)
			x.later(c.life/3*2 - 2*time.Second)
			x.want(a, "a", 200)
			x.wantRequests(1)
			renewed := make(chan struct{})
			x.set(func() {
				x.grant = func(w http.ResponseWriter, r *http.Request) {
					close(renewed)
					x.give(w, "second", `"expires_in":300`)
				}
			})
			x.later(3 * time.Second)
			x.want(a, "a", 200) // with the first, while the second is got
			select {
			case <-renewed:
			case <-time.After(10 * time.Second):
				t.Fatal("it is not renewed")
			}
			x.wantRequests(2)
		})
	}
}

// TestClocksDiffer: how old a token is says the clock that issued it.
func TestClocksDiffer(t *testing.T) {
	for _, skew := range []time.Duration{-time.Hour, time.Hour} {
		x := newWorld(t)
		x.grant = func(w http.ResponseWriter, r *http.Request) {
			x.give(w, "t", fmt.Sprintf(`"expires_in":300,"issued_at":%q`, x.now.Format(time.RFC3339)))
		}
		a := x.authorizer(Anonymous())
		now := a.o.Now
		a.o.Now = func() time.Time { return now().Add(skew) }
		for range 3 {
			x.want(a, "a", 200)
		}
		x.wantRequests(1)
	}
}

func TestATokenThatHasEndedIsNotSent(t *testing.T) {
	x := newWorld(t)
	a := x.authorizer(Anonymous())
	x.want(a, "a", 200)
	x.later(299 * time.Second)
	x.set(func() { delete(x.valid, "Bearer token-1") })
	before := len(x.seen)
	x.want(a, "a", 200)
	x.wantRequests(2)
	if len(x.seen) != before+1 {
		t.Error("the token that had ended was sent")
	}
}

// TestRenewalFails: the token that still holds serves, and the service is left
// alone for a while.
func TestRenewalFails(t *testing.T) {
	x := newWorld(t)
	a := x.authorizer(Anonymous())
	x.want(a, "a", 200)
	failed := make(chan struct{}, 100)
	x.set(func() {
		x.grant = func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			failed <- struct{}{}
		}
	})
	x.later(250 * time.Second)
	x.want(a, "a", 200)
	<-failed
	a.settle()
	for range 5 {
		x.want(a, "a", 200)
	}
	x.wantRequests(2)
	x.later(renewPause)
	x.want(a, "a", 200)
	<-failed
	a.settle()
	x.later(time.Minute)
	_, err := x.pull(a, "a")
	if !registry.IsCode(err, registry.Unavailable) {
		t.Errorf("got %v when it had ended", err)
	}
}

// settle waits for the tokens that are being got.
func (a *Authorizer) settle() {
	a.tokens.mu.Lock()
	defer a.tokens.mu.Unlock()
	for e := a.tokens.order.Front(); e != nil; e = e.Next() {
		n := e.Value.(*token)
		n.mu.Lock()
		c := n.call
		n.mu.Unlock()
		if c != nil {
			<-c.done
		}
	}
}

// TestARevokedTokenIsReplaced once; a fresh token that is refused is not.
func TestARevokedTokenIsReplaced(t *testing.T) {
	x := newWorld(t)
	a := x.authorizer(Anonymous())
	x.want(a, "a", 200)
	x.want(a, "a", 200)
	x.set(func() { clear(x.valid) })
	x.want(a, "a", 200)
	x.wantRequests(2)

	x.set(func() {
		clear(x.valid)
		x.grant = func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"token":"worthless"}`) }
	})
	x.want(a, "denied", 401)
	x.wantRequests(3)
}

func TestOneRequestForAll(t *testing.T) {
	x := newWorld(t)
	a := x.authorizer(Anonymous())
	x.want(a, "known", 200)
	arrived, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	a.client.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		once.Do(func() { close(arrived) })
		<-release
		return http.DefaultTransport.RoundTrip(r)
	})
	// The first who asks gives up; the others get what was asked for it.
	ctx, giveUp := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := a.Authorization(ctx, "a")
		first <- err
	}()
	<-arrived
	giveUp()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up got %v", err)
	}
	var waiting sync.WaitGroup
	var started sync.WaitGroup
	values := make([]string, 20)
	for i := range values {
		started.Add(1)
		waiting.Go(func() {
			started.Done()
			values[i], _ = a.Authorization(t.Context(), "a")
		})
	}
	started.Wait()
	close(release)
	waiting.Wait()
	for i, value := range values {
		if value != "Bearer token-2" {
			t.Errorf("%d got %q", i, value)
		}
	}
	x.wantRequests(2)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestManyAreRefusedAtOnce: of all whose token is refused one gets another.
func TestManyAreRefusedAtOnce(t *testing.T) {
	x := newWorld(t)
	a := x.authorizer(Anonymous())
	x.want(a, "a", 200)
	x.want(a, "a", 200)
	old, err := a.Authorization(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{"Www-Authenticate": {fmt.Sprintf(usualChallenge, x.url, "a")}}
	var waiting sync.WaitGroup
	var retries atomic.Int32
	for range 20 {
		waiting.Go(func() {
			if retry, err := a.Challenged(t.Context(), "a", old, header); retry && err == nil {
				retries.Add(1)
			}
		})
	}
	waiting.Wait()
	x.wantRequests(2)
	if retries.Load() != 20 {
		t.Errorf("%d of 20 may try again", retries.Load())
	}
}

func TestScopes(t *testing.T) {
	for what, c := range map[string]struct {
		challenge   string
		scope, next []string
		requests    int // for two repositories
	}{
		"one for all":    {`Bearer realm="%s/token",service="container_registry",scope="*"`, []string{"*"}, nil, 1},
		"none":           {`Bearer realm="%s/token",service="s"`, []string{"repository:team/a:pull"}, []string{"repository:team/b:pull"}, 2},
		"prefixed":       {`Bearer realm="%s/token",service="s",scope="repository:hub/%s:pull"`, []string{"repository:hub/team/a:pull"}, []string{"repository:hub/team/b:pull"}, 2},
		"more than pull": {`Bearer realm="%s/token",service="s",scope="repository:%s:pull,push"`, []string{"repository:team/a:pull"}, []string{"repository:team/b:pull"}, 2},
	} {
		t.Run(what, func(t *testing.T) {
			x := newWorld(t)
			x.challenge = c.challenge
			a := x.authorizer(Anonymous())
			before := len(x.seen)
			x.want(a, "team/a", 200)
			x.want(a, "team/b", 200)
			x.wantRequests(c.requests)
			if n := len(x.seen) - before; n != 3 {
				t.Errorf("%d requests", n)
			}
			for i, want := range [][]string{c.scope, c.next} {
				if got := x.asked[min(i, c.requests-1)].URL.Query()["scope"]; want != nil && fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("asked for %q, want %q", got, want)
				}
			}
		})
	}
	// A registry that calls a repository otherwise is believed about that one.
	x := newWorld(t)
	x.challenge = `Bearer realm="%s/token",service="s",scope="repository:elsewhere:pull repository:too:pull"`
	a := x.authorizer(Anonymous())
	x.want(a, "team/a", 200)
	x.want(a, "team/a", 200)
	x.wantRequests(1)
	if got := x.asked[0].URL.Query()["scope"]; fmt.Sprint(got) != "[repository:elsewhere:pull repository:too:pull]" {
		t.Errorf("asked for %q", got)
	}
}

func TestTokensAreBounded(t *testing.T) {
	x := newWorld(t)
	a := x.authorizer(Anonymous())
	x.want(a, "a", 200)
	for i := range maxTokens + 10 {
		a.tokens.of(fmt.Sprint(i), "")
	}
	if len(a.tokens.byKey) != maxTokens || a.tokens.order.Len() != maxTokens {
		t.Errorf("%d, %d tokens are kept", len(a.tokens.byKey), a.tokens.order.Len())
	}
	x.want(a, "a", 200)
	x.wantRequests(2)
}

func TestIdentityTokens(t *testing.T) {
	x := newWorld(t)
	x.grant = func(w http.ResponseWriter, r *http.Request) {
		x.valid["Bearer granted"] = true
		io.WriteString(w, `{"access_token":"granted","expires_in":60}`)
	}
	a := x.authorizer(fixed{Identity: "refresh me"})
	x.want(a, "team/app", 200)
	r := x.asked[0]
	want := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"refresh me"}, "client_id": {"berth"}, "service": {"s"}, "scope": {"repository:team/app:pull"}}
	if r.Method != http.MethodPost || fmt.Sprint(r.PostForm) != fmt.Sprint(want) || r.URL.RawQuery != "" || r.Header.Get("Authorization") != "" {
		t.Errorf("%s %s %v", r.Method, r.URL, r.PostForm)
	}
}

// TestRefusals: what a token service says, and what becomes of it.
func TestRefusals(t *testing.T) {
	status := func(n int, header ...string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(n)
			io.WriteString(w, "top-secret")
		}
	}
	body := func(text string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, text) }
	}
	me := Basic("me", "top-secret")
	for what, c := range map[string]struct {
		source  Source
		grant   func(http.ResponseWriter, *http.Request)
		code    registry.Code
		refused bool
		after   time.Duration
	}{
		"wrong password":           {me, status(401), registry.Faulty, false, 0},
		"wrong identity token":     {fixed{Identity: "top-secret"}, status(401), registry.Faulty, false, 0},
		"forbidden":                {me, status(403), registry.Faulty, false, 0},
		"anonymous, 401":           {Anonymous(), status(401), registry.NameUnknown, true, 0},
		"anonymous, 403":           {Anonymous(), status(403), registry.NameUnknown, true, 0},
		"no access, but known":     {me, denyScopes, registry.NameUnknown, true, 0},
		"broken":                   {me, status(500), registry.Unavailable, false, 0},
		"busy":                     {me, status(503, "Retry-After", "7"), registry.Unavailable, false, 7 * time.Second},
		"busy until":               {me, status(503, "Retry-After", "Tue, 01 Jan 2030 00:00:09 GMT"), registry.Unavailable, false, 9 * time.Second},
		"too many":                 {me, status(429, "Retry-After", "60"), registry.TooManyRequests, false, time.Minute},
		"too many for ever":        {me, status(429, "Retry-After", "999999999"), registry.TooManyRequests, false, 24 * time.Hour},
		"not there":                {me, status(404), registry.Faulty, false, 0},
		"bad request":              {me, status(400), registry.Faulty, false, 0},
		"no answer":                {me, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, registry.Unavailable, false, 0},
		"not JSON":                 {me, body("<html>top-secret"), registry.Faulty, false, 0},
		"no token":                 {me, body(`{"top-secret":1}`), registry.Faulty, false, 0},
		"a token of several lines": {me, body(`{"token":"top-secret\nX: y"}`), registry.Faulty, false, 0},
		"a token beyond bounds":    {me, body(`{"token":"` + strings.Repeat("x", maxToken+1) + `"}`), registry.Faulty, false, 0},
		"an answer beyond bounds":  {me, body(`{"token":"x","y":"` + strings.Repeat("y", maxAnswer) + `"}`), registry.Faulty, false, 0},
		"a redirect elsewhere":     {me, status(302, "Location", "http://127.0.0.2:1/token?x=top-secret"), registry.Faulty, false, 0},
		"a redirect with a body":   {fixed{Identity: "top-secret"}, status(307, "Location", "http://127.0.0.2:1/token"), registry.Faulty, false, 0},
		"a redirect for ever":      {me, status(302, "Location", "/token?more=top-secret"), registry.Faulty, false, 0},
	} {
		t.Run(what, func(t *testing.T) {
			x := newWorld(t)
			x.grant = c.grant
			_, err := x.pull(x.authorizer(c.source), "team/app")
			var e *registry.Error
			if !errors.As(err, &e) || e.Code != c.code || e.Repo != "team/app" || errors.Is(err, registry.ErrRefused) != c.refused {
				t.Fatalf("got %#v", err)
			}
			var after time.Duration
			if e.Limit != nil {
				after = e.Limit.RetryAfter
			}
			if after != c.after {
				t.Errorf("to be left alone for %v, want %v", after, c.after)
			}
			for _, secret := range []string{"top-secret", base64.StdEncoding.EncodeToString([]byte("me:top-secret")), "scope="} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error has %q: %v", secret, err)
				}
			}
		})
	}
}

// denyScopes gives tokens for nothing alone.
func denyScopes(w http.ResponseWriter, r *http.Request) {
	if r.Form.Get("scope") != "" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	io.WriteString(w, `{"token":"x"}`)
}

// TestARefusedCredentialIsNotShownAgain for a while: accounts are locked.
func TestARefusedCredentialIsNotShownAgain(t *testing.T) {
	x := newWorld(t)
	x.grant = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(401) }
	a := x.authorizer(Basic("me", "wrong"))
	for _, repo := range []string{"a", "b", "a", "c"} {
		if _, err := x.pull(a, repo); !registry.IsCode(err, registry.Faulty) || !strings.Contains(err.Error(), "refuses the configured credentials (user me)") {
			t.Fatalf("got %v", err)
		}
	}
	x.wantRequests(1)
	x.later(refusedFor)
	x.pull(a, "a")
	x.wantRequests(2)
}

func TestAnonymousRefusalsAreNotOfTheCredential(t *testing.T) {
	x := newWorld(t)
	a := x.authorizer(Basic("me", "right"))
	x.grant = denyScopes
	for range 3 {
		if _, err := x.pull(a, "a"); !errors.Is(err, registry.ErrRefused) {
			t.Fatal(err)
		}
	}
	x.wantRequests(4) // the credential is tried alone once
}

// TestForeignRealms: nothing is sent there, with and without credentials.
func TestForeignRealms(t *testing.T) {
	var hits atomic.Int32
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer evil.Close()
	port := evil.URL[strings.LastIndexByte(evil.URL, ':'):]
	for _, source := range []Source{Anonymous(), Basic("me", "secret"), fixed{Identity: "secret"}} {
		x := newWorld(t)
		x.challenge = `Bearer realm="http://localhost` + port + `/token",service="s"`
		_, err := x.pull(x.authorizer(source), "a")
		if !registry.IsCode(err, registry.Faulty) || !strings.Contains(err.Error(), "list localhost"+port) {
			t.Errorf("got %v", err)
		}
		if hits.Load() != 0 {
			t.Fatal("the foreign service was asked")
		}
	}
	// Listed, it is asked; and where the registry takes a password itself, it gets it.
	x := newWorld(t)
	x.challenge = `Bearer realm="http://localhost` + port + `/token",service="s"`
	x.pull(x.authorizer(Anonymous(), "localhost"+port), "a")
	if hits.Load() != 1 {
		t.Error("the listed service was not asked")
	}
	x = newWorld(t)
	x.challenge = `Bearer realm="http://localhost` + port + `/token", Basic realm="Gitea Package API"`
	x.valid["Basic "+base64.StdEncoding.EncodeToString([]byte("me:secret"))] = true
	x.want(x.authorizer(Basic("me", "secret")), "a", 200)
	if hits.Load() != 1 {
		t.Error("the foreign service was asked")
	}
}

func TestBasic(t *testing.T) {
	x := newWorld(t)
	x.challenge = `Basic realm="x"`
	x.valid["Basic "+base64.StdEncoding.EncodeToString([]byte("me:secret"))] = true
	a := x.authorizer(Basic("me", "secret"))
	x.want(a, "a", 200)
	x.want(a, "b", 200)
	if len(x.seen) != 4 { // refused, the password alone, two that are answered
		t.Errorf("%d requests", len(x.seen))
	}
	x.want(x.authorizer(Anonymous()), "a", 401)

	wrong := x.authorizer(Basic("me", "wrong"))
	for range 3 {
		if _, err := x.pull(wrong, "a"); !registry.IsCode(err, registry.Faulty) || strings.Contains(err.Error(), "wrong") {
			t.Fatalf("a wrong password: %v", err)
		}
	}
	shown := 0
	for _, r := range x.seen {
		if _, password, _ := r.BasicAuth(); password == "wrong" {
			shown++
		}
	}
	if shown != 1 {
		t.Errorf("a wrong password was shown %d times", shown)
	}
}

// TestBasicWithoutTheRight: a registry that says 401 to who may not have a
// repository is not taken to refuse the password.
func TestBasicWithoutTheRight(t *testing.T) {
	x := newWorld(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "secret" || r.URL.Path != "/base/v2/" && !strings.Contains(r.URL.Path, "mine") {
			w.Header().Set("WWW-Authenticate", `Basic realm="Gitea Package API"`)
			w.WriteHeader(401)
		}
	}))
	defer server.Close()
	x.url, _ = url.Parse(server.URL + "/base")
	a := x.authorizer(Basic("me", "secret"))
	x.want(a, "mine", 200)
	x.want(a, "theirs", 401)
	x.want(a, "mine", 200)
}

func TestBearer(t *testing.T) {
	x := newWorld(t)
	x.valid["Bearer static"] = true
	x.want(x.authorizer(Bearer("static")), "a", 200)
	if len(x.seen) != 1 {
		t.Error("the token was not sent at once")
	}
	if _, err := x.pull(x.authorizer(Bearer("old")), "a"); !registry.IsCode(err, registry.Faulty) || strings.Contains(err.Error(), "old") {
		t.Errorf("a wrong token: %v", err)
	}
	x.wantRequests(0)
}

// TestTheWayChanges: a registry that wants something else from now on gets it.
func TestTheWayChanges(t *testing.T) {
	x := newWorld(t)
	a := x.authorizer(Basic("me", "secret"))
	x.want(a, "a", 200)
	x.set(func() {
		x.challenge = `Basic realm="x"`
		clear(x.valid)
		x.valid["Basic "+base64.StdEncoding.EncodeToString([]byte("me:secret"))] = true
	})
	x.want(a, "a", 200)
	x.set(func() { x.challenge = usualChallenge; clear(x.valid) })
	x.want(a, "a", 200)
}

func TestNoChallenge(t *testing.T) {
	x := newWorld(t)
	x.challenge = ""
	x.want(x.authorizer(Basic("me", "secret")), "a", 401)
}

func TestSecretsAreNotPrinted(t *testing.T) {
	for _, c := range []Credential{{Username: "me", Password: "secret"}, {Bearer: "secret"}, {Identity: "secret"}, {Password: "secret"}} {
		for _, form := range []string{"%v", "%+v", "%s", "%#v", "%q"} {
			if text := fmt.Sprintf(form, c); strings.Contains(text, "secret") {
				t.Errorf("%s prints %s", form, text)
			}
		}
	}
}
