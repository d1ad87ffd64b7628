package test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheck wants berth check to see a short and a missing file, and a changed one
// where it reads the bytes, and to say which repository and digest they hurt.
func TestCheck(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	s := mustStart(t, data)
	d, err := s.pushBlob("check/app", stuff{1, 1 << 20}.bytes())
	if err != nil {
		t.Fatal(err)
	}
	if out, err := check(data); err != nil {
		t.Fatalf("beside a running server: %v\n%s", err, out)
	}
	if err := s.terminate(); err != nil {
		t.Fatal(err)
	}
	path := fileOf(t, data, d.Digest)
	for name, damage := range map[string]func() error{
		"changed": func() error { return os.WriteFile(path, stuff{2, 1 << 20}.bytes(), 0o600) },
		"short":   func() error { return os.Truncate(path, 1000) },
		"missing": func() error { return os.Rename(path, filepath.Join(t.TempDir(), "kept")) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		out, err := check(data)
		if name == "changed" {
			if err != nil || !strings.Contains(out, "existence and sizes") {
				t.Fatalf("bytes that nobody asked to be read: %v\n%s", err, out)
			}
			out, err = check(data, "--deep")
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, "check/app") || !strings.Contains(out, d.Digest) {
			t.Fatalf("%s file: want exit code 1 and the names of repository and digest: %v\n%s", name, err, out)
		}
		if err := os.WriteFile(path, stuff{1, 1 << 20}.bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := check(data, "--deep"); err != nil {
		t.Fatalf("after the bytes came back: %v\n%s", err, out)
	}
}

// check runs berth check.
func check(data string, args ...string) (output string, err error) {
	out, err := berth(append([]string{"check", "--data", data}, args...)...).CombinedOutput()
	return string(out), err
}

// fileOf finds the file that holds the content of a digest.
func fileOf(t *testing.T, data, digest string) (path string) {
	t.Helper()
	err := filepath.WalkDir(data, func(p string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(p)
		if digestOf(content) == digest {
			path = p
		}
		return err
	})
	if err != nil || path == "" {
		t.Fatalf("no file below %s holds %s: %v", data, digest, err)
	}
	return path
}
