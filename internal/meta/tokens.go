package meta

import (
	"context"
	"database/sql"
	"time"

	"github.com/google/uuid"

	"github.com/berth-registry/berth/internal/access"
)

// SigningKeys lists all keys that sign tokens, the newest first.
func (db *DB) SigningKeys(ctx context.Context) ([]access.SigningKey, error) {
	rows, err := db.query(ctx, `SELECT id, algorithm, private, created_at, retired_at FROM signing_keys ORDER BY created_at DESC, id DESC`)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (k access.SigningKey, err error) {
		var created int64
		var retired sql.NullInt64
		err = r.Scan(&k.ID, &k.Algorithm, &k.Private, &created, &retired)
		k.CreatedAt, k.RetiredAt = time.UnixMilli(created), instant(retired)
		return k, err
	})
}

// RotateSigningKey retires all keys and adds a new one, made now, unless one that was
// made after a time still signs: of replicas that find out together that a key
// is too old, one replaces it.
func (db *DB) RotateSigningKey(ctx context.Context, key access.SigningKey, unlessAfter time.Time) (rotated bool, err error) {
	err = db.change(ctx, func(t *tx) error {
		var fresh bool
		err := t.queryRow(`SELECT EXISTS (SELECT 1 FROM signing_keys WHERE retired_at IS NULL AND created_at > $1)`,
			unlessAfter.UnixMilli()).Scan(&fresh)
		if rotated = !fresh; err != nil || fresh {
			return err
		}
		if err := db.replaceSigningKey(t, key); err != nil {
			return err
		}
		return t.raise()
	})
	return rotated && err == nil, err
}

// ReplaceSigningKey is RotateSigningKey whatever the age of the key there is.
// Where revoke is set the keys before are deleted, and all their tokens are
// worth nothing at once.
func (db *DB) ReplaceSigningKey(ctx context.Context, c Change, key access.SigningKey, revoke bool) error {
	return db.manage(ctx, c, func(t *tx) error {
		if revoke {
			if _, err := t.exec(`DELETE FROM signing_keys`); err != nil {
				return err
			}
		}
		return db.replaceSigningKey(t, key)
	})
}

func (db *DB) replaceSigningKey(t *tx, key access.SigningKey) error {
	now := db.millis()
	if _, err := t.exec(`UPDATE signing_keys SET retired_at = $1 WHERE retired_at IS NULL`, now); err != nil {
		return err
	}
	_, err := t.exec(`INSERT INTO signing_keys (id, algorithm, private, created_at) VALUES ($1, $2, $3, $4)`,
		key.ID, key.Algorithm, key.Private, now)
	return err
}

// DeleteSigningKeys deletes the keys that were retired before a time.
func (db *DB) DeleteSigningKeys(ctx context.Context, before time.Time) error {
	return db.change(ctx, func(t *tx) error {
		n, err := t.exec(`DELETE FROM signing_keys WHERE retired_at < $1`, before.UnixMilli())
		if err != nil || n == 0 {
			return err
		}
		return t.raise()
	})
}

// maxRefresh is how many refresh tokens a user or a project's key has at most.
const maxRefresh = 100

// CreateRefreshToken keeps a token by the hash of its secret and gives it its
// id. It takes the place of the oldest where there are too many. ErrNotFound,
// where what it was got with does not count any more: this process may have
// looked at a password before another one changed it.
func (db *DB) CreateRefreshToken(ctx context.Context, r access.RefreshToken, hash string) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	// A change, so that nobody is locked or signed out between the look and the end.
	return db.change(ctx, func(t *tx) error {
		n, err := t.exec(`INSERT INTO refresh_tokens (id, hash, user_id, key_id, service, client, address, created_at, expires_at)
			SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
			WHERE (COALESCE($3, '') = '' OR EXISTS (SELECT 1 FROM users WHERE id = $3 AND NOT locked
				AND (valid_after <= $10 OR COALESCE($4, '') <> '' AND $10 = 0)))
			AND (COALESCE($4, '') = '' OR EXISTS (SELECT 1 FROM keys WHERE id = $4 AND revoked_at IS NULL))`,
			id.String(), hash, orNone(r.UserID), orNone(r.KeyID), r.Service, r.Client, r.Address,
			r.CreatedAt.UnixMilli(), r.ExpiresAt.UnixMilli(), orZero(r.Since))
		switch {
		case err != nil:
			return err
		case n == 0:
			return ErrNotFound
		}
		return boundRefresh(t, r)
	})
}

// orZero is a time in milliseconds, 0 for the zero Time.
func orZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// boundRefresh deletes the oldest tokens of whom r belongs to.
func boundRefresh(t *tx, r access.RefreshToken) error {
	column, owner := "user_id", r.UserID
	if owner == "" {
		column, owner = "key_id", r.KeyID
	}
	_, err := t.exec(`DELETE FROM refresh_tokens WHERE id IN
		(SELECT id FROM refresh_tokens WHERE `+column+` = $1 ORDER BY id DESC LIMIT 10 OFFSET $2)`, owner, maxRefresh)
	return err
}

const selectRefresh = `SELECT r.id, COALESCE(r.user_id, ''), COALESCE(u.name, ''), COALESCE(r.key_id, ''), r.service, r.client, r.address,
	r.created_at, r.expires_at, r.last_used FROM refresh_tokens r LEFT JOIN users u ON u.id = r.user_id `

// RefreshTokenByHash finds a refresh token, also an expired one.
func (db *DB) RefreshTokenByHash(ctx context.Context, hash string) (access.RefreshToken, error) {
	return scanRefresh(db.queryRow(ctx, selectRefresh+`WHERE r.hash = $1`, hash).Scan)
}

// RefreshTokenByID is RefreshTokenByHash by id.
func (db *DB) RefreshTokenByID(ctx context.Context, id string) (access.RefreshToken, error) {
	return scanRefresh(db.queryRow(ctx, selectRefresh+`WHERE r.id = $1`, id).Scan)
}

func scanRefresh(scan func(...any) error) (r access.RefreshToken, err error) {
	var created, expires int64
	var used sql.NullInt64
	err = scan(&r.ID, &r.UserID, &r.User, &r.KeyID, &r.Service, &r.Client, &r.Address, &created, &expires, &used)
	r.CreatedAt, r.ExpiresAt, r.LastUsed = time.UnixMilli(created), time.UnixMilli(expires), instant(used)
	return r, err
}

// ListRefreshTokens lists up to n refresh tokens of a user, or of all for "",
// whose ids are above after: the oldest first.
func (db *DB) ListRefreshTokens(ctx context.Context, userID, after string, n int) ([]access.RefreshToken, error) {
	query := selectRefresh + `WHERE r.id > $1 AND $2 = '' ORDER BY r.id LIMIT $3`
	if userID != "" {
		query = selectRefresh + `WHERE r.id > $1 AND r.user_id = $2 ORDER BY r.id LIMIT $3`
	}
	rows, err := db.query(ctx, query, after, userID, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (access.RefreshToken, error) { return scanRefresh(r.Scan) })
}

// TouchRefreshToken notes when a refresh token was last used.
func (db *DB) TouchRefreshToken(ctx context.Context, id string, at time.Time) error {
	return db.hint(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE refresh_tokens SET last_used = $2 WHERE id = $1`, id, at.UnixMilli())
		return err
	})
}

// RevokeRefreshToken deletes a refresh token. ErrNotFound.
func (db *DB) RevokeRefreshToken(ctx context.Context, c Change, id string) error {
	return db.manage(ctx, c, func(t *tx) error {
		n, err := t.exec(`DELETE FROM refresh_tokens WHERE id = $1`, id)
		if err == nil && n == 0 {
			return ErrNotFound
		}
		return err
	})
}

// ExpireRefreshTokens deletes up to n refresh tokens that expired before a time
// and returns how many.
func (db *DB) ExpireRefreshTokens(ctx context.Context, before time.Time, n int) (expired int, err error) {
	err = db.hint(ctx, func(t *tx) error {
		gone, err := t.exec(`DELETE FROM refresh_tokens WHERE id IN
			(SELECT id FROM refresh_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`, before.UnixMilli(), n)
		expired = int(gone)
		return err
	})
	return expired, err
}
