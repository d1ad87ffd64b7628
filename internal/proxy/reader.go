package proxy

import (
	"context"
	"iter"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

func (p *Registry) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	panic("to be written")
}

func (p *Registry) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	panic("to be written")
}

func (p *Registry) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	panic("to be written")
}

func (p *Registry) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	panic("to be written")
}

func (p *Registry) Holders(ctx context.Context, near string, d oci.Digest) iter.Seq2[string, error] {
	panic("to be written")
}
