package credential

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/registry"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestKinds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, "of a file\n")
	for _, c := range []struct {
		source Source
		want   Credential
		header string
	}{
		{Anonymous(), Credential{}, ""},
		{Basic("me", "pw"), Credential{Username: "me", Password: "pw"}, "Basic bWU6cHc="},
		{Basic("", "pw"), Credential{Password: "pw"}, "Basic OnB3"},
		{Bearer("t"), Credential{Bearer: "t"}, "Bearer t"},
		{PasswordFile("me", path), Credential{Username: "me", Password: "of a file"}, "Basic bWU6b2YgYSBmaWxl"},
		{TokenFile(path), Credential{Bearer: "of a file"}, "Bearer of a file"},
	} {
		got, err := c.source.Credential(t.Context())
		if got != c.want || got.direct() != c.header || err != nil {
			t.Errorf("got %v as %q, want %q, %v", got, got.direct(), c.header, err)
		}
	}
	if _, err := NewExchange(Exchange{Kind: "other"}); err == nil {
		t.Error("there is an exchange of another kind")
	}
}

// TestFilesRotate: a registry is shown the password that stands in the file now,
// even when nobody can tell from its times that the file was changed.
func TestFilesRotate(t *testing.T) {
	for _, challenge := range []string{`Basic realm="x"`, usualChallenge} {
		x := newWorld(t)
		x.challenge = challenge
		password := "first"
		allow := func(want string) {
			password = want
			clear(x.valid)
			x.valid["Basic "+base64.StdEncoding.EncodeToString([]byte("me:"+want))] = !strings.HasPrefix(challenge, "Bearer")
			x.grant = func(w http.ResponseWriter, r *http.Request) {
				if _, got, _ := r.BasicAuth(); got != password {
					w.WriteHeader(401)
					return
				}
				x.give(w, fmt.Sprintf("for-%x", password), "")
			}
		}
		allow("first")
		path := filepath.Join(t.TempDir(), "password")
		write(t, path, "first\n")
		a := x.authorizer(PasswordFile("me", path))
		x.want(a, "a", 200)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, "other\n")
		if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
		x.later(time.Hour)
		x.set(func() { allow("other") })
		x.want(a, "a", 200)

		write(t, path, "the third\n")
		x.later(time.Hour)
		x.set(func() { allow("the third") })
		before := len(x.seen)
		x.want(a, "a", 200)
		if n := len(x.seen) - before; n != 1 {
			t.Errorf("%s: %d requests with a file that looks changed", challenge, n)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		x.later(time.Hour)
		if _, err := x.pull(a, "a"); !registry.IsCode(err, registry.Unavailable) {
			t.Errorf("%s: without the file: %v", challenge, err)
		}
	}
}

func TestSecretFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	for content, want := range map[string]string{
		"x": "x", "x\n": "x", "x\r\n": "x", " x \n": " x ", "": "", "\n": "", "a\nb\n": "", "\x00": "", strings.Repeat("x", maxFile+1): "",
	} {
		write(t, path, content)
		got, err := readSecret(path)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%.20q is read as %q, %v", content, got, err)
		}
	}
}

// helper puts a shell script on the path as docker-credential-test.
func helper(t *testing.T, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	write(t, filepath.Join(dir, "docker-credential-test"), "#!/bin/sh\ncd '"+dir+"'\n[ \"$1\" = get ] || exit 9\n"+script)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

func helperFor(t *testing.T, upstream string) Source {
	t.Helper()
	u, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	source, err := Helper("test", u)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

func TestHelper(t *testing.T) {
	dir := helper(t, `cat > asked; echo x >> runs; cat answer`)
	for _, c := range []struct {
		upstream, asked, answer string
		want                    Credential
	}{
		{"https://registry-1.docker.io", "https://index.docker.io/v1/", `{"ServerURL":"s","Username":"me","Secret":"pw"}`, Credential{Username: "me", Password: "pw"}},
		{"https://ghcr.io", "ghcr.io", `{"Username":"<token>","Secret":"refresh"}`, Credential{Identity: "refresh"}},
		{"https://x.example:8443/path", "x.example:8443", `{"Username":"","Secret":"pw"}`, Credential{Password: "pw"}},
	} {
		write(t, filepath.Join(dir, "answer"), c.answer)
		got, err := helperFor(t, c.upstream).Credential(t.Context())
		if asked, _ := os.ReadFile(filepath.Join(dir, "asked")); err != nil || got != c.want || string(asked) != c.asked {
			t.Errorf("for %s it was asked %q and gave %v, %v", c.upstream, asked, got, err)
		}
	}
}

// TestHelperIsAskedSeldom: once for all who ask, and again when what it said was
// refused.
func TestHelperIsAskedSeldom(t *testing.T) {
	dir := helper(t, `echo x >> runs; n=$(wc -l < runs); echo "{\"Username\":\"me\",\"Secret\":\"pw$n\"}"`)
	source := helperFor(t, "https://x.example")
	var waiting sync.WaitGroup
	for range 20 {
		waiting.Go(func() { source.Credential(context.Background()) })
	}
	waiting.Wait()
	c, err := source.Credential(t.Context())
	if err != nil || c.Password != "pw1" {
		t.Fatalf("got %v, %v", c, err)
	}
	source.(Dropper).Drop(Credential{Username: "somebody else"})
	source.(Dropper).Drop(c)
	if c, err = source.Credential(t.Context()); err != nil || c.Password != "pw2" {
		t.Fatalf("got %v, %v", c, err)
	}
	if runs, _ := os.ReadFile(filepath.Join(dir, "runs")); string(runs) != "x\nx\n" {
		t.Errorf("it ran %d times", len(runs)/2)
	}
}

func TestHelpersThatFail(t *testing.T) {
	for what, c := range map[string]struct{ script, says string }{
		"not found":  {`echo "credentials not found in native keychain"; exit 1`, "no credentials"},
		"fails":      {`echo secret; echo secret >&2; exit 3`, "exit status 3"},
		"no JSON":    {`echo secret`, "not JSON"},
		"no secret":  {`echo '{"Username":"secret"}'`, "no secret"},
		"too much":   {`while :; do echo secretsecretsecretsecretsecretsecret; done`, "more than"},
		"too much 2": {`head -c 100000 /dev/zero`, "more than"},
	} {
		helper(t, c.script)
		got, err := helperFor(t, "https://x.example").Credential(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.says) || !got.Anonymous() {
			t.Errorf("%s: got %v, %v", what, got, err)
		}
		if err != nil && strings.Contains(strings.ReplaceAll(err.Error(), "no secret", ""), "secret") {
			t.Errorf("%s: the error repeats what it says: %v", what, err)
		}
	}
	missing, err := Helper("berth-test-not-installed", &url.URL{Host: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := missing.Credential(t.Context()); err == nil {
		t.Error("a helper that is not there answers")
	}
}

// TestAHelperThatHangs is ended, even if what it started holds on to its output.
func TestAHelperThatHangs(t *testing.T) {
	dir := helper(t, `sleep 1000 & echo $! > pid.new; mv pid.new pid; wait`)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := runHelper(ctx, "docker-credential-test", "x")
		failed <- err
	}()
	var pid int
	for pid == 0 {
		if text, err := os.ReadFile(filepath.Join(dir, "pid")); err == nil {
			fmt.Sscan(string(text), &pid)
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-failed; err == nil {
		t.Error("it gave something")
	}
	if left, err := os.FindProcess(pid); err == nil {
		left.Kill()
	}
}

func TestHelperNames(t *testing.T) {
	for _, name := range []string{"", "../evil", "a/b", `a\b`, "-x", ".x", "a b", "a\x00", "a;b", strings.Repeat("x", 65)} {
		if _, err := Helper(name, &url.URL{Host: "x"}); err == nil {
			t.Errorf("%q may be run", name)
		}
	}
	for _, name := range []string{"ecr-login", "gcr", "acr-env", "pass", "x_y.z"} {
		if _, err := Helper(name, &url.URL{Host: "x"}); err != nil {
			t.Error(err)
		}
	}
}

// TestSourcesThatFail: what cannot be had is not asked for with every request, and
// who asked for an image learns that it may come later, but no path.
func TestSourcesThatFail(t *testing.T) {
	x := newWorld(t)
	asked, failure := 0, errors.New("/etc/secret is gone")
	k := keep(func() time.Time { return x.now }, func(context.Context) (Credential, time.Duration, error) {
		asked++
		return Credential{}, 0, failure
	})
	a := x.authorizer(k)
	for range 3 {
		_, err := a.Authorization(t.Context(), "a")
		var e *registry.Error
		if !errors.As(err, &e) || e.Code != registry.Unavailable || !errors.Is(err, failure) || strings.Contains(fmt.Sprint(e.Detail), "/etc") {
			t.Fatalf("got %v", err)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	x.later(failurePause)
	failure = fmt.Errorf("the cloud: %w", ErrRefused)
	if _, err := a.Authorization(t.Context(), "a"); !registry.IsCode(err, registry.Faulty) || asked != 2 {
		t.Errorf("got %v, asked %d times", err, asked)
	}
}
