package registry

import (
	"context"
	"errors"
	"iter"

	"github.com/berth-registry/berth/internal/oci"
)

// errPanicked is what observers hear of an operation that never returned.
var errPanicked = errors.New("the operation panicked")

// Observe tells observers of every operation on r. The first is the outermost:
// it hears of the beginning first and of the end last.
//
// A list is one operation for each walk over it. Blob is a BlobStat; each Open
// of the blob is a BlobRead that ends when the reader is closed, with the first
// error of reading, if any. Put Observe outside Guard, so that refusals are
// seen.
func Observe(r Registry, obs ...Observer) Registry {
	if len(obs) == 0 {
		return r
	}
	return &observed{inner: r, observers: obs}
}

// observed does not embed Registry: a new method must be thought about.
type observed struct {
	inner     Registry
	observers []Observer
}

// start announces op. What it returns must be called once.
func (o *observed) start(ctx context.Context, op Op) func(n int64, err error) {
	if len(o.observers) == 1 {
		return o.observers[0](ctx, op)
	}
	dones := make([]func(int64, error), len(o.observers))
	for i, observer := range o.observers {
		dones[i] = observer(ctx, op)
	}
	return func(n int64, err error) {
		for i := len(dones) - 1; i >= 0; i-- {
			dones[i](n, err)
		}
	}
}

// call runs one operation that returns a value, its transferred bytes and an
// error; its end is told even if it panics.
func call[T any](ctx context.Context, o *observed, op Op, f func() (T, int64, error)) (T, error) {
	done := o.start(ctx, op)
	n, err := int64(0), errPanicked
	defer func() { done(n, err) }()
	var v T
	v, n, err = f()
	return v, err
}

// walk observes each walk over a list.
func walk[T any](ctx context.Context, o *observed, op Op, open func() iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		done := o.start(ctx, op)
		failure := errPanicked
		defer func() { done(0, failure) }()
		var last error
		for v, err := range open() {
			last = err
			if !yield(v, err) {
				break
			}
		}
		failure = last
	}
}

func (o *observed) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	return call(ctx, o, Op{Action: ManifestStat, Repo: repo, Ref: ref}, func() (oci.Descriptor, int64, error) {
		d, err := o.inner.Resolve(ctx, repo, ref)
		return d, 0, err
	})
}

func (o *observed) Manifest(ctx context.Context, repo string, ref oci.Ref) (Manifest, error) {
	var found oci.Digest
	op := Op{Action: ManifestRead, Repo: repo, Ref: ref, Found: &found}
	return call(ctx, o, op, func() (Manifest, int64, error) {
		m, err := o.inner.Manifest(ctx, repo, ref)
		found = m.Digest
		return m, int64(len(m.Content)), err
	})
}

func (o *observed) Blob(ctx context.Context, repo string, d oci.Digest) (Blob, error) {
	op := Op{Action: BlobStat, Repo: repo, Ref: oci.DigestRef(d)}
	return call(ctx, o, op, func() (Blob, int64, error) {
		b, err := o.inner.Blob(ctx, repo, d)
		if err != nil {
			return nil, 0, err
		}
		return &observedBlob{inner: b, observed: o, repo: repo}, 0, nil
	})
}

func (o *observed) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return walk(ctx, o, Op{Action: TagsList, Repo: repo}, func() iter.Seq2[string, error] {
		return o.inner.Tags(ctx, repo, after)
	})
}

func (o *observed) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	op := Op{Action: ReferrersList, Repo: repo, Ref: oci.DigestRef(subject)}
	return walk(ctx, o, op, func() iter.Seq2[oci.Descriptor, error] {
		return o.inner.Referrers(ctx, repo, subject, artifactType, after)
	})
}

func (o *observed) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return walk(ctx, o, Op{Action: RepositoriesList}, func() iter.Seq2[string, error] {
		return o.inner.Repositories(ctx, after)
	})
}

func (o *observed) Holders(ctx context.Context, near string, d oci.Digest) iter.Seq2[string, error] {
	return walk(ctx, o, Op{Action: BlobFind, Ref: oci.DigestRef(d)}, func() iter.Seq2[string, error] {
		return o.inner.Holders(ctx, near, d)
	})
}

// PutManifest is one operation, whatever the number of tags.
func (o *observed) PutManifest(ctx context.Context, repo string, m Manifest, tags ...string) (PutResult, error) {
	size := int64(len(m.Content))
	op := Op{Action: ManifestWrite, Repo: repo, Ref: putRef(m, tags), Size: size}
	return call(ctx, o, op, func() (PutResult, int64, error) {
		put, err := o.inner.PutManifest(ctx, repo, m, tags...)
		if err != nil {
			return put, 0, err
		}
		return put, size, nil
	})
}

// putRef is how the client named the manifest it pushes.
func putRef(m Manifest, tags []string) oci.Ref {
	if m.Digest == "" && len(tags) > 0 {
		return oci.TagRef(tags[0])
	}
	return oci.DigestRef(m.Digest)
}

func (o *observed) Mount(ctx context.Context, repo, from string, d oci.Digest) (oci.Descriptor, error) {
	op := Op{Action: BlobMount, Repo: repo, From: from, Ref: oci.DigestRef(d)}
	return call(ctx, o, op, func() (oci.Descriptor, int64, error) {
		desc, err := o.inner.Mount(ctx, repo, from, d)
		return desc, 0, err
	})
}

func (o *observed) StartUpload(ctx context.Context, repo string, opts UploadOptions) (Upload, error) {
	return o.upload(ctx, Op{Action: UploadStart, Repo: repo}, func() (Upload, error) {
		return o.inner.StartUpload(ctx, repo, opts)
	})
}

func (o *observed) ResumeUpload(ctx context.Context, repo, id string) (Upload, error) {
	return o.upload(ctx, Op{Action: UploadResume, Repo: repo}, func() (Upload, error) {
		return o.inner.ResumeUpload(ctx, repo, id)
	})
}

func (o *observed) upload(ctx context.Context, op Op, open func() (Upload, error)) (Upload, error) {
	return call(ctx, o, op, func() (Upload, int64, error) {
		u, err := open()
		if err != nil {
			return nil, 0, err
		}
		return &observedUpload{inner: u, observed: o, repo: op.Repo}, 0, nil
	})
}

func (o *observed) DeleteTag(ctx context.Context, repo, tag string) error {
	return o.do(ctx, Op{Action: TagDelete, Repo: repo, Ref: oci.TagRef(tag)}, func() error {
		return o.inner.DeleteTag(ctx, repo, tag)
	})
}

func (o *observed) DeleteManifest(ctx context.Context, repo string, d oci.Digest) error {
	return o.do(ctx, Op{Action: ManifestDelete, Repo: repo, Ref: oci.DigestRef(d)}, func() error {
		return o.inner.DeleteManifest(ctx, repo, d)
	})
}

func (o *observed) DeleteBlob(ctx context.Context, repo string, d oci.Digest) error {
	return o.do(ctx, Op{Action: BlobDelete, Repo: repo, Ref: oci.DigestRef(d)}, func() error {
		return o.inner.DeleteBlob(ctx, repo, d)
	})
}

// do is call for an operation that returns nothing else than an error.
func (o *observed) do(ctx context.Context, op Op, f func() error) error {
	_, err := call(ctx, o, op, func() (struct{}, int64, error) { return struct{}{}, 0, f() })
	return err
}
