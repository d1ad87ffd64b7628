package meta

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// LeaseProxy takes a lease that nobody holds, for a while. ok is false where
// somebody does. Leases cost no sync: a crash of the database may undo one, and
// then two processes ask the same. version is nobody else's, even then.
func (db *DB) LeaseProxy(ctx context.Context, key string, ttl time.Duration) (version int64, ok bool, err error) {
	now := db.millis()
	// The statement may run twice: the second finds the first one's lease.
	err = db.hintRow(ctx, `INSERT INTO proxy_leases (key, version, lease_owner, lease_until) VALUES ($1, $2, $3, $4)
		ON CONFLICT (key) DO UPDATE SET version = excluded.version, lease_owner = excluded.lease_owner, lease_until = excluded.lease_until
		WHERE proxy_leases.lease_until <= $5 OR proxy_leases.version = excluded.version RETURNING version`,
		key, rand.Int64(), db.owner, now+ttl.Milliseconds(), now).Scan(&version)
	if errors.Is(err, ErrNotFound) {
		return 0, false, nil
	}
	return version, err == nil, err
}

// RenewProxy prolongs a lease, also one that has ended where nobody took it
// since. Errors: ErrNotFound where it was lost.
func (db *DB) RenewProxy(ctx context.Context, key string, version int64, ttl time.Duration) error {
	return db.hintRow(ctx, `UPDATE proxy_leases SET lease_until = $3 WHERE key = $1 AND version = $2 RETURNING version`,
		key, version, db.millis()+ttl.Milliseconds()).Scan(new(int64))
}

// ReleaseProxy gives a lease back. One that was lost is none of the caller's
// business any more: no error.
func (db *DB) ReleaseProxy(ctx context.Context, key string, version int64) error {
	return ignoreNotFound(db.hintRow(ctx, `DELETE FROM proxy_leases WHERE key = $1 AND version = $2 RETURNING version`,
		key, version).Scan(new(int64)))
}
