package proxy

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

const (
	patience      = 5 * time.Second // with an origin, of who could be served what is known
	slowestCheck  = 3 * patience    // of what can be served anyway: a turn that comes later is not waited for
	slowestAnswer = 5 * time.Minute // of one manifest or list, however it trickles: many may wait for it
	silenceLasts  = 2 * time.Second
	silenceMost   = time.Hour   // that an origin can ask to be left alone for
	announceAgain = time.Minute // after the last time
	maxHints      = 4 << 10     // of one kind
)

// asks is what this process remembers of its questions to the origin: hints,
// without which nothing is wrong but more is asked.
type asks struct {
	patience  time.Duration // 0: the constant
	longest   time.Duration // 0: slowestAnswer
	silence   silence
	announced announced
}

// silence remembers which tags the origin did not answer for a moment ago, so
// that one that hangs does not hang every pull.
type silence struct {
	mu   sync.Mutex
	all  quiet // the origin said that it has had too many requests
	tags map[tagName]quiet
}

type quiet struct {
	until time.Time
	err   error
}

// of is why the origin is not to be asked now; nil: it may be.
func (s *silence) of(t tagName, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range [...]quiet{s.tags[t], s.all} {
		if now.Before(q.until) {
			return q.err
		}
	}
	return nil
}

func (s *silence) add(t tagName, now time.Time, err error) {
	wait := min(max(silenceLasts, retryAfter(err)), silenceMost)
	q := quiet{now.Add(wait), err}
	s.mu.Lock()
	defer s.mu.Unlock()
	if registry.IsCode(err, registry.TooManyRequests) && retryAfter(err) > 0 {
		s.all = q
	}
	s.tags = roomFor(s.tags, func(q quiet) bool { return now.Before(q.until) })
	s.tags[t] = q
}

// forget lets the origin be asked again for what it did not answer of a repository
// here, or with "" of any. Where it asked to be left alone, it is.
func (s *silence) forget(here string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.tags {
		if here == "" || t.here == here {
			delete(s.tags, t)
		}
	}
}

// announced remembers of which manifests the blobs were announced a moment ago.
type announced struct {
	mu sync.Mutex
	at map[useKey]time.Time
}

// add reports whether they are to be announced now.
func (a *announced) add(key useKey, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at, ok := a.at[key]; ok && now.Sub(at) < announceAgain {
		return false
	}
	a.at = roomFor(a.at, func(at time.Time) bool { return now.Sub(at) < announceAgain })
	a.at[key] = now
	return true
}

// roomFor makes room for one more hint: those that are worth nothing any more go
// first, and if that is not enough all.
func roomFor[K comparable, V any](hints map[K]V, keep func(V) bool) map[K]V {
	if hints == nil {
		return map[K]V{}
	}
	if len(hints) < maxHints {
		return hints
	}
	for k, v := range hints {
		if !keep(v) {
			delete(hints, k)
		}
	}
	if len(hints) >= maxHints {
		clear(hints)
	}
	return hints
}

// within asks the origin for something that has an end. Work that many wait for
// ends with none of them, and an answer may come byte by byte for ever.
func within[T any](ctx context.Context, p *Registry, ask func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(p.asks.longest, slowestAnswer), errSlow)
	defer cancel()
	v, err := ask(ctx)
	if err != nil && context.Cause(ctx) == errSlow {
		err = errSlow
	}
	return v, err
}

// announce lets the blobs that a manifest names be found without asking for
// their sizes.
func (p *Registry) announce(here string, m registry.Manifest) {
	if oci.IsIndex(m.MediaType) || !p.asks.announced.add(useKey{here, m.Digest}, p.o.Now()) {
		return
	}
	// What is in the cache was parsed before; what cannot be has no blobs.
	if parsed, err := oci.ParseManifest(m.MediaType, m.Content); err == nil {
		p.expect(here, parsed)
	}
}
