package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// TestCacheFull: the cache takes no more; the client gets all, and nothing stays.
func TestCacheFull(t *testing.T) {
	for name, break_ := range map[string]func(*blobStack){
		"at the start": func(s *blobStack) { s.blobs.Fail("Create", 1, syscall.ENOSPC) },
		"on the way":   func(s *blobStack) { s.blobs.Room(large / 3) },
		"at the end":   func(s *blobStack) { s.blobs.Fail("Seal", 1, syscall.EIO) },
		"database":     func(s *blobStack) { s.cache = readOnly{s.cache} },
	} {
		t.Run(name, func(t *testing.T) {
			s := newBlobStack(t)
			content := registrytest.Random(large)
			d := s.ship(t, content)
			break_(s)
			takeAll(t, s.open(t, d, 0), content)
			s.landed(t, d)
			s.wantCached(t, blobHere, d, false)
			s.wantSeen(t, "fetch", "passed")
			if n := s.stored.Load(); n != 0 {
				t.Errorf("%d bytes are said to be stored", n)
			}
			s.origin.wantParts(t, part{0, large})
			s.wantNothingLeft(t, 0)
		})
	}
}

// readOnly is a cache whose rows cannot be written.
type readOnly struct{ registry.Registry }

func (readOnly) StartUpload(context.Context, string, registry.UploadOptions) (registry.Upload, error) {
	return nil, &registry.Error{Code: registry.Unavailable}
}

// TestNoSpool: nothing can be written down; each client gets the origin's answer.
func TestNoSpool(t *testing.T) {
	s := newBlobStack(t)
	if err := os.RemoveAll(s.spool); err != nil {
		t.Fatal(err)
	}
	content := registrytest.Random(1 << 20)
	d := s.ship(t, content)
	ctx, told := registry.WithFreshness(t.Context())
	r, err := s.find(t, d).Open(ctx, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	takeAll(t, r, content)
	r.Close()
	if f := told(); f == nil || f.Stored {
		t.Errorf("what is not kept is told as %+v", f)
	}
	if got := registrytest.ReadBlob(t, s.find(t, d), 5, 5); !bytes.Equal(got, content[5:10]) {
		t.Error("a part differs")
	}
	s.origin.wantParts(t, part{0, 1 << 20}, part{5, 5})
	s.wantSeen(t, "fetch", "passed", "passed")

	s.origin.body = func(n int, _ part, r io.ReadCloser) (io.ReadCloser, error) {
		if n == 3 {
			return cut(r, 300_000, errCut), nil
		}
		return r, nil
	}
	takeAll(t, s.open(t, d, 0), content) // also from what breaks off
	s.origin.body = func(_ int, _ part, r io.ReadCloser) (io.ReadCloser, error) {
		wrong := bytes.Clone(content)
		wrong[0]++
		return body{bytes.NewReader(wrong), r}, nil
	}
	r = s.open(t, d, 0)
	got, err := io.ReadAll(r)
	r.Close()
	registrytest.WantCode(t, "read wrong bytes", err, registry.Faulty)
	if len(got) == 1<<20 {
		t.Error("all wrong bytes were given out")
	}
	s.wantNothingLeft(t, 0)
}

// TestSpoolFull: the disk is full in the middle of a blob. All readers go on,
// wherever they stand, and who reads to the end has it verified.
func TestSpoolFull(t *testing.T) {
	for name, wrong := range map[string]bool{"right": false, "wrong at the end": true} {
		t.Run(name, func(t *testing.T) { testSpoolFull(t, wrong) })
	}
}

func testSpoolFull(t *testing.T, wrong bool) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("mounting a tmpfs: %v; nothing else is a full disk", err)
	}
	t.Cleanup(func() { // runs after the proxy's
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	s := newBlobStack(t, func(o *Options) { o.Spool = disk })
	s.spool = disk
	s.flights.room = func(string) (int64, int64, bool) { return 0, 0, false } // others may fill it meanwhile
	content := registrytest.Random(large)
	d := s.ship(t, content)
	g := newGate()
	s.origin.body = func(n int, p part, r io.ReadCloser) (io.ReadCloser, error) {
		if n == 1 {
			return g.body(n, p, r)
		}
		if !wrong || p.off+p.n < large {
			return r, nil
		}
		rest := bytes.Clone(content[p.off:])
		rest[len(rest)-1]++
		return body{bytes.NewReader(rest), r}, nil
	}
	g.to(1 << 20)
	b := s.find(t, d)
	whole, slow := s.open(t, d, 0), s.open(t, d, 0)
	take(t, whole, content[:1<<20])
	inside, err := b.Open(t.Context(), 1<<19, 1<<18)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	s.flights.patience = time.Millisecond
	beyond, err := b.Open(t.Context(), 8<<20, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer beyond.Close()
	g.to(large)
	takeAll(t, inside, content[1<<19:1<<19+1<<18])
	takeAll(t, beyond, content[8<<20:8<<20+1000])
	for r, rest := range map[io.ReadCloser][]byte{whole: content[1<<20:], slow: content} {
		got, err := io.ReadAll(r)
		r.Close()
		if wrong {
			registrytest.WantCode(t, "read a blob that ends wrongly", err, registry.Faulty)
			if len(got) >= len(rest) {
				t.Error("all of it was given out")
			}
		} else if err != nil || !bytes.Equal(got, rest) {
			t.Errorf("%d bytes of %d, %v", len(got), len(rest), err)
		}
	}
	s.landed(t, d)
	s.wantCached(t, blobHere, d, false)
	if results, _ := s.seen("fetch"); results[0] != "passed" {
		t.Errorf("fetch events: %v", results)
	}
	s.wantNothingLeft(t, 0)
}

// TestReadersReachSendfile: what is there is handed on as a file, so that a
// connection lets the kernel send it.
func TestReadersReachSendfile(t *testing.T) {
	s := newBlobStack(t)
	g := newGate()
	s.origin.body = g.body
	content := registrytest.Random(large)
	d := s.ship(t, content)
	g.to(large / 2)
	r := s.open(t, d, 0)
	take(t, r, content[:10])
	conn := &connection{t: t}
	done := make(chan error)
	go func() {
		_, err := io.Copy(conn, r)
		done <- err
	}()
	g.to(large)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(conn.got.Bytes(), content[10:]) {
		t.Errorf("%d bytes differ", conn.got.Len())
	}
}

// connection reads from a file by its own means.
type connection struct {
	t   *testing.T
	got bytes.Buffer
}

func (c *connection) Write([]byte) (int, error) {
	c.t.Error("bytes were copied")
	return 0, errors.ErrUnsupported
}

func (c *connection) ReadFrom(r io.Reader) (int64, error) {
	part, ok := r.(*io.LimitedReader)
	if !ok {
		c.t.Errorf("it was handed a %T", r)
	} else if _, ok := part.R.(*os.File); !ok {
		c.t.Errorf("it was handed a part of a %T", part.R)
	}
	return c.got.ReadFrom(r)
}

// TestLeftoversOfACrash go, and nothing else does.
func TestLeftoversOfACrash(t *testing.T) {
	s := newBlobStack(t)
	dir := t.TempDir()
	ours, other := filepath.Join(dir, "berth-flight-123"), filepath.Join(dir, "data")
	for _, path := range []string{ours, other} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var fs flights
	if err := fs.open(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ours); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
	// While another proxy, or process, uses the folder.
	g := newGate()
	s.origin.body = g.body
	content := registrytest.Random(1 << 20)
	d := s.ship(t, content)
	g.to(1 << 19)
	r := s.open(t, d, 0)
	if err := fs.open(s.spool); err != nil {
		t.Fatal(err)
	}
	g.to(1 << 20)
	takeAll(t, r, content)
	if err := fs.open(other); err == nil {
		t.Error("a file was taken for a folder")
	}
}

// TestSpoolLeavesRoom: what is said to be too large for the disk passes through,
// with what is on its way counted in.
func TestSpoolLeavesRoom(t *testing.T) {
	s := newBlobStack(t)
	free := int64(3 << 20)
	s.flights.room = func(string) (int64, int64, bool) { return free, 20 << 20, true } // of which 1 MiB is spared
	content := registrytest.Random(2 << 20)
	first := s.ship(t, content)
	g := newGate()
	s.origin.body = func(n int, p part, r io.ReadCloser) (io.ReadCloser, error) {
		if n == 1 {
			return g.body(n, p, r)
		}
		return r, nil
	}
	g.to(1 << 20)
	r := s.open(t, first, 0)
	take(t, r, content[:1<<19])
	second := registrytest.Random(2<<20 + 1)
	d := s.ship(t, second)
	takeAll(t, s.open(t, d, 0), second)
	s.wantCached(t, blobHere, d, false)
	g.to(2 << 20)
	takeAll(t, r, content[1<<19:])
	s.landed(t, first)
	s.wantCached(t, blobHere, first, true)
	third := registrytest.Random(2 << 20)
	d = s.ship(t, third)
	takeAll(t, s.open(t, d, 0), third)
	s.landed(t, d)
	s.wantCached(t, blobHere, d, true)
}
