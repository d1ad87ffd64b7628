package fsblob

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/berth-registry/berth/internal/blob"
)

const nobody = 65534

// TestCheckReadOnly makes a store's file system read-only under it, as the
// kernel does when a disk breaks. What is stored stays readable.
func TestCheckReadOnly(t *testing.T) {
	dir := t.TempDir()
	mountSmall(t, dir)
	s := newStore(t, dir)
	data := put(t, s, "some-key", 1000)
	if err := syscall.Mount("tmpfs", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	wantExplained(t, s.Check(t.Context()), syscall.EROFS, dir, dir, "mount its file system writable")
	wantObject(t, s, "some-key", data)
}

// TestOutOfInodes: a file system that takes no more files is full as well, for
// Append, for Seal of an empty object and for Check.
func TestOutOfInodes(t *testing.T) {
	dir := t.TempDir()
	mountSmall(t, dir)
	s := newStore(t, dir)
	for i := 0; ; i++ {
		err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("inode-%d", i)), nil, 0o640)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if st, err := s.Append(t.Context(), "some-key", blob.State{}, strings.NewReader("x")); !errors.Is(err, blob.ErrFull) || st.Size != 0 {
		t.Errorf("Append: %d bytes, %v; want none and ErrFull", st.Size, err)
	}
	if err := s.Seal(t.Context(), "empty-key", blob.State{}); !errors.Is(err, blob.ErrFull) {
		t.Errorf("Seal: %v, want ErrFull", err)
	}
	wantExplained(t, s.Check(t.Context()), blob.ErrFull, dir, dir, "df -h "+dir)
}

// mountSmall mounts a file system of few inodes on dir until the test ends.
func mountSmall(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,nr_inodes=16"); err != nil {
		t.Skipf("mounting a tmpfs: %v; only a mount is read-only or out of inodes", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil { // busy if the store left a file open
			t.Error(err)
		}
	})
}

// TestCheckPermission runs as a user who may do nothing where the folder is.
func TestCheckPermission(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "data")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(parent, 0o755), os.Chmod(filepath.Dir(parent), 0o755)); err != nil {
		t.Fatal(err)
	}
	hidden := filepath.Join(dir, "below")
	fresh := filepath.Join(parent, "fresh")
	if err := os.Mkdir(hidden, 0o700); err != nil {
		t.Fatal(err)
	}
	uid := os.Getuid()
	if uid != 0 {
		nobodyIs(t, parent, dir)
	}
	var checked, below, made error
	asNobody(t, func() {
		checked, below, made = CheckFolder(dir), CheckFolder(hidden), MakeFolder(fresh)
		uid = os.Getuid()
	})
	me := fmt.Sprint(uid)
	wantExplained(t, checked, os.ErrPermission, dir, dir, "chown -R "+me+" "+dir+" && chmod u+rwx "+dir)
	wantExplained(t, below, os.ErrPermission, hidden, dir, "chmod a+x "+dir)
	wantExplained(t, made, os.ErrPermission, fresh, parent, "mkdir -p "+fresh+" && chown -R "+me+" "+fresh)
}

// nobodyIs takes the folders' owner every right, who is then as good as nobody.
func nobodyIs(t *testing.T, parent, dir string) {
	t.Helper()
	if err := errors.Join(os.Chmod(dir, 0), os.Chmod(parent, 0o555)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(os.Chmod(parent, 0o755), os.Chmod(dir, 0o755)); err != nil {
			t.Error(err)
		}
	})
}

// asNobody runs fn without the powers of root: on a thread of its own, which
// ends with fn and takes its user with it.
func asNobody(t *testing.T, fn func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		if os.Getuid() == 0 {
			runtime.LockOSThread() // never unlocked: the thread dies
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
				done <- errno
				return
			}
		}
		fn()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// wantExplained expects the error cause about dir, with the process's user, the
// owner and mode of at, the nearest that can be seen, and a way to mend it.
func wantExplained(t *testing.T, err, cause error, dir, at, mend string) {
	t.Helper()
	if !errors.Is(err, cause) {
		t.Fatalf("%v, want %v", err, cause)
	}
	info, statErr := os.Stat(at)
	if statErr != nil {
		t.Fatal(statErr)
	}
	for _, want := range []string{
		"folder " + dir, "runs as uid ", fmt.Sprintf("%s has mode %v", at, info.Mode()),
		fmt.Sprintf("belongs to uid %d", info.Sys().(*syscall.Stat_t).Uid), mend,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
}
