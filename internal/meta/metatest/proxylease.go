package metatest

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-registry/berth/internal/meta"
)

var proxyLeaseCases = []testCase{
	{"proxy/lease", proxyLease},
	{"proxy/lease/one at a time", proxyLeaseRace},
	{"proxy/lease/taken over", proxyLeaseTakenOver},
}

const leaseKey = "hub tag library/app:v1"

// leaseProxy takes a lease that is free.
func (e *env) leaseProxy(key string) (version int64) {
	e.Helper()
	e.wantHinted("lease", func() error {
		v, ok, err := e.db.LeaseProxy(e.Context(), key, ttl)
		if version = v; !ok {
			e.Errorf("the lease of %s is taken", key)
		}
		return err
	})
	return version
}

func (e *env) noProxyLease(key string) {
	e.Helper()
	if _, ok, err := e.db.LeaseProxy(e.Context(), key, ttl); ok || err != nil {
		e.Errorf("lease %s: %v, %v; want it taken", key, ok, err)
	}
}

func proxyLease(e *env) {
	first := e.leaseProxy(leaseKey)
	e.noProxyLease(leaseKey)
	e.leaseProxy(leaseKey + "0")
	e.clock.move(ttl - time.Millisecond)
	e.wantHinted("renew", func() error { return e.db.RenewProxy(e.Context(), leaseKey, first, ttl) })
	e.clock.move(ttl - time.Millisecond)
	e.noProxyLease(leaseKey)
	e.wantErr("renew with a wrong version", e.db.RenewProxy(e.Context(), leaseKey, first+1, ttl), meta.ErrNotFound)
	e.ok(e.db.ReleaseProxy(e.Context(), leaseKey, first+1))
	e.noProxyLease(leaseKey)
	e.wantHinted("release", func() error { return e.db.ReleaseProxy(e.Context(), leaseKey, first) })
	e.ok(e.db.ReleaseProxy(e.Context(), leaseKey, first))
	e.wantErr("renew what was released", e.db.RenewProxy(e.Context(), leaseKey, first, ttl), meta.ErrNotFound)
	if second := e.leaseProxy(leaseKey); second == first {
		e.Error("two leases have one version")
	}
}

func proxyLeaseRace(e *env) {
	for range 5 {
		var won atomic.Int32
		var lease atomic.Int64
		var racers sync.WaitGroup
		for range 8 {
			racers.Go(func() {
				version, ok, err := e.db.LeaseProxy(e.Context(), leaseKey, ttl)
				if err != nil {
					e.Error(err)
				}
				if ok {
					won.Add(1)
					lease.Store(version)
				}
			})
		}
		racers.Wait()
		if won.Load() != 1 {
			e.Fatalf("%d of them have the lease at once", won.Load())
		}
		e.clock.move(ttl) // of half of them it ends by itself
		if lease.Load()%2 == 0 {
			e.ok(e.db.ReleaseProxy(e.Context(), leaseKey, lease.Load()))
		}
	}
}

func proxyLeaseTakenOver(e *env) {
	killed := e.leaseProxy(leaseKey)
	e.clock.move(ttl - time.Millisecond)
	e.noProxyLease(leaseKey)
	e.clock.move(time.Millisecond)
	next := e.leaseProxy(leaseKey)
	e.wantErr("renew a lost lease", e.db.RenewProxy(e.Context(), leaseKey, killed, ttl), meta.ErrNotFound)
	e.ok(e.db.ReleaseProxy(e.Context(), leaseKey, killed))
	e.noProxyLease(leaseKey)
	// Nobody took over: the late holder is still the one.
	e.clock.move(10 * ttl)
	e.ok(e.db.RenewProxy(e.Context(), leaseKey, next, ttl))
	e.noProxyLease(leaseKey)
}
