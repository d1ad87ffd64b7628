package upstream

import (
	"context"
	"io"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// first asks endpoints in turn until one has an answer. What the last says counts.
func first[T any](ctx context.Context, order []*endpoint, ask func(*endpoint) (T, error)) (v T, err error) {
	for _, e := range order {
		v, err = ask(e)
		if err == nil || ctx.Err() != nil {
			return v, err
		}
	}
	return v, err
}

// last is the registry itself.
func (u *Registry) last() *endpoint { return u.endpoints[len(u.endpoints)-1] }

func (u *Registry) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	ctx = withKind(ctx, KindManifest)
	return first(ctx, u.endpoints, func(e *endpoint) (oci.Descriptor, error) { return e.remote.Resolve(ctx, repo, ref) })
}

func (u *Registry) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	ctx = withKind(ctx, KindManifest)
	return first(ctx, u.endpoints, func(e *endpoint) (registry.Manifest, error) { return e.remote.Manifest(ctx, repo, ref) })
}

// Tags asks the registry itself and, if it does not answer, the mirrors, whose
// lists may be short.
func (u *Registry) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return u.names(withKind(ctx, KindTags), func(ctx context.Context, e *endpoint) iter.Seq2[string, error] {
		return e.remote.Tags(ctx, repo, after)
	})
}

// Repositories are asked for like Tags.
func (u *Registry) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return u.names(withKind(ctx, KindCatalog), func(ctx context.Context, e *endpoint) iter.Seq2[string, error] {
		return e.remote.Repositories(ctx, after)
	})
}

// names walks the list of the first endpoint that has one, the registry itself
// before its mirrors. Behind the first name there is no way back.
func (u *Registry) names(ctx context.Context, list func(context.Context, *endpoint) iter.Seq2[string, error]) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		var failed error
		order := append([]*endpoint{u.last()}, u.endpoints[:len(u.endpoints)-1]...)
		for i, e := range order {
			begun, again := false, false
			for name, err := range list(ctx, e) {
				if err != nil && !begun && ctx.Err() == nil && silent(err) && i+1 < len(order) {
					failed, again = err, true
					break
				}
				if err != nil && !begun && failed != nil {
					err = failed // of the registry itself
				}
				begun = true
				if !yield(name, err) {
					return
				}
			}
			if !again {
				return
			}
		}
	}
}

// silent reports whether an error is that of a registry that does not answer,
// rather than its answer.
func silent(err error) bool {
	switch registry.CodeOf(err) {
	case registry.Unavailable, registry.TooManyRequests, registry.Faulty:
		return true
	}
	return false
}

// Holders are none; see remote.Registry.
func (u *Registry) Holders(ctx context.Context, near string, d oci.Digest) iter.Seq2[string, error] {
	return u.last().remote.Holders(ctx, near, d)
}

// Referrers asks the registry itself alone: the short list of a mirror reads as
// if something was not signed.
func (u *Registry) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return u.last().remote.Referrers(withKind(ctx, KindReferrers), repo, subject, artifactType, after)
}

// AllReferrers is that of the registry itself; see remote.Registry.
func (u *Registry) AllReferrers(ctx context.Context, repo string, subject oci.Digest) (list []oci.Descriptor, tagged bool, err error) {
	return u.last().remote.AllReferrers(withKind(ctx, KindReferrers), repo, subject)
}

func (u *Registry) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	ctx = withKind(ctx, KindBlob)
	var at int
	found, err := first(ctx, u.endpoints, func(e *endpoint) (registry.Blob, error) {
		at = slices.Index(u.endpoints, e)
		if e.distrust.holds(d, u.o.Now()) {
			return nil, registry.Errorf(registry.Faulty, repo, "the mirror sent wrong bytes for %s lately", d)
		}
		return e.remote.Blob(ctx, repo, d)
	})
	if err != nil {
		return nil, err
	}
	b := &blob{upstream: u, repo: repo, desc: found.Descriptor()}
	b.at.Store(int64(at))
	return b, nil
}

// KnownBlob is a blob whose size is known from elsewhere, such as a manifest that
// names it. Nothing is asked until it is opened.
func (u *Registry) KnownBlob(repo string, d oci.Descriptor) registry.Blob {
	return &blob{upstream: u, repo: repo, desc: oci.Descriptor{MediaType: "application/octet-stream", Digest: d.Digest, Size: d.Size}}
}

// blob is a blob of any endpoint.
type blob struct {
	upstream *Registry
	repo     string
	desc     oci.Descriptor
	at       atomic.Int64 // the endpoint that is asked first
}

func (b *blob) Descriptor() oci.Descriptor { return b.desc }

func (b *blob) URL(context.Context, time.Duration) (string, error) {
	return "", registry.Errorf(registry.Unsupported, b.repo, "content of the upstream registry is passed through; read it here")
}

// Open reads from the endpoint that served last, or was found first, and else
// from the others in their order. The bytes are not hashed; their number is right.
func (b *blob) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	ctx = withKind(ctx, KindBlob)
	endpoints := b.upstream.endpoints
	at := int(b.at.Load())
	var failed error
	for i := range endpoints {
		i = (at + i) % len(endpoints)
		e := endpoints[i]
		if e.distrust.holds(b.desc.Digest, b.upstream.o.Now()) {
			continue
		}
		body, err := e.remote.KnownBlob(b.repo, b.desc).Open(ctx, off, n)
		if err == nil {
			b.at.Store(int64(i))
			return &blobBody{ReadCloser: body, blob: b, from: i, ctx: ctx}, nil
		}
		if failed == nil || e == b.upstream.last() {
			failed = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// blobBody has the next Open ask another endpoint if this one fails.
type blobBody struct {
	io.ReadCloser
	blob *blob
	from int
	ctx  context.Context
}

func (r *blobBody) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err == nil || err == io.EOF || r.ctx.Err() != nil {
		return n, err
	}
	u := r.blob.upstream
	r.blob.at.CompareAndSwap(int64(r.from), int64((r.from+1)%len(u.endpoints)))
	if e := u.endpoints[r.from]; e != u.last() && registry.IsCode(err, registry.Faulty) {
		e.distrust.add(r.blob.desc.Digest, u.o.Now())
	}
	return n, err
}
