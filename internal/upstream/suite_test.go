package upstream_test

import (
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/ocihttp"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
	"github.com/berth-registry/berth/internal/upstream"
)

var local = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// TestReadingHalf: what is written to a registry is read through an upstream of it
// as if there was nothing between.
func TestReadingHalf(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		db, err := meta.Open(t.Context(), meta.Options{Path: metatest.File(t)})
		if err != nil {
			t.Fatalf("open a database: %v", err)
		}
		t.Cleanup(func() { db.Close() })
		store := hosted.New(db, memblob.New(), hosted.Options{})
		front := httptest.NewServer(ocihttp.New(ocihttp.Options{Open: func(auth.Identity) registry.Registry { return store }}))
		t.Cleanup(front.Close)
		return halves{Reader: open(t, upstream.Options{Endpoints: []string{front.URL}}), Writer: store, Deleter: store}
	}, registrytest.Options{Lacks: map[string]string{
		"blob/unknown":     "a HEAD has no body that tells an unknown repository from an unknown blob, and no GET is spent on it; TestFrugal looks",
		"manifest/unknown": "a HEAD has no body that tells an unknown repository from an unknown manifest, and no GET is spent on it; TestFrugal looks",
	}})
}

// halves reads here and writes there.
type halves struct {
	registry.Reader
	registry.Writer
	registry.Deleter
}

// open makes an upstream that may be on this machine.
func open(t *testing.T, o upstream.Options) *upstream.Registry {
	t.Helper()
	if o.Name == "" {
		o.Name = "hub"
	}
	if o.Transport.Networks == nil {
		o.Transport.Networks = local
	}
	if o.Transport.HTTPProxy == "" {
		o.Transport.HTTPProxy = "none"
	}
	u, err := upstream.New(o)
	if err != nil {
		t.Fatalf("make an upstream: %v", err)
	}
	t.Cleanup(u.Close)
	return u
}
