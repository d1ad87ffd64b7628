package proxy

import (
	"context"
	"iter"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/ocihttp"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
	"github.com/berth-registry/berth/internal/remote"
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

// hop puts a front and a client of it before r.
func hop(t *testing.T, r registry.Registry) registry.Registry {
	t.Helper()
	front := httptest.NewServer(ocihttp.New(ocihttp.Options{Open: func(auth.Identity) registry.Registry { return r }}))
	t.Cleanup(front.Close)
	client, err := remote.New(front.URL, remote.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestReadsAsTheOrigin: what was written there reads here as there, over a
// proxy of a registry elsewhere, and over a chain of two.
func TestReadsAsTheOrigin(t *testing.T) {
	origin := func(t *testing.T) registry.Registry {
		return hosted.New(openState(t, metatest.File(t)), memblob.New(), hosted.Options{})
	}
	through := func(t *testing.T, origin registry.Registry) readThrough {
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
	for what, open := range map[string]func(t *testing.T) registry.Registry{
		"remote": func(t *testing.T) registry.Registry { return through(t, hop(t, origin(t))) },
		"chain":  func(t *testing.T) registry.Registry { return through(t, hop(t, through(t, hop(t, origin(t))))) },
	} {
		t.Run(what, func(t *testing.T) { registrytest.Run(t, open, registrytest.Options{}) })
	}
}
