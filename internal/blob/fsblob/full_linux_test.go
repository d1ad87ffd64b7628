package fsblob

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/berth-registry/berth/internal/blob"
)

const diskSize = 1 << 20

// TestDiskFull runs into the end of a real disk, which takes the right to mount
// one, and into that of the process's file size, which takes none.
func TestDiskFull(t *testing.T) {
	t.Run("tmpfs", func(t *testing.T) {
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
			t.Skipf("mounting a tmpfs: %v; the limit of file sizes stands in for it", err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		testFull(t, dir, syscall.ENOSPC, func() error {
			return syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=16m")
		})
		testFillUp(t, dir+"/filled")
	})
	t.Run("file size", func(t *testing.T) {
		// The limit is the whole process's, so it is put on one of its own.
		child := exec.Command(os.Args[0], "-test.run=^TestFileSizeLimit$", "-test.v")
		child.Env = append(os.Environ(), limitedEnv+"=1")
		out, err := child.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS: TestFileSizeLimit")) {
			t.Fatalf("%v\n%s", err, out)
		}
	})
}

// limitedEnv tells the process of TestFileSizeLimit that it may limit itself.
const limitedEnv = "FSBLOB_TEST_FILE_SIZE_LIMIT"

func TestFileSizeLimit(t *testing.T) {
	if os.Getenv(limitedEnv) == "" {
		t.Skip("TestDiskFull runs this in a process of its own")
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	lift := func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old) }
	t.Cleanup(func() { lift() })
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: diskSize, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	testFull(t, t.TempDir(), syscall.EFBIG, lift)
}

// testFull appends more than fits, and again when there is room.
func testFull(t *testing.T, root string, cause error, makeRoom func() error) {
	s := newStore(t, root)
	head, tail := bytes.Repeat([]byte("head"), 100_000), bytes.Repeat([]byte("tail"), 1<<20)
	first, err := s.Append(t.Context(), "some-key", blob.State{}, bytes.NewReader(head))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantFull(t, s, "some-key", first, tail, cause)
	}
	wantFull(t, s, "next-key", blob.State{}, tail, cause)
	put(t, s, "small-key", 1000) // what does not fit must not have kept its space

	if err := makeRoom(); err != nil {
		t.Fatal(err)
	}
	st, err := s.Append(t.Context(), "some-key", first, bytes.NewReader(tail))
	if err == nil {
		err = s.Seal(t.Context(), "some-key", st)
	}
	if err != nil {
		t.Fatalf("after space was freed: %v", err)
	}
	rc, err := s.Open(t.Context(), "some-key", 0, st.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, append(head, tail...)) {
		t.Errorf("after space was freed: %d bytes, %v", len(got), err)
	}
}

// wantFull expects an Append to fail, to change nothing, and to free what it
// took.
func wantFull(t *testing.T, s *Store, key string, st blob.State, data []byte, cause error) {
	t.Helper()
	got, err := s.Append(t.Context(), key, st, bytes.NewReader(data))
	if !errors.Is(err, blob.ErrFull) || !errors.Is(err, cause) || got.Size != st.Size {
		t.Fatalf("Append: %d bytes, %v; want %d, ErrFull and %v", got.Size, err, st.Size, cause)
	}
	_, path := s.path(key)
	if info, err := os.Stat(path); err != nil || info.Size() != st.Size {
		t.Errorf("the file has not been cut back to %d bytes: %v, %v", st.Size, info, err)
	}
}

// testFillUp fills a disk to the last byte: Check must say so, and Delete must
// work without space.
func testFillUp(t *testing.T, root string) {
	s := newStore(t, root)
	put(t, s, "some-key", 1000)
	filler, err := os.Create(root + "/filler")
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	if _, err := io.Copy(filler, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	if err := s.Check(t.Context()); !errors.Is(err, blob.ErrFull) {
		t.Errorf("Check of a full disk: %v, want ErrFull", err)
	}
	if left, err := filepath.Glob(root + "/.check-*"); err != nil || len(left) != 0 {
		t.Errorf("Check left %q behind, %v", left, err)
	}
	if err := s.Delete(t.Context(), "some-key"); err != nil {
		t.Errorf("Delete on a full disk: %v", err)
	}
	if err := filler.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check after space was freed: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
