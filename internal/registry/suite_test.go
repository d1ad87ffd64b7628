package registry_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// open makes an empty registry of its own.
func open(t testing.TB) registry.Registry {
	t.Helper()
	db, err := meta.Open(t.Context(), meta.Options{Path: metatest.File(t)})
	if err != nil {
		t.Fatalf("open a database: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return hosted.New(db, memblob.New(), hosted.Options{})
}

func TestGuardedConforms(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		return registry.Guard(open(t), allow, allow)
	}, registrytest.Options{})
}

func TestObservedConforms(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		var first, second recorder
		return registry.Observe(open(t), first.observe, second.observe)
	}, registrytest.Options{})
}

func TestMuxConforms(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		return mux(t, open(t), registry.Route{Prefix: "team", Registry: open(t)}, registry.Route{Prefix: "a/b", Registry: open(t)})
	}, registrytest.Options{})
}

func TestNothingToDoChangesNothing(t *testing.T) {
	r := open(t)
	if registry.Guard(r) != r {
		t.Error("Guard without checks wraps")
	}
	if registry.Observe(r) != r {
		t.Error("Observe without observers wraps")
	}
}

func mux(t testing.TB, fallback registry.Registry, routes ...registry.Route) registry.Registry {
	t.Helper()
	m, err := registry.NewMux(fallback, routes...)
	if err != nil {
		t.Fatalf("make a mux: %v", err)
	}
	return m
}

func allow(context.Context, registry.Op) error { return nil }

// recorder is an observer that notes what it is told.
type recorder struct {
	mu     sync.Mutex
	events []event
}

type event struct {
	op    registry.Op
	calls int // of done
	n     int64
	err   error
}

func (r *recorder) observe(_ context.Context, op registry.Op) func(int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := len(r.events)
	r.events = append(r.events, event{op: op})
	return func(n int64, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		e := &r.events[i]
		e.calls, e.n, e.err = e.calls+1, n, err
	}
}

// last is the newest event of the action.
func (r *recorder) last(t *testing.T, a registry.Action) event {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range slices.Backward(r.events) {
		if e.op.Action == a {
			return e
		}
	}
	t.Fatalf("no %s was observed", a)
	return event{}
}
