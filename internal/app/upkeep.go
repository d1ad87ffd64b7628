package app

import (
	"context"
	"time"
)

const (
	upkeepEvery  = 5 * time.Minute
	upkeepBatch  = 1000           // rows of a transaction
	repeatableIn = 24 * time.Hour // how long a create can be asked for again
)

// upkeep replaces what is to be replaced and forgets what is no longer needed,
// now and every few minutes.
func (s *site) upkeep(ctx context.Context) {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	for {
		if err := s.maintain(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("upkeep failed and will be tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *site) maintain(ctx context.Context) error {
	if err := s.tokens.Maintain(ctx); err != nil {
		return err
	}
	now, db := time.Now(), s.store.db
	for _, old := range []struct {
		before time.Time
		prune  func(context.Context, time.Time, int) (int, error)
	}{
		{now.Add(-s.config.Audit.Retention), db.PruneAudit},
		{now.Add(-repeatableIn), db.PruneIdempotency},
		{now, db.ExpireRefreshTokens},
	} {
		for n := upkeepBatch; n == upkeepBatch; {
			var err error
			if n, err = old.prune(ctx, old.before, upkeepBatch); err != nil {
				return err
			}
		}
	}
	return nil
}
