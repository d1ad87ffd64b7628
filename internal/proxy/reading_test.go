package proxy

import (
	"context"
	"iter"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// readThrough is written at the origin and read through a proxy that asks about
// everything every time.
type readThrough struct {
	registry.Registry // the origin
	proxy             *Registry
}

func (r readThrough) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	return r.proxy.Resolve(ctx, "hub/"+repo, ref)
}

func (r readThrough) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	return r.proxy.Manifest(ctx, "hub/"+repo, ref)
}

func (r readThrough) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	return r.proxy.Blob(ctx, "hub/"+repo, d)
}

func (r readThrough) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return r.proxy.Tags(ctx, "hub/"+repo, after)
}

func (r readThrough) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return r.proxy.Referrers(ctx, "hub/"+repo, subject, artifactType, after)
}

func newReadThrough(t *testing.T) registry.Registry {
	t.Helper()
	origin := hosted.New(openState(t, metatest.File(t)), memblob.New(), hosted.Options{})
	db := openState(t, metatest.File(t))
	cache := hosted.New(db, memblob.New(), hosted.Options{Sparse: func(string) bool { return true }})
	p, err := New(origin, cache, Options{Name: "hub", State: db, Spool: t.TempDir(), Follow: true, NegativeTTL: 1, ReferrersTTL: 1,
		TagTTL: func(string, string) time.Duration { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return readThrough{origin, p}
}

// TestReadsAsTheOrigin: what was written there reads here as there.
func TestReadsAsTheOrigin(t *testing.T) {
	registrytest.Run(t, newReadThrough, registrytest.Options{})
}
