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
	m, err := r.db.Resolve(ctx, repo, ref)
	if err != nil {
		return oci.Descriptor{}, coded(err, repo, registry.ManifestUnknown, named(ref))
	}
	return oci.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}, nil
}

func (r *Registry) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	m, err := r.db.Manifest(ctx, repo, ref)
	if err != nil {
		return registry.Manifest{}, coded(err, repo, registry.ManifestUnknown, named(ref))
	}
	return registry.Manifest{MediaType: m.MediaType, Digest: m.Digest, Content: m.Content}, nil
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
