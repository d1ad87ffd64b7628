package test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// jws is a signed text; sign may leave the signature empty.
func jws(header, payload any, sign func(text []byte) []byte) string {
	text := base64url(asJSON(header)) + "." + base64url(asJSON(payload))
	return text + "." + base64url(sign([]byte(text)))
}

// forgeries are tokens that look like one of the server's, by name.
func (w *team) forgeries(good string) map[string]string {
	w.t.Helper()
	parts := strings.Split(good, ".")
	var header, claims map[string]any
	for i, into := range []*map[string]any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	ecdsaSign := func(text []byte) []byte {
		digest := sha256.Sum256(text)
		r, s, err := ecdsa.Sign(rand.Reader, own, digest[:])
		if err != nil {
			w.t.Fatal(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	public, err := w.jwks()
	if err != nil {
		w.t.Fatal(err)
	}
	none := func([]byte) []byte { return nil }
	with := func(name string, value any) map[string]any {
		h := map[string]any{}
		for k, v := range header {
			h[k] = v
		}
		h[name] = value
		return h
	}
	payload := func(name string, value any) string {
		c := map[string]any{}
		for k, v := range claims {
			c[k] = v
		}
		c[name] = value
		return parts[0] + "." + base64url(asJSON(c)) + "." + parts[2]
	}
	return map[string]string{
		"alg none": jws(with("alg", "none"), claims, none),
		"alg None": jws(with("alg", "None"), claims, none),
		"HMAC with the public key": jws(with("alg", "HS256"), claims, func(text []byte) []byte {
			mac := hmac.New(sha256.New, public)
			mac.Write(text)
			return mac.Sum(nil)
		}),
		"a key of its own":         jws(header, claims, ecdsaSign),
		"a key that is not here":   jws(with("kid", "nosuch"), claims, ecdsaSign),
		"a path as key":            jws(with("kid", "../../../../dev/null"), claims, ecdsaSign),
		"its key in its header":    jws(with("jwk", json.RawMessage(public)), claims, ecdsaSign),
		"a longer life":            payload("exp", 4e9),
		"another audience":         payload("aud", "other"),
		"more rights":              payload("access", []any{}),
		"without signature":        parts[0] + "." + parts[1] + ".",
		"a part less":              parts[0] + "." + parts[1],
		"a part more":              good + ".x",
		"cut off":                  good[:len(good)-5],
		"a changed signature":      good[:len(good)-10] + string(another(good[len(good)-10])) + good[len(good)-9:],
		"zero signature":           parts[0] + "." + parts[1] + "." + base64url(make([]byte, 64)),
		"not base64":               "!!!.???.***",
		"dots":                     "...",
		"a word":                   "x",
		"a hundred thousand bytes": strings.Repeat("x", 100_000),
		"a hundred thousand dots":  strings.Repeat(".", 100_000),
	}
}

func (w *team) jwks() ([]byte, error) {
	res, err := w.call("GET", "/.well-known/jwks.json", nil, nil, 200)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

// TestHostileTokens: a token that the server did not make is a 401 with a
// challenge, whatever else it is.
func TestHostileTokens(t *testing.T) {
	w, elsewhere := newTeam(t), newTeam(t)
	const scope = "repository:acme/app:pull,push"
	good := w.token(w.alice, scope).Token
	tokens := w.forgeries(good)
	tokens["another server's"] = elsewhere.token(elsewhere.alice, scope).Token
	paths := []string{"/v2/", "/v2/acme/app/tags/list", "/v2/nosuch/app/manifests/v1"}
	for name, token := range tokens {
		for _, path := range paths {
			h := refusal(t, w.bearer(token), "GET", path, 401, "UNAUTHORIZED")
			if !strings.HasPrefix(h.Get("Www-Authenticate"), `Bearer realm="`+w.base+`/auth/token",service="berth"`) {
				t.Errorf("%s: challenge %q", name, h.Get("Www-Authenticate"))
			}
		}
		if _, err := w.bearer(token).send("GET", "/api/v1/me", nil, nil, 401); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, value := range map[string]string{
		"a scheme alone": "Bearer", "an empty token": "Bearer ", "an unknown scheme": "Negotiate abc", "nothing": " ",
		"Basic that is not base64": "Basic !!!", "Basic without a colon": "Basic " + base64.StdEncoding.EncodeToString([]byte("alice")),
		"a token as Basic": "Basic " + good, "a token without a scheme": good,
	} {
		for _, path := range paths {
			if refusal(t, w.with(value), "GET", path, 401, "UNAUTHORIZED"); t.Failed() {
				t.Fatal(name)
			}
		}
	}
	two := []string{"Authorization: Bearer " + good, "Authorization: Bearer " + good}
	if status, _ := w.raw(t, "GET /v2/acme/app/tags/list HTTP/1.1", two...); status != 401 && status != 400 {
		t.Errorf("two Authorization headers: %d", status)
	}
	huge := strings.Repeat("x", 1<<20)
	for _, value := range []string{"Bearer " + huge, "Basic " + huge} {
		if status, text := w.raw(t, "GET /v2/ HTTP/1.1", "Authorization: "+value); status != 401 || strings.Count(text, "Www-Authenticate") != 1 {
			t.Errorf("%.6s with 1 MiB: %d\n%.300s", value, status, text)
		}
	}
	w.wantAlive()
}

// wantAlive wants the server to serve as ever.
func (w *team) wantAlive() {
	w.t.Helper()
	for _, c := range []credential{w.alice, w.aliceKey, w.projectKey} {
		r := w.repo(w.as(c), "acme/alive")
		image := r.pushImage("v1", 2200)
		r.same("v1", image.Digest)
	}
}

// raw sends a request as it is written and returns the status and all of the
// answer. The server may answer before it has read everything.
func (w *team) raw(t *testing.T, line string, header ...string) (status int, text string) {
	t.Helper()
	conn, err := net.Dial("tcp", w.host())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := line + "\r\n"
	if !strings.Contains(strings.Join(header, "\n"), "Host:") {
		request += "Host: " + w.host() + "\r\n"
	}
	for _, h := range header {
		request += h + "\r\n"
	}
	go io.WriteString(conn, request+"Connection: close\r\n\r\n")
	answer, _ := io.ReadAll(io.LimitReader(conn, 1<<20)) // what came before the connection broke
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
	if err != nil {
		t.Errorf("%.60s: no answer: %v, %.200q", line, err, answer)
		return 0, ""
	}
	res.Body.Close()
	return res.StatusCode, string(answer)
}

// TestHostileKeys: a key with a character changed is no key, and the answer is
// the same as to one that never was and to a name that does not exist.
func TestHostileKeys(t *testing.T) {
	w := newTeam(t)
	answers := map[string]string{}
	ask := func(what string, c credential) {
		req, err := http.NewRequest("GET", w.base+"/auth/token?service=berth&scope=repository:acme/app:pull", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(c.user, c.secret)
		res, err := w.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 401 || res.Header.Get("Www-Authenticate") != "" {
			t.Errorf("%s: %d, challenge %q", what, res.StatusCode, res.Header.Get("Www-Authenticate"))
		}
		answers[string(body)] = what
	}
	for i, c := range []credential{w.aliceKey, w.projectKey} {
		for _, at := range []int{len(c.secret) - 1, len(c.secret) / 2} {
			changed := []byte(c.secret)
			changed[at] = another(changed[at])
			ask("a changed key", credential{c.user, w.hide(string(changed))})
		}
		ask("a key cut off", credential{c.user, c.secret[:len(c.secret)-1]})
		ask(fmt.Sprint("a key with more ", i), credential{c.user, w.hide(c.secret + "0")})
		ask("a key under a real user's name", credential{w.bob.user, c.secret})
	}
	ask("a wrong password", w.wrong(w.alice))
	ask("an unknown user", credential{"nobody-of-that-name", w.hide("any password at all")})
	ask("an empty password", credential{w.alice.user, ""})
	w.berth("user", "lock", "bob")
	ask("a locked user", w.bob)
	w.berth("key", "revoke", "--user", "bob", "laptop")
	ask("a revoked key", w.bobReader)
	if len(answers) != 1 {
		t.Errorf("the answers differ: %q", answers)
	}
	w.wantAlive()
}

// TestHostileTokenRequests sends the token endpoint what no client sends.
func TestHostileTokenRequests(t *testing.T) {
	w := newTeam(t)
	const form = "application/x-www-form-urlencoded"
	many := strings.Repeat("&scope=repository:a/b:pull", 10_000)
	several := ""
	for i := range 10_000 {
		several += fmt.Sprintf("&scope=repository:acme/app%d:pull", i)
	}
	spaced := "&scope=" + strings.Repeat("repository:a/b:pull+", 10_000)
	evil := url.QueryEscape("x\"\r\nX-Evil: 1\r\n\r\nevil line")
	password := "grant_type=password&service=berth&username=alice&password=" + url.QueryEscape(w.alice.secret)
	for _, tt := range []struct {
		what, method, query, kind, body string
		want                            int
	}{
		{"10 000 times a scope", "GET", "service=berth" + many, "", "", 400},
		{"10 000 scopes", "GET", "service=berth" + several, "", "", 400},
		{"10 000 scopes in one", "GET", "service=berth" + spaced, "", "", 400},
		{"a huge scope", "GET", "service=berth&scope=repository:" + strings.Repeat("a", 100_000) + ":pull", "", "", 400},
		{"a scope of colons", "GET", "service=berth&scope=" + strings.Repeat(":", 500), "", "", 400},
		{"quotes and lines in service", "GET", "service=" + evil, "", "", 400},
		{"quotes and lines in account", "GET", "service=berth&account=" + evil, "", "", 400},
		{"quotes and lines in client_id", "GET", "service=berth&client_id=" + evil, "", "", 400},
		{"quotes and lines in scope", "GET", "service=berth&scope=repository:" + evil + ":pull", "", "", 400},
		{"quotes and lines in an action", "GET", "service=berth&scope=repository:acme/app:" + evil, "", "", 400},
		{"zero bytes", "GET", "service=berth&account=%00", "", "", 400},
		{"an unknown service", "GET", "service=other", "", "", 400},
		{"two services", "GET", "service=berth&service=other", "", "", 400},
		{"a huge account", "GET", "service=berth&account=" + strings.Repeat("a", 100_000), "", "", 400},
		{"a bad escape", "GET", "service=%zz", "", "", 400},
		{"another method", "PUT", "", form, password, 405},
		{"another method", "DELETE", "", "", "", 405},
		{"JSON", "POST", "", "application/json", `{"grant_type":"password"}`, 415},
		{"no type", "POST", "", "", password, 415},
		{"multipart", "POST", "", "multipart/form-data; boundary=x", "--x--", 415},
		{"a broken type", "POST", "", "application/x-www-form-urlencoded; charset", password, 415},
		{"a giant form", "POST", "", form, password + "&x=" + strings.Repeat("y", 10<<20), 413},
		{"a giant scope", "POST", "", form, password + several, 413},
		{"a form full of scopes", "POST", "", form, password + several[:60_000], 400},
		{"an empty form", "POST", "", form, "", 400},
		{"no grant", "POST", "", form, "service=berth", 400},
		{"an unknown grant", "POST", "", form, "service=berth&grant_type=client_credentials", 400},
		{"no password", "POST", "", form, "service=berth&grant_type=password&username=alice", 400},
		{"two passwords", "POST", "", form, password + "&password=x", 400},
		{"credentials in the URL", "POST", password, form, "", 400},
		{"quotes and lines in a form", "POST", "", form, password + "&client_id=" + evil, 400},
		{"quotes and lines in a user's name", "POST", "", form, "grant_type=password&service=berth&password=x&username=" + evil, 401},
		{"a huge user's name", "POST", "", form, "grant_type=password&service=berth&password=x&username=" + strings.Repeat("a", 50_000), 400},
		{"a huge password", "POST", "", form, "grant_type=password&service=berth&username=alice&password=" + strings.Repeat("a", 50_000), 401},
		{"a refresh token that never was", "POST", "", form, "grant_type=refresh_token&service=berth&refresh_token=" + strings.Repeat("a", 50_000), 401},
		{"a broken form", "POST", "", form, password + "&x=%zz", 400},
		{"an ID token that is none", "POST", "", form, "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&service=berth&subject_token=x.y.z", 401},
	} {
		for _, chunked := range []bool{false, true} {
			var body io.Reader = strings.NewReader(tt.body)
			if chunked {
				body = io.MultiReader(body)
			}
			var header []string
			if tt.kind != "" {
				header = []string{"Content-Type", tt.kind}
			}
			h, err := w.send(tt.method, "/auth/token?"+tt.query, body, header, tt.want)
			if err != nil {
				t.Errorf("%s: %.500s", tt.what, err.Error()[max(0, len(err.Error())-200):])
				continue
			}
			if h.Get("X-Evil") != "" || h.Get("Www-Authenticate") != "" || h.Get("Content-Type") != "application/json" {
				t.Errorf("%s: %v", tt.what, h)
			}
		}
	}
	if text := readFile(t, w.log); strings.Contains(text, "\nX-Evil") || strings.Contains(text, "\nevil line") {
		t.Error("a client writes lines into the log")
	}
	w.wantAlive()
}

// TestHostileNames puts what belongs into no header where headers are made of.
func TestHostileNames(t *testing.T) {
	w := newTeam(t)
	const evil = "evil.example.com"
	for _, host := range []string{evil, evil + ":80", "127.0.0.1:80\"", "localhost, " + evil, "[::1]:\"x"} {
		status, text := w.raw(t, "GET /v2/ HTTP/1.1", "Host: "+host)
		if status != 401 && status != 400 || strings.Contains(text, evil) {
			t.Errorf("Host: %s: %s", host, text)
		}
		status, text = w.raw(t, "POST /v2/acme/app/blobs/uploads/ HTTP/1.1", "Host: "+host, "Content-Length: 0", "X-Forwarded-Host: "+evil,
			"Authorization: "+basicHeader(w.alice.user, w.alice.secret))
		if status != 202 && status != 400 || strings.Contains(text, evil) {
			t.Errorf("Host: %s: %s", host, text)
		}
	}
	for _, path := range []string{
		"/v2/acme%22%0d%0aX-Evil:%201/app/tags/list", "/v2/acme/app/manifests/%0d%0aX-Evil:%201", "/v2/acme/app%22,scope=%22x/tags/list",
		"/v2/acme/app/blobs/uploads/%22%0d%0a", "/v2/" + strings.Repeat("a", 5000) + "/tags/list", "/v2/../../etc/passwd",
		"/v2/acme/app/blobs/sha256:../../x", "/v2/%00/tags/list", "/v2/acme/app/tags/list?n=%0d%0a&last=%22",
		"/api/v1/projects/acme%0d%0aX-Evil:1", "/api/v1/users/%22", "/api/v1/audit?after=%00", "/auth/login?challenge=%22%0d%0a",
	} {
		for _, with := range [][]string{nil, {"Authorization: " + basicHeader("x", w.admin)}} {
			status, text := w.raw(t, "GET "+path+" HTTP/1.1", with...)
			head, _, _ := strings.Cut(text, "\r\n\r\n")
			if status >= 500 || status < 300 && !strings.Contains(path, "?") || strings.Contains(head, "\nX-Evil") || strings.Count(head, "Www-Authenticate") > 1 {
				t.Errorf("%.80s: %.500s", path, text)
			}
		}
	}
	for _, agent := range []string{"a\x1b[31mred", "line\\nevil", strings.Repeat("a", 100_000), "\"quoted\" level=ERROR"} {
		if status, text := w.raw(t, "GET /v2/ HTTP/1.1", "User-Agent: "+agent); status != 401 && status != 400 && status != 431 {
			t.Errorf("User-Agent %.20q: %.300s", agent, text)
		}
	}
	if text := readFile(t, w.log); strings.Contains(text, "\x1b") {
		t.Error("a client writes escape sequences into the log")
	}
	w.wantAlive()
}

// TestHostileManagement sends the management API what no client sends.
func TestHostileManagement(t *testing.T) {
	w := newTeam(t)
	root := w.root()
	const kind = "application/json"
	deep := strings.Repeat("[", 100_000)
	for _, tt := range []struct {
		what, method, path, kind, body string
		want                           []int
	}{
		{"a form", "POST", "/projects", "application/x-www-form-urlencoded", "name=x", []int{415}},
		{"text", "POST", "/users", "text/plain", `{"name":"x"}`, []int{415}},
		{"not JSON", "POST", "/projects", kind, `{"name":`, []int{400}},
		{"deep JSON", "POST", "/projects", kind, `{"name":` + deep, []int{400}},
		{"an unknown field", "POST", "/projects", kind, `{"name":"x","admin":true}`, []int{422}},
		{"a wrong type", "POST", "/projects", kind, `{"name":{"a":1}}`, []int{422}},
		{"a name with lines", "POST", "/projects", kind, `{"name":"x\r\nX-Evil: 1"}`, []int{422}},
		{"a name with quotes", "POST", "/users", kind, `{"name":"x\"y"}`, []int{422}},
		{"a giant body", "POST", "/projects", kind, `{"name":"` + strings.Repeat("x", 20<<20) + `"}`, []int{413}},
		{"a short password", "POST", "/users", kind, `{"name":"dave","password":"short"}`, []int{422}},
		{"a giant password", "POST", "/users", kind, `{"name":"dave","password":"` + strings.Repeat("x", 100_000) + `"}`, []int{413, 422}},
		{"a giant cursor", "GET", "/projects?after=" + strings.Repeat("x", 10_000), "", "", []int{422}},
		{"a giant limit", "GET", "/projects?limit=99999999999999999999", "", "", []int{422}},
		{"no such thing", "GET", "/nosuch", "", "", []int{404}},
	} {
		for _, who := range []*api{root, w.as(w.alice), w.api} {
			want := tt.want
			if who != root {
				want = append([]int{401, 403}, tt.want...)
			}
			var header []string
			if tt.kind != "" {
				header = []string{"Content-Type", tt.kind}
			}
			h, err := who.send(tt.method, "/api/v1"+tt.path, strings.NewReader(tt.body), header, want...)
			if err != nil {
				t.Errorf("%s: %.300s", tt.what, err.Error()[max(0, len(err.Error())-300):])
				continue
			}
			if !strings.HasPrefix(h.Get("Content-Type"), "application/problem+json") {
				t.Errorf("%s: %v", tt.what, h)
			}
		}
	}
	w.wantAlive()
}

// TestSecretsStaySecret uses each kind of credential in every place that one
// can be put; the end of the test looks for them. That the search finds what is
// there is a part of it.
func TestSecretsStaySecret(t *testing.T) {
	w := newTeam(t, "BERTH_AUTH_REFRESH_TOKENS=true")
	for _, c := range []credential{w.alice, w.aliceKey, w.projectKey, w.bob, w.bobReader} {
		if _, err := w.as(c).send("GET", "/v2/", nil, nil, 200); err != nil {
			t.Error(err)
		}
		refusal(t, w.as(w.wrong(c)), "GET", "/v2/", 401, "UNAUTHORIZED")
		// People type secrets where names belong, and paste them into URLs.
		refusal(t, w.as(credential{c.secret, "x"}), "GET", "/v2/", 401, "UNAUTHORIZED")
		if _, err := w.send("GET", "/auth/token?service=berth&account="+url.QueryEscape(c.secret), nil, nil, 200, 400); err != nil {
			t.Error(err)
		}
		form := url.Values{"grant_type": {"password"}, "service": {"berth"}, "username": {c.user}, "password": {c.secret}, "access_type": {"offline"}, "scope": {"repository:acme/app:pull"}}
		a := w.post(form, 200)
		if a.RefreshToken == "" {
			t.Fatal("no refresh token came")
		}
		again := w.post(url.Values{"grant_type": {"refresh_token"}, "service": {"berth"}, "refresh_token": {a.RefreshToken}, "scope": {"repository:acme/app:pull"}}, 200)
		if _, err := w.bearer(again.Token).send("GET", "/v2/acme/app/tags/list", nil, nil, 404); err != nil {
			t.Error(err)
		}
		form.Set("username", c.secret)
		form.Set("password", "x")
		w.post(form, 401)
	}
	w.repo(w.as(w.alice), "acme/app").pushImage("v1", 2300)
	w.repo(w.bearer(w.token(w.projectKey, "repository:acme/app:pull").Token), "acme/app").verify("v1")

	// The answer to a repeated request holds the secret again; from where?
	var first, second struct{ Secret string }
	for _, into := range []*struct{ Secret string }{&first, &second} {
		res, err := w.root().call("POST", "/api/v1/projects/acme/keys", strings.NewReader(`{"name":"once","role":"reader"}`),
			[]string{"Content-Type", "application/json", "Idempotency-Key", "6f5902ac237024bdd0c176cb93063dc4"}, 201)
		if err != nil {
			t.Fatal(err)
		}
		err = json.NewDecoder(res.Body).Decode(into)
		res.Body.Close()
		if err != nil || into.Secret == "" {
			t.Fatalf("no key came: %v", err)
		}
		w.hide(into.Secret)
	}
	equal(t, "key of the repeated request", second.Secret, first.Secret)
	w.berthIn(w.hide("another password of alice"), "user", "password", "alice", "--password-stdin")
	w.berth("token", "rotate-keys")

	seen := readFile(t, w.log)
	for _, there := range []string{"/auth/token", "/v2/acme/app/tags/list", "user:alice"} {
		if !strings.Contains(seen, there) {
			t.Errorf("the log lacks %s, so that the search for secrets shows nothing", there)
		}
	}
}

// TestWrongSecretsTakeTheSameTime: whether a user exists, has a password or is
// locked is not to be told from how long a refusal takes.
func TestWrongSecretsTakeTheSameTime(t *testing.T) {
	w := newTeam(t)
	w.berth("user", "create", "builder", "--no-password")
	w.berth("user", "lock", "bob")
	names := []string{"alice", "bob", "builder", "nobody-of-that-name"}
	took := map[string][]time.Duration{}
	for i := range 9 { // of ten guesses that are looked at, each another one: the server remembers
		for _, name := range names { // in turn, so that load hits all alike
			a := w.as(credential{name, w.hide(fmt.Sprint("not the password of anybody ", i))})
			began := time.Now()
			refusal(t, a, "GET", "/v2/", 401, "UNAUTHORIZED")
			took[name] = append(took[name], time.Since(began))
		}
	}
	median := func(name string) time.Duration {
		slices.Sort(took[name])
		return took[name][len(took[name])/2]
	}
	for _, name := range names[1:] {
		if a, b := median("alice"), median(name); a > 2*b || b > 2*a {
			t.Errorf("a wrong password takes %v for %s, %v for alice", b, name, a)
		}
	}
	t.Logf("alice's takes %v", median("alice"))
}
