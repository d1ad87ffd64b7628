package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

const oidcSecret = "a secret/with:odd+characters"

// oidcClient is berth at the provider. It is native so that its port is free.
var oidcClient = map[string]any{
	"client_id": "berth", "client_secret": oidcSecret, "application_type": "native",
	"redirect_uris": []string{"http://127.0.0.1/auth/callback"},
}

// startProvider runs the OpenID provider of the folder oidc with these users
// (log-in name → claims) until the test ends, and returns its issuer.
func startProvider(t *testing.T, users map[string]any) string {
	t.Helper()
	settings, err := json.Marshal(map[string]any{"clients": []any{oidcClient}, "users": users})
	if err != nil {
		t.Fatal(err)
	}
	var warnings bytes.Buffer
	cmd := exec.Command(newClient(t, "node").path, "server.mjs", string(settings))
	cmd.Dir = "oidc"
	cmd.Stderr = &warnings
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("the OpenID provider ended: %v\n%s", err, warnings.String())
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the OpenID provider does not start (`npm ci` in test/oidc installs it): %v", err)
	}
	return strings.TrimSpace(line)
}

// browser is a person in front of a browser.
type browser struct {
	http *http.Client
	user string // whom they log in as; "": they press Cancel
}

func newBrowser(t *testing.T, user string) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{http: &http.Client{Jar: jar, Timeout: 30 * time.Second}, user: user}
}

var (
	formAction  = regexp.MustCompile(`<form[^>]* action="([^"]+)"`)
	formPrompt  = regexp.MustCompile(`name="prompt" value="(login|consent)"`)
	cancelOfIts = regexp.MustCompile(`href="([^"]+/abort)"`)
)

// visit opens an address, fills in every form that comes, and returns the page
// at the end.
func (b *browser) visit(t *testing.T, address string) (status int, page string) {
	t.Helper()
	res, err := b.http.Get(address)
	for range 10 {
		if err != nil {
			t.Fatal(err)
		}
		status, page = readPage(t, res)
		action, prompt := formAction.FindStringSubmatch(page), formPrompt.FindStringSubmatch(page)
		switch {
		case action == nil || prompt == nil:
			return status, page
		case b.user == "":
			cancel := cancelOfIts.FindStringSubmatch(page)
			if cancel == nil {
				t.Fatalf("no way to cancel on:\n%s", page)
			}
			res, err = b.http.Get(html.UnescapeString(cancel[1]))
		default:
			form := url.Values{"prompt": {prompt[1]}, "login": {b.user}, "password": {"any"}}
			res, err = b.http.PostForm(html.UnescapeString(action[1]), form)
		}
	}
	t.Fatalf("still a form:\n%s", page)
	return 0, ""
}

func readPage(t *testing.T, res *http.Response) (status int, page string) {
	t.Helper()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}
