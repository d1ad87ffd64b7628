package fsblob

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/berth-registry/berth/internal/blob"
)

// TestLeftoverTail is a crash amid an Append: bytes are in the file that no
// state ever counted. Whatever comes next, they must not become part of it.
func TestLeftoverTail(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 20_000)
	const kept = 150_000
	for name, c := range map[string]struct {
		appends bool
		rest    []byte
	}{
		"a shorter part":  {true, data[kept:]},
		"an empty part":   {true, nil},
		"sealing at once": {false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			before := newStore(t, dir)
			st, err := before.Append(t.Context(), "some-key", blob.State{}, bytes.NewReader(data[:kept]))
			if err != nil {
				t.Fatal(err)
			}
			_, path := before.path("some-key")
			writeBehind(t, path, bytes.Repeat([]byte("leftover"), 40_000))

			s := newStore(t, dir)
			if c.appends {
				if st, err = s.Append(t.Context(), "some-key", st, bytes.NewReader(c.rest)); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Seal(t.Context(), "some-key", st); err != nil {
				t.Fatal(err)
			}
			wantObject(t, s, "some-key", data[:kept+len(c.rest)])
		})
	}
}

func writeBehind(t *testing.T, path string, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.Write(data)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// wantObject expects a file of exactly these bytes, and that Open reads them.
func wantObject(t *testing.T, s *Store, key string, data []byte) {
	t.Helper()
	_, path := s.path(key)
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the file of %s has %d bytes, %v; want the %d stored", key, len(got), err, len(data))
	}
	rc, err := s.Open(t.Context(), key, 0, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	var got bytes.Buffer
	if _, err := got.ReadFrom(rc); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("%s reads as %d bytes, %v; want the %d stored", key, got.Len(), err, len(data))
	}
}

// A subfolder that an operator tidied away while it was empty is made again.
func TestShardRemoved(t *testing.T) {
	s, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for range 2 {
		st, err := s.Append(ctx, "shard-test", blob.State{}, strings.NewReader("bytes"))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Seal(ctx, "shard-test", st); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(ctx, "shard-test"); err != nil {
			t.Fatal(err)
		}
		dir, _ := s.path("shard-test")
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLateWriter opens what another writer has sealed meanwhile, as a process does
// that was frozen, and writes nothing. The object stays as it is.
func TestLateWriter(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 100)
	s := newStore(t, t.TempDir())
	for _, before := range []int64{0, 300} {
		st, err := s.Append(t.Context(), "some-key", blob.State{}, bytes.NewReader(data))
		if err == nil {
			err = s.Seal(t.Context(), "some-key", st)
		}
		if err != nil {
			t.Fatal(err)
		}
		broken := errors.New("the lease is over")
		if st, err := s.Append(t.Context(), "some-key", blob.State{Size: before}, iotest.ErrReader(broken)); !errors.Is(err, broken) || st.Size != before {
			t.Errorf("Append at %d: %+v, %v", before, st, err)
		}
		wantObject(t, s, "some-key", data)
	}
}

// TestLeftoverOfEmpty: an empty object is empty, whatever a crash left.
func TestLeftoverOfEmpty(t *testing.T) {
	s := newStore(t, t.TempDir())
	put(t, s, "some-key", 10)
	if err := s.Seal(t.Context(), "some-key", blob.State{}); err != nil {
		t.Fatal(err)
	}
	_, path := s.path("some-key")
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("an empty object's file: %v, %v", info, err)
	}
}
