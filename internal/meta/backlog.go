package meta

import (
	"context"
	"errors"
	"time"
)

// BacklogBound is where Backlog stops counting.
const BacklogBound = 10_000

// Backlog is how much is open or waits for collection, each counted up to
// BacklogBound.
type Backlog struct {
	Uploads   int // open upload sessions
	Dead      int // objects that no row names, whose bytes are to be freed
	Links     int // blobs in repositories that are due for a look
	Manifests int // the same, manifests
	// Oldest is since when the first dead object could have been freed; zero:
	// none is due.
	Oldest time.Time
}

// Backlog counts, at a price that does not grow with what is stored.
func (db *DB) Backlog(ctx context.Context) (b Backlog, err error) {
	now := db.millis()
	for _, q := range []struct {
		n    *int
		text string
		args []any
	}{
		{&b.Uploads, `SELECT COUNT(*) FROM (SELECT 1 FROM uploads LIMIT $1) b`, []any{BacklogBound}},
		{&b.Dead, `SELECT COUNT(*) FROM (SELECT 1 FROM dead_objects LIMIT $1) b`, []any{BacklogBound}},
		{&b.Links, `SELECT COUNT(*) FROM (SELECT 1 FROM links WHERE review_at <= $1 LIMIT $2) b`, []any{now, BacklogBound}},
		{&b.Manifests, `SELECT COUNT(*) FROM (SELECT 1 FROM manifest_reviews WHERE review_at <= $1 LIMIT $2) b`, []any{now, BacklogBound}},
	} {
		if err := db.queryRow(ctx, q.text, q.args...).Scan(q.n); err != nil {
			return Backlog{}, err
		}
	}
	var due int64
	err = db.queryRow(ctx, `SELECT delete_at FROM dead_objects WHERE delete_at <= $1 ORDER BY delete_at LIMIT 1`, now).Scan(&due)
	switch {
	case errors.Is(err, ErrNotFound):
		return b, nil
	case err != nil:
		return Backlog{}, err
	}
	b.Oldest = time.UnixMilli(due)
	return b, nil
}
