package proxy

import (
	"context"
	"iter"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// fetcher gets what belongs to images, beside requests.
type fetcher struct{}

func (p *Registry) keepFetching(ctx context.Context) { panic("to be written") }

// follow has what belongs to a manifest fetched soon, if that has not been done.
func (p *Registry) follow(here string, m registry.Manifest) {}

func (p *Registry) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	panic("to be written")
}
