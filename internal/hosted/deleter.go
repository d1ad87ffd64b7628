package hosted

import (
	"context"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

func (r *Registry) DeleteTag(ctx context.Context, repo, tag string) error {
	return coded(r.db.DeleteTag(ctx, repo, tag), repo, registry.ManifestUnknown, named(oci.TagRef(tag)))
}

func (r *Registry) DeleteManifest(ctx context.Context, repo string, d oci.Digest) error {
	return coded(r.db.DeleteManifest(ctx, repo, d), repo, registry.ManifestUnknown, named(oci.DigestRef(d)))
}

func (r *Registry) DeleteBlob(ctx context.Context, repo string, d oci.Digest) error {
	return coded(r.db.DeleteBlob(ctx, repo, d), repo, registry.BlobUnknown, map[string]string{"digest": d.String()})
}
