package proxy

import (
	"testing"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// BenchmarkWarmManifest is a manifest that is in the cache, and what the cache
// alone takes for it.
func BenchmarkWarmManifest(b *testing.B) {
	s := newPullStack(b)
	m := s.push(b, "v1")
	s.wants(b, "cold", "v1", m, "GET v1")
	s.o.Observe = func(Event) {}
	for name, r := range map[string]registry.Registry{"cache": s.cache.Registry, "proxy": s.Registry} {
		for what, ref := range map[string]oci.Ref{"tag": oci.TagRef("v1"), "digest": oci.DigestRef(m.Digest)} {
			b.Run(name+"/"+what, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := r.Manifest(b.Context(), appHere, ref); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
