package proxy

import (
	"context"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

func (p *Registry) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags ...string) (registry.PutResult, error) {
	panic("to be written")
}

func (p *Registry) Mount(ctx context.Context, repo, from string, d oci.Digest) (oci.Descriptor, error) {
	panic("to be written")
}

func (p *Registry) StartUpload(ctx context.Context, repo string, o registry.UploadOptions) (registry.Upload, error) {
	panic("to be written")
}

func (p *Registry) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	panic("to be written")
}

func (p *Registry) DeleteTag(ctx context.Context, repo, tag string) error { panic("to be written") }

func (p *Registry) DeleteManifest(ctx context.Context, repo string, d oci.Digest) error {
	panic("to be written")
}

func (p *Registry) DeleteBlob(ctx context.Context, repo string, d oci.Digest) error {
	panic("to be written")
}
