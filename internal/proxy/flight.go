package proxy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// flights are the fetches of blobs under way in this process: one per digest and
// size, as a rule, whichever repositories it is wanted for. A fetch goes on when those who wanted
// it leave, for others will want it; see leave for the exceptions.
type flights struct {
	folder  string // of spools
	room    func(folder string) (free, all int64, known bool)
	buffers sync.Pool

	patience time.Duration // of a client that waits for its first byte
	pause    time.Duration // before the first attempt to go on with a broken fetch

	mu       sync.Mutex
	byDigest map[oci.Digest]*flight
	used     map[oci.Digest]int // flights, and readers of such as are over
	spools   map[*spool]bool    // that are open
}

// What a fetch takes from the origin at once, and how much of that may wait to be
// hashed: all the memory of a flight.
const (
	bufferSize = 128 << 10
	buffers    = 4
)

type buffer [bufferSize]byte

func (fs *flights) open(folder string) error {
	fs.folder, fs.room, fs.spools = folder, roomIn, map[*spool]bool{}
	fs.buffers.New = func() any { return new(buffer) }
	fs.patience, fs.pause = 5*time.Second, 200*time.Millisecond
	fs.byDigest, fs.used = map[oci.Digest]*flight{}, map[oci.Digest]int{}
	return openSpools(folder)
}

// busy reports whether a blob is being fetched, or what was fetched is still
// being read.
func (fs *flights) busy(d oci.Digest) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.used[d] > 0
}

// size is that of a blob which is being fetched, also for a repository here.
func (fs *flights) size(here string, d oci.Digest) (int64, bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.byDigest[d]; f != nil && f.homes[here] {
		return f.size, true
	}
	return 0, false
}

// flight is one fetch. It has users: itself, until it is over, and its readers.
type flight struct {
	p           *Registry
	digest      oci.Digest
	size        int64
	here, there string        // the repository that it is fetched from, and for
	from        registry.Blob // the origin's; nil: not asked for
	ctx         context.Context
	cancel      context.CancelFunc

	// ready is closed when it is clear where the bytes are to be had: in the
	// spool; in cached; or with errSpool at the origin alone; or nowhere.
	ready  chan struct{}
	spool  *spool
	cached registry.Blob
	err    error

	hash []byte // its state at the end of a spool that could not take all

	// over is closed when nothing is done any more; result is nil if the blob is
	// in the cache now.
	over   chan struct{}
	result error

	// Guarded by flights.mu:
	users   int
	homes   map[string]bool // repositories here that are proven to have the blob
	waiting bool            // for another process, which fetches it
}

// board joins the flight of a blob, or begins it. The caller leaves it.
func (p *Registry) board(ctx context.Context, w *wanted) (f *flight, joined bool, err error) {
	fs, d := &p.flights, w.desc.Digest
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if p.ctx.Err() != nil {
		return nil, false, shuttingDown(w.here, p.ctx.Err())
	}
	f, joined = fs.byDigest[d], fs.byDigest[d] != nil
	// Two manifests of the origin contradict each other. One is wrong, and must not
	// keep those from the blob who go by the other: each has a flight.
	beside := joined && f.size != w.desc.Size
	if joined = joined && !beside; !joined {
		f = &flight{
			p: p, digest: d, size: w.desc.Size, here: w.here, there: w.there, from: w.from,
			ready: make(chan struct{}), over: make(chan struct{}), homes: map[string]bool{}, users: 1,
		}
		f.ctx, f.cancel = context.WithCancel(p.detached(ctx))
		if !beside {
			fs.byDigest[d] = f
		}
		fs.used[d]++
		p.running.Go(f.run)
	}
	f.homes[w.here] = true
	f.users++
	fs.used[d]++
	return f, joined, nil
}

// leave ends the use of a flight. One that nobody reads any more ends too, where
// it only waits for another process, or has less than Options.Abandon of its bytes.
func (fs *flights) leave(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.users--
	if fs.used[f.digest]--; fs.used[f.digest] == 0 {
		delete(fs.used, f.digest)
	}
	switch {
	case f.users == 0 && f.spool != nil:
		fs.closeSpool(f.spool)
	case f.users == 1 && fs.byDigest[f.digest] == f && (f.waiting || f.abandoned()):
		delete(fs.byDigest, f.digest)
		f.cancel()
	}
}

const mostSpared = 1 << 30 // bytes of a disk that spools leave to others, or a twentieth of it

// spool makes a file for a blob of a size that the origin claims: it must not
// fill the disk on which a database may lie. Errors: errSpool.
func (fs *flights) spool(size int64) (*spool, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if free, all, known := fs.room(fs.folder); known {
		free -= min(mostSpared, all/20)
		for s := range fs.spools {
			free -= s.size - s.progress()
		}
		if size > free {
			return nil, fmt.Errorf("%w: %d bytes would leave too little room on its disk", errSpool, size)
		}
	}
	s, err := newSpool(fs.folder, size)
	if err == nil {
		fs.spools[s] = true
	}
	return s, err
}

// closeSpool frees a spool; the caller holds mu.
func (fs *flights) closeSpool(s *spool) {
	delete(fs.spools, s)
	s.close()
}

// abandoned reports whether too little has come for going on without readers.
func (f *flight) abandoned() bool {
	share := int64(f.p.o.Abandon)
	if share == 0 {
		return false
	}
	select {
	case <-f.ready:
	default:
		return true
	}
	return f.spool != nil && f.spool.progress()*100 < f.size*share
}

// remove has the next who wants the blob begin anew.
func (fs *flights) remove(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.byDigest[f.digest] == f {
		delete(fs.byDigest, f.digest)
	}
}

// nextHome is a repository, other than its own, that has joined a flight. When
// there is none left the flight is removed, so that nobody joins behind that.
func (fs *flights) nextHome(f *flight) (here string, ok bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for here := range f.homes {
		if here != f.here {
			delete(f.homes, here)
			return here, true
		}
	}
	if fs.byDigest[f.digest] == f {
		delete(fs.byDigest, f.digest)
	}
	return "", false
}

// run is the life of a flight.
func (f *flight) run() {
	defer f.p.flights.leave(f)
	defer f.cancel()
	if f.result = safely(f.fly); f.result == nil {
		for here, ok := f.p.flights.nextHome(f); ok; here, ok = f.p.flights.nextHome(f) {
			_ = f.p.link(f.ctx, here, f.here, f.digest) // it says so itself; the next who asks tries again
		}
	} else {
		f.fail(f.result)
	}
	close(f.over)
}

// fail tells who still waits to read.
func (f *flight) fail(err error) {
	f.p.flights.remove(f)
	select {
	case <-f.ready:
		return
	default:
	}
	if err != nil && f.p.ctx.Err() != nil {
		err = shuttingDown(f.here, err)
	}
	f.err = err
	close(f.ready)
}

func shuttingDown(repo string, err error) error {
	return &registry.Error{Code: registry.Unavailable, Repo: repo, Detail: "the registry is shutting down; try again", Err: err}
}

// fly looks once more whether the blob is in the cache, and fetches it.
func (f *flight) fly() error {
	done, cached, err := f.turn()
	if err != nil {
		return err
	}
	defer done()
	if cached != nil {
		f.cached = cached
		close(f.ready)
		return nil
	}
	return f.fetch()
}

// safely calls what must not end its goroutine without a word.
func safely(do func() error) error {
	_, err := recovered(func() (struct{}, error) { return struct{}{}, do() })
	return err
}

// turn waits until the blob is in the cache, or is not being fetched by another
// process. That one may take as long as it lives: it renews its lease. Whoever
// gets no answer about leases goes on: they only spare the origin.
func (f *flight) turn() (done func(), cached registry.Blob, err error) {
	for wait := leasePoll; ; wait = min(2*wait, slowestAsk) {
		done, mine, err := f.p.lease(f.ctx, "blob "+f.digest.String())
		if err != nil {
			f.p.o.Log.Warn("no lease could be had; another process may ask the upstream for the same", "digest", f.digest, "error", err)
			mine = true
		}
		cached, err := f.p.held(f.ctx, f.here, f.digest)
		if err == nil && cached != nil {
			err = f.sized(cached.Descriptor().Size)
		}
		if cached != nil || err != nil {
			done()
			return func() {}, cached, err
		}
		f.setWaiting(!mine)
		if mine {
			return done, nil, nil
		}
		select {
		case <-time.After(wait):
		case <-f.ctx.Done():
			return nil, nil, fmt.Errorf("wait for another process to fetch blob %s: %w", f.digest, f.ctx.Err())
		}
	}
}

// sized wants the blob to have the size that the clients were told.
func (f *flight) sized(size int64) error {
	if size == f.size {
		return nil
	}
	f.p.sizes.drop(f.here, f.digest)
	return registry.Errorf(registry.Faulty, f.here, "the upstream registry's manifest says that blob %s has %d bytes, but it has %d; try again", f.digest, f.size, size)
}

// setWaiting has leave know whether the flight does anything but wait.
func (f *flight) setWaiting(waiting bool) {
	f.p.flights.mu.Lock()
	defer f.p.flights.mu.Unlock()
	f.waiting = waiting
}
