package remote

import (
	"bufio"
	"errors"
	"io"
	"sync"
)

// chunkSize is how much of a body is looked at before it is sent: shorter
// bodies go in one request, with their exact range.
const chunkSize = 64 << 10

// source is a body whose beginning has been looked at.
type source struct {
	head []byte // up to chunkSize bytes; valid until the next use of rest
	err  error  // why head is all there is; nil: more may follow
	rest *bufio.Reader
}

// look buffers the beginning of r. The caller releases the source.
func (r *Registry) look(body io.Reader) *source {
	buf, ok := r.chunks.Get().(*bufio.Reader)
	if ok {
		buf.Reset(body)
	} else {
		buf = bufio.NewReaderSize(body, chunkSize)
	}
	head, err := buf.Peek(chunkSize)
	return &source{head: head, err: err, rest: buf}
}

// release keeps the buffer of a source for the next body.
func (r *Registry) release(s *source) {
	s.rest.Reset(nil)
	r.chunks.Put(s.rest)
}

// sentBody is the body of one request. It ends in good order when its inner
// reader fails, and remembers why. Behind Close nothing touches the inner
// reader, although a transport may go on reading after its request has ended.
type sentBody struct {
	mu     sync.Mutex
	inner  io.Reader
	err    error
	closed bool
}

func (b *sentBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errors.New("the request has ended")
	}
	n, err := b.inner.Read(p)
	if err != nil {
		b.err = unlessEOF(err)
		err = io.EOF
	}
	return n, err
}

func (b *sentBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

// failure is why the inner reader ended, nil if it came to its end.
func (b *sentBody) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func unlessEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
