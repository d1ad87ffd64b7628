package proxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"
)

const (
	leaseTTL   = 15 * time.Second // of work that is not heard of
	leasePoll  = 20 * time.Millisecond
	slowestAsk = time.Second // between two looks at what another process does
)

// calls are pieces of work under way in this process, by what they are about.
type calls struct {
	mu    sync.Mutex
	byKey map[string]*call
}

// call is work that many wait for.
type call struct {
	done  chan struct{}
	value any
	err   error
}

// share does work about key for all who ask meanwhile, in this process and, with
// leases, in others. have looks whether the result is there already; it is asked
// again when the lease has been had, and while another process holds it. get does
// the work; its context does not end with that of a caller. joined says that
// somebody else's work was waited for.
func share[T any](ctx context.Context, p *Registry, key string, have func(context.Context) (v T, ok bool, err error), get func(context.Context) (T, error)) (v T, joined bool, err error) {
	p.calls.mu.Lock()
	c, joined := p.calls.byKey[key]
	if !joined {
		c = &call{done: make(chan struct{})}
		if p.calls.byKey == nil {
			p.calls.byKey = map[string]*call{}
		}
		p.calls.byKey[key] = c
		p.running.Go(func() {
			c.value, c.err = recovered(func() (any, error) { return alone(p.detached(ctx), p, key, have, get) })
			p.calls.mu.Lock()
			delete(p.calls.byKey, key)
			p.calls.mu.Unlock()
			close(c.done)
		})
	}
	p.calls.mu.Unlock()
	select {
	case <-c.done:
	case <-ctx.Done():
		return v, joined, ctx.Err()
	}
	if c.err != nil {
		return v, joined, c.err
	}
	return c.value.(T), joined, nil
}

// alone waits for the result of another process, or does the work with a lease.
func alone[T any](ctx context.Context, p *Registry, key string, have func(context.Context) (T, bool, error), get func(context.Context) (T, error)) (T, error) {
	for wait := leasePoll; ; wait = min(2*wait, slowestAsk) {
		release, mine, err := p.lease(ctx, key)
		if err != nil {
			var none T
			return none, err
		}
		v, ok, err := have(ctx)
		if ok || err != nil {
			release()
			return v, err
		}
		if mine {
			defer release()
			return get(ctx)
		}
		select {
		case <-time.After(wait*3/4 + rand.N(wait/2)):
		case <-ctx.Done():
			return v, ctx.Err()
		}
	}
}

// lease takes the lease of key and renews it until release, which may be called
// in any case. mine is false where another process holds it. Where leases cannot
// be had, as on a full disk, the work is done without.
func (p *Registry) lease(ctx context.Context, key string) (release func(), mine bool, err error) {
	if p.o.Leases == nil {
		return func() {}, true, nil
	}
	key = p.o.Name + " " + key
	version, mine, err := p.o.Leases.LeaseProxy(ctx, key, leaseTTL)
	if err != nil && ctx.Err() == nil {
		p.o.Log.Warn("a lease could not be had; another process may ask the upstream for the same", "lease", key, "error", err)
		return func() {}, true, nil
	}
	if !mine || err != nil {
		return func() {}, false, err
	}
	renewing, stop := context.WithCancel(ctx)
	p.running.Go(func() {
		for {
			select {
			case <-time.After(leaseTTL / 3):
			case <-renewing.Done():
				return
			}
			if err := p.o.Leases.RenewProxy(renewing, key, version, leaseTTL); err != nil && renewing.Err() == nil {
				p.o.Log.Warn("a lease could not be renewed; another process may ask the upstream for the same", "lease", key, "error", err)
			}
		}
	})
	return sync.OnceFunc(func() {
		stop()
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseTTL)
		defer cancel()
		if err := p.o.Leases.ReleaseProxy(ending, key, version); err != nil {
			p.o.Log.Debug("a lease could not be given back; it ends by itself", "lease", key, "error", err)
		}
	}), true, nil
}

// detached is a context with the values of ctx that ends with the proxy alone.
func (p *Registry) detached(ctx context.Context) context.Context {
	return endsWith{context.WithoutCancel(ctx), p.ctx}
}

// endsWith has the values of one context and the end of another.
type endsWith struct {
	context.Context
	end context.Context
}

func (c endsWith) Deadline() (time.Time, bool) { return c.end.Deadline() }
func (c endsWith) Done() <-chan struct{}       { return c.end.Done() }
func (c endsWith) Err() error                  { return c.end.Err() }

var errPanicked = errors.New("the work panicked")

// recovered turns a panic into an error: those who wait must hear of it.
func recovered[T any](f func() (T, error)) (v T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v\n%s", errPanicked, r, debug.Stack())
		}
	}()
	return f()
}
