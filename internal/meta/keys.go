package meta

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/berth-registry/berth/internal/access"
)

// CreateKey stores the key k, of which hash is the hex SHA-256 of its secret.
// Errors: ErrExists of a live key with the name; ErrNotFound of its user or
// project, also of a deleted one; ErrInvalid of a prefix, or where a project's
// key has no role.
func (db *DB) CreateKey(ctx context.Context, c Change, k access.Key, hash string) (access.Key, error) {
	db.born(&k.ID, &k.CreatedAt)
	return k, db.manage(ctx, c, func(t *tx) error {
		if k.UserID != "" {
			if err := present(t, "user", `SELECT id FROM users WHERE id = $1`, k.UserID); err != nil {
				return err
			}
		} else if k.Role == access.None {
			return fmt.Errorf("%w key: a project's key needs a role", access.ErrInvalid)
		}
		if err := checkPrefixes(t, k.ProjectID, k.Prefixes); err != nil {
			return err
		}
		return insertKey(t, k, hash)
	})
}

// insertKey stores a key with all it says; it has an ID and a CreatedAt.
// Errors: ErrExists of a live key of the same owner and name.
func insertKey(t *tx, k access.Key, hash string) error {
	prefixes, err := listJSON(k.Prefixes)
	if err != nil {
		return err
	}
	addresses, err := listJSON(k.Addresses)
	if err != nil {
		return err
	}
	_, err = t.exec(`INSERT INTO keys
		(id, hash, user_id, project_id, name, role, prefixes, addresses, created_at, created_by, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
		k.ID, hash, orNone(k.UserID), orNone(k.ProjectID), k.Name, k.Role.String(), prefixes, addresses,
		k.CreatedAt.UnixMilli(), k.CreatedBy, orNull(k.ExpiresAt))
	return of(err, "key", k.Name)
}

// listJSON is the column value of a list, which is never null.
func listJSON[T string | netip.Prefix | access.Rate](list []T) (string, error) {
	if list == nil {
		list = []T{}
	}
	text, err := json.Marshal(list)
	return string(text), err
}

// Key finds a key of the user or project with this id: the live one with the
// name, else the one with the id that ref says, be it revoked. Errors:
// ErrNotFound.
func (db *DB) Key(ctx context.Context, owner, ref string) (access.Key, error) {
	k, err := scanKey(db.queryRow(ctx, selectKey+`WHERE COALESCE(user_id, project_id) = $1 AND name = $2 AND revoked_at IS NULL`, owner, ref).Scan)
	if errors.Is(err, ErrNotFound) {
		k, err = scanKey(db.queryRow(ctx, selectKey+`WHERE COALESCE(user_id, project_id) = $1 AND id = $2`, owner, ref).Scan)
	}
	return k, of(err, "key", ref)
}

// Keys lists the keys of the user or project with this id, by id, with or
// without those that are revoked.
func (db *DB) Keys(ctx context.Context, owner string, revoked bool, after string, n int) ([]access.Key, error) {
	rows, err := db.query(ctx, selectKey+`WHERE COALESCE(user_id, project_id) = $1 AND id > $2 AND ($3 OR revoked_at IS NULL)
		ORDER BY id LIMIT $4`, owner, after, revoked, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (access.Key, error) { return scanKey(r.Scan) })
}

// RevokeKey makes a key of the user or project with this id worthless, with
// all tokens that it was exchanged for. ref is the name of a live key, or the
// name or id of one that is revoked already, of which the first time stands.
// The row stays, for what the trail says of it, and for that no database that
// ever had a key lets everybody in. Errors: ErrNotFound.
func (db *DB) RevokeKey(ctx context.Context, c Change, owner, ref string) (k access.Key, err error) {
	err = db.manage(ctx, c, func(t *tx) error {
		id, err := keyID(t, owner, ref)
		if err != nil {
			return err
		}
		if err := db.revoke(t, id); err != nil {
			return err
		}
		k, err = scanKey(t.queryRow(selectKey+`WHERE id = $1`, id).Scan)
		return err
	})
	return k, err
}

// keyID finds a key as RevokeKey does.
func keyID(t *tx, owner, ref string) (id string, err error) {
	for _, query := range [...]string{
		`SELECT id FROM keys WHERE COALESCE(user_id, project_id) = $1 AND name = $2 AND revoked_at IS NULL`,
		`SELECT id FROM keys WHERE COALESCE(user_id, project_id) = $1 AND id = $2`,
		`SELECT id FROM keys WHERE COALESCE(user_id, project_id) = $1 AND name = $2 ORDER BY id DESC LIMIT 1`,
	} {
		if err = t.queryRow(query, owner, ref).Scan(&id); !errors.Is(err, ErrNotFound) {
			return id, err
		}
	}
	return "", of(err, "key", ref)
}

func (db *DB) revoke(t *tx, id string) error {
	if _, err := t.exec(`DELETE FROM refresh_tokens WHERE key_id = $1`, id); err != nil {
		return err
	}
	_, err := t.exec(`UPDATE keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL`, id, db.millis())
	return err
}

// TouchKeys notes when keys were last used, by id. It never goes back, and may
// be lost in a power cut.
func (db *DB) TouchKeys(ctx context.Context, used map[string]time.Time) error {
	return db.hint(ctx, func(t *tx) error {
		for id, at := range used {
			if _, err := t.exec(`UPDATE keys SET last_used = $2 WHERE id = $1 AND (last_used IS NULL OR last_used < $2)`, id, at.UnixMilli()); err != nil {
				return err
			}
		}
		return nil
	})
}
