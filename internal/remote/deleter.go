package remote

import (
	"context"
	"net/http"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

func (r *Registry) DeleteTag(ctx context.Context, repo, tag string) error {
	return r.delete(ctx, repo, "/manifests/"+tag, registry.ManifestUnknown)
}

func (r *Registry) DeleteManifest(ctx context.Context, repo string, d oci.Digest) error {
	return r.delete(ctx, repo, "/manifests/"+d.String(), registry.ManifestUnknown)
}

func (r *Registry) DeleteBlob(ctx context.Context, repo string, d oci.Digest) error {
	return r.delete(ctx, repo, "/blobs/"+d.String(), registry.BlobUnknown)
}

func (r *Registry) delete(ctx context.Context, repo, path string, absent registry.Code) error {
	resp, err := r.send(ctx, request{method: http.MethodDelete, repo: repo, url: r.at(repo, path, nil), absent: absent})
	if err != nil {
		return err
	}
	discard(resp)
	return nil
}
