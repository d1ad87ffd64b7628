package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

const (
	maxResumes  = 5                // in a row without much progress between them
	muchEnough  = 256 << 10        // progress
	longestWait = 30 * time.Second // that an origin may ask for before it goes on
)

// fetch brings the blob from the origin into a spool and, from there, into the
// cache. Errors: why it is not in the cache; errSpool where it cannot be written
// down, but may be had.
func (f *flight) fetch() error {
	spool, err := f.p.flights.spool(f.size)
	if err != nil {
		f.notKept(err)
		return err
	}
	src := f.p.source(f.ctx, f.there, oci.Descriptor{Digest: f.digest, Size: f.size}, 0, f.size)
	src.blob = f.from
	defer src.Close()
	if err := safely(src.open); err != nil {
		f.p.flights.mu.Lock()
		f.p.flights.closeSpool(spool)
		f.p.flights.mu.Unlock()
		f.refused(err)
		f.p.o.Observe(Event{Kind: "fetch", Result: "error"})
		return err
	}
	f.spool = spool
	close(f.ready)
	kept := make(chan error, 1)
	f.p.running.Go(func() { kept <- safely(f.keep) })
	if err = f.fill(src); err != nil {
		f.p.flights.remove(f) // before anybody hears of it, and tries again
		f.refused(err)
	}
	spool.end(err)
	notKept := <-kept
	result := "miss"
	switch {
	case err != nil && !errors.Is(err, errSpool):
		result = "error"
	case err != nil || notKept != nil:
		result = "passed"
		err = cmp.Or(err, notKept)
		f.notKept(err)
	default:
		f.p.o.Stored(f.size)
	}
	f.p.o.Observe(Event{Kind: "fetch", Result: result, Bytes: src.got})
	return err
}

// refused learns from what the origin did not give.
func (f *flight) refused(err error) {
	if noBlob(err) {
		f.p.denied(context.WithoutCancel(f.ctx), f.here, f.digest)
	} else if registry.IsCode(err, registry.Faulty) {
		f.p.sizes.drop(f.here, f.digest) // it may be what was wrong
	}
}

func (f *flight) notKept(why error) {
	f.p.o.Log.Warn("a blob cannot be kept and is passed through", "repo", f.here, "digest", f.digest, "error", why)
}

// fill writes what the origin sends into the spool. It succeeds if that is the blob.
func (f *flight) fill(src *source) error {
	aside := newHasher(f.digest.Algorithm(), &f.p.flights.buffers)
	err := safely(func() error { return f.copy(src, aside) })
	h := aside.end()
	if errors.Is(err, errSpool) {
		var failed error
		f.hash, failed = h.MarshalBinary()
		return errors.Join(err, failed)
	}
	return cmp.Or(err, verifyBlob(f.here, f.digest, h))
}

// copy has written just what went into the hash, also with an error.
func (f *flight) copy(src *source, aside *hasher) error {
	for {
		buf := aside.buffer()
		n, err := src.Read(buf[:])
		written, full := f.spool.write(buf[:n])
		aside.add(buf, written)
		if full != nil {
			return full
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// hasher hashes beside the work that brings the bytes, a few buffers behind it.
type hasher struct {
	pool  *sync.Pool // of *buffer
	free  chan struct{}
	queue chan filled
	done  chan oci.Hash
}

type filled struct {
	*buffer
	n int
}

func newHasher(a oci.Algorithm, pool *sync.Pool) *hasher {
	s := &hasher{pool: pool, free: make(chan struct{}, buffers), queue: make(chan filled, buffers), done: make(chan oci.Hash, 1)}
	go func() {
		h := a.New()
		for b := range s.queue {
			h.Write(b.buffer[:b.n])
			s.pool.Put(b.buffer)
			<-s.free
		}
		s.done <- h
	}()
	return s
}

// buffer waits for one to be free. It comes back with add.
func (s *hasher) buffer() *buffer {
	s.free <- struct{}{}
	return s.pool.Get().(*buffer)
}

func (s *hasher) add(b *buffer, n int) { s.queue <- filled{b, n} }

// end returns the hash of all that was added. Nothing can be added any more.
func (s *hasher) end() oci.Hash {
	close(s.queue)
	return <-s.done
}

// verifyBlob wants all that was written to h to have the digest d.
func verifyBlob(repo string, d oci.Digest, h oci.Hash) error {
	if d.Algorithm().FromHash(h) != d {
		return registry.Errorf(registry.Faulty, repo, "the content that the upstream registry sent for blob %s has another digest; try again", d)
	}
	return nil
}

// source reads a part of a blob from the origin, and goes on where that breaks off.
type source struct {
	p        *Registry
	ctx      context.Context
	repo     string // there
	desc     oci.Descriptor
	off, end int64
	blob     registry.Blob // nil: not asked for
	body     io.ReadCloser // nil: not open
	got      int64         // in all

	broken   error // why body had to be closed
	resumes  int   // without much progress
	progress int64 // since the last one
}

func (p *Registry) source(ctx context.Context, there string, desc oci.Descriptor, off, n int64) *source {
	return &source{p: p, ctx: ctx, repo: there, desc: desc, off: off, end: off + n}
}

// open asks the origin, once. Those whom it serves can be told of its errors; once
// bytes have gone out they cannot, and Read does what it can.
func (s *source) open() (err error) {
	if s.blob == nil {
		if s.blob, err = s.p.originBlob(s.ctx, s.repo, s.desc); err != nil {
			return err
		}
	}
	s.body, err = s.blob.Open(s.ctx, s.off, s.end-s.off)
	return err
}

// originBlob is a blob of the origin that must have the size of desc.
func (p *Registry) originBlob(ctx context.Context, there string, desc oci.Descriptor) (registry.Blob, error) {
	if o, ok := p.origin.(BlobKnower); ok {
		return o.KnownBlob(there, desc), nil
	}
	b, err := p.origin.Blob(ctx, there, desc.Digest)
	if err != nil {
		return nil, err
	}
	if size := b.Descriptor().Size; size != desc.Size {
		return nil, registry.Errorf(registry.Faulty, there, "the upstream registry has %d bytes for blob %s, where its manifest says %d; try again", size, desc.Digest, desc.Size)
	}
	return b, nil
}

func (s *source) Read(p []byte) (int, error) {
	for s.off < s.end {
		if s.body == nil {
			if err := s.resume(); err != nil {
				return 0, err
			}
		}
		n, err := s.body.Read(p)
		if int64(n) > s.end-s.off {
			return 0, registry.Errorf(registry.Faulty, s.repo, "the upstream registry sends more than the %d bytes of blob %s", s.desc.Size, s.desc.Digest)
		}
		s.off, s.got, s.progress = s.off+int64(n), s.got+int64(n), s.progress+int64(n)
		if err != nil && s.off < s.end {
			s.breakOff(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, io.EOF
}

func (s *source) breakOff(err error) {
	s.body.Close()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	s.body, s.broken = nil, err
}

// resume asks for what is missing, a few times and ever later.
func (s *source) resume() error {
	if s.progress >= muchEnough {
		s.resumes = 0
	}
	s.progress = 0
	for ; ; s.resumes++ {
		wait, ok := s.p.flights.backoff(s.resumes, s.broken)
		if !ok || s.ctx.Err() != nil {
			return s.gaveUp()
		}
		s.p.o.Log.Info("the upstream broke off; going on", "repo", s.repo, "digest", s.desc.Digest, "at", s.off, "error", s.broken)
		select {
		case <-time.After(wait):
		case <-s.ctx.Done():
			return s.gaveUp()
		}
		if err := s.open(); err == nil {
			s.resumes++
			return nil
		} else {
			s.broken = err
		}
	}
}

func (s *source) gaveUp() error {
	if registry.CodeOf(s.broken) != registry.Internal {
		return s.broken
	}
	return &registry.Error{Code: registry.Unavailable, Repo: s.repo, Detail: "the upstream registry broke off its answer; try again",
		Err: fmt.Errorf("blob %s at byte %d: %w", s.desc.Digest, s.off, s.broken)}
}

// backoff is how long to wait before another attempt; not ok: it is of no use.
func (fs *flights) backoff(attempts int, err error) (wait time.Duration, ok bool) {
	switch registry.CodeOf(err) {
	case registry.Internal, registry.Unavailable, registry.TooManyRequests:
	default:
		return 0, false
	}
	wait = fs.pause<<attempts + rand.N(fs.pause)
	var e *registry.Error
	if errors.As(err, &e) && e.Limit != nil {
		wait = max(wait, e.Limit.RetryAfter)
	}
	return wait, attempts < maxResumes && wait <= longestWait
}

func (s *source) Close() error {
	if s.body == nil {
		return nil
	}
	return s.body.Close()
}
