package registry

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/oci"
)

// observedBlob tells of what is read of a blob.
type observedBlob struct {
	inner    Blob
	observed *observed
	repo     string
}

func (b *observedBlob) Descriptor() oci.Descriptor { return b.inner.Descriptor() }

func (b *observedBlob) op(a Action, size int64) Op {
	return Op{Action: a, Repo: b.repo, Ref: oci.DigestRef(b.inner.Descriptor().Digest), Size: size}
}

func (b *observedBlob) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	done := b.observed.start(ctx, b.op(BlobRead, n))
	returned := false
	defer func() {
		if !returned {
			done(0, errPanicked)
		}
	}()
	r, err := b.inner.Open(ctx, off, n)
	returned = true
	if err != nil {
		done(0, err)
		return nil, err
	}
	counted := &observedReader{inner: r, done: done}
	if w, ok := r.(io.WriterTo); ok {
		return &observedWriterTo{observedReader: counted, inner: w}, nil
	}
	return counted, nil
}

// URL is an operation unless it is Unsupported, for then an Open follows.
func (b *observedBlob) URL(ctx context.Context, ttl time.Duration) (string, error) {
	url, err := b.inner.URL(ctx, ttl)
	if !IsCode(err, Unsupported) {
		b.observed.start(ctx, b.op(BlobRedirect, b.inner.Descriptor().Size))(0, err)
	}
	return url, err
}

// observedReader counts bytes and tells of the end when it is closed.
type observedReader struct {
	inner io.ReadCloser
	n     int64
	err   error // the first, other than io.EOF
	once  sync.Once
	done  func(n int64, err error)
}

func (r *observedReader) note(n int64, err error) {
	r.n += n
	if r.err == nil && err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
}

func (r *observedReader) Read(p []byte) (int, error) {
	n, err := r.inner.Read(p)
	r.note(int64(n), err)
	return n, err
}

func (r *observedReader) Close() error {
	err := r.inner.Close()
	r.once.Do(func() {
		r.note(0, err)
		r.done(r.n, r.err)
	})
	return err
}

// observedWriterTo keeps the short way from a file to a socket open: the
// destination reaches the inner WriteTo as it is.
type observedWriterTo struct {
	*observedReader
	inner io.WriterTo
}

func (r *observedWriterTo) WriteTo(w io.Writer) (int64, error) {
	n, err := r.inner.WriteTo(w)
	r.note(n, err)
	return n, err
}

// observedUpload tells of what happens to a session after it was opened.
type observedUpload struct {
	inner    Upload
	observed *observed
	repo     string
}

func (u *observedUpload) ID() string    { return u.inner.ID() }
func (u *observedUpload) Offset() int64 { return u.inner.Offset() }

func (u *observedUpload) Append(ctx context.Context, off int64, r io.Reader) error {
	_, err := call(ctx, u.observed, Op{Action: UploadAppend, Repo: u.repo}, func() (struct{}, int64, error) {
		counted := &countingReader{inner: r}
		err := u.inner.Append(ctx, off, counted)
		return struct{}{}, counted.n, err
	})
	return err
}

func (u *observedUpload) Commit(ctx context.Context, off int64, r io.Reader, d oci.Digest) (oci.Descriptor, error) {
	op := Op{Action: BlobWrite, Repo: u.repo, Ref: oci.DigestRef(d), Size: u.inner.Offset()}
	return call(ctx, u.observed, op, func() (oci.Descriptor, int64, error) {
		if r == nil {
			desc, err := u.inner.Commit(ctx, off, nil, d)
			return desc, 0, err
		}
		counted := &countingReader{inner: r}
		desc, err := u.inner.Commit(ctx, off, counted, d)
		return desc, counted.n, err
	})
}

func (u *observedUpload) Cancel(ctx context.Context) error {
	return u.observed.do(ctx, Op{Action: UploadCancel, Repo: u.repo}, func() error {
		return u.inner.Cancel(ctx)
	})
}

// countingReader counts what a store took of an upload's body.
type countingReader struct {
	inner io.Reader
	n     int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.inner.Read(p)
	r.n += int64(n)
	return n, err
}
