package ocihttp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/berth-registry/berth/internal/registry"
)

// body is a request's body under guard: it must keep bringing bytes, and as
// many as were announced. It remembers why it failed, so that the answer does
// not hang on how a registry wraps a reader's error.
type body struct {
	src   io.Reader
	ctl   *http.ResponseController
	idle  time.Duration
	armed time.Time // when the deadline was set
	n     int64     // bytes that came
	want  int64     // bytes that must come; -1: any number
	err   error     // why it failed; nil at its end
}

// newBody guards src. The deadline holds from now on, also for a server that
// discards a body which no handler reads.
func newBody(src io.Reader, ctl *http.ResponseController, idle time.Duration) *body {
	b := &body{src: src, ctl: ctl, idle: idle, want: -1}
	b.arm(time.Now())
	return b
}

// arm sets the deadline. Where a connection cannot have one, none is needed:
// it belongs to a test.
func (b *body) arm(now time.Time) {
	b.armed = now
	_ = b.ctl.SetReadDeadline(now.Add(b.idle))
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.want >= 0 {
		// One byte more than is wanted may be asked for: it shows a body that is too long.
		p = p[:min(int64(len(p)), b.want-b.n+1)]
	}
	n, err := b.src.Read(p)
	if b.want >= 0 && b.n+int64(n) > b.want {
		n = int(b.want - b.n)
		err = fmt.Errorf("body is longer than the %d bytes of its Content-Range", b.want)
	}
	b.n += int64(n)
	switch {
	case err == io.EOF && b.n < b.want:
		err = io.ErrUnexpectedEOF
		fallthrough
	case err != nil && err != io.EOF:
		b.err = err
	case err == io.EOF:
		// The server goes on reading to notice a client that leaves: an expired
		// deadline would look like one.
		_ = b.ctl.SetReadDeadline(time.Time{})
	case n > 0:
		// Often enough to be true, seldom enough to cost nothing.
		if now := time.Now(); now.Sub(b.armed) > min(time.Second, b.idle/4) {
			b.arm(now)
		}
	}
	return n, err
}

// reader is x's body as what Append and Commit take, nil if there is none.
func (x *exchange) reader() io.Reader {
	if x.body == nil {
		return nil
	}
	return x.body
}

// blame returns the error that explains err: if the body failed, that did.
// Whatever came before is kept by the session.
func (x *exchange) blame(err error) error {
	if err == nil || x.body == nil || x.body.err == nil {
		return err
	}
	failed, n := x.body.err, x.body.n
	var broken *net.OpError
	// A client that ended its body too early may still listen.
	switch {
	case errors.Is(failed, os.ErrDeadlineExceeded):
		return refuse(http.StatusRequestTimeout, "SIZE_INVALID", "no byte came for %s; %d had come before. An upload session stays: ask for its Range and go on", x.h.BodyIdle, n)
	case !errors.Is(failed, io.ErrUnexpectedEOF) && (x.ctx.Err() != nil || errors.As(failed, &broken)):
		return fmt.Errorf("%w after %d bytes: %w", errClientGone, n, failed)
	}
	return &registry.Error{Code: registry.SizeInvalid, Repo: x.req.repo, Err: failed,
		Detail: fmt.Sprintf("%d bytes came, which is not what was announced. An upload session keeps them: ask for its Range and go on", n)}
}
