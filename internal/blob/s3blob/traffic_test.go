package s3blob

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/s3blob/s3test"
)

const mib = 1 << 20

// TestTraffic holds a push of n bytes to n bytes out, none in, no copies, and
// one request per part and three more. Clients send it at once, or as a PATCH
// and an empty PUT, or in large pieces.
func TestTraffic(t *testing.T) {
	server := s3test.Start(t)
	for _, n := range []int64{0, 1, 300_000, MinPart - 1, MinPart, MinPart + 1, 8 * mib, 13*mib - 1, 13 * mib, 13*mib + 1, 16 * mib, 50*mib + 7} {
		data := content(uint64(n), n)
		for name, pieces := range map[string][]int64{
			"at once": {n}, "and nothing": {n, 0}, "halves": {n / 2, n - n/2},
		} {
			t.Run(fmt.Sprintf("%d %s", n, name), func(t *testing.T) {
				s, rec := recorded(t, options(t, server))
				st, rest := blob.State{}, data
				for _, size := range pieces {
					st = appendTo(t, s, "some-key", st, rest[:size])
					rest = rest[size:]
				}
				seal(t, s, "some-key", st)
				out, in, copies := rec.Traffic()
				if out != n || in != 0 || copies != 0 {
					t.Errorf("%d bytes out, %d in, %d copies; want %d, 0, 0", out, in, copies, n)
				}
				most := int((n+DefaultPart-1)/DefaultPart) + 3
				if n < MinPart {
					most = 1
				}
				if got := rec.Requests(""); got > most {
					t.Errorf("%d requests, want at most %d", got, most)
				}
				wantObject(t, s, "some-key", data)
			})
		}
	}
}

// TestSmallPieces sends many small pieces: neither may the state of each carry
// megabytes, nor may objects be rewritten again and again.
func TestSmallPieces(t *testing.T) {
	server := s3test.Start(t)
	const n = 12 * mib
	data := content(1, n)
	for _, piece := range []int{64 << 10, 300_000, mib, 3 * mib} {
		t.Run(fmt.Sprint(piece), func(t *testing.T) {
			s, rec := recorded(t, options(t, server))
			st, stated := blob.State{}, 0
			for off := 0; off < n; off += piece {
				st = appendTo(t, s, "some-key", st, data[off:min(n, off+piece)])
				if got, most := len(st.Opaque), smallTail+tailByRead*piece+64<<10; got > min(most, MinPart+64<<10) {
					t.Fatalf("a state of %d bytes after a piece of %d", got, piece)
				}
				stated += len(st.Opaque)
			}
			seal(t, s, "some-key", st)
			out, in, copies := rec.Traffic()
			if out > 2*n || in > n || copies != 0 {
				t.Errorf("%d bytes out, %d in, %d copies for %d bytes in pieces", out, in, copies, n)
			}
			if most := n/piece*smallTail + tailByRead*n + n; stated > most {
				t.Errorf("states of %d bytes for %d bytes in pieces, want at most %d", stated, n, most)
			}
			wantObject(t, s, "some-key", data)
			if spills, err := s.listNames(t.Context(), s.tails("some-key")); err != nil || len(spills) != 0 {
				t.Errorf("tails are left: %v, %v", spills, err)
			}
		})
	}
}

// TestPartSizes: parts grow so that 10 000 of them make 5 TiB, none too large.
func TestPartSizes(t *testing.T) {
	for _, first := range []int64{MinPart, DefaultPart, MaxPart} {
		s := &Store{o: Options{PartSize: first}}
		total := int64(0)
		for i := range maxParts {
			size := s.partSize(i)
			if size < first || size > largest || total < 8<<30 && i < growEvery && size != first {
				t.Fatalf("part %d from %d has %d bytes", i, first, size)
			}
			total += size
		}
		if total < 5<<40 {
			t.Errorf("parts from %d hold %d bytes, fewer than 5 TiB", first, total)
		}
	}
}

// TestMemory watches the heap while the service takes bytes more slowly than
// the client sends them.
func TestMemory(t *testing.T) {
	server := s3test.Start(t)
	s, rec := recorded(t, options(t, server))
	rec.Lose = func(int, string) error { time.Sleep(50 * time.Millisecond); return nil }
	runtime.GC()
	var start runtime.MemStats
	runtime.ReadMemStats(&start)
	var peak atomic.Uint64
	stop := make(chan struct{})
	go func() {
		for {
			var now runtime.MemStats
			runtime.GC() // what is in use, not what was
			runtime.ReadMemStats(&now)
			peak.Store(max(peak.Load(), now.HeapAlloc))
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	st, err := s.Append(t.Context(), "some-key", blob.State{}, io.LimitReader(endless{}, 200*mib))
	close(stop)
	if err != nil || st.Size != 200*mib {
		t.Fatalf("%d bytes, %v", st.Size, err)
	}
	if grown := int64(peak.Load() - start.HeapAlloc); grown > DefaultMemory+16*mib {
		t.Errorf("the heap grew by %d bytes, want at most the %d of the options and some for requests", grown, int64(DefaultMemory))
	}
	if err := s.Abort(t.Context(), "some-key", st); err != nil {
		t.Fatal(err)
	}
	wantNothing(t, s)
}

// endless has bytes that cost little, but memory.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := 0; i < len(p); i += 512 {
		p[i] = byte(i)
	}
	return len(p), nil
}

// TestSpool makes every part too large for memory.
func TestSpool(t *testing.T) {
	server := s3test.Start(t)
	o := options(t, server)
	o.Memory, o.PartSize = minMemory, 16*mib
	s := open(t, o)
	data := content(3, 50*mib)
	st := appendTo(t, s, "some-key", blob.State{}, data[:3*mib])
	st, err := s.Append(t.Context(), "some-key", st, io.MultiReader(bytes.NewReader(data[3*mib:35*mib]), iotest.ErrReader(io.ErrUnexpectedEOF)))
	if err != io.ErrUnexpectedEOF || st.Size != 35*mib {
		t.Fatalf("%d bytes, %v", st.Size, err)
	}
	seal(t, s, "some-key", appendTo(t, s, "some-key", st, data[35*mib:]))
	wantObject(t, s, "some-key", data)
	if left, err := os.ReadDir(o.Scratch); err != nil || len(left) != 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
	o.Scratch += "/missing"
	if st, err := open(t, o).Append(t.Context(), "some-key", blob.State{}, bytes.NewReader(data)); err == nil || st.Size != 0 {
		t.Errorf("without a folder for parts: %d bytes, %v", st.Size, err)
	}
}

// TestGrowingParts joins parts of files with parts of memory, where their size
// doubles: a state with a thousand parts is made up for it.
func TestGrowingParts(t *testing.T) {
	server := s3test.Start(t)
	o := options(t, server)
	s := open(t, o)
	data := content(4, 120*mib)
	for before := range 3 {
		t.Run(fmt.Sprint(before), func(t *testing.T) {
			b := s.newBudget()
			w := &writer{s: s, ctx: t.Context(), key: "grown-key", b: b, slots: make(chan struct{}, underWay)}
			first, err := b.newPart(MinPart)
			if err != nil {
				t.Fatal(err)
			}
			w.p.Parts = make([]piece, 2*growEvery-before) // 16 MiB in memory, then 32 MiB in files
			p, ended, err := w.run(first, nil, bytes.NewReader(data))
			if err != nil || ended != io.EOF {
				t.Fatal(err, ended)
			}
			if sum(p.Parts) != int64(len(data)) {
				t.Fatalf("%d bytes are parts, want %d", sum(p.Parts), len(data))
			}
			p.Parts = p.Parts[2*growEvery-before:]
			if len(p.Parts) > 5 {
				t.Errorf("%d parts for %d bytes", len(p.Parts), len(data))
			}
			wantParts(t, s, p, data, 2*growEvery-before)
		})
	}
}

// wantParts completes an upload of these parts, which have numbers from first.
func wantParts(t *testing.T, s *Store, p progress, data []byte, first int) {
	t.Helper()
	off := int64(0)
	for i, part := range p.Parts {
		// The service's own checksum says that the part is what it should be.
		q, err := s.gather(t.Context(), "", progress{Tail: data[off : off+part.Size]}, plentiful(s.least))
		if err != nil {
			t.Fatal(err)
		}
		if _, crc, err := q.checksum(CRC32); err != nil || *crc != part.CRC32 {
			t.Errorf("part %d has checksum %s, want %s", first+i, part.CRC32, *crc)
		}
		off += part.Size
	}
}

// plentiful is a budget for anything.
func plentiful(least int64) *budget {
	s := &Store{o: Options{Memory: 1 << 30}, least: least, memory: memory{left: 1 << 30}}
	s.chunks.New = func() any { return new([chunkSize]byte) }
	return s.newBudget()
}

// TestTotalMemory sends more at once than the memory of all uploads has room for.
func TestTotalMemory(t *testing.T) {
	server := s3test.Start(t)
	o := options(t, server)
	const uploads = 12
	data := content(14, 15*mib)
	for _, total := range []int64{1, 40 * mib} {
		t.Run(fmt.Sprint(total), func(t *testing.T) {
			o.Prefix, o.TotalMemory = fmt.Sprint("total-", total), total
			s := open(t, o)
			var all sync.WaitGroup
			for i := range uploads {
				all.Go(func() {
					key := fmt.Sprintf("key-%d", i)
					st, err := s.Append(t.Context(), key, blob.State{}, bytes.NewReader(data[i:]))
					if err == nil {
						err = s.Seal(t.Context(), key, st)
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if s.memory.left != total {
				t.Errorf("%d bytes of memory are left, of %d", s.memory.left, total)
			}
			for i := range uploads {
				wantObject(t, s, fmt.Sprintf("key-%d", i), data[i:])
			}
			if left, err := os.ReadDir(o.Scratch); err != nil || len(left) != 0 {
				t.Errorf("files are left: %v, %v", left, err)
			}
		})
	}
}

func TestBadState(t *testing.T) {
	s := &Store{o: Options{Bucket: "b"}, least: MinPart}
	good, err := progress{Tail: []byte("abc")}.state()
	if err != nil {
		t.Fatal(err)
	}
	if p, err := parse("some-key", good); err != nil || string(p.Tail) != "abc" {
		t.Fatalf("%+v, %v", p, err)
	}
	head, _ := json.Marshal(progress{})
	for name, st := range map[string]blob.State{
		"another size":    {Size: 4, Opaque: good.Opaque},
		"no bytes":        {Size: 4},
		"another version": {Size: 3, Opaque: append([]byte{9}, good.Opaque[1:]...)},
		"cut":             {Size: 3, Opaque: good.Opaque[:2]},
		"only a version":  {Size: 0, Opaque: []byte{stateVersion}},
		"length too long": {Size: 0, Opaque: binary.AppendUvarint([]byte{stateVersion}, 1<<62)},
		"no JSON":         {Size: 0, Opaque: append(binary.AppendUvarint([]byte{stateVersion}, uint64(len(head))), bytes.Repeat([]byte("x"), len(head))...)},
	} {
		if _, err := s.Append(t.Context(), "some-key", st, bytes.NewReader(nil)); err == nil {
			t.Errorf("%s: Append takes such a state", name)
		}
		if err := s.Seal(t.Context(), "some-key", st); err == nil {
			t.Errorf("%s: Seal takes such a state", name)
		}
	}
}
