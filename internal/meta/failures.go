package meta

import (
	"context"
	"database/sql"
	"time"

	"github.com/berth-registry/berth/internal/access"
)

const (
	maxFailures = 1000 // rows of a bucket that are looked at
	failuresOld = 100  // rows that are deleted in passing
)

// LoginFailures are the times of a bucket's failures after since, in no order.
func (db *DB) LoginFailures(ctx context.Context, bucket string, since time.Time) ([]time.Time, error) {
	rows, err := db.query(ctx, `SELECT at FROM login_failures WHERE bucket = $1 AND at > $2 LIMIT $3`,
		bucket, since.UnixMilli(), maxFailures)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (time.Time, error) {
		var at int64
		err := r.Scan(&at)
		return time.UnixMilli(at), err
	})
}

// AddLoginFailures notes failures. One that is known since a time after since
// stays as it is: who repeats a mistake is not kept waiting for longer. Some of
// those that are older than since are deleted.
func (db *DB) AddLoginFailures(ctx context.Context, failures []access.LoginFailure, since time.Time) error {
	return db.hint(ctx, func(t *tx) error {
		for _, f := range failures {
			_, err := t.exec(`INSERT INTO login_failures (bucket, secret, at) VALUES ($1, $2, $3)
				ON CONFLICT (bucket, secret) DO UPDATE SET at = excluded.at WHERE login_failures.at <= $4`,
				f.Bucket, f.Secret, db.millis(), since.UnixMilli())
			if err != nil {
				return err
			}
		}
		_, err := t.exec(`DELETE FROM login_failures WHERE (bucket, secret) IN
			(SELECT bucket, secret FROM login_failures WHERE at <= $1 ORDER BY at LIMIT $2)`, since.UnixMilli(), failuresOld)
		return err
	})
}
