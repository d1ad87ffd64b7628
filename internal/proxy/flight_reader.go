package proxy

import (
	"context"
	"errors"
	"io"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// errPatience: the first byte takes longer than a client waits for its headers.
var errPatience = errors.New("nothing has come yet")

// reader is a client of a flight. It reads from where the bytes are: the spool,
// the cache, or, as the last resort, an answer of the origin of its own.
type reader struct {
	ctx      context.Context
	f        *flight
	pos, end int64
	tail     *tail
	stream   io.ReadCloser // in place of tail
	closed   bool
}

// open reads from a flight that the caller has boarded; closing the reader leaves
// it. It returns with the first byte: what fails before that can be told with a
// status. But who must wait for long, as for another process, waits in Read.
func (f *flight) open(ctx context.Context, off, n int64, joined bool) (io.ReadCloser, error) {
	r := &reader{ctx: ctx, f: f, pos: off, end: off + n}
	patient, stop := context.WithTimeoutCause(ctx, f.p.flights.patience, errPatience)
	defer stop()
	_, err := r.more(patient)
	if err != nil && err != io.EOF && !errors.Is(err, errPatience) {
		r.Close()
		noteFailure(ctx, err)
		return nil, err
	}
	registry.NoteFreshness(ctx, registry.Freshness{Forward: "uri-miss", Shared: joined, Stored: r.kept(), Age: -1})
	return r, nil
}

// kept reports whether what is read is kept, as far as that is clear.
func (r *reader) kept() bool {
	_, passes := r.stream.(*passed)
	return r.tail != nil || r.stream != nil && !passes
}

// more waits for bytes: at least the next n are in the tail, or come by stream.
func (r *reader) more(ctx context.Context) (n int64, err error) {
	if r.pos == r.end {
		return 0, io.EOF
	}
	if r.tail == nil && r.stream == nil {
		if err := r.find(ctx); err != nil {
			return 0, err
		}
	}
	if r.stream == nil {
		n, err := r.tail.more(ctx)
		if !errors.Is(err, errSpool) {
			return n, err
		}
		if r.stream, err = r.f.pass(r.ctx, r.pos, r.end-r.pos); err != nil {
			return 0, err
		}
	}
	return r.end - r.pos, nil
}

// find waits until it is clear where the bytes are.
func (r *reader) find(ctx context.Context) (err error) {
	select {
	case <-r.f.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	switch f := r.f; {
	case f.spool != nil:
		r.tail = f.spool.tail(r.ctx, r.pos, r.end-r.pos)
	case f.cached != nil:
		r.stream, err = f.cached.Open(r.ctx, r.pos, r.end-r.pos)
	case errors.Is(f.err, errSpool):
		r.stream, err = f.pass(r.ctx, r.pos, r.end-r.pos)
	default:
		err = f.err
	}
	return err
}

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	_, err := r.more(r.ctx)
	if err != nil {
		return 0, err
	}
	var n int
	if r.stream == nil {
		n, err = r.tail.Read(p)
	} else {
		n, err = r.stream.Read(p)
	}
	r.pos += int64(n)
	return n, r.early(err)
}

// WriteTo serves io.Copy: what is there goes out in as long stretches as there are.
func (r *reader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		n, err := r.more(r.ctx)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		if r.stream == nil {
			n, err = r.tail.send(w, n)
		} else if n, err = io.Copy(w, r.stream); err == nil {
			err = io.EOF
		}
		total += n
		r.pos += n
		if err = r.early(err); err != nil && err != io.EOF {
			return total, err
		}
	}
}

// early makes an end that comes too early an error.
func (r *reader) early(err error) error {
	if err == io.EOF && r.pos < r.end {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *reader) Close() (err error) {
	if r.closed {
		return nil
	}
	r.closed = true
	if r.tail != nil {
		err = r.tail.Close()
	}
	if r.stream != nil {
		err = errors.Join(err, r.stream.Close())
	}
	r.f.p.flights.leave(r.f)
	return err
}

// pass reads from the origin for one reader: the rest behind what was spooled,
// verified; or any part, which cannot be.
func (f *flight) pass(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	src := f.p.source(ctx, f.there, oci.Descriptor{Digest: f.digest, Size: f.size}, off, n)
	if err := src.open(); err != nil {
		f.refused(err)
		return nil, err
	}
	r := &passed{src: src, f: f}
	spooled := int64(0)
	if f.spool != nil {
		spooled = f.spool.progress()
	}
	if off != spooled || off+n != f.size {
		return r, nil
	}
	r.hash = f.digest.Algorithm().New()
	if f.hash != nil {
		if err := r.hash.UnmarshalBinary(f.hash); err != nil {
			src.Close()
			return nil, err
		}
	}
	return r, nil
}

// passed is what comes from the origin and is not kept. With a hash, the read
// that reaches the end gives nothing unless the digest is right.
type passed struct {
	src  *source
	f    *flight
	hash oci.Hash // of all before it, and of it; nil: of a part
}

func (r *passed) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	if r.hash == nil {
		return n, err
	}
	r.hash.Write(p[:n])
	if r.src.off == r.src.end {
		if wrong := verifyBlob(r.f.here, r.f.digest, r.hash); wrong != nil {
			return 0, wrong
		}
	}
	return n, err
}

func (r *passed) Close() error {
	r.f.p.o.Observe(Event{Kind: "fetch", Result: "passed", Bytes: r.src.got})
	return r.src.Close()
}
