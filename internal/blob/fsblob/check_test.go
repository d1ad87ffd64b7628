package fsblob

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/berth-registry/berth/internal/blob"
)

func wantText(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in: %v", part, err)
		}
	}
}

// TestExplain holds what an operator reads against each cause.
func TestExplain(t *testing.T) {
	dir, uid := t.TempDir(), os.Getuid()
	missing := filepath.Join(dir, "data", "blobs")
	if err := os.Chmod(dir, 0o550); err != nil {
		t.Fatal(err)
	}
	here := []string{dir, fmt.Sprintf("runs as uid %d", uid), fmt.Sprintf("belongs to uid %d", uid), "mode dr-xr-x---"}
	for _, c := range []struct {
		dir  string
		err  error
		want string
	}{
		{dir, syscall.EACCES, fmt.Sprintf("chown -R %d %s && chmod u+rwx %s", uid, dir, dir)},
		{dir, syscall.EPERM, fmt.Sprintf("chown -R %d %s", uid, dir)},
		{missing, syscall.EACCES, fmt.Sprintf("mkdir -p %s && chown -R %d %s", missing, uid, missing)},
		{dir, syscall.EROFS, "mount its file system writable"},
		{dir, syscall.ENOSPC, "df -h " + dir},
		{dir, syscall.EDQUOT, "df -h " + dir},
		{missing, syscall.ENOENT, "mkdir -p " + missing},
		{missing, syscall.ENOTDIR, "is a file"},
		{dir, syscall.EIO, "system's log"},
	} {
		err := explain(c.dir, &os.PathError{Op: "open", Path: c.dir, Err: c.err})
		wantText(t, err, append(here, c.dir, c.want, c.err.Error())...)
		if !errors.Is(err, c.err) {
			t.Errorf("%v is not in the chain of: %v", c.err, err)
		}
		if full := c.err == syscall.ENOSPC || c.err == syscall.EDQUOT; errors.Is(err, blob.ErrFull) != full {
			t.Errorf("%v: ErrFull is %t, want %t", c.err, !full, full)
		}
		if errors.Is(err, blob.ErrNotFound) {
			t.Errorf("a folder's trouble looks like an absent object: %v", err)
		}
	}
	if hint := mend(dir, "/srv", true, syscall.EACCES); !strings.Contains(hint, "chmod a+x /srv") {
		t.Errorf("below a folder that cannot be entered: %s", hint)
	}
	if hint := mend("/berth", "/", false, syscall.EACCES); strings.Contains(hint, " / ") || strings.HasSuffix(hint, " /") {
		t.Errorf("advises to change the root of the file system: %s", hint)
	}
}

func TestNewBelowAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{file, filepath.Join(file, "blobs"), filepath.Join(file, "deep", "blobs")} {
		_, err := New(root)
		wantText(t, err, root, file+" is a file")
	}
}

func TestCheckOfMissingFolder(t *testing.T) {
	root := filepath.Join(t.TempDir(), "blobs")
	s := newStore(t, root)
	if err := os.Remove(root); err != nil {
		t.Fatal(err)
	}
	wantText(t, s.Check(t.Context()), root, "it has gone")
	if _, err := os.Stat(root); err == nil {
		t.Error("Check made the folder anew: behind a lost mount that would hide all objects")
	}
}

func TestCheckLeavesNothing(t *testing.T) {
	root := t.TempDir()
	if err := newStore(t, root).Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
