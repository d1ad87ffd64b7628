package test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// guarded is a server of its own that asks for log-in, and every secret that
// its test uses. When the test ends they are looked for where none may be.
type guarded struct {
	*server
	t        *testing.T
	data     string   // folder
	log      string   // file with all that the server ever printed
	settings []string // of its environment: NAME=value
	service  string   // that tokens are for
	admin    string   // key
	secrets  []string // needles, as they may be on the wire
}

// newGuarded starts a server with these settings, and checks at the end of the
// test that it told no secret.
func newGuarded(t *testing.T, settings ...string) *guarded {
	t.Helper()
	dir := t.TempDir()
	g := &guarded{t: t, service: "berth", data: filepath.Join(dir, "data"), log: filepath.Join(dir, "log"), settings: append(settings, "BERTH_LOG_LEVEL=debug")}
	out, err := berth("admin", "reset", "--data", g.data).Output()
	if err != nil {
		t.Fatalf("berth admin reset: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	g.admin = g.hide(lines[len(lines)-1])
	g.start()
	t.Cleanup(g.finish)
	return g
}

// start runs the server on its data folder.
func (g *guarded) start() {
	g.t.Helper()
	file, err := os.OpenFile(g.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		g.t.Fatal(err)
	}
	s := &server{log: &logBook{ready: make(chan string, 1)}, done: make(chan struct{})}
	g.server = s
	s.cmd = berth("serve", "--auth", "required", "--listen", "127.0.0.1:0", "--data", g.data)
	s.cmd.Env = append(s.cmd.Env, g.settings...)
	both := io.MultiWriter(s.log, file)
	s.cmd.Stdout, s.cmd.Stderr = both, both
	if err := s.cmd.Start(); err != nil {
		g.t.Fatal(errors.Join(err, file.Close()))
	}
	go func() {
		s.err = s.cmd.Wait()
		file.Close()
		close(s.done)
	}()
	select {
	case base := <-s.log.ready:
		s.api = newAPI(base)
	case <-s.done:
		g.t.Fatalf("berth serve ended: %v\n%s", s.err, s.log.tail())
	case <-time.After(30 * time.Second):
		s.kill()
		g.t.Fatalf("berth serve printed no address for 30 s\n%s", s.log.tail())
	}
}

// restart ends the server as an administrator does, and starts it again at
// another address.
func (g *guarded) restart() {
	g.t.Helper()
	g.end()
	g.start()
}

func (g *guarded) end() {
	g.t.Helper()
	// A server waits for seconds for connections that were never used.
	g.http.CloseIdleConnections()
	http.DefaultClient.CloseIdleConnections()
	if err := g.terminate(); err != nil {
		g.t.Fatalf("SIGTERM: %v", err)
	}
}

// finish ends the server and looks for secrets in all that it leaves behind.
func (g *guarded) finish() {
	select {
	case <-g.done:
		g.t.Errorf("the server has ended: %v\n%s", g.err, g.server.log.tail())
		return
	default:
	}
	if g.t.Failed() {
		defer func() { g.t.Logf("end of the server's log:\n%s", g.server.log.tail()) }()
	}
	g.restart() // writes what waits
	for _, format := range []string{"jsonl", "csv"} {
		trail := g.berth("audit", "export", "--format", format)
		if !strings.Contains(trail, "user:admin") {
			g.t.Errorf("the audit trail lacks the administrator's doings:\n%s", trail)
		}
		g.wantQuiet("the audit trail as "+format, []byte(trail))
	}
	settings := berth("config", "print")
	settings.Env = append(append(settings.Env, g.settings...), "BERTH_DATA="+g.data)
	out, err := settings.CombinedOutput()
	if err != nil {
		g.t.Errorf("berth config print: %v\n%s", err, out)
	}
	g.wantQuiet("config print", out)
	g.end()
	g.wantQuiet("the log", []byte(readFile(g.t, g.log)))
	g.wantQuietFolder()
}

func (g *guarded) wantQuiet(where string, text []byte) {
	g.t.Helper()
	for _, secret := range g.secrets {
		if at := bytes.Index(text, []byte(secret)); at >= 0 {
			line := text[bytes.LastIndexByte(text[:at], '\n')+1:]
			line, _, _ = bytes.Cut(line, []byte("\n"))
			g.t.Errorf("%s tells a secret: %.300q", where, line)
		}
	}
}

// wantQuietFolder wants that nothing in the data folder lets its reader log in.
func (g *guarded) wantQuietFolder() {
	g.t.Helper()
	err := filepath.WalkDir(g.data, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		g.wantQuiet(path, []byte(readFile(g.t, path)))
		return nil
	})
	if err != nil {
		g.t.Error(err)
	}
}

// hide notes a secret, which it returns.
func (g *guarded) hide(secret string) string {
	if secret == "" {
		panic("every text holds this secret") // a mistake of this package
	}
	g.secrets = append(g.secrets, secret)
	return secret
}

// berth runs a command of the administrator and returns what it prints.
func (g *guarded) berth(args ...string) string {
	g.t.Helper()
	return g.berthIn("", args...)
}

// berthIn is berth with something on standard input.
func (g *guarded) berthIn(input string, args ...string) string {
	g.t.Helper()
	out, err := g.tryBerth(input, args...)
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

// tryBerth is berthIn for whoever is not the test itself.
func (g *guarded) tryBerth(input string, args ...string) (out string, err error) {
	cmd := berth(args...)
	cmd.Env = append(cmd.Env, "BERTH_SERVER="+g.base, "BERTH_KEY="+g.admin, "HOME="+g.data)
	cmd.Stdin = strings.NewReader(input)
	var errs strings.Builder
	cmd.Stderr = &errs
	text, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("berth %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(string(text)), err
}

// credential is what somebody logs in with.
type credential struct{ user, secret string }

// user makes a user with a password.
func (g *guarded) user(name string) credential {
	g.t.Helper()
	c := credential{name, g.hide("password/of:" + name + " 1")}
	g.berthIn(c.secret, "user", "create", name, "--password-stdin")
	return c
}

// key makes a key of a project or of a user; flags say which, and its role. It
// works with any name that is nobody's.
func (g *guarded) key(name string, flags ...string) credential {
	g.t.Helper()
	out := g.berth(append([]string{"key", "create", "--name", name}, flags...)...)
	lines := strings.Split(out, "\n")
	return credential{"whoever", g.hide(lines[len(lines)-1])}
}

// wrong is the credential with another secret of the same kind: a key has one
// character changed.
func (g *guarded) wrong(c credential) credential {
	last := len(c.secret) - 1
	return credential{c.user, g.hide(c.secret[:last] + string(another(c.secret[last])))}
}

// another is a letter other than c.
func another(c byte) byte {
	if c == 'a' {
		return 'b'
	}
	return 'a'
}

// as speaks to the server with Basic credentials.
func (g *guarded) as(c credential) *api {
	header := basicHeader(c.user, c.secret)
	g.hide(strings.TrimPrefix(header, "Basic "))
	return g.with(header)
}

// root speaks with the administrator's key.
func (g *guarded) root() *api { return g.as(credential{"x", g.admin}) }

// bearer speaks to the server with a token.
func (g *guarded) bearer(token string) *api { return g.with("Bearer " + token) }

// with speaks to the server with an Authorization header.
func (g *guarded) with(authorization string) *api {
	return &api{base: g.base, http: &http.Client{Transport: authorized{authorization, g.host()}}}
}

// authorized is a transport that adds a header to what goes to a host, and not
// where that sends its clients.
type authorized struct{ value, host string }

func (a authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != a.host {
		return http.DefaultTransport.RoundTrip(r)
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", a.value)
	return http.DefaultTransport.RoundTrip(r)
}

// repo is a repository as somebody sees it.
func (g *guarded) repo(a *api, name string) *repo { return &repo{g.t, a, name} }

// grant is the answer of the token endpoint.
type grant struct {
	Token        string
	Scope        string
	RefreshToken string `json:"refresh_token"`
}

// access is what a token grants, one text for each scope, as in a request.
func (gr *grant) access(t *testing.T) (scopes []string) {
	t.Helper()
	parts := strings.Split(gr.Token, ".")
	if len(parts) != 3 {
		t.Fatalf("the token has %d parts", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Access []struct {
			Type, Name string
			Actions    []string
		}
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	for _, a := range claims.Access {
		scopes = append(scopes, a.Type+":"+a.Name+":"+strings.Join(a.Actions, ","))
	}
	return scopes
}

// token asks for a token as docker does.
func (g *guarded) token(c credential, scopes ...string) *grant {
	g.t.Helper()
	q := url.Values{"service": {g.service}, "account": {c.user}, "scope": scopes}
	return g.granted(g.as(c).call("GET", "/auth/token?"+q.Encode(), nil, nil, 200))
}

// post asks for a token with a form.
func (g *guarded) post(form url.Values, want int) *grant {
	g.t.Helper()
	return g.granted(g.call("POST", "/auth/token", strings.NewReader(form.Encode()),
		[]string{"Content-Type", "application/x-www-form-urlencoded"}, want))
}

func (g *guarded) granted(res *http.Response, err error) *grant {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	var a grant
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		g.t.Fatal(err)
	}
	if a.Token != "" {
		g.hide(a.Token)
	}
	if a.RefreshToken != "" {
		g.hide(a.RefreshToken)
	}
	return &a
}

// refusal wants a request to be refused with a status and an error code.
func refusal(t *testing.T, a *api, method, path string, status int, code string) http.Header {
	t.Helper()
	res, err := a.call(method, path, nil, nil, status)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodHead {
		return res.Header
	}
	if !bytes.Contains(body, fmt.Appendf(nil, `"code":%q`, code)) {
		t.Errorf("%s %s: want %s: %s", method, path, code, body)
	}
	if n := len(res.Header["Www-Authenticate"]); status == 401 && n != 1 {
		t.Errorf("%s %s: 401 with %d challenges", method, path, n)
	}
	return res.Header
}

func basicHeader(user, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+secret))
}
