package remote_test

import (
	"net/http/httptest"
	"testing"

	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/ocihttp"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
	"github.com/berth-registry/berth/internal/remote"
)

func TestOneHop(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		return hop(t, open(t, hosted.Options{}))
	}, registrytest.Options{Sparse: sparse})
}

func TestTwoHops(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		return hop(t, hop(t, open(t, hosted.Options{})))
	}, registrytest.Options{})
}

func sparse(t *testing.T) registry.Registry {
	return hop(t, open(t, hosted.Options{Sparse: func(string) bool { return true }}))
}

// hop puts a front and a client of it before r.
func hop(t *testing.T, r registry.Registry) registry.Registry {
	t.Helper()
	front := httptest.NewServer(ocihttp.New(ocihttp.Options{
		Open: func(auth.Identity) registry.Registry { return r },
	}))
	t.Cleanup(front.Close)
	return client(t, front.URL, remote.Options{})
}

func client(t *testing.T, base string, o remote.Options) *remote.Registry {
	t.Helper()
	c, err := remote.New(base, o)
	if err != nil {
		t.Fatalf("make a client of %s: %v", base, err)
	}
	return c
}

// open makes an empty registry of its own.
func open(t *testing.T, o hosted.Options) registry.Registry {
	t.Helper()
	db, err := meta.Open(t.Context(), meta.Options{Path: metatest.File(t)})
	if err != nil {
		t.Fatalf("open a database: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return hosted.New(db, memblob.New(), o)
}
