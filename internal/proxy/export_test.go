package proxy

import "github.com/berth-registry/berth/internal/oci"

// Busy reports whether a blob is being fetched or read.
func (p *Registry) Busy(d oci.Digest) bool { return p.flights.busy(d) }
