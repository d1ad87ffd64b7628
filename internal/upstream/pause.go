package upstream

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/registry"
)

const (
	pauseLook = time.Second     // between two looks at what other processes heard
	pauseTime = 2 * time.Second // that looking or telling may take
)

// pause is until when an endpoint asked to be left alone, whichever process it
// told.
type pause struct {
	name  string
	store Pauses // nil: this process is alone
	log   *slog.Logger

	mu     sync.Mutex
	until  time.Time
	code   registry.Code
	looked time.Time
}

// check reports whether the endpoint is to be left alone.
func (p *pause) check(ctx context.Context, now time.Time) error {
	p.look(ctx, now)
	p.mu.Lock()
	defer p.mu.Unlock()
	if wait := p.until.Sub(now); wait > 0 {
		return later(p.code, "it said when to come back", wait)
	}
	return nil
}

// look takes over what other processes heard, at most once in a while.
func (p *pause) look(ctx context.Context, now time.Time) {
	p.mu.Lock()
	due := p.store != nil && (now.Sub(p.looked) >= pauseLook || now.Before(p.looked))
	if due {
		p.looked = now
	}
	p.mu.Unlock()
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pauseTime)
	defer cancel()
	until, err := p.store.ProxyPause(ctx, p.name)
	if err != nil {
		p.log.Warn("it is not known whether an upstream asked other processes to wait; it is asked", "upstream", p.name, "error", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if until.After(p.until) {
		p.until, p.code = until, registry.TooManyRequests
	}
}

// set notes that the endpoint asked to be left alone, and tells others.
func (p *pause) set(ctx context.Context, until time.Time, code registry.Code) {
	p.mu.Lock()
	longer := until.After(p.until)
	if longer {
		p.until, p.code = until, code
	}
	p.mu.Unlock()
	if !longer {
		return
	}
	p.log.Warn("an upstream asked to be left alone", "upstream", p.name, "until", until)
	if p.store == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pauseTime)
	defer cancel()
	if err := p.store.PauseProxy(ctx, p.name, until); err != nil {
		p.log.Warn("other processes could not be told that an upstream asked to be left alone", "upstream", p.name, "error", err)
	}
}

// end is until when the endpoint is left alone; the zero Time: it is not.
func (p *pause) end(now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until.After(now) {
		return p.until
	}
	return time.Time{}
}
