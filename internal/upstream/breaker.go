package upstream

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/registry"
)

// maxBreakers bounds the hosts that are remembered: registries may redirect to
// ever new ones.
const maxBreakers = 256

// breakers are those of an upstream's hosts, by what they are to us. They are
// hints, each process has its own.
type breakers struct {
	o      Options
	mu     sync.Mutex
	byHost map[hostRole]*breaker
}

type hostRole struct {
	host string
	role Role
}

func (s *breakers) of(host string, role Role) *breaker {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := hostRole{host, role}
	b := s.byHost[key]
	if b == nil {
		if s.byHost == nil {
			s.byHost = map[hostRole]*breaker{}
		}
		if len(s.byHost) >= maxBreakers {
			s.forget()
		}
		b = &breaker{most: s.o.Limits.Failures, open: s.o.Limits.Open}
		s.byHost[key] = b
	}
	return b
}

// forget makes room: hosts that are well go first.
func (s *breakers) forget() {
	for key, b := range s.byHost {
		if b.well() {
			delete(s.byHost, key)
		}
	}
	for key := range s.byHost {
		if len(s.byHost) < maxBreakers {
			return
		}
		delete(s.byHost, key)
	}
}

// breaker keeps requests from a host that failed several times in a row. After a
// while one is let through to see.
type breaker struct {
	most int
	open time.Duration

	mu       sync.Mutex
	failures int       // in a row
	until    time.Time // not before; the zero Time: closed
	code     registry.Code
	last     error // the last failure
	probing  bool  // the one that sees is under way
}

// check reports whether a request would be let through.
func (b *breaker) check(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refuses(now)
}

func (b *breaker) refuses(now time.Time) error {
	wait := b.until.Sub(now)
	switch {
	case b.until.IsZero() || wait <= 0 && !b.probing:
		return nil
	case b.code == registry.TooManyRequests && wait > 0:
		return later(b.code, "it was asked too much", wait)
	}
	e := later(registry.Unavailable, "it failed several times in a row", wait)
	e.Err = b.last
	return e
}

// later is the error for a request that is not sent for now.
func later(code registry.Code, why string, wait time.Duration) *registry.Error {
	e := registry.Errorf(code, "", "the upstream registry is not asked for now: %s", why)
	e.Limit = &registry.Limit{RetryAfter: max(wait, time.Second)}
	return e
}

// enter lets a request through, which ends with leave, fail or succeed.
func (b *breaker) enter(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.refuses(now); err != nil {
		return err
	}
	b.probing = !b.until.IsZero()
	return nil
}

// leave ends a request that said nothing of its host.
func (b *breaker) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
}

// succeed ends a request that was answered.
func (b *breaker) succeed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	// One that began before the breaker opened proves nothing.
	if b.until.IsZero() || b.probing {
		b.failures, b.until, b.probing, b.last = 0, time.Time{}, false, nil
	}
}

// fail ends a request that failed; opened says that this was one too many.
func (b *breaker) fail(now time.Time, err error) (opened bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures++
	b.last = err
	if b.probing || b.until.IsZero() && b.failures >= b.most {
		b.until, b.code = now.Add(b.open*4/5+rand.N(b.open*2/5)), registry.Unavailable
		b.probing = false
		return true
	}
	return false
}

// hold opens the breaker because the host said until when not to be asked.
func (b *breaker) hold(until time.Time, code registry.Code) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if until.After(b.until) {
		b.until, b.code = until, code
	}
}

func (b *breaker) well() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.until.IsZero() && b.failures == 0
}
