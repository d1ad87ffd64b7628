package credentials_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-registry/berth/cmd/berth/internal/credentials"
)

const (
	one = "https://one.example.com"
	two = "http://127.0.0.1:5000"
)

func open(t *testing.T, environ map[string]string) *credentials.Store {
	t.Helper()
	s, err := credentials.Open(func(name string) string { return environ[name] })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func want(t *testing.T, s *credentials.Store, server string, c credentials.Credential) {
	t.Helper()
	if got, err := s.Get(t.Context(), server); err != nil || got != c {
		t.Errorf("the credential for %s is %+v, %v; want %+v", server, got, err, c)
	}
}

func TestPlace(t *testing.T) {
	for _, c := range []struct {
		environ map[string]string
		path    string
	}{
		{map[string]string{"HOME": "/home/x"}, "/home/x/.config/berth/credentials.json"},
		{map[string]string{"HOME": "/home/x", "XDG_CONFIG_HOME": "/conf"}, "/conf/berth/credentials.json"},
		{map[string]string{"HOME": "/home/x", "XDG_CONFIG_HOME": "relative"}, "/home/x/.config/berth/credentials.json"},
	} {
		if got := open(t, c.environ).Path(); got != c.path {
			t.Errorf("%v: %s, want %s", c.environ, got, c.path)
		}
	}
	if _, err := credentials.Open(func(string) string { return "" }); err == nil || !strings.Contains(err.Error(), "BERTH_KEY") {
		t.Errorf("without a home: %v", err)
	}
}

func TestFile(t *testing.T) {
	home := t.TempDir()
	s := open(t, map[string]string{"HOME": home})
	if _, err := s.Server(); !errors.Is(err, credentials.ErrNotFound) {
		t.Errorf("before any log-in: %v", err)
	}
	if _, err := s.Get(t.Context(), one); !errors.Is(err, credentials.ErrNotFound) {
		t.Errorf("before any log-in: %v", err)
	}
	first := credentials.Credential{User: "alice", KeyID: "k", Secret: "s1"}
	second := credentials.Credential{Secret: "s2"}
	for server, c := range map[string]credentials.Credential{one: first, two: second} {
		if err := s.Put(t.Context(), server, c); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Server(); err != nil || got != server {
			t.Errorf("the latest log-in was to %s, %v; want %s", got, err, server)
		}
	}
	want(t, s, one, first)
	want(t, s, two, second)
	for path, mode := range map[string]os.FileMode{s.Path(): 0o600, filepath.Dir(s.Path()): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if names, err := os.ReadDir(filepath.Dir(s.Path())); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
	if err := errors.Join(s.Put(t.Context(), one, first), s.Delete(t.Context(), one)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Server(); !errors.Is(err, credentials.ErrNotFound) {
		t.Errorf("after log-out: %v", err)
	}
	want(t, s, two, second)
	if err := s.Delete(t.Context(), one); !errors.Is(err, credentials.ErrNotFound) {
		t.Errorf("log out twice: %v", err)
	}
}

func TestFileOfOthers(t *testing.T) {
	s := open(t, map[string]string{"HOME": t.TempDir()})
	if err := s.Put(t.Context(), one, credentials.Credential{Secret: "s"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.Path(), 0o640); err != nil {
		t.Fatal(err)
	}
	_, err := s.Get(t.Context(), one)
	if err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others can read: %v", err)
	}
	if err := errors.Join(os.Chmod(s.Path(), 0o600), os.WriteFile(s.Path(), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{s.Put(t.Context(), two, credentials.Credential{}), s.Delete(t.Context(), one)} {
		if err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("a damaged file: %v", err)
		}
	}
}

// script is a credential helper: it keeps what it is given in files.
const script = `#!/bin/sh
case $1 in
store) cat > "$KEEP" ;;
get) read -r url; test "$url" = https://one.example.com && test -f "$KEEP" && cat "$KEEP" ;;
erase) cat > "$KEEP.erased"; rm "$KEEP" ;;
esac
`

func TestHelper(t *testing.T) {
	bin, keep := t.TempDir(), filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-drawer"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("KEEP", keep)
	s := open(t, map[string]string{"HOME": t.TempDir()})
	dir := filepath.Dir(s.Path())
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(s.Path(), []byte(`{"credential_helper": "drawer"}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	c := credentials.Credential{User: "alice", KeyID: "k", Secret: "hidden"}
	if err := s.Put(t.Context(), one, c); err != nil {
		t.Fatal(err)
	}
	want(t, s, one, c)
	text, err := os.ReadFile(s.Path())
	if err != nil || strings.Contains(string(text), "hidden") {
		t.Errorf("the file holds %s, %v", text, err)
	}
	if kept, err := os.ReadFile(keep); err != nil || string(kept) != `{"ServerURL":"https://one.example.com","Username":"alice","Secret":"hidden"}` {
		t.Errorf("the helper was given %s, %v", kept, err)
	}
	if err := s.Delete(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if erased, err := os.ReadFile(keep + ".erased"); err != nil || string(erased) != one {
		t.Errorf("the helper erased %s, %v", erased, err)
	}
	// Its failures are told, and leave the file as it was.
	if err := os.Remove(filepath.Join(bin, "docker-credential-drawer")); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), one, c); err == nil || !strings.Contains(err.Error(), "docker-credential-drawer") || strings.Contains(err.Error(), "hidden") {
		t.Errorf("a helper that is not there: %v", err)
	}
	if _, err := s.Get(t.Context(), one); !errors.Is(err, credentials.ErrNotFound) {
		t.Errorf("after a log-in that failed: %v", err)
	}
}

func TestHelperNames(t *testing.T) {
	s := open(t, map[string]string{"HOME": t.TempDir()})
	dir := filepath.Dir(s.Path())
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(s.Path(), []byte(`{"credential_helper": "../../tmp/x"}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), one, credentials.Credential{Secret: "s"}); err == nil || !strings.Contains(err.Error(), "is no name") {
		t.Errorf("a helper that is a path: %v", err)
	}
}

func TestServerURL(t *testing.T) {
	for in, want := range map[string]string{
		"registry.example.com":          "https://registry.example.com",
		"Registry.example.com:8443":     "https://registry.example.com:8443",
		"https://registry.example.com/": "https://registry.example.com",
		"http://registry.example.com":   "http://registry.example.com",
		"localhost:5000":                "http://localhost:5000",
		"127.0.0.1:5000":                "http://127.0.0.1:5000",
		"[::1]:5000":                    "http://[::1]:5000",
		"https://127.0.0.1:5000":        "https://127.0.0.1:5000",
	} {
		if got, err := credentials.ServerURL(in); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "https://", "ftp://x", "https://u:hidden@x", "https://x/path", "https://x?q", "https://x#f", "https://x:port", "http://[::1", "a b"} {
		if got, err := credentials.ServerURL(in); err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
}
