package test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// managed is a server that asks for log-in, and the key of its admin.
type managed struct {
	*server
	*testing.T
	key string
}

// startManaged runs berth with more settings of its environment, each NAME=value.
func startManaged(t *testing.T, settings ...string) *managed {
	t.Helper()
	data := t.TempDir()
	out, err := berth("admin", "reset", "--data", data).Output()
	if err != nil {
		t.Fatalf("berth admin reset: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	address := freeAddress(t)
	m := &managed{T: t, key: lines[len(lines)-1]}
	m.server = &server{log: &logBook{ready: make(chan string, 1)}, done: make(chan struct{})}
	m.cmd = berth("serve", "--auth", "required", "--listen", address, "--url", "http://"+address, "--data", data)
	m.cmd.Env = append(m.cmd.Env, settings...)
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		m.err = m.cmd.Wait()
		close(m.done)
	}()
	t.Cleanup(func() {
		m.kill()
		if t.Failed() {
			t.Logf("end of the server's log:\n%s", m.log.tail())
		}
	})
	select {
	case base := <-m.log.ready:
		m.api = newAPI(base)
	case <-m.done:
		t.Fatalf("berth serve ended: %v\n%s", m.err, m.log.tail())
	case <-time.After(30 * time.Second):
		t.Fatalf("berth serve printed no address for 30 s\n%s", m.log.tail())
	}
	return m
}

// freeAddress is a loopback address that nobody listened on a moment ago: the
// server must know its own before it starts.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// admin runs a command of berth as the admin.
func (m *managed) admin(args ...string) {
	m.Helper()
	cmd := berth(args...)
	cmd.Env = append(cmd.Env, "BERTH_SERVER="+m.base, "BERTH_KEY="+m.key)
	if out, err := cmd.CombinedOutput(); err != nil {
		m.Errorf("berth %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// in is m for a part of its test.
func (m *managed) in(t *testing.T) *managed {
	part := *m
	part.T = t
	return &part
}

// wantQuiet wants that the server's log does not tell a secret.
func (m *managed) wantQuiet(secret string) {
	m.Helper()
	if text := m.log.tail(); strings.Contains(text, secret) {
		m.Errorf("the log tells a secret:\n%s", text)
	}
}

// basic asks with a user name and a password and wants a status.
func (m *managed) basic(user, password, method, path string, want int) []byte {
	m.Helper()
	status, body := m.ask(user, password, method, path)
	if status != want {
		m.Errorf("%s %s as %s answers %d, want %d: %s", method, path, user, status, want, body)
	}
	return body
}

func (m *managed) ask(user, password, method, path string) (status int, body []byte) {
	m.Helper()
	req, err := http.NewRequest(method, m.base+path, nil)
	if err != nil {
		m.Fatal(err)
	}
	req.SetBasicAuth(user, password)
	res, err := m.http.Do(req)
	if err != nil {
		m.Fatal(err)
	}
	defer res.Body.Close()
	if body, err = io.ReadAll(res.Body); err != nil {
		m.Fatal(err)
	}
	return res.StatusCode, body
}

// startWithProvider runs a provider with alice, of the group Developers, and
// mallory, and a server that knows it, with a project that the group pushes to.
func startWithProvider(t *testing.T) *managed {
	t.Helper()
	issuer := startProvider(t, map[string]any{
		"alice":   map[string]any{"preferred_username": "Alice", "groups": []string{"Developers"}},
		"mallory": map[string]any{"preferred_username": "admin"},
	})
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(oidcSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := startManaged(t, "BERTH_AUTH_OIDC_ISSUER="+issuer, "BERTH_AUTH_OIDC_CLIENT_ID=berth", "BERTH_AUTH_OIDC_CLIENT_SECRET_FILE="+secret)
	m.admin("group", "create", "developers", "--claim", "Developers")
	m.admin("project", "create", "acme", "--visibility", "private")
	m.admin("member", "add", "acme", "developers", "--group", "--role", "writer")
	return m
}

// browserLogin is one run of berth login --oidc.
type browserLogin struct {
	*exec.Cmd
	home   string
	stderr *bufio.Reader
	stdout bytes.Buffer
}

var loginAddress = regexp.MustCompile(`http://\S+/auth/login\?\S+`)

// beginLogin runs berth login --oidc and returns the address that it shows.
func (m *managed) beginLogin() (l *browserLogin, address string) {
	m.Helper()
	l = &browserLogin{Cmd: berth("login", m.base, "--oidc"), home: m.TempDir()}
	l.Env = append(l.Env, "HOME="+l.home, "XDG_CONFIG_HOME="+l.home, "PATH=/nonexistent") // no browser of its own
	l.Stdout = &l.stdout
	pipe, err := l.StderrPipe()
	if err != nil {
		m.Fatal(err)
	}
	if err := l.Start(); err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { l.Process.Kill() })
	l.stderr = bufio.NewReader(pipe)
	for {
		line, err := l.stderr.ReadString('\n')
		if address = loginAddress.FindString(line); address != "" {
			return l, address
		}
		if err != nil {
			m.Fatalf("berth login shows no address: %v, %v", err, l.Wait())
		}
	}
}

// whoami asks the server who the log-in is.
func (m *managed) whoami(l *browserLogin) string {
	m.Helper()
	cmd := berth("whoami")
	cmd.Env = append(cmd.Env, "HOME="+l.home, "XDG_CONFIG_HOME="+l.home)
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.Errorf("berth whoami: %v\n%s", err, out)
	}
	return string(out)
}

var keyText = regexp.MustCompile(`berth_u_[0-9A-Za-z]+`)

// keyOf is the key that a log-in left in its folder.
func (m *managed) keyOf(l *browserLogin) string {
	m.Helper()
	text, err := os.ReadFile(filepath.Join(l.home, "berth", "credentials.json"))
	if err != nil {
		m.Fatal(err)
	}
	return keyText.FindString(string(text))
}

// TestBrowserLogIn goes the whole way: the command, the provider's pages, the
// key, and what it may do by the groups that the provider told.
func TestBrowserLogIn(t *testing.T) {
	m := startWithProvider(t)
	alice := newBrowser(t, "alice")
	l, address := m.beginLogin()
	if status, page := alice.visit(t, address); status != http.StatusOK || !strings.Contains(page, "You are logged in") {
		t.Fatalf("%d:\n%s", status, page)
	}
	if rest, err := io.ReadAll(l.stderr); err != nil {
		t.Fatal(err)
	} else if err := l.Wait(); err != nil {
		t.Fatalf("berth login: %v\n%s", err, rest)
	}
	if out := m.whoami(l); !strings.Contains(out, "alice") {
		t.Errorf("whoami: %s", out)
	}
	key := m.keyOf(l)
	m.basic("any", key, "GET", "/v2/", http.StatusOK)
	m.basic("any", key, "POST", "/v2/acme/app/blobs/uploads/", http.StatusAccepted)
	m.basic("any", key, "POST", "/v2/other/app/blobs/uploads/", http.StatusForbidden)
	m.admin("user", "lock", "alice")
	m.basic("any", key, "GET", "/v2/", http.StatusUnauthorized)
	_, address = m.beginLogin()
	if status, page := alice.visit(t, address); status != http.StatusForbidden || !strings.Contains(page, "locked") {
		t.Errorf("%d:\n%s", status, page)
	}
	m.wantQuiet(key)
}

// TestBrowserLogInIsNobodyElse: a name at the provider gives nothing.
func TestBrowserLogInIsNobodyElse(t *testing.T) {
	m := startWithProvider(t)
	l, address := m.beginLogin()
	if status, page := newBrowser(t, "mallory").visit(t, address); status != http.StatusOK {
		t.Fatalf("%d:\n%s", status, page)
	}
	if err := l.Wait(); err != nil {
		t.Fatal(err)
	}
	if out := m.whoami(l); !strings.Contains(out, "admin-1") {
		t.Errorf("whoami: %s", out)
	}
	key := m.keyOf(l)
	m.basic("any", key, "POST", "/v2/acme/app/blobs/uploads/", http.StatusForbidden)
	m.basic("any", key, "GET", "/v2/acme/app/tags/list", http.StatusNotFound)
	cmd := berth("user", "ls")
	cmd.Env = append(cmd.Env, "BERTH_SERVER="+m.base, "BERTH_KEY="+key)
	var failed *exec.ExitError
	if out, err := cmd.CombinedOutput(); !errors.As(err, &failed) {
		t.Errorf("user ls: %v\n%s", err, out)
	}
}

// TestBrowserLogInIsCancelled: who presses Cancel gets a page that says so.
func TestBrowserLogInIsCancelled(t *testing.T) {
	m := startWithProvider(t)
	_, address := m.beginLogin()
	if status, page := newBrowser(t, "").visit(t, address); status != http.StatusForbidden || !strings.Contains(page, "access_denied") || !strings.Contains(page, "Try again") {
		t.Errorf("%d:\n%s", status, page)
	}
}

var shownCode = regexp.MustCompile(`<code>([A-Za-z0-9_-]{43})</code>`)

// TestCodeByHand is the way without a port: the page shows a code, which is
// worth nothing without the verifier, and nothing the second time.
func TestCodeByHand(t *testing.T) {
	m := startWithProvider(t)
	const verifier = "a-verifier-that-the-command-line-client-made-up"
	digest := sha256.Sum256([]byte(verifier))
	challenge := base64.RawURLEncoding.EncodeToString(digest[:])
	alice := newBrowser(t, "alice")
	for _, tt := range []struct {
		verifier string
		want     int
	}{{strings.Repeat("x", 43), http.StatusForbidden}, {verifier, http.StatusOK}} {
		status, page := alice.visit(t, m.base+"/auth/login?challenge="+challenge+"&name=laptop")
		code := shownCode.FindStringSubmatch(page)
		if status != http.StatusOK || code == nil || !strings.Contains(page, "alice") {
			t.Fatalf("%d:\n%s", status, page)
		}
		m.redeem(code[1], tt.verifier, tt.want)
		m.redeem(code[1], verifier, http.StatusForbidden)
	}
}

// redeem changes a code for a key and wants a status.
func (m *managed) redeem(code, verifier string, want int) {
	m.Helper()
	body := fmt.Sprintf(`{"code":%q,"verifier":%q}`, code, verifier)
	res, err := m.call("POST", "/auth/login/key", strings.NewReader(body), []string{"Content-Type", "application/json"}, want)
	if err != nil {
		m.Error(err)
		return
	}
	defer res.Body.Close()
	var answer struct{ User, Key string }
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		m.Fatal(err)
	}
	if want == http.StatusOK {
		if answer.User != "alice" {
			m.Errorf("the key is %s's", answer.User)
		}
		m.basic("any", answer.Key, "POST", "/v2/acme/app/blobs/uploads/", http.StatusAccepted)
	}
}
