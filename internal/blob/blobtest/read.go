package blobtest

import (
	"bytes"
	"errors"
	"io"
	"testing/iotest"
	"time"

	"github.com/berth-registry/berth/internal/blob"
)

func (s *suite) testRanges() {
	const size = crossing
	data := content(20, size)
	s.put("ranges", data)
	for _, r := range []struct{ off, n int64 }{
		{0, size}, {0, 1}, {0, 0}, {1, 1}, {1, size - 1}, {size - 1, 1}, {size, 0},
		{4095, 2}, {256<<10 - 1, 2}, {256 << 10, 256 << 10}, {size / 2, size / 4},
	} {
		got, err := readAll(s.Context(), s.store, "ranges", r.off, r.n)
		if err != nil {
			s.Errorf("%d bytes from %d: %v", r.n, r.off, err)
		} else if want := data[r.off : r.off+r.n]; !bytes.Equal(got, want) {
			s.Errorf("%d bytes from %d: %s", r.n, r.off, difference(got, want))
		}
	}
}

// testReader reads in pieces, by io.Copy, and by one after the other.
func (s *suite) testReader() {
	data := content(21, 10_000)
	s.put("reader", data)
	open := func() io.ReadCloser {
		rc, err := s.store.Open(s.Context(), "reader", 100, 9000)
		if err != nil {
			s.Fatal(err)
		}
		s.Cleanup(func() { rc.Close() })
		return rc
	}
	want := data[100:9100]
	if err := iotest.TestReader(open(), want); err != nil {
		s.Error(err)
	}
	var copied bytes.Buffer
	if n, err := io.Copy(&copied, open()); err != nil || n != 9000 {
		s.Errorf("io.Copy: %d bytes, %v", n, err)
	}
	if !bytes.Equal(copied.Bytes(), want) {
		s.Errorf("io.Copy: %s", difference(copied.Bytes(), want))
	}
	rc, head := open(), make([]byte, 1000)
	if _, err := io.ReadFull(rc, head); err != nil {
		s.Fatal(err)
	}
	var rest bytes.Buffer
	if _, err := io.Copy(&rest, rc); err != nil {
		s.Fatal(err)
	}
	if got := append(head, rest.Bytes()...); !bytes.Equal(got, want) {
		s.Errorf("Read, then io.Copy: %s", difference(got, want))
	}
	if n, err := rc.Read(head); n != 0 || err != io.EOF {
		s.Errorf("Read behind the end: %d, %v, want 0, EOF", n, err)
	}
}

func (s *suite) testNotFound() {
	s.wantAbsent("never-created")
	s.put("was-there", []byte("x"))
	if err := s.store.Delete(s.Context(), "was-there"); err != nil {
		s.Fatal(err)
	}
	s.wantAbsent("was-there")
}

func (s *suite) testOpenOutlivesDelete() {
	data := content(22, 5*crossing) // more than pipes and socket buffers hold
	s.put("outlives", data)
	rc, err := s.store.Open(s.Context(), "outlives", 0, int64(len(data)))
	if err != nil {
		s.Fatal(err)
	}
	defer rc.Close()
	head := make([]byte, 10)
	if _, err := io.ReadFull(rc, head); err != nil {
		s.Fatal(err)
	}
	if err := s.store.Delete(s.Context(), "outlives"); err != nil {
		s.Fatal(err)
	}
	s.wantAbsent("outlives")
	rest, err := io.ReadAll(rc)
	if err != nil {
		s.Fatalf("reading on after Delete: %v", err)
	}
	if got := append(head, rest...); !bytes.Equal(got, data) {
		s.Errorf("reading on after Delete: %s", difference(got, data))
	}
}

func (s *suite) testURL() {
	s.put("with-url", []byte("x"))
	url, err := s.store.URL(s.Context(), "with-url", time.Minute)
	if err == nil && url == "" || err != nil && (url != "" || !errors.Is(err, blob.ErrUnsupported)) {
		s.Errorf("URL: %q, %v; want an address or ErrUnsupported", url, err)
	}
}
