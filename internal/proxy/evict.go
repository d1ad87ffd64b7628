package proxy

import (
	"context"

	"github.com/berth-registry/berth/internal/oci"
)

// uses are the manifests that were asked for and not noted yet.
type uses struct{}

// keepUses notes them every few seconds, and once more at the end.
func (p *Registry) keepUses(ctx context.Context) { panic("to be written") }

// used notes that a manifest was asked for.
func (p *Registry) used(here string, d oci.Digest) {}
