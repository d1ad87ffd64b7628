package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// heldBack is how much at the end of a blob nobody gets before all of it was
// verified. A blob that has no more than that is verified before its first byte
// is given out.
const heldBack = 64 << 10

// spoolPattern names the files of spools for as long as they have a name.
const spoolPattern = "berth-flight-*"

// errSpool: bytes cannot be written down here, as on a full disk.
var errSpool = errors.New("the spool cannot be written")

// spool is a file that one writes and many read meanwhile. It has no name, so
// that it is gone with the last who has it open, however the process ends.
type spool struct {
	size int64
	file *os.File

	mu      sync.Mutex
	written int64
	over    bool
	err     error         // why it is over; nil: it has all bytes, and they are right
	changed chan struct{} // closed at the next change; nil: nobody waits for one
	ended   chan struct{} // closed when over
}

// openSpools makes a folder fit for spools. A process that ends between making a
// file and taking its name leaves that file behind; nobody misses it.
func openSpools(folder string) error {
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return fmt.Errorf("folder for what is fetched: %w; make it, or choose another", err)
	}
	left, err := filepath.Glob(filepath.Join(folder, spoolPattern))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// newSpool makes an empty one, for size bytes.
func newSpool(folder string, size int64) (*spool, error) {
	f, err := os.CreateTemp(folder, spoolPattern)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSpool, err)
	}
	if err := os.Remove(f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.Close()
		return nil, fmt.Errorf("%w: %w", errSpool, err)
	}
	return &spool{size: size, file: f, ended: make(chan struct{})}, nil
}

// write appends, and tells how much of p came to be written. One may write.
func (s *spool) write(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err = s.file.WriteAt(p, s.written)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written += int64(n)
	s.wake()
	if err != nil {
		err = fmt.Errorf("%w: %w", errSpool, err)
	}
	return n, err
}

// end says that nothing more is written: with nil, that all is there and right.
func (s *spool) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over, s.err = true, err
	s.wake()
	close(s.ended)
}

// wake wakes who waits; the caller holds mu.
func (s *spool) wake() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// wait waits until there are bytes behind off that may be read, and says how far
// they reach. Errors: that of end; of errSpool when all that was written is read.
func (s *spool) wait(ctx context.Context, off int64) (int64, error) {
	for {
		s.mu.Lock()
		until, err := s.readable()
		if until > off || err != nil {
			s.mu.Unlock()
			if until > off {
				err = nil
			}
			return until, err
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// readable says how far readers may go, and what is behind; the caller holds mu.
// Of bytes that turned out to be wrong nobody gets more.
func (s *spool) readable() (until int64, err error) {
	switch {
	case !s.over:
		return min(s.written, s.size-heldBack), nil
	case s.err == nil:
		return s.size, io.EOF
	case errors.Is(s.err, errSpool):
		return s.written, s.err
	}
	return 0, s.err
}

// progress is how many bytes were written.
func (s *spool) progress() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}

func (s *spool) close() { s.file.Close() }

// tail reads a part of a spool, while that grows too. It is closed before the
// spool is.
type tail struct {
	ctx      context.Context
	spool    *spool
	pos, end int64
	own      *os.File // the same file, with a place of its own; nil: not opened
}

func (s *spool) tail(ctx context.Context, off, n int64) *tail {
	return &tail{ctx: ctx, spool: s, pos: off, end: off + n}
}

// more waits for bytes and says how many can be read.
func (t *tail) more(ctx context.Context) (int64, error) {
	if t.pos == t.end {
		return 0, io.EOF
	}
	until, err := t.spool.wait(ctx, t.pos)
	if err == io.EOF { // a reader of more than there is
		err = io.ErrUnexpectedEOF
	}
	return max(0, min(until, t.end)-t.pos), err
}

func (t *tail) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := t.more(t.ctx)
	if err != nil {
		return 0, err
	}
	m, err := t.spool.file.ReadAt(p[:min(int64(len(p)), n)], t.pos)
	t.pos += int64(m)
	return m, ofFile(err)
}

// send hands the next n bytes, which more has counted, to w: as a file, which a
// connection lets the kernel send.
func (t *tail) send(w io.Writer, n int64) (int64, error) {
	var part io.Reader = io.NewSectionReader(t.spool.file, t.pos, n)
	if t.seek() {
		part = &io.LimitedReader{R: t.own, N: n}
	}
	m, err := io.Copy(w, part)
	t.pos += m
	if err == nil && m < n {
		err = ofFile(io.EOF)
	}
	return m, err
}

// seek has a file of its own stand where the tail does, where that can be.
func (t *tail) seek() bool {
	if t.own == nil {
		f, err := reopen(t.spool.file)
		if err != nil {
			return false
		}
		t.own = f
	}
	_, err := t.own.Seek(t.pos, io.SeekStart)
	return err == nil
}

func (t *tail) Close() error {
	if t.own == nil {
		return nil
	}
	return t.own.Close()
}

// ofFile is an error of reading bytes that were written: there is no end there.
func ofFile(err error) error {
	if err == io.EOF {
		return fmt.Errorf("the spool has fewer bytes than were written: %w", io.ErrUnexpectedEOF)
	}
	return err
}
