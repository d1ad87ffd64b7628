package blobtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/berth-registry/berth/internal/blob"
)

// crossing is a size that no buffer or page divides.
const crossing = 700_001

func (s *suite) testAppend() {
	data := content(1, crossing)
	s.put("append-whole", data)
	s.want("append-whole", data)

	st := s.create("append-parts")
	rest := data
	for _, n := range []int{1, 0, 4095, 300_000, 65_536} {
		st = s.appendBytes("append-parts", st, rest[:n])
		rest = rest[n:]
	}
	st = s.appendBytes("append-parts", st, rest)
	s.seal("append-parts", st)
	s.want("append-parts", data)

	trickle := data[:5000]
	st = s.append("append-trickle", s.create("append-trickle"), iotest.OneByteReader(bytes.NewReader(trickle)), 5000)
	s.seal("append-trickle", st)
	s.want("append-trickle", trickle)
}

func (s *suite) testEmpty() {
	s.seal("empty-unwritten", s.create("empty-unwritten"))
	s.want("empty-unwritten", nil)

	s.put("empty-appended", nil)
	s.want("empty-appended", nil)

	s.restart()
	s.want("empty-unwritten", nil)
	s.want("empty-appended", nil)
	if n := len(s.list("")); n != 2 {
		s.Errorf("%d objects are listed, want the 2 empty ones", n)
	}
}

func (s *suite) testResume() {
	const key = "resumed-object"
	data := content(2, 5*crossing)
	st := s.create(key)
	for i := range 5 {
		s.restart()
		st = s.appendBytes(key, st, data[i*crossing:(i+1)*crossing])
	}
	s.restart()
	s.seal(key, st)
	s.restart()
	s.want(key, data)
}

// testRetry appends again from an earlier state, as a caller does that could
// not save the later one.
func (s *suite) testRetry() {
	head, lost := content(3, crossing), content(4, 2*crossing)
	for _, c := range []struct {
		name string
		n    int64
		seed uint64
	}{
		{"shorter", 1000, 5}, {"equal", 2 * crossing, 6}, {"longer", 3 * crossing, 7}, {"nothing", 0, 8},
	} {
		for _, from := range []int{0, crossing} {
			s.Run(fmt.Sprintf("%s from %d", c.name, from), func(t *testing.T) {
				s := &suite{T: t, o: s.o, store: s.store}
				key := fmt.Sprintf("retried-%s-%d", c.name, from)
				st := s.appendBytes(key, s.create(key), head[:from])
				broken := io.MultiReader(bytes.NewReader(lost), iotest.ErrReader(errors.New("connection reset")))
				if _, err := s.store.Append(s.Context(), key, st, broken); err == nil {
					s.Fatal("Append returned no error for a reader that failed")
				}
				s.restart()
				tail := content(c.seed, c.n)
				s.seal(key, s.appendBytes(key, st, tail))
				s.want(key, append(bytes.Clone(head[:from]), tail...))
			})
		}
	}
}

// testReaderFails breaks off a source at many places. All it gave must count,
// and its own error must come back.
func (s *suite) testReaderFails() {
	data := content(9, crossing)
	reset := errors.New("connection reset")
	for _, cut := range []int{0, 1, 4096, 256 << 10, 256<<10 + 1, crossing} {
		for _, failure := range []error{reset, io.ErrUnexpectedEOF} {
			for _, late := range []bool{true, false} {
				r := io.MultiReader(bytes.NewReader(data[:cut]), iotest.ErrReader(failure))
				if !late {
					r = iotest.DataErrReader(r) // the error comes with the last bytes
				}
				s.Run(fmt.Sprintf("%d bytes, %v, late %t", cut, failure, late), func(t *testing.T) {
					s := &suite{T: t, o: s.o, store: s.store}
					s.breakOff(fmt.Sprintf("broken-%d-%d-%t", cut, len(failure.Error()), late), data, cut, r, failure)
				})
			}
		}
	}
}

// breakOff appends r, which fails after cut bytes of data, and then the rest.
func (s *suite) breakOff(key string, data []byte, cut int, r io.Reader, failure error) {
	const head = 100
	st := s.appendBytes(key, s.create(key), data[:head])
	st, err := s.store.Append(s.Context(), key, st, r)
	if !errors.Is(err, failure) {
		s.Fatalf("Append: %v, want the reader's error: %v", err, failure)
	}
	if want := int64(head + cut); st.Size != want {
		s.Fatalf("the state has %d bytes, want the %d that were read", st.Size, want)
	}
	s.restart()
	st = s.appendBytes(key, carried(st), data[cut:])
	s.seal(key, st)
	s.want(key, append(bytes.Clone(data[:head]), data...))
}

// testSealCutsLeftovers seals behind a failed Append that left bytes.
func (s *suite) testSealCutsLeftovers() {
	for _, size := range []int64{0, 1000} {
		key, data := fmt.Sprintf("leftovers-%d", size), content(10, size)
		st := s.appendBytes(key, s.create(key), data)
		r := io.MultiReader(stream(11, crossing), iotest.ErrReader(errors.New("connection reset")))
		if _, err := s.store.Append(s.Context(), key, st, r); err == nil {
			s.Fatal("Append returned no error for a reader that failed")
		}
		s.restart()
		s.seal(key, st)
		s.want(key, data)
	}
}

func (s *suite) testSealTwice() {
	for _, size := range []int64{0, crossing} {
		key, data := fmt.Sprintf("sealed-%d", size), content(12, size)
		st := s.put(key, data)
		for range 2 {
			if err := s.store.Seal(s.Context(), key, st); err != nil && !errors.Is(err, blob.ErrSealed) {
				s.Errorf("Seal(%s) of %d bytes once more: %v", key, size, err)
			}
			s.want(key, data)
			s.restart()
		}
	}
}

func (s *suite) testAbort() {
	ctx := s.Context()
	if err := s.store.Abort(ctx, "never-created", blob.State{}); err != nil {
		s.Errorf("Abort of an absent object: %v", err)
	}
	created := s.create("abort-created")
	written := s.appendBytes("abort-written", s.create("abort-written"), content(13, crossing))
	s.put("abort-bystander", []byte("stays"))
	s.restart()
	for range 2 {
		for key, st := range map[string]blob.State{"abort-created": created, "abort-written": written} {
			if err := s.store.Abort(ctx, key, st); err != nil {
				s.Errorf("Abort(%s): %v", key, err)
			}
		}
	}
	s.wantAbsent("abort-created", "abort-written")
	s.want("abort-bystander", []byte("stays"))
}

func (s *suite) testDelete() {
	ctx := s.Context()
	for _, key := range []string{"delete-one", "delete-two", "delete-three", "delete-bystander"} {
		s.put(key, []byte(key))
	}
	for _, keys := range [][]string{
		{}, {"never-created"}, {"delete-one"}, {"delete-one"}, {"delete-two", "never-created", "delete-one", "delete-three"},
	} {
		if err := s.store.Delete(ctx, keys...); err != nil {
			s.Errorf("Delete(%q): %v", keys, err)
		}
	}
	s.wantAbsent("delete-one", "delete-two", "delete-three")
	s.want("delete-bystander", []byte("delete-bystander"))
	s.restart()
	s.wantAbsent("delete-one", "delete-two", "delete-three")
}
