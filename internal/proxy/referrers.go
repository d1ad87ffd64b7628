package proxy

import (
	"context"
	"iter"

	"github.com/berth-registry/berth/internal/oci"
)

// fetcher gets what belongs to images, beside requests.
type fetcher struct{}

func (p *Registry) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	panic("to be written")
}
