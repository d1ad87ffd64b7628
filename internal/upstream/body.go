package upstream

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

var errIdle = errors.New("the body brought nothing, or too little, for too long")

// body is that of an answer: given up when it stalls, counted, and slowed down to
// the bandwidth allowed.
type body struct {
	io.ReadCloser
	j     *journey
	ctx   context.Context // of the request
	timer *time.Timer
	whole *time.Timer // nil: it may be long

	mu     sync.Mutex // Close may come while Read waits
	closed bool
	bytes  int64
	err    error // of the last Read, unless it was the end
}

func newBody(inner io.ReadCloser, ctx context.Context, j *journey) *body {
	b := &body{ReadCloser: inner, j: j, ctx: ctx}
	b.timer = time.AfterFunc(j.upstream.o.Transport.Idle, func() { j.cancel(errIdle) })
	b.timer.Stop()
	if j.call.Kind != KindBlob {
		b.whole = time.AfterFunc(j.upstream.o.Transport.Whole, func() { j.cancel(errIdle) })
	}
	return b
}

// Read counts the time of reading alone, neither that between two reads nor that
// of being slowed down.
func (b *body) Read(p []byte) (int, error) {
	u := b.j.upstream
	if u.bandwidth != nil {
		p = p[:min(len(p), portion)]
	}
	b.timer.Reset(u.o.Transport.Idle)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF && errors.Is(context.Cause(b.ctx), errIdle) {
		err = errIdle
	}
	b.note(n, err)
	if waitErr := u.bandwidth.wait(b.ctx, int64(n)); waitErr != nil && err == nil {
		return n, waitErr
	}
	return n, err
}

// note keeps what a read brought, and tells the breaker of one that failed
// although nobody left.
func (b *body) note(n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes += int64(n)
	if err == nil || err == io.EOF || b.closed || b.err != nil {
		return
	}
	b.err = err
	if b.j.ctx.Err() == nil {
		b.j.failed(err)
	}
}

func (b *body) Close() error {
	b.timer.Stop()
	if b.whole != nil {
		b.whole.Stop()
	}
	err := b.ReadCloser.Close()
	b.mu.Lock()
	closed, n, failed := b.closed, b.bytes, b.err
	b.closed = true
	b.mu.Unlock()
	if !closed {
		b.j.end(n, failed)
	}
	return err
}
