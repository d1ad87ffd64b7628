package fsblob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/disk"
)

func TestLayout(t *testing.T) {
	root := filepath.Join(t.TempDir(), "not", "there", "yet")
	s := newStore(t, root)
	put(t, s, "019aa7f0-7c1e", 10)
	for path, mode := range map[string]os.FileMode{
		root:                      os.ModeDir | 0o750,
		filepath.Join(root, "f0"): os.ModeDir | 0o750,
		filepath.Join(root, "f0", "019aa7f0-7c1e"): 0o640,
		filepath.Dir(root):                         os.ModeDir | 0o750,
		filepath.Dir(filepath.Dir(root)):           os.ModeDir | 0o750,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
		} else if info.Mode()&^0o027 != mode&^0o027 { // whatever the umask
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), mode)
		}
	}
}

// TestLostBytes resumes and seals a file that has fewer bytes than its state,
// as after a restore from an older backup.
func TestLostBytes(t *testing.T) {
	s := newStore(t, t.TempDir())
	put(t, s, "some-key", 100)
	st := blob.State{Size: 101}
	got, err := s.Append(t.Context(), "some-key", st, strings.NewReader("more"))
	if err == nil || got.Size != st.Size || !strings.Contains(err.Error(), "has 100 bytes, fewer than the 101") {
		t.Errorf("Append: %d bytes, %v; want the state unchanged and an error that counts", got.Size, err)
	}
	if err := s.Seal(t.Context(), "some-key", st); err == nil {
		t.Error("Seal took a file that is too short")
	}
	_, path := s.path("some-key")
	if info, err := os.Stat(path); err != nil || info.Size() != 100 {
		t.Errorf("the file was changed: %v, %v", info, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), "some-key", st, strings.NewReader("more")); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Append to a lost file: %v, want ErrNotFound", err)
	}
	if err := s.Seal(t.Context(), "some-key", st); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Seal of a lost file: %v, want ErrNotFound", err)
	}
}

// cancelling ends its context after some reads, as a client that hangs up.
type cancelling struct {
	r      io.Reader
	cancel context.CancelFunc
	reads  int
	n      int64
}

func (c *cancelling) Read(p []byte) (int, error) {
	if c.reads--; c.reads == 0 {
		c.cancel()
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// TestAppendCancelled must keep all that was read: its caller has hashed it.
func TestAppendCancelled(t *testing.T) {
	s := newStore(t, t.TempDir())
	data := bytes.Repeat([]byte("0123456789"), 200_000)
	ctx, cancel := context.WithCancel(t.Context())
	r := &cancelling{r: bytes.NewReader(data), cancel: cancel, reads: 3}
	st, err := s.Append(ctx, "some-key", blob.State{}, r)
	if !errors.Is(err, context.Canceled) || st.Size != r.n || st.Size == 0 || st.Size == int64(len(data)) {
		t.Fatalf("%d bytes of %d read, %v", st.Size, r.n, err)
	}
	st, err = s.Append(t.Context(), "some-key", st, bytes.NewReader(data[st.Size:]))
	if err == nil {
		err = s.Seal(t.Context(), "some-key", st)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, path := s.path("some-key")
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes are stored, %v, want %d", len(got), err, len(data))
	}
}

// TestSyncFails stores an object whose folder cannot be synced: what may vanish
// must not be acknowledged.
func TestSyncFails(t *testing.T) {
	s := newStore(t, t.TempDir())
	broken := errors.New("broken disk")
	s.dirs.fsync = func(string) error { return broken }
	for range 2 { // also when the subfolder exists already
		if st, err := s.Append(t.Context(), "some-key", blob.State{}, strings.NewReader("data")); !errors.Is(err, broken) || st.Size != 0 {
			t.Errorf("Append with a root that cannot be synced: %d bytes, %v", st.Size, err)
		}
		if err := s.Seal(t.Context(), "empty-key", blob.State{}); !errors.Is(err, broken) {
			t.Errorf("Seal with a root that cannot be synced: %v", err)
		}
	}
	s.dirs.fsync = func(dir string) error {
		if dir == s.root {
			return disk.SyncFolder(dir)
		}
		return broken
	}
	if st, err := s.Append(t.Context(), "some-key", blob.State{}, strings.NewReader("data")); !errors.Is(err, broken) || st.Size != 0 {
		t.Errorf("Append with a subfolder that cannot be synced: %d bytes, %v", st.Size, err)
	}
	if err := s.Seal(t.Context(), "empty-key", blob.State{}); !errors.Is(err, broken) {
		t.Errorf("Seal with a subfolder that cannot be synced: %v", err)
	}
	s.dirs.fsync = disk.SyncFolder
	put(t, s, "some-key", 10)
}

// TestSyncs counts: a new file's folder is synced, and nothing twice.
func TestSyncs(t *testing.T) {
	s := newStore(t, t.TempDir())
	var synced []string
	s.dirs.fsync = func(dir string) error {
		rel, err := filepath.Rel(s.root, dir)
		synced = append(synced, rel)
		return err
	}
	step := func(name, want string) {
		t.Helper()
		if got := strings.Join(synced, " "); got != want {
			t.Errorf("%s synced %q, want %q", name, got, want)
		}
		synced = nil
	}
	st := blob.State{}
	for _, want := range []string{". 0a", "", ""} {
		next, err := s.Append(t.Context(), "minute0a-some", st, strings.NewReader("data"))
		if err != nil {
			t.Fatal(err)
		}
		st = next
		step("Append", want)
	}
	if err := s.Seal(t.Context(), "minute0a-some", st); err != nil {
		t.Fatal(err)
	}
	step("Seal", "")
	if err := s.Seal(t.Context(), "minute0a-empty", blob.State{}); err != nil {
		t.Fatal(err)
	}
	step("Seal of an empty object", "0a")
	s2 := newStore(t, s.root)
	s2.dirs.fsync = s.dirs.fsync
	put(t, s2, "minute0a-next", 10)
	step("the first write after a restart", ". 0a")
	if err := s2.Delete(t.Context(), "minute0a-next"); err != nil {
		t.Fatal(err)
	}
	step("Delete", "")
}
