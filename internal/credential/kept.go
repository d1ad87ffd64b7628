package credential

import (
	"context"
	"errors"
	"sync"
	"time"
)

// failurePause is for how long what could not be had is not asked for again.
const failurePause = 5 * time.Second

// kept is a Source that takes some work: what it found is kept while it holds.
type kept struct {
	found lasting[Credential]
	fetch fetcher[Credential]
	now   func() time.Time

	mu     sync.Mutex
	failed error
	until  time.Time
}

func keep(now func() time.Time, fetch fetcher[Credential]) *kept {
	if now == nil {
		now = time.Now
	}
	return &kept{fetch: fetch, now: now}
}

func (k *kept) Credential(ctx context.Context) (Credential, error) {
	return k.found.get(ctx, k.now, true, func(ctx context.Context) (Credential, time.Duration, error) {
		k.mu.Lock()
		failed, until := k.failed, k.until
		k.mu.Unlock()
		if failed != nil && k.now().Before(until) {
			return Credential{}, 0, failed
		}
		c, life, err := k.fetch(ctx)
		k.mu.Lock()
		defer k.mu.Unlock()
		k.failed, k.until = err, k.now().Add(failurePause)
		return c, life, err
	})
}

// Drop has another credential fetched.
func (k *kept) Drop(refused Credential) { k.found.drop(refused) }

// until is the life of a credential that ends at a time of ours.
func (c Credential) until(now time.Time) (Credential, time.Duration, error) {
	if c.Expires.IsZero() {
		return c, usualLife, nil
	}
	life := c.Expires.Sub(now)
	if life <= 0 {
		return Credential{}, 0, errors.New("the credential that was given has ended already: is a clock wrong?")
	}
	return c, life, nil
}
