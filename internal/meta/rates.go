package meta

import (
	"context"
	"errors"
	"time"
)

// RateUsage reads what was used of a rate; version is 0 where nothing was.
func (db *DB) RateUsage(ctx context.Context, bucket string) (slots []byte, version int64, err error) {
	err = db.queryRow(ctx, `SELECT slots, version FROM rate_usage WHERE bucket = $1`, bucket).Scan(&slots, &version)
	if errors.Is(err, ErrNotFound) {
		return nil, 0, nil
	}
	return slots, version, err
}

// SwapRateUsage replaces what RateUsage returned with the version and reports
// whether it still was that. It outlives the process; a power cut may lose the
// last second.
func (db *DB) SwapRateUsage(ctx context.Context, bucket string, slots []byte, version int64) (swapped bool, err error) {
	err = db.hint(ctx, func(t *tx) error {
		var n int64
		var err error
		if version == 0 {
			// A row that is pruned and comes again must not have a version that
			// somebody read of the former one.
			n, err = t.exec(`INSERT INTO rate_usage (bucket, slots, version, updated_at) VALUES ($1, $2, $3, $3)
				ON CONFLICT (bucket) DO NOTHING`, bucket, slots, max(1, db.millis()))
		} else {
			n, err = t.exec(`UPDATE rate_usage SET slots = $3, version = version + 1, updated_at = $4
				WHERE bucket = $1 AND version = $2`, bucket, version, slots, db.millis())
		}
		swapped = n == 1
		return err
	})
	return swapped && err == nil, err
}

// PruneRates removes up to n rows that nobody has changed since before, the
// oldest first, and returns how many.
func (db *DB) PruneRates(ctx context.Context, before time.Time, n int) (count int, err error) {
	err = db.hint(ctx, func(t *tx) error {
		removed, err := t.exec(`DELETE FROM rate_usage WHERE bucket IN
			(SELECT bucket FROM rate_usage WHERE updated_at < $1 ORDER BY updated_at LIMIT $2)`, before.UnixMilli(), n)
		count = int(removed)
		return err
	})
	return count, err
}
