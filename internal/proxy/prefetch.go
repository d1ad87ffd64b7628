package proxy

import (
	"context"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// What is fetched beside requests: few at a time, for people wait for others.
const (
	fetchers  = 2
	maxQueued = 1000
)

// fetchJob is a manifest whose company is to be fetched.
type fetchJob struct {
	here   string
	digest oci.Digest
}

// keepFetching fetches what is queued, until ctx ends.
func (p *Registry) keepFetching(ctx context.Context) { <-ctx.Done() }

// follow has what belongs to a manifest fetched soon, if that has not been done.
func (p *Registry) follow(here string, m registry.Manifest) {}
