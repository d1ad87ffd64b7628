package blobtest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/berth-registry/berth/internal/blob"
)

// testWriters writes many objects at once, each in two steps.
func (s *suite) testWriters() {
	const writers, each = 24, 6
	errs := make([]error, writers)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				key := fmt.Sprintf("writer-%02d-%02d", w, i*17)
				errs[w] = errors.Join(errs[w], writeAndRead(s.Context(), s.store, key, content(uint64(w*each+i), 50_000)))
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		s.Fatal(err)
	}
	if n := len(s.list("")); n != writers*each/2 {
		s.Errorf("%d objects are listed, want the %d that were not deleted", n, writers*each/2)
	}
}

// writeAndRead is one object's life; objects with an even last digit end it.
func writeAndRead(ctx context.Context, store blob.Store, key string, data []byte) error {
	st, err := store.Create(ctx, key)
	if err != nil {
		return err
	}
	for _, part := range [][]byte{data[:20_000], data[20_000:]} {
		if st, err = store.Append(ctx, key, st, bytes.NewReader(part)); err != nil {
			return err
		}
	}
	if err := store.Seal(ctx, key, st); err != nil {
		return err
	}
	got, err := readAll(ctx, store, key, 0, st.Size)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("%s: %s", key, difference(got, data))
	}
	if key[len(key)-1]%2 == 0 {
		return store.Delete(ctx, key)
	}
	return nil
}

// testLargeStream sends more through a store than it may hold in memory.
func (s *suite) testLargeStream() {
	const key, size = "large", 64 << 20
	limit := cmp.Or(s.o.Memory, 16<<20)
	sent, received := sha256.New(), sha256.New()
	st := s.create(key)
	used := s.allocated(func() {
		st = s.append(key, st, io.TeeReader(stream(30, size), sent), size)
		s.seal(key, st)
		rc, err := s.store.Open(s.Context(), key, 0, size)
		if err != nil {
			s.Fatal(err)
		}
		defer rc.Close()
		if n, err := io.Copy(received, rc); err != nil || n != size {
			s.Fatalf("read %d bytes, %v", n, err)
		}
	})
	if !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
		s.Error("other bytes came back")
	}
	if !s.o.InMemory && used > limit {
		s.Errorf("%d bytes were allocated for a stream of %d, want at most %d", used, int64(size), limit)
	}
}

// allocated is what the process allocates during fn, freed since or not.
func (s *suite) allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// testCheck expects a healthy store to say so and to be left as it was.
func (s *suite) testCheck() {
	s.put("bystander", []byte("stays"))
	for range 2 {
		if err := s.store.Check(s.Context()); err != nil {
			s.Errorf("Check: %v", err)
		}
	}
	s.wantListed("", []string{"bystander"})
	s.want("bystander", []byte("stays"))
}
