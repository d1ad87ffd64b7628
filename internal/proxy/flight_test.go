package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob/fsblob"
	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

const large = 10 << 20

// TestManyReadersOneFetch: all read at once, from one answer of the origin, and
// before that has ended.
func TestManyReadersOneFetch(t *testing.T) {
	s := newBlobStack(t)
	g := newGate()
	s.origin.body = g.body
	content := registrytest.Random(large)
	d := s.ship(t, content)
	const readers = 50
	var began, ended sync.WaitGroup
	began.Add(readers)
	for range readers {
		ended.Go(func() {
			b, err := s.Blob(t.Context(), blobHere, d)
			if err != nil {
				began.Done()
				t.Error(err)
				return
			}
			r, err := b.Open(t.Context(), 0, b.Descriptor().Size)
			if err != nil {
				began.Done()
				t.Error(err)
				return
			}
			defer r.Close()
			var first [1000]byte
			_, err = io.ReadFull(r, first[:])
			began.Done()
			if err != nil {
				t.Error(err)
				return
			}
			h := oci.SHA256.New()
			h.Write(first[:])
			n, err := io.Copy(h, r)
			if err != nil || oci.SHA256.FromHash(h) != d {
				t.Errorf("%d bytes, %v", 1000+n, err)
			}
		})
	}
	g.to(1 << 20)
	began.Wait()
	if !s.flights.busy(d) {
		t.Error("what is being fetched may be evicted")
	}
	g.to(large)
	ended.Wait()
	s.landed(t, d)
	s.origin.wantParts(t, part{0, large})
	registrytest.WantBlob(t, s.Registry, blobHere, d, content) // warm
	if _, gets := s.origin.asked(); gets != 1 {
		t.Errorf("opened %d times at the origin", gets)
	}
	if n := s.stored.Load(); n != large {
		t.Errorf("%d bytes were added, want %d", n, large)
	}
	if _, n := s.seen("fetch"); n != large {
		t.Errorf("%d bytes came, want %d", n, large)
	}
	s.wantSeen(t, "fetch", "miss")
	if s.flights.busy(d) {
		t.Error("what nobody reads cannot be evicted")
	}
	s.wantNothingLeft(t, 1)
}

// TestReaderLeaves: the first who asked leaves; others, and the cache, get all.
func TestReaderLeaves(t *testing.T) {
	for name, others := range map[string]bool{"one of two": true, "the only one": false} {
		t.Run(name, func(t *testing.T) {
			s := newBlobStack(t)
			g := newGate()
			s.origin.body = g.body
			content := registrytest.Random(large)
			d := s.ship(t, content)
			g.to(large / 10)
			ctx, leave := context.WithCancel(t.Context())
			first, err := s.find(t, d).Open(ctx, 0, large)
			if err != nil {
				t.Fatal(err)
			}
			take(t, first, content[:1000])
			var second io.ReadCloser
			if others {
				second = s.open(t, d, 0)
			}
			leave()
			first.Close()
			if !s.flights.busy(d) {
				t.Error("what is being fetched may be evicted")
			}
			g.to(large)
			if others {
				takeAll(t, second, content)
			}
			s.landed(t, d)
			s.wantCached(t, blobHere, d, true)
			s.origin.wantParts(t, part{0, large})
		})
	}
}

// TestLastReaderAbandons: with Abandon, too little is not worth going on for.
func TestLastReaderAbandons(t *testing.T) {
	for _, c := range []struct {
		came    int64 // of 10 MiB
		abandon int
		goesOn  bool
	}{{large / 10, 20, false}, {large / 2, 20, true}, {large / 10, 0, true}} {
		s := newBlobStack(t, func(o *Options) { o.Abandon = c.abandon })
		g := newGate()
		s.origin.body = g.body
		content := registrytest.Random(large)
		d := s.ship(t, content)
		g.to(c.came)
		r := s.open(t, d, 0)
		take(t, r, content[:c.came])
		s.flights.mu.Lock()
		f := s.flights.byDigest[d]
		s.flights.mu.Unlock()
		r.Close()
		if c.goesOn {
			g.to(large)
		}
		<-f.over
		s.wantCached(t, blobHere, d, c.goesOn)
		if !c.goesOn {
			s.origin.body = nil
			takeAll(t, s.open(t, d, 0), content)
			s.landed(t, d)
			s.wantCached(t, blobHere, d, true)
		}
		s.wantNothingLeft(t, 1)
	}
}

// TestBrokenBodyIsResumed: what broke off goes on where it was.
func TestBrokenBodyIsResumed(t *testing.T) {
	for name, broken := range map[string]error{"cut": errCut, "ends early": io.EOF,
		"said": &registry.Error{Code: registry.Unavailable, Detail: "broken off"}} {
		t.Run(name, func(t *testing.T) {
			s := newBlobStack(t)
			s.origin.body = func(n int, _ part, r io.ReadCloser) (io.ReadCloser, error) {
				switch n {
				case 1:
					return cut(r, 4_000_000, broken), nil
				case 2:
					r.Close()
					return nil, &registry.Error{Code: registry.Unavailable}
				case 3:
					return cut(r, 0, broken), nil
				}
				return r, nil
			}
			content := registrytest.Random(large)
			d := s.ship(t, content)
			takeAll(t, s.open(t, d, 0), content)
			s.landed(t, d)
			rest := part{4_000_000, large - 4_000_000}
			s.origin.wantParts(t, part{0, large}, rest, rest, rest)
			s.wantCached(t, blobHere, d, true)
		})
	}
}

// TestResumesAreBounded: after so many without progress it is over; with some in
// between it goes on for longer.
func TestResumesAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		each   int64 // that comes before each break
		enough bool
	}{"nothing comes": {0, false}, "a little comes": {1000, false}, "some comes": {muchEnough, true}} {
		t.Run(name, func(t *testing.T) {
			s := newBlobStack(t)
			s.origin.body = func(_ int, p part, r io.ReadCloser) (io.ReadCloser, error) {
				if p.off == 0 {
					return cut(r, 1<<20, errCut), nil
				}
				return cut(r, c.each, errCut), nil
			}
			content := registrytest.Random(4 << 20)
			d := s.ship(t, content)
			r := s.open(t, d, 0)
			got, err := io.ReadAll(r)
			r.Close()
			_, gets := s.origin.asked()
			s.landed(t, d)
			if c.enough {
				if err != nil || !bytes.Equal(got, content) || gets != 1+12 {
					t.Errorf("%d bytes in %d parts, %v", len(got), gets, err)
				}
				s.wantCached(t, blobHere, d, true)
				return
			}
			registrytest.WantCode(t, "read what breaks off for ever", err, registry.Unavailable)
			if gets != 1+maxResumes {
				t.Errorf("it was opened %d times, want %d", gets, 1+maxResumes)
			}
			s.wantCached(t, blobHere, d, false)
			s.wantNothingLeft(t, 0)
		})
	}
}

// TestFailedFlightIsNotJoined: who hears that it failed begins another at once,
// while the cache still tidies up.
func TestFailedFlightIsNotJoined(t *testing.T) {
	s := newBlobStack(t)
	tidy := make(chan struct{})
	s.cache = tidies{s.cache, tidy}
	content := registrytest.Random(1000)
	d := s.ship(t, content)
	s.origin.body = func(n int, _ part, r io.ReadCloser) (io.ReadCloser, error) {
		if n == 1 {
			return body{bytes.NewReader(make([]byte, 1000)), r}, nil
		}
		return r, nil
	}
	_, err := s.find(t, d).Open(t.Context(), 0, 1000)
	registrytest.WantCode(t, "open wrong bytes", err, registry.Faulty)
	takeAll(t, s.open(t, d, 0), content)
	close(tidy)
	s.landed(t, d)
	s.wantCached(t, blobHere, d, true)
}

// tidies is a cache whose uploads are not cancelled before the channel is closed.
type tidies struct {
	registry.Registry
	when chan struct{}
}

func (c tidies) StartUpload(ctx context.Context, repo string, o registry.UploadOptions) (registry.Upload, error) {
	u, err := c.Registry.StartUpload(ctx, repo, o)
	return tidiedUpload{u, c.when}, err
}

type tidiedUpload struct {
	registry.Upload
	when chan struct{}
}

func (u tidiedUpload) Cancel(ctx context.Context) error {
	<-u.when
	return u.Upload.Cancel(ctx)
}

// TestReadIsNotEvicted: what was fetched is in use until its last reader leaves.
func TestReadIsNotEvicted(t *testing.T) {
	s := newBlobStack(t)
	content := registrytest.Random(1 << 20)
	d := s.ship(t, content)
	r := s.open(t, d, 0)
	if err := s.fetchBlob(t.Context(), blobHere, blobThere, d); err != nil {
		t.Fatal(err)
	}
	if !s.flights.busy(d) {
		t.Error("what is being read may be evicted")
	}
	takeAll(t, r, content)
	s.landed(t, d)
}

// TestWrongBytes: nobody gets all of them, and nothing of them stays.
func TestWrongBytes(t *testing.T) {
	for name, size := range map[string]int{"large": 1 << 20, "small": 1000} {
		t.Run(name, func(t *testing.T) {
			s := newBlobStack(t)
			content := registrytest.Random(size)
			d := s.ship(t, content)
			s.origin.body = func(n int, _ part, r io.ReadCloser) (io.ReadCloser, error) {
				if n > 1 {
					return r, nil
				}
				wrong := bytes.Clone(content)
				wrong[0]++
				return body{bytes.NewReader(wrong), r}, nil
			}
			r, err := s.find(t, d).Open(t.Context(), 0, int64(size))
			n := 0
			if err == nil {
				var got []byte
				got, err = io.ReadAll(r)
				n = len(got)
				r.Close()
			}
			registrytest.WantCode(t, "read wrong bytes", err, registry.Faulty)
			if n > max(0, size-heldBack) {
				t.Errorf("%d of %d bytes were given out", n, size)
			}
			s.landed(t, d)
			s.wantCached(t, blobHere, d, false)
			takeAll(t, s.open(t, d, 0), content)
			s.landed(t, d)
			s.wantSeen(t, "fetch", "error", "miss")
			whole := part{0, int64(size)}
			s.origin.wantParts(t, whole, whole)
			s.wantNothingLeft(t, 1)
		})
	}
}

// TestTooManyBytes: an origin that sends more than it was asked for is at fault,
// also where there is no digest to find out by.
func TestTooManyBytes(t *testing.T) {
	s := newBlobStack(t)
	content := registrytest.Random(1000)
	d := s.ship(t, content)
	s.origin.body = func(_ int, p part, r io.ReadCloser) (io.ReadCloser, error) {
		return body{bytes.NewReader(append(bytes.Clone(content[p.off:p.off+p.n]), 0)), r}, nil
	}
	_, err := s.find(t, d).Open(t.Context(), 0, 1000)
	registrytest.WantCode(t, "open a blob with more bytes than announced", err, registry.Faulty)
	if err := os.RemoveAll(s.spool); err != nil {
		t.Fatal(err)
	}
	r, err := s.find(t, d).Open(t.Context(), 5, 5)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(r)
	r.Close()
	registrytest.WantCode(t, "read a part that is longer than it is", err, registry.Faulty)
	s.wantNothingLeft(t, 0)
}

// TestTooFewBytes: what the origin has less than it said cannot be asked for.
func TestTooFewBytes(t *testing.T) {
	s := newBlobStack(t)
	content := registrytest.Random(1000)
	d := s.ship(t, content)
	s.origin.size = func(n int64) int64 { return n + 10 }
	s.origin.body = func(n int, p part, r io.ReadCloser) (io.ReadCloser, error) {
		if n > 1 {
			return nil, &registry.Error{Code: registry.Faulty} // there is nothing to be resumed
		}
		return r, nil
	}
	_, err := s.find(t, d).Open(t.Context(), 0, 1010)
	registrytest.WantCode(t, "open a blob with fewer bytes than announced", err, registry.Faulty)
	s.wantNothingLeft(t, 0)
}

// TestStreamThatEndsEarly is an error, however it is read.
func TestStreamThatEndsEarly(t *testing.T) {
	for name, read := range map[string]func(*reader) error{
		"Read":    func(r *reader) error { _, err := io.ReadAll(r); return err },
		"WriteTo": func(r *reader) error { _, err := io.Copy(io.Discard, r); return err },
	} {
		r := &reader{ctx: t.Context(), pos: 3, end: 10, stream: io.NopCloser(bytes.NewReader(make([]byte, 6)))}
		if err := read(r); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRange: any part can be read, cold, while it comes, and warm.
func TestRange(t *testing.T) {
	s := newBlobStack(t)
	g := newGate()
	s.origin.body = g.body
	content := registrytest.Random(1 << 20)
	d := s.ship(t, content)
	b := s.find(t, d)
	g.to(300_000)
	for _, p := range []part{{5, 5}, {0, 1}, {200_000, 100_000}} {
		if got := registrytest.ReadBlob(t, b, p.off, p.n); !bytes.Equal(got, content[p.off:p.off+p.n]) {
			t.Errorf("bytes %d+%d differ", p.off, p.n)
		}
	}
	last := make(chan []byte)
	go func() { last <- registrytest.ReadBlob(t, b, 1<<20-5, 5) }()
	g.to(1 << 20)
	if got := <-last; !bytes.Equal(got, content[1<<20-5:]) {
		t.Error("the last bytes differ")
	}
	if got := registrytest.ReadBlob(t, b, 7, 0); len(got) != 0 {
		t.Errorf("%d bytes of none", len(got))
	}
	s.landed(t, d)
	b = s.find(t, d)
	if got := registrytest.ReadBlob(t, b, 5, 5); !bytes.Equal(got, content[5:10]) {
		t.Error("bytes of the cache differ")
	}
	s.origin.wantParts(t, part{0, 1 << 20})
}

// TestSmallAndEmpty blobs, and those of another algorithm.
func TestSmallAndEmpty(t *testing.T) {
	s := newBlobStack(t)
	for _, size := range []int{0, 1, heldBack - 1, heldBack, heldBack + 1, bufferSize, bufferSize + 1} {
		content := registrytest.Random(size)
		for _, a := range []oci.Algorithm{oci.SHA256, oci.SHA512} {
			d := a.FromBytes(content)
			u, err := s.store.StartUpload(t.Context(), blobThere, registry.UploadOptions{Algorithm: a})
			if err == nil {
				_, err = u.Commit(t.Context(), 0, bytes.NewReader(content), d)
			}
			if err != nil {
				t.Fatal(err)
			}
			takeAll(t, s.open(t, d, 0), content)
			s.landed(t, d)
			s.wantCached(t, blobHere, d, true)
		}
	}
}

// TestRefusalReachesTheClient: what the origin says before the first byte is the
// error of Open, and is not tried again.
func TestRefusalReachesTheClient(t *testing.T) {
	for _, said := range []*registry.Error{
		{Code: registry.TooManyRequests, Limit: &registry.Limit{RetryAfter: time.Minute}},
		{Code: registry.Unavailable}, {Code: registry.Faulty}, {Code: registry.BlobUnknown},
	} {
		s := newBlobStack(t)
		content := registrytest.Random(1000)
		d := s.ship(t, content)
		s.origin.body = func(_ int, _ part, r io.ReadCloser) (io.ReadCloser, error) {
			r.Close()
			return nil, said
		}
		_, err := s.find(t, d).Open(t.Context(), 0, 1000)
		var got *registry.Error
		if !errors.As(err, &got) || got.Code != said.Code || got.Limit != said.Limit {
			t.Errorf("the origin said %v; open: %v", said, err)
		}
		s.origin.wantAsked(t, 1, 1)
		s.wantNothingLeft(t, 0)
	}
}

// TestClientGetsHeadersMeanwhile: who waits for long is not kept from sending headers.
func TestClientGetsHeadersMeanwhile(t *testing.T) {
	s := newBlobStack(t)
	s.flights.patience = time.Millisecond
	g := newGate()
	s.origin.body = g.body
	content := registrytest.Random(100_000)
	d := s.ship(t, content)
	r := s.open(t, d, 0) // nothing has come
	g.to(100_000)
	takeAll(t, r, content)
}

// TestPanicReachesReaders: whatever happens, nobody waits for ever.
func TestPanicReachesReaders(t *testing.T) {
	s := newBlobStack(t)
	content := registrytest.Random(1 << 20)
	d := s.ship(t, content)
	s.origin.body = func(n int, _ part, r io.ReadCloser) (io.ReadCloser, error) {
		if n == 1 {
			panic("no body")
		}
		return body{panicking{}, r}, nil
	}
	for range 2 {
		r, err := s.find(t, d).Open(t.Context(), 0, 1<<20)
		if err == nil {
			_, err = io.ReadAll(r)
			r.Close()
		}
		if !errors.Is(err, errPanicked) {
			t.Errorf("read from an origin that panics: %v", err)
		}
	}
	s.wantNothingLeft(t, 0)
}

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("no bytes") }

// TestCloseEndsFlights: readers are told, and nothing is left.
func TestCloseEndsFlights(t *testing.T) {
	s := newBlobStack(t)
	g := newGate()
	s.origin.body = g.body
	content := registrytest.Random(large)
	d := s.ship(t, content)
	g.to(large / 2)
	b := s.find(t, d)
	r := s.open(t, d, 0)
	take(t, r, content[:1000])
	s.Close()
	if _, err := io.Copy(io.Discard, r); err == nil {
		t.Error("a blob was read that had not come")
	}
	r.Close()
	_, err := b.Open(t.Context(), 0, large)
	registrytest.WantCode(t, "open a blob after the end", err, registry.Unavailable)
	s.wantNothingLeft(t, 0)
}

// replicas are two proxies of one origin over one cache.
func replicas(t *testing.T) (a, b *blobStack) {
	t.Helper()
	store := hosted.New(openRows(t, metatest.File(t)), memblob.New(), hosted.Options{})
	origin := &shipper{Reader: store}
	rows, folder := metatest.File(t), t.TempDir()
	replica := func() *blobStack {
		files, err := fsblob.New(folder)
		if err != nil {
			t.Fatal(err)
		}
		return newBlobStackOn(t, origin, store, rows, files, func(o *Options) { o.Leases = o.State.(Leases) })
	}
	return replica(), replica()
}

// TestReplicasFetchOnce: the other waits, and reads from the cache.
func TestReplicasFetchOnce(t *testing.T) {
	a, b := replicas(t)
	b.flights.patience = time.Millisecond
	g := newGate()
	a.origin.body = g.body
	content := registrytest.Random(large)
	d := a.ship(t, content)
	g.to(large / 2)
	first := a.open(t, d, 0)
	take(t, first, content[:1000])
	second, third := b.open(t, d, 0), b.open(t, d, 5)
	g.to(large)
	takeAll(t, first, content[1000:])
	takeAll(t, second, content)
	takeAll(t, third, content[5:])
	if _, gets := a.origin.asked(); gets != 1 {
		t.Errorf("%d of two replicas fetched", gets)
	}
	b.wantSeen(t, "fetch")
	a.landed(t, d)
	b.landed(t, d)
	if _, free, err := a.db.LeaseProxy(t.Context(), "hub blob "+d.String(), time.Second); !free || err != nil {
		t.Errorf("the lease was not given back: %v", err)
	}
}

// TestReplicaTakesOver: who waited fetches when the other gives up.
func TestReplicaTakesOver(t *testing.T) {
	a, b := replicas(t)
	b.flights.patience = time.Millisecond
	g := newGate()
	a.origin.body = func(n int, p part, r io.ReadCloser) (io.ReadCloser, error) {
		if n == 1 {
			return g.body(n, p, r)
		}
		return r, nil
	}
	content := registrytest.Random(large)
	d := a.ship(t, content)
	g.to(large / 2)
	first := a.open(t, d, 0)
	take(t, first, content[:1000])
	second := b.open(t, d, 0)
	a.Close()
	takeAll(t, second, content)
	b.landed(t, d)
	b.wantCached(t, blobHere, d, true)
	b.wantSeen(t, "fetch", "miss")
}

// TestWaiterLeaves: who waits for another process does so only for readers.
func TestWaiterLeaves(t *testing.T) {
	a, b := replicas(t)
	b.flights.patience = time.Millisecond
	g := newGate()
	a.origin.body = g.body
	content := registrytest.Random(large)
	d := a.ship(t, content)
	g.to(large / 2)
	take(t, a.open(t, d, 0), content[:1000])
	second := b.open(t, d, 0)
	b.flights.mu.Lock()
	f := b.flights.byDigest[d]
	b.flights.mu.Unlock()
	for waits := false; !waits; time.Sleep(time.Millisecond) {
		b.flights.mu.Lock()
		waits = f.waiting
		b.flights.mu.Unlock()
	}
	second.Close()
	<-f.over
	if b.flights.busy(d) {
		t.Error("the replica still waits")
	}
}

// TestLeasesAway: no lease can be had, but the blob can.
func TestLeasesAway(t *testing.T) {
	s := newBlobStack(t, func(o *Options) { o.Leases = noLeases{} })
	content := registrytest.Random(100_000)
	d := s.ship(t, content)
	s.expect(blobHere, &oci.Manifest{Blobs: []oci.Descriptor{{Digest: d, Size: 100_000}}})
	takeAll(t, s.open(t, d, 0), content)
	s.landed(t, d)
	s.wantCached(t, blobHere, d, true)
}

// noLeases fails to lease.
type noLeases struct{ Leases }

func (noLeases) LeaseProxy(context.Context, string, time.Duration) (int64, bool, error) {
	return 0, false, errCut
}

// TestCacheFollowsARush: what comes fast is kept when it has come, or far behind;
// what comes slowly is kept meanwhile.
func TestCacheFollowsARush(t *testing.T) {
	for _, c := range []struct {
		written, read int64
		after         time.Duration
		over, waits   bool
	}{
		{0, 0, 0, false, false},
		{1 << 20, 0, time.Millisecond, false, true},
		{1 << 20, 0, time.Second, false, false},
		{rush * 100, rush * 99, 99 * time.Second, false, true},
		{rush * 100, rush * 99, 101 * time.Second, false, false},
		{1 << 20, 0, time.Millisecond, true, false},
		{rushBehind - 1, 0, time.Second, false, true},
		{rushBehind, 0, time.Second, false, false},
	} {
		sp := &spool{written: c.written, over: c.over}
		r := &patient{tail: sp.tail(t.Context(), c.read, 1<<40)}
		if got := r.rushes(c.after); got != c.waits {
			t.Errorf("%+v: the cache waits: %t", c, got)
		}
	}
}

// TestSizesOfOneBlob: a repository of the origin that describes a blob wrongly does
// not keep others from it meanwhile.
func TestSizesOfOneBlob(t *testing.T) {
	s := newBlobStack(t)
	g := newGate()
	s.origin.body = func(n int, p part, r io.ReadCloser) (io.ReadCloser, error) {
		if n == 1 {
			return g.body(n, p, r)
		}
		return r, nil
	}
	content := registrytest.Random(1000)
	d := s.ship(t, content)
	from, err := s.origin.Blob(t.Context(), blobThere, d)
	if err != nil {
		t.Fatal(err)
	}
	wrong, _, err := s.board(t.Context(), &wanted{p: s.Registry, here: "hub/library/other", there: "library/other",
		desc: oci.Descriptor{Digest: d, Size: 5}, from: from})
	if err != nil {
		t.Fatal(err)
	}
	<-wrong.ready
	takeAll(t, s.open(t, d, 0), content)
	g.to(5)
	<-wrong.over
	s.flights.leave(wrong)
	registrytest.WantCode(t, "the one of another size", wrong.result, registry.Faulty)
	s.landed(t, d)
	s.wantCached(t, blobHere, d, true)
}
