package hosted

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// touchAfter is how old a link's mark of having been seen may get before a
// reader renews it. It must be well below UnreferencedAge.
const touchAfter = time.Hour

func (r *Registry) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	m, err := r.told(ctx, repo, ref, r.db.Resolve)
	if err != nil {
		return oci.Descriptor{}, coded(err, repo, registry.ManifestUnknown, named(ref))
	}
	return oci.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}, nil
}

func (r *Registry) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	m, err := r.told(ctx, repo, ref, r.db.Manifest)
	if err != nil {
		return registry.Manifest{}, coded(err, repo, registry.ManifestUnknown, named(ref))
	}
	return registry.Manifest{MediaType: m.MediaType, Digest: m.Digest, Content: m.Content}, nil
}

// told finds a manifest that a client will know of. It may push an index of what
// it knows by digest, or come back for it: collection must count from now.
func (r *Registry) told(ctx context.Context, repo string, ref oci.Ref, find func(context.Context, string, oci.Ref) (meta.Manifest, error)) (meta.Manifest, error) {
	m, err := find(ctx, repo, ref)
	if err != nil || m.LooseSince < 0 || time.Since(time.UnixMilli(m.LooseSince)) <= r.touchManifestAfter(repo) {
		return m, err
	}
	// Other failures are let go, as those of touching a blob are.
	if touch := r.db.TouchManifest(ctx, repo, m.Digest); errors.Is(touch, meta.ErrNotFound) {
		err = touch
	}
	return m, err
}

// touchManifestAfter is well below the time for which a manifest is kept.
func (r *Registry) touchManifestAfter(repo string) time.Duration {
	after := touchAfter
	keep := r.o.Retention(repo)
	for _, d := range [...]time.Duration{keep.Untagged, keep.Orphans} {
		if d > 0 {
			after = min(after, d/2)
		}
	}
	return after
}

func named(ref oci.Ref) map[string]string {
	if ref.IsDigest() {
		return map[string]string{"digest": ref.String()}
	}
	return map[string]string{"tag": ref.String()}
}

func (r *Registry) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	row, err := r.db.Blob(ctx, repo, d)
	if err == nil && time.Since(time.UnixMilli(row.SeenAt)) > min(touchAfter, r.o.UnreferencedAge/2) {
		// Other failures are let go: a full disk must not end pulls, and
		// collection cannot write then either.
		if touch := r.db.TouchBlob(ctx, repo, d); errors.Is(touch, meta.ErrNotFound) {
			err = touch
		}
	}
	if err != nil {
		return nil, coded(err, repo, registry.BlobUnknown, map[string]string{"digest": d.String()})
	}
	return &storedBlob{r.blobs, repo, d, row}, nil
}

// storedBlob is a blob of the blob store, found through a repository's link.
type storedBlob struct {
	blobs  blob.Store
	repo   string
	digest oci.Digest
	row    meta.Blob
}

func (b *storedBlob) Descriptor() oci.Descriptor {
	return oci.Descriptor{MediaType: "application/octet-stream", Digest: b.digest, Size: b.row.Size}
}

func (b *storedBlob) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	rc, err := b.blobs.Open(ctx, b.row.Key, off, n)
	if errors.Is(err, blob.ErrNotFound) {
		// The row said otherwise: deleted since, or bytes were lost.
		return nil, &registry.Error{Code: registry.BlobUnknown, Repo: b.repo,
			Detail: map[string]string{"digest": b.digest.String()}, Err: err}
	}
	return rc, coded(err, b.repo, registry.BlobUnknown, nil)
}

func (b *storedBlob) URL(ctx context.Context, ttl time.Duration) (string, error) {
	u, err := b.blobs.URL(ctx, b.row.Key, ttl)
	if errors.Is(err, blob.ErrUnsupported) {
		return "", &registry.Error{Code: registry.Unsupported, Repo: b.repo, Err: err}
	}
	return u, coded(err, b.repo, registry.BlobUnknown, map[string]string{"digest": b.digest.String()})
}
