package s3blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go/middleware"
)

var errSlow = errors.New("S3 takes no more bytes, or does not answer")

// patient ends attempts at requests that make no progress. How long they take
// in all is for their bytes to say.
type patient struct {
	aws.HTTPClient
	timeout time.Duration
}

// When the last byte of a body was taken, so many may still wait in the kernel's
// buffers, to be sent as slowly as that, in bytes of a second.
const (
	underway = 4 << 20
	slowest  = 256 << 10
)

// A POST names up to ten thousand parts to assemble, or a thousand objects to
// delete, and is answered when that is done.
const (
	bytesPerName = 128
	timePerName  = 50 * time.Millisecond
)

func (p patient) Do(r *http.Request) (*http.Response, error) {
	limit := p.timeout
	if r.Method == http.MethodPost {
		limit += time.Duration(max(0, r.ContentLength)/bytesPerName) * timePerName
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	w := &watch{limit: limit, end: func() { cancel(errSlow) }}
	w.begin()
	r = r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &sentBody{r.Body, w, r.ContentLength, time.Duration(min(max(0, r.ContentLength), underway)/slowest) * time.Second}
	}
	resp, err := p.HTTPClient.Do(r)
	w.stop()
	if err != nil {
		if context.Cause(ctx) == errSlow {
			err = fmt.Errorf("%w for %v", errSlow, limit)
		}
		cancel(nil)
		return resp, err
	}
	resp.Body = &watchedBody{resp.Body, &watch{limit: p.timeout, end: w.end}, ctx, cancel}
	return resp, nil
}

// watch calls end when nothing has happened for as long as limit.
type watch struct {
	limit time.Duration
	end   func()

	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

func (w *watch) begin() { w.beginWith(0) }

// beginWith allows for more than the limit.
func (w *watch) beginWith(more time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over:
	case w.timer == nil:
		w.timer = time.AfterFunc(w.limit+more, w.end)
	default:
		w.timer.Reset(w.limit + more)
	}
}

// pause lets any time go by until begin.
func (w *watch) pause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
}

// stop is for good: of a body that the service has not taken whole, more may be
// read after its answer.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
	w.over = true
}

// sentBody begins the watch anew with each piece that is taken of it, and then
// waits for the answer.
type sentBody struct {
	io.ReadCloser
	w    *watch
	left int64         // bytes that were not taken yet
	more time.Duration // for the answer, when all were
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left > 0 {
		b.w.begin()
	} else {
		b.w.beginWith(b.more)
	}
	return n, err
}

// watchedBody watches while it is read: its reader may take its time. Closing
// it ends the context of its request.
type watchedBody struct {
	io.ReadCloser
	w      *watch
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.w.begin()
	n, err := b.ReadCloser.Read(p)
	b.w.pause()
	if err != nil && context.Cause(b.ctx) == errSlow {
		err = fmt.Errorf("%w for %v", errSlow, b.w.limit)
	}
	return n, err
}

func (b *watchedBody) Close() error {
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}

// bounded tries no request again for which somebody has waited for long: what
// is read for timeout, what is written for twice that.
type bounded struct {
	*retry.Standard
	timeout time.Duration
}

// GetRetryToken is asked before another attempt.
func (b bounded) GetRetryToken(ctx context.Context, err error) (func(error) error, error) {
	limit := b.timeout
	switch awsmiddleware.GetOperationName(ctx) {
	case "PutObject", "UploadPart", "CreateMultipartUpload", "CompleteMultipartUpload":
		limit *= 2
	}
	if start, ok := ctx.Value(clockKey{}).(time.Time); ok && time.Since(start) >= limit {
		return nil, errLong
	}
	return b.Standard.GetRetryToken(ctx, err)
}

var errLong = errors.New("it is not tried again: it has taken too long already")

type clockKey struct{}

// startClock notes when an operation began, for all attempts at it.
func startClock(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("BerthClock",
		func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
			return next.HandleInitialize(context.WithValue(ctx, clockKey{}, time.Now()), in)
		}), middleware.Before)
}
