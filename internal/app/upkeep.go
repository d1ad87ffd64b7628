package app

import (
	"context"
	"time"

	"github.com/berth-registry/berth/internal/jobs"
)

const (
	upkeepEvery  = 5 * time.Minute
	upkeepBatch  = 1000           // rows of a transaction
	proxyBatches = 20             // of what caches remember, in one run
	repeatableIn = 24 * time.Hour // how long a create can be asked for again
)

// keepSigning replaces the key that signs tokens when it is old, now and every
// few minutes. Every process does, for each has the keys in memory.
func (s *site) keepSigning(ctx context.Context) {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	for {
		if err := s.tokens.Maintain(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("the keys that sign tokens could not be looked after; it will be tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// upkeeping is the job that forgets what is no longer needed.
func (s *site) upkeeping() jobs.Job {
	return jobs.Job{Name: "upkeep", Every: upkeepEvery, Run: func(ctx context.Context) (any, error) { return s.forget(ctx) }}
}

// forgotten counts what one run of forget removed.
type forgotten struct {
	Audit       int `json:"audit"`
	Idempotency int `json:"idempotency"`
	Refresh     int `json:"refresh"`
	Proxies     int `json:"proxies"` // rows of what caches remembered
}

func (s *site) forget(ctx context.Context) (n forgotten, err error) {
	now, db := time.Now(), s.store.db
	for _, old := range []struct {
		before time.Time
		prune  func(context.Context, time.Time, int) (int, error)
		sum    *int
	}{
		{now.Add(-s.config.Audit.Retention), db.PruneAudit, &n.Audit},
		{now.Add(-repeatableIn), db.PruneIdempotency, &n.Idempotency},
		{now, db.ExpireRefreshTokens, &n.Refresh},
	} {
		for gone := upkeepBatch; gone == upkeepBatch; {
			if err := ctx.Err(); err != nil {
				return n, err
			}
			if gone, err = old.prune(ctx, old.before, upkeepBatch); err != nil {
				return n, err
			}
			*old.sum += gone
		}
	}
	for more, i := true, 0; more && i < proxyBatches; i++ { // the next run goes on
		if err := ctx.Err(); err != nil {
			return n, err
		}
		var gone int
		if gone, more, err = db.PruneProxy(ctx, now, upkeepBatch); err != nil {
			return n, err
		}
		n.Proxies += gone
	}
	return n, nil
}
