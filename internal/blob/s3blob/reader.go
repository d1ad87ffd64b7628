package s3blob

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/berth-registry/berth/internal/blob"
)

// reopens is how often a reader whose connection breaks goes on with another
// before it gives up. Bytes that come in between count anew.
const reopens = 3

// Open implements blob.Store: one request, and another whenever the connection
// breaks. It is made now, so that an absent object is an error of Open.
func (s *Store) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := blob.CheckKey(key); err != nil {
		return nil, err
	}
	rc, err := s.read(ctx, s.name(key), off, n)
	return rc, failure(err)
}

func (s *Store) read(ctx context.Context, name *string, off, n int64) (io.ReadCloser, error) {
	if n == 0 { // there is no such range
		_, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.o.Bucket, Key: name})
		return io.NopCloser(strings.NewReader("")), err
	}
	r := &reader{s: s, ctx: ctx, name: name, off: off, left: n}
	if err := r.open(); err != nil {
		return nil, err
	}
	return r, nil
}

// reader reads left bytes of an object from off.
type reader struct {
	s     *Store
	ctx   context.Context
	name  *string
	etag  *string // of what has been read so far
	off   int64
	left  int64
	body  io.ReadCloser
	tries int
}

func (r *reader) open() error {
	out, err := r.s.client.GetObject(r.ctx, &s3.GetObjectInput{
		Bucket: &r.s.o.Bucket, Key: r.name, IfMatch: r.etag,
		Range: new(fmt.Sprintf("bytes=%d-%d", r.off, r.off+r.left-1)),
	})
	if hasCode(err, "InvalidRange") { // shorter than the caller believes
		r.body = io.NopCloser(strings.NewReader(""))
		r.tries = reopens
		return nil
	}
	if err != nil {
		return err
	}
	r.etag, r.body = out.ETag, out.Body
	return nil
}

func (r *reader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	for {
		n, err := r.body.Read(b[:min(int64(len(b)), r.left)])
		r.off, r.left = r.off+int64(n), r.left-int64(n)
		if n > 0 {
			r.tries = 0
			return n, nil
		}
		if err == nil {
			return 0, nil
		}
		if r.tries++; r.tries > reopens || r.ctx.Err() != nil {
			return 0, broken(err)
		}
		r.body.Close()
		if again := r.open(); again != nil {
			r.body = io.NopCloser(strings.NewReader(""))
			r.tries = reopens
			return 0, failure(fmt.Errorf("%w, and then: %w", broken(err), again))
		}
	}
}

// broken is the error of a body that ended early.
func broken(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *reader) Close() error { return r.body.Close() }

// maxTTL is the longest that a signature can hold.
const maxTTL = 7 * 24 * time.Hour

// URL implements blob.Store. What is behind it is offered to browsers as a
// download: anybody may have made its content.
func (s *Store) URL(ctx context.Context, key string, ttl time.Duration) (string, error) {
	if err := blob.CheckKey(key); err != nil {
		return "", err
	}
	ttl, err := s.valid(ctx, ttl)
	if err != nil {
		return "", failure(err)
	}
	out, err := s.sign.PresignGetObject(ctx, &s3.GetObjectInput{
		Bucket: &s.o.Bucket, Key: s.name(key),
		ResponseContentType: new(contentType), ResponseContentDisposition: new("attachment"),
	}, s3.WithPresignExpires(min(max(ttl, time.Second), maxTTL)))
	if err != nil {
		return "", failure(err)
	}
	return out.URL, nil
}

// leastURL is how long a URL must at least be good, for a client to follow it.
const leastURL = 2 * time.Minute

// valid is how long a URL can be good that is wanted for ttl: it ends with the
// credentials that sign it, which may be those of a role. Where that is too
// soon, there are no URLs until the SDK has the next credentials.
func (s *Store) valid(ctx context.Context, ttl time.Duration) (time.Duration, error) {
	credentials, err := s.client.Options().Credentials.Retrieve(ctx)
	if err != nil || !credentials.CanExpire {
		return ttl, err
	}
	left := time.Until(credentials.Expires)
	if left < min(ttl, leastURL) {
		return 0, fmt.Errorf("%w: the credentials run out", blob.ErrUnsupported)
	}
	return min(ttl, left), nil
}

// cancelBody ends the context of its request.
type cancelBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *cancelBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
