package oidc

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/meta"
)

const (
	clientSecret = "a secret/with:odd+characters"
	verifier     = "a-verifier-that-the-command-line-client-made-up"
)

func challenge() string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// desk is a server with a People, its provider, and a browser.
type desk struct {
	*testing.T
	clock    *clock
	provider *provider
	db       *meta.DB
	log      *logBook
	server   *httptest.Server
	browser  *http.Client
	form     url.Values // what the token endpoint was sent last
	refused  []audit.Event
}

func newDesk(t *testing.T, set ...func(*PeopleOptions)) *desk {
	t.Helper()
	c := newClock()
	d := &desk{T: t, clock: c, provider: newProvider(t, c, "one"), db: openDB(t, c), log: &logBook{}}
	handler := d.people(set...)
	d.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(d.server.Close)
	d.browser = d.newBrowser()
	return d
}

func (d *desk) people(set ...func(*PeopleOptions)) *People {
	d.Helper()
	o := PeopleOptions{
		Issuer: d.provider.URL, ClientID: "berth", ClientSecret: clientSecret,
		BaseURL: func(*http.Request) string { return d.server.URL },
		Store:   d.db, Log: d.log.logger(), Now: d.clock.now,
		Record: func(e audit.Event) { d.refused = append(d.refused, e) },
	}
	for _, f := range set {
		f(&o)
	}
	p, err := NewPeople(o)
	if err != nil {
		d.Fatal(err)
	}
	return p
}

// newBrowser stays where a redirect would send it.
func (d *desk) newBrowser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		d.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// open opens a page and wants a status.
func (d *desk) open(path string, want int) (*http.Response, string) {
	d.Helper()
	res, err := d.browser.Get(d.server.URL + path)
	if err != nil {
		d.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		d.Fatal(err)
	}
	if res.StatusCode != want {
		d.Errorf("%s answers %d, want %d:\n%s", path, res.StatusCode, want, body)
	}
	if want != http.StatusFound {
		d.checkPage(res)
	}
	return res, string(body)
}

func (d *desk) checkPage(res *http.Response) {
	d.Helper()
	for name, want := range map[string]string{
		"Content-Type": "text/html", "Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-store",
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
	} {
		if got := res.Header.Get(name); !strings.HasPrefix(got, want) {
			d.Errorf("a page has %s %q", name, got)
		}
	}
}

// begin opens the log-in page and returns what the provider is asked.
func (d *desk) begin(query string) url.Values {
	d.Helper()
	res, _ := d.open(LoginPath+"?challenge="+challenge()+query, http.StatusFound)
	to, err := res.Location()
	if err != nil {
		d.Fatal(err)
	}
	if !strings.HasPrefix(to.String(), d.provider.URL+"/authorize?") {
		d.Fatalf("sent to %s", to)
	}
	return to.Query()
}

// vouch has the provider answer for a code with good claims, changed.
func (d *desk) vouch(asked url.Values, change map[string]any) {
	d.Helper()
	claims := map[string]any{
		"aud": "berth", "sub": "1001", "nonce": asked.Get("nonce"),
		"preferred_username": "Alice", "groups": []string{"devs"},
	}
	maps.Copy(claims, change)
	d.answer("", d.provider.token(d.T, "one", claims))
}

// answer has the token endpoint answer with an ID token; me is what the
// provider tells besides.
func (d *desk) answer(me, token string) {
	d.provider.spoil("/token", func(w http.ResponseWriter, r *http.Request) {
		if id, password, _ := r.BasicAuth(); id != "berth" || password != url.QueryEscape(clientSecret) {
			says(http.StatusUnauthorized, `{"error":"invalid_client"}`)(w, r)
			return
		}
		if err := r.ParseForm(); err != nil {
			d.Error(err)
		}
		d.form = r.PostForm
		answerJSON(w, map[string]any{"access_token": "bearer-swordfish", "token_type": "Bearer", "id_token": token})
	})
	d.provider.spoil("/me", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer bearer-swordfish" || me == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, me)
	})
}

func back(asked url.Values) string {
	return CallbackPath + "?code=swordfish&state=" + asked.Get("state")
}

// logIn logs in with good claims, changed, and returns the code for the client.
func (d *desk) logIn(change map[string]any) string {
	d.Helper()
	asked := d.begin("&port=4321&name=laptop")
	d.vouch(asked, change)
	res, _ := d.open(back(asked), http.StatusFound)
	to, err := res.Location()
	if err != nil {
		d.Fatal(err)
	}
	if !strings.HasPrefix(to.String(), "http://127.0.0.1:4321/?code=") {
		d.Fatalf("sent to %s", to)
	}
	return to.Query().Get("code")
}

// post asks for the key and wants a status.
func (d *desk) post(kind, body string, want int) (a keyAnswer) {
	d.Helper()
	res, err := http.Post(d.server.URL+KeyPath, kind, strings.NewReader(body))
	if err != nil {
		d.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		d.Fatal(err)
	}
	if res.StatusCode != want || res.Header.Get("Cache-Control") != "no-store" {
		d.Errorf("%.100s answers %d %v, want %d:\n%s", body, res.StatusCode, res.Header, want, text)
	}
	if res.StatusCode != http.StatusOK {
		if res.Header.Get("Content-Type") != "application/problem+json" || !bytes.Contains(text, []byte(`"detail"`)) {
			d.Errorf("an error is %s", text)
		}
		return a
	}
	if err := json.Unmarshal(text, &a); err != nil {
		d.Fatal(err)
	}
	return a
}

// redeem changes a code for a key and wants a status.
func (d *desk) redeem(code, verifier string, want int) keyAnswer {
	d.Helper()
	return d.post("application/json", fmt.Sprintf(`{"code":%q,"verifier":%q}`, code, verifier), want)
}

func TestLogIn(t *testing.T) {
	d := newDesk(t)
	asked := d.begin("&port=4321&name=my+laptop")
	for name, want := range map[string]string{
		"client_id": "berth", "response_type": "code", "scope": "openid profile email", "code_challenge_method": "S256",
		"redirect_uri": d.server.URL + CallbackPath,
	} {
		if got := asked.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	d.vouch(asked, nil)
	res, body := d.open(back(asked), http.StatusFound)
	sum := sha256.Sum256([]byte(d.form.Get("code_verifier")))
	if got := base64.RawURLEncoding.EncodeToString(sum[:]); got != asked.Get("code_challenge") || d.form.Get("code") != "swordfish" {
		t.Errorf("the token endpoint was sent %v", d.form)
	}
	to, _ := res.Location()
	code := to.Query().Get("code")
	if want := "http://127.0.0.1:4321/?code=" + code; to.String() != want || res.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("sent to %s, %v:\n%s", to, res.Header, body)
	}
	a := d.redeem(code, verifier, http.StatusOK)
	d.wantKey(a, "alice", "my-laptop")
	d.redeem(code, verifier, http.StatusForbidden)
	d.wantSecretive(a.Key, code, asked.Get("state"), asked.Get("nonce"))
}

// wantKey wants that a key is the user's and valid for 30 days.
func (d *desk) wantKey(a keyAnswer, user, name string) access.Subject {
	d.Helper()
	_, hash, err := auth.ParseKey(a.Key)
	if err != nil {
		d.Fatal(err)
	}
	k, err := d.db.KeyByHash(d.Context(), hash)
	if err != nil {
		d.Fatal(err)
	}
	u, err := d.db.UserAccess(d.Context(), k.UserID)
	if err != nil {
		d.Fatal(err)
	}
	expires := d.clock.now().Add(30 * 24 * time.Hour)
	if a.User != user || u.Name != user || u.Admin || k.Name != name || k.CreatedBy != user || !k.ExpiresAt.Equal(expires) || !a.ExpiresAt.Equal(expires) {
		d.Errorf("%s has %+v, %+v", a.User, u, k)
	}
	return u
}

// wantSecretive wants that the log holds none of these, nor a token.
func (d *desk) wantSecretive(secrets ...string) {
	d.Helper()
	for _, s := range append(secrets, "swordfish", clientSecret, verifier, "eyJ") {
		if strings.Contains(d.log.String(), s) {
			d.Errorf("the log tells %q:\n%s", s, d.log)
		}
	}
}

var shownCode = regexp.MustCompile(`<code>([A-Za-z0-9_-]{43})</code>`)

func TestLogInByHand(t *testing.T) {
	d := newDesk(t)
	asked := d.begin("")
	d.vouch(asked, nil)
	_, body := d.open(back(asked), http.StatusOK)
	found := shownCode.FindStringSubmatch(body)
	if found == nil || !strings.Contains(body, "Logged in as alice") {
		t.Fatalf("the page is:\n%s", body)
	}
	d.wantKey(d.redeem(found[1], verifier, http.StatusOK), "alice", "login")
}

func TestLogInAgain(t *testing.T) {
	d := newDesk(t)
	one := d.wantKey(d.redeem(d.logIn(nil), verifier, 200), "alice", "laptop")
	two := d.wantKey(d.redeem(d.logIn(map[string]any{"preferred_username": "renamed"}), verifier, 200), "alice", "laptop-2")
	if one.ID != two.ID {
		t.Errorf("%+v became %+v", one, two)
	}
}

// Who has a name keeps it: another subject of the same name is somebody else.
func TestNamesAreNotTakenOver(t *testing.T) {
	d := newDesk(t)
	local, err := d.db.CreateUser(t.Context(), meta.Change{}, meta.UserSpec{Name: "alice", Password: "$argon2id$"})
	if err != nil {
		t.Fatal(err)
	}
	two := d.wantKey(d.redeem(d.logIn(nil), verifier, 200), "alice-2", "laptop")
	three := d.wantKey(d.redeem(d.logIn(map[string]any{"sub": "1002"}), verifier, 200), "alice-3", "laptop")
	if two.ID == local.ID || three.ID == two.ID {
		t.Error("two people are one user")
	}
	if l, err := d.db.Login(t.Context(), "alice"); err != nil || l.UserID != local.ID || l.Password == "" {
		t.Errorf("the user with a password is %+v, %v", l, err)
	}
}

func TestClaimsFromUserInfo(t *testing.T) {
	d := newDesk(t)
	if _, err := d.db.CreateGroup(t.Context(), meta.Change{}, meta.Group{Name: "devs", Claim: "Developers"}); err != nil {
		t.Fatal(err)
	}
	asked := d.begin("")
	token := d.provider.token(t, "one", map[string]any{"sub": "1001", "nonce": asked.Get("nonce"), "preferred_username": "alice"})
	d.answer(`{"sub":"1001","preferred_username":"mallory","groups":["Developers"]}`, token)
	_, body := d.open(back(asked), http.StatusOK)
	if !strings.Contains(body, "Logged in as alice<") {
		t.Errorf("the page is:\n%s", body)
	}
	users, err := d.db.GroupUsers(t.Context(), "devs", "", 10)
	if err != nil || len(users) != 1 || users[0].Name != "alice" || !users[0].ByClaim {
		t.Errorf("the group has %+v, %v", users, err)
	}
}

func TestLockedUser(t *testing.T) {
	d := newDesk(t)
	code := d.logIn(nil)
	if err := d.db.SetUser(t.Context(), meta.Change{}, "alice", meta.UserChange{Locked: new(true)}); err != nil {
		t.Fatal(err)
	}
	d.redeem(code, verifier, http.StatusForbidden)
	asked := d.begin("")
	d.vouch(asked, nil)
	_, body := d.open(back(asked), http.StatusForbidden)
	if !strings.Contains(body, "locked") || shownCode.MatchString(body) {
		t.Errorf("the page is:\n%s", body)
	}
}

// The trail has who came from where, and why somebody was not let in.
func TestTrail(t *testing.T) {
	d := newDesk(t)
	code := d.logIn(nil)
	d.redeem(code, strings.Repeat("x", 43), http.StatusForbidden)
	asked := d.begin("")
	d.open(CallbackPath+"?error=access_denied&state="+asked.Get("state"), http.StatusForbidden)
	asked = d.begin("")
	d.vouch(asked, map[string]any{"nonce": "x"})
	d.open(back(asked), http.StatusBadGateway)
	d.redeem(d.logIn(nil), verifier, http.StatusOK)
	var reasons []string
	for _, e := range d.refused {
		if e.Action != "login" || e.Address != "127.0.0.1" || e.Request == "" || e.Agent == "" || e.Status < 400 {
			t.Errorf("refused: %+v", e)
		}
		reasons = append(reasons, e.Reason)
	}
	all := strings.Join(reasons, "\n")
	for n, want := range []string{"wrong verifier", "access_denied", "not of this log-in"} {
		if len(reasons) != 3 || !strings.Contains(reasons[n], want) {
			t.Fatalf("refused because\n%s", all)
		}
	}
	events, _, err := d.db.ListAudit(t.Context(), meta.AuditFilter{}, "", 10)
	var got []string
	for _, e := range events {
		if e.Address != "127.0.0.1" || e.Request == "" {
			t.Errorf("recorded: %+v", e)
		}
		got = append(got, e.Action+" "+e.Identity)
	}
	if want := []string{"login user:alice", "login user:alice", "key.create user:alice"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("recorded %q, %v; want %q", got, err, want)
	}
}

func TestRequestID(t *testing.T) {
	for sent, kept := range map[string]bool{"a-1.B_2": true, "": false, "a b": false, "a\"": false, strings.Repeat("a", 65): false} {
		r := httptest.NewRequest(http.MethodGet, LoginPath, nil)
		r.Header.Set("X-Request-Id", sent)
		if id := requestID(r); (id == sent) != kept || id == "" {
			t.Errorf("%q becomes %q", sent, id)
		}
	}
}

func TestUserIsGone(t *testing.T) {
	d := newDesk(t)
	code := d.logIn(nil)
	if err := d.db.DeleteUser(t.Context(), meta.Change{}, "alice"); err != nil {
		t.Fatal(err)
	}
	d.redeem(code, verifier, http.StatusForbidden)
}

// A log-in that one server began another one ends.
func TestLogInOutlivesTheServer(t *testing.T) {
	d := newDesk(t)
	asked := d.begin("")
	d.vouch(asked, nil)
	d.server.Config.Handler = d.people()
	_, body := d.open(back(asked), http.StatusOK)
	if !shownCode.MatchString(body) {
		t.Errorf("the page is:\n%s", body)
	}
}

func TestLogInIsBoundToItsBrowser(t *testing.T) {
	d := newDesk(t)
	asked := d.begin("")
	d.vouch(asked, nil)
	own := d.browser
	d.browser = d.newBrowser()
	if _, body := d.open(back(asked), http.StatusBadRequest); !strings.Contains(body, "another browser") || shownCode.MatchString(body) {
		t.Errorf("the page is:\n%s", body)
	}
	asked = d.beginIn(own)
	home, err := url.Parse(d.server.URL + CallbackPath)
	if err != nil {
		t.Fatal(err)
	}
	d.browser.Jar.SetCookies(home, []*http.Cookie{d.people().cookie(d.server.URL, asked.Get("state"), "guessed")})
	d.open(back(asked), http.StatusBadRequest)
	d.begin("") // has a cookie, of another log-in
	asked = d.beginIn(own)
	d.vouch(asked, nil)
	d.open(back(asked), http.StatusBadRequest)
	if d.form != nil {
		t.Error("the code of another's log-in was used")
	}
}

// beginIn begins a log-in in another browser than the desk's.
func (d *desk) beginIn(other *http.Client) url.Values {
	d.Helper()
	own := d.browser
	defer func() { d.browser = own }()
	d.browser = other
	return d.begin("")
}

func TestTwoLogInsInOneBrowser(t *testing.T) {
	d := newDesk(t)
	one, two := d.begin(""), d.begin("")
	for _, asked := range []url.Values{one, two} {
		d.vouch(asked, nil)
		d.open(back(asked), http.StatusOK)
	}
}

func TestStatesAndCodesServeOnce(t *testing.T) {
	d := newDesk(t)
	asked := d.begin("")
	d.vouch(asked, nil)
	d.open(back(asked), http.StatusOK)
	d.open(back(asked), http.StatusBadRequest)

	late := d.begin("")
	d.vouch(late, nil)
	d.clock.move(loginTime)
	d.open(back(late), http.StatusBadRequest)

	code := d.logIn(nil)
	d.clock.move(codeTime)
	d.redeem(code, verifier, http.StatusForbidden)

	code = d.logIn(nil)
	d.redeem(code, strings.Repeat("x", 43), http.StatusForbidden)
	d.redeem(code, verifier, http.StatusForbidden)
	for _, state := range []string{"", "x", strings.Repeat("x", 43), code, "%00"} {
		d.open(CallbackPath+"?code=swordfish&state="+state, http.StatusBadRequest)
	}
	d.redeem(asked.Get("state"), verifier, http.StatusForbidden)
}

func TestBadBeginnings(t *testing.T) {
	d := newDesk(t)
	for _, query := range []string{
		"", "challenge=", "challenge=short", "challenge=" + challenge() + "x", "challenge=" + url.QueryEscape(strings.Repeat("<", 43)),
		"port=80", "challenge=" + challenge() + "&port=0", "challenge=" + challenge() + "&port=65536",
		"challenge=" + challenge() + "&port=1@example.com", "challenge=" + challenge() + "&port=-1", "challenge=" + challenge() + "&port=1.5",
	} {
		if _, body := d.open(LoginPath+"?"+query, http.StatusBadRequest); !strings.Contains(body, "berth login") {
			t.Errorf("%s:\n%s", query, body)
		}
	}
	if d.provider.looks(discoveryPath) != 0 {
		t.Error("the provider was contacted")
	}
	d.provider.answer(map[string]any{"authorization_endpoint": "javascript:alert(1)"})
	d.open(LoginPath+"?challenge="+challenge(), http.StatusServiceUnavailable)
	if strings.Count(d.log.String(), "identity provider") != 1 || !strings.Contains(d.log.String(), "authorization_endpoint is not") {
		t.Errorf("the log is:\n%s", d.log)
	}
}

func TestProviderRefuses(t *testing.T) {
	d := newDesk(t)
	for reason, want := range map[string]int{
		"access_denied": 403, "temporarily_unavailable": 503, "server_error": 502, "<script>alert(1)</script>": 502, "a\r\nb=c": 502,
	} {
		asked := d.begin("&port=4321&name=%22%3E%3Cscript%3E")
		_, body := d.open(CallbackPath+"?error="+url.QueryEscape(reason)+"&state="+asked.Get("state"), want)
		again := LoginPath + "?challenge=" + challenge() + "&name=script&port=4321"
		if strings.Contains(body, "<script") || !strings.Contains(html.UnescapeString(body), `href="`+again+`"`) {
			t.Errorf("%s:\n%s", reason, body)
		}
	}
	asked := d.begin("")
	d.open(back(asked)+"&iss=https%3A%2F%2Fexample.com", http.StatusBadRequest)
	for _, code := range []string{"", strings.Repeat("x", maxParameter+1)} {
		d.open(CallbackPath+"?code="+code+"&state="+d.begin("").Get("state"), http.StatusBadRequest)
	}
	if d.form != nil {
		t.Error("a code was used")
	}
}

func TestProviderLies(t *testing.T) {
	elsewhere := newProvider(t, newClock())
	d := newDesk(t)
	now := d.clock.now().Unix()
	for what, change := range map[string]map[string]any{
		"another nonce":      {"nonce": "x"},
		"no nonce":           {"nonce": nil},
		"another audience":   {"aud": "other"},
		"another issuer":     {"iss": elsewhere.URL},
		"another client":     {"azp": "other"},
		"many audiences":     {"aud": []string{"berth", "other"}},
		"expired":            {"exp": now - 61},
		"from the future":    {"iat": now + 61},
		"no subject":         {"sub": ""},
		"subject is no text": {"sub": 7},
		"a long subject":     {"sub": strings.Repeat("x", 256)},
		"too many groups":    {"groups": strings.Split(strings.Repeat("x ", maxGroups), " ")},
	} {
		asked := d.begin("")
		d.vouch(asked, change)
		d.mustFail(what, asked, http.StatusBadGateway)
	}
	for what, token := range map[string]func(map[string]any) string{
		"another key": func(c map[string]any) string {
			return sign(t, signing(jose.RS256, testKeys()["two"]), d.provider.claims(c))
		},
		"secret key": func(c map[string]any) string {
			return sign(t, signing(jose.HS256, []byte(strings.Repeat(clientSecret, 2))), d.provider.claims(c))
		},
		"no signature": func(map[string]any) string { return unsigned(t, d.provider) },
		"none":         func(map[string]any) string { return "" },
		"junk":         func(map[string]any) string { return "eyJ.eyJ.x" },
	} {
		asked := d.begin("")
		d.answer("", token(map[string]any{"nonce": asked.Get("nonce")}))
		d.mustFail(what, asked, http.StatusBadGateway)
	}
	for what, me := range map[string]string{"another's": `{"sub":"1002"}`, "nobody's": `{}`} {
		asked := d.begin("")
		d.answer(me, d.provider.token(t, "one", map[string]any{"sub": "1001", "nonce": asked.Get("nonce")}))
		d.mustFail("user info is "+what, asked, http.StatusBadGateway)
	}
	for what, h := range map[string]http.HandlerFunc{
		"refuses":             says(400, `{"error":"invalid_grant","error_description":"swordfish"}`),
		"refuses with a page": says(403, `<html>swordfish`),
	} {
		asked := d.begin("")
		d.provider.spoil("/token", h)
		d.mustFail(what, asked, http.StatusBadGateway)
	}
	d.wantSecretive()
}

func TestProviderGoesAway(t *testing.T) {
	elsewhere := newProvider(t, newClock())
	d := newDesk(t)
	for what, h := range map[string]http.HandlerFunc{
		"fails":               says(500, "swordfish"),
		"sends junk":          says(200, "<html>swordfish"),
		"sends too much":      endless,
		"redirects elsewhere": redirectTo(elsewhere.URL + "/token"),
	} {
		asked := d.begin("")
		d.provider.spoil("/token", h)
		d.mustFail(what, asked, http.StatusServiceUnavailable)
	}
	asked := d.begin("")
	d.answer("", d.provider.token(t, "one", map[string]any{"sub": "1001", "nonce": asked.Get("nonce")}))
	d.mustFail("has no user info", asked, http.StatusServiceUnavailable)
	d.wantSecretive()
	if elsewhere.looks("/token") != 0 {
		t.Error("another host was sent the code")
	}
}

func signing(alg jose.SignatureAlgorithm, key any) jose.SigningKey {
	return jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: "one"}}
}

// mustFail comes back from the provider and wants that nobody is logged in.
func (d *desk) mustFail(what string, asked url.Values, want int) {
	d.Helper()
	_, body := d.open(back(asked), want)
	users, err := d.db.Users(d.Context(), "", 10)
	if err != nil || len(users) != 0 || strings.Contains(body, "swordfish") || !strings.Contains(body, "Try again") {
		d.Errorf("%s: users %+v, %v; the page is:\n%s", what, users, err, body)
	}
}

func TestBadKeyRequests(t *testing.T) {
	d := newDesk(t)
	good := fmt.Sprintf(`{"code":%q,"verifier":%q}`, d.logIn(nil), verifier)
	d.post("text/plain", good, http.StatusUnsupportedMediaType)
	d.post("", good, http.StatusUnsupportedMediaType)
	d.post("application/x-www-form-urlencoded", "code=x", http.StatusUnsupportedMediaType)
	d.post("application/json", "", http.StatusBadRequest)
	d.post("application/json", "[]", http.StatusBadRequest)
	d.post("application/json", `{"code":"x"}`, http.StatusBadRequest)
	d.post("application/json", `{"code":"`+strings.Repeat("x", 1<<20)+`"}`, http.StatusRequestEntityTooLarge)
	d.redeem(strings.Repeat("x", 43), "short", http.StatusBadRequest)
	d.redeem(strings.Repeat("x", 43), strings.Repeat("x", 129), http.StatusBadRequest)
	d.redeem(strings.Repeat("x", 43), verifier, http.StatusForbidden)
	d.post("application/json; charset=utf-8", good, http.StatusOK)
}

func TestClientsOfOtherKinds(t *testing.T) {
	d := newDesk(t, func(o *PeopleOptions) {
		o.ClientSecret, o.NameClaim, o.GroupsClaim, o.Scopes = "", "nick", "realm.roles", []string{"roles"}
		o.KeyLifetime = time.Hour
	})
	asked := d.begin("")
	if asked.Get("scope") != "openid roles" {
		t.Errorf("scope %q", asked.Get("scope"))
	}
	var form url.Values
	token := d.provider.token(t, "one", map[string]any{
		"sub": "1001", "nonce": asked.Get("nonce"), "nick": "B.o.b", "realm": map[string]any{"roles": "devs"},
	})
	d.provider.spoil("/token", func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		form = r.PostForm
		answerJSON(w, map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": token})
	})
	_, body := d.open(back(asked), http.StatusOK)
	if form.Get("client_id") != "berth" || form.Has("client_secret") || !strings.Contains(body, "Logged in as b.o.b<") {
		t.Errorf("form %v, page\n%s", form, body)
	}
	a := d.redeem(shownCode.FindStringSubmatch(body)[1], verifier, http.StatusOK)
	if want := d.clock.now().Add(time.Hour); !a.ExpiresAt.Equal(want) {
		t.Errorf("the key expires at %v, want %v", a.ExpiresAt, want)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []PeopleOptions{{}, {Issuer: "https://example.com"}, {Issuer: "http://example.com", ClientID: "x"}} {
		if _, err := NewPeople(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

func TestCookie(t *testing.T) {
	p := newDesk(t).people()
	for base, secure := range map[string]bool{"https://example.com": true, "http://127.0.0.1": false} {
		c := p.cookie(base+CallbackPath, "state", "value")
		if c.Secure != secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/auth/" || c.MaxAge != 600 {
			t.Errorf("%s has %+v", base, c)
		}
	}
}

func TestUserName(t *testing.T) {
	for wish, want := range map[string]string{
		"alice": "alice", "Alice": "alice", "alice@example.com": "alice", "Alice B. Liddell": "alice-b.liddell",
		"a..b": "a.b", "a_-b": "a_b", "-a-": "a", "": "user", "@": "user", "Ælfred": "lfred", "山田": "user",
		"oidc": "oidc-1", "OIDC": "oidc-1", "admin": "admin-1", "local": "local-1", "berth_u_x": "berth_u_x",
		strings.Repeat("ab-", 40): strings.Repeat("ab-", 21) + "a", strings.Repeat("a", 63) + "-b": strings.Repeat("a", 63),
		"a\r\nb": "a-b", "\x00": "user",
	} {
		if got := userName(wish); got != want {
			t.Errorf("%q becomes %q, want %q", wish, got, want)
		}
	}
}

func FuzzUserName(f *testing.F) {
	f.Add("Alice B.")
	f.Fuzz(func(t *testing.T, wish string) {
		name := userName(wish)
		if err := errors.Join(access.ValidUserName(name), access.ValidLabel("key", nameOf(wish, "login"))); err != nil || slices.Contains([]string{"admin", "oidc"}, name) {
			t.Errorf("%q becomes %q: %v", wish, name, err)
		}
	})
}
