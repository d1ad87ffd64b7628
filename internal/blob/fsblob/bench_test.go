package fsblob

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/berth-registry/berth/internal/blob"
)

var sizes = []struct {
	name string
	n    int64
}{{"64KiB", 64 << 10}, {"64MiB", 64 << 20}}

// BenchmarkAppend stores new objects durably: data, name and seal.
func BenchmarkAppend(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			s := newStore(b, b.TempDir())
			data := make([]byte, size.n)
			b.SetBytes(size.n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				key := fmt.Sprintf("object-%08x", i)
				st, err := s.Append(b.Context(), key, blob.State{}, bytes.NewReader(data))
				if err == nil {
					err = s.Seal(b.Context(), key, st)
				}
				if err == nil && size.n > 1<<20 {
					b.StopTimer() // the disk is not ours to fill
					err = s.Delete(b.Context(), key)
					b.StartTimer()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRead sends objects to a connection that keeps nothing.
func BenchmarkRead(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			s := newStore(b, b.TempDir())
			put(b, s, "some-key", int(size.n))
			conn := &sink{buf: make([]byte, 256<<10)}
			b.SetBytes(size.n)
			b.ReportAllocs()
			for b.Loop() {
				rc, err := s.Open(b.Context(), "some-key", 0, size.n)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(conn, rc); err != nil || n != size.n {
					b.Fatalf("%d bytes, %v", n, err)
				}
				rc.Close()
			}
		})
	}
}

// sink reads from a source by its own means, as a connection does.
type sink struct{ buf []byte }

func (s *sink) Write(p []byte) (int, error) { return len(p), nil }

func (s *sink) ReadFrom(r io.Reader) (n int64, err error) {
	for {
		m, err := r.Read(s.buf)
		n += int64(m)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
