// Package blobtest holds a blob.Store to its contract: Run tests every sentence
// of the interface, and Faulty breaks it on demand for tests of upper layers.
package blobtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/berth-registry/berth/internal/blob"
)

// Options say what more a store can be tested for, and what it cannot.
type Options struct {
	// Reopen makes another Store over what s holds, as a restarted process or
	// a second replica has it. Nil: the tests go on with s.
	Reopen func(t *testing.T, s blob.Store) blob.Store

	// InMemory says that the store keeps its bytes on the heap, where they
	// cannot be told from the memory of a transfer.
	InMemory bool

	// Deferred says that a small object has nothing to list until it is sealed:
	// its bytes are in its State.
	Deferred bool

	// Memory is what the transfer of a large object may allocate, in bytes.
	// Default: 16 MiB.
	Memory uint64
}

// Run tests the stores that open makes; each of them must be empty.
func Run(t *testing.T, open func(t *testing.T) blob.Store) {
	t.Helper()
	Options{}.Run(t, open)
}

// Run is the function Run, with options.
func (o Options) Run(t *testing.T, open func(t *testing.T) blob.Store) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"Append", (*suite).testAppend},
		{"Empty", (*suite).testEmpty},
		{"Resume", (*suite).testResume},
		{"Retry", (*suite).testRetry},
		{"ReaderFails", (*suite).testReaderFails},
		{"SealCutsLeftovers", (*suite).testSealCutsLeftovers},
		{"SealTwice", (*suite).testSealTwice},
		{"Abort", (*suite).testAbort},
		{"Delete", (*suite).testDelete},
		{"Ranges", (*suite).testRanges},
		{"Reader", (*suite).testReader},
		{"NotFound", (*suite).testNotFound},
		{"OpenOutlivesDelete", (*suite).testOpenOutlivesDelete},
		{"URL", (*suite).testURL},
		{"Keys", (*suite).testKeys},
		{"BadKeys", (*suite).testBadKeys},
		{"List", (*suite).testList},
		{"ListWhileDeleting", (*suite).testListWhileDeleting},
		{"Writers", (*suite).testWriters},
		{"LargeStream", (*suite).testLargeStream},
		{"Check", (*suite).testCheck},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(&suite{T: t, o: o, store: open(t)}) })
	}
}

// suite is one test with a store of its own.
type suite struct {
	*testing.T
	o     Options
	store blob.Store
}

// restart goes on with another Store where the options allow.
func (s *suite) restart() {
	s.Helper()
	if s.o.Reopen != nil {
		s.store = s.o.Reopen(s.T, s.store)
	}
}

func (s *suite) create(key string) blob.State {
	s.Helper()
	st, err := s.store.Create(s.Context(), key)
	if err != nil || st.Size != 0 {
		s.Fatalf("Create(%s): state of %d bytes, %v", key, st.Size, err)
	}
	return carried(st)
}

// append appends data and expects all of it to be stored.
func (s *suite) append(key string, st blob.State, r io.Reader, n int64) blob.State {
	s.Helper()
	got, err := s.store.Append(s.Context(), key, st, r)
	if err != nil {
		s.Fatalf("Append(%s) at %d: %v", key, st.Size, err)
	}
	if want := st.Size + n; got.Size != want {
		s.Fatalf("Append(%s) of %d bytes at %d: state of %d bytes, want %d", key, n, st.Size, got.Size, want)
	}
	return carried(got)
}

func (s *suite) appendBytes(key string, st blob.State, data []byte) blob.State {
	s.Helper()
	return s.append(key, st, bytes.NewReader(data), int64(len(data)))
}

func (s *suite) seal(key string, st blob.State) {
	s.Helper()
	if err := s.store.Seal(s.Context(), key, st); err != nil {
		s.Fatalf("Seal(%s) of %d bytes: %v", key, st.Size, err)
	}
}

// put stores a whole object.
func (s *suite) put(key string, data []byte) blob.State {
	s.Helper()
	st := s.appendBytes(key, s.create(key), data)
	s.seal(key, st)
	return st
}

// want expects a sealed object of exactly these bytes.
func (s *suite) want(key string, data []byte) {
	s.Helper()
	got, err := readAll(s.Context(), s.store, key, 0, int64(len(data)))
	if err != nil {
		s.Fatalf("reading %s: %v", key, err)
	}
	if !bytes.Equal(got, data) {
		s.Fatalf("%s: %s", key, difference(got, data))
	}
	for _, o := range s.list("") {
		if o.Key == key && o.Size != int64(len(data)) {
			s.Fatalf("List says that %s has %d bytes, want %d", key, o.Size, len(data))
		}
	}
}

func (s *suite) wantAbsent(keys ...string) {
	s.Helper()
	for _, key := range keys {
		rc, err := s.store.Open(s.Context(), key, 0, 1)
		if err == nil {
			rc.Close()
		}
		if !errors.Is(err, blob.ErrNotFound) {
			s.Errorf("Open(%s): %v, want ErrNotFound", key, err)
		}
		for _, o := range s.list("") {
			if o.Key == key {
				s.Errorf("%s is still listed", key)
			}
		}
	}
}

func (s *suite) list(after string) (objects []blob.Object) {
	s.Helper()
	for o, err := range s.store.List(s.Context(), after) {
		if err != nil {
			s.Fatalf("List(%q): %v", after, err)
		}
		objects = append(objects, o)
	}
	return objects
}

func readAll(ctx context.Context, store blob.Store, key string, off, n int64) ([]byte, error) {
	rc, err := store.Open(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(rc)
	return data, errors.Join(err, rc.Close())
}

// difference names the first byte that differs: nobody reads a megabyte.
func difference(got, want []byte) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("byte %d is %#x, want %#x (%d bytes, want %d)", i, got[i], want[i], len(got), len(want))
		}
	}
	return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
}

// carried is a state after its way through a database row.
func carried(st blob.State) blob.State {
	return blob.State{Size: st.Size, Opaque: bytes.Clone(st.Opaque)}
}

// stream yields n bytes that only the same seed yields again.
func stream(seed uint64, n int64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return io.LimitReader(rand.NewChaCha8(key), n)
}

// content is a stream as bytes.
func content(seed uint64, n int64) []byte {
	data := make([]byte, n)
	if _, err := io.ReadFull(stream(seed, n), data); err != nil {
		panic(err) // the stream is endless
	}
	return data
}
