package meta

import (
	"context"
	"database/sql"
)

// PutProxy adds an upstream, or changes the one with this name. A nil Secret
// keeps the one that there is, an empty one takes it away. It returns what is
// stored.
func (db *DB) PutProxy(ctx context.Context, c Change, p Proxy) (Proxy, error) {
	now, name := db.millis(), p.Name
	var secret *[]byte // nil: as it is
	if p.Secret != nil {
		secret = &p.Secret
	}
	return p, db.manage(ctx, c, func(t *tx) (err error) {
		p, err = scanProxy(t.queryRow(`INSERT INTO proxies (name, spec, secret, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)
			ON CONFLICT (name) DO UPDATE SET spec = excluded.spec, secret = COALESCE(excluded.secret, proxies.secret), updated_at = excluded.updated_at
			RETURNING name, spec, secret, created_at, updated_at`, name, p.Spec, secret, now).Scan)
		return err
	})
}

const selectProxy = `SELECT name, spec, secret, created_at, updated_at FROM proxies `

func scanProxy(scan func(...any) error) (p Proxy, err error) {
	var created, updated int64
	err = scan(&p.Name, &p.Spec, &p.Secret, &created, &updated)
	if len(p.Secret) == 0 {
		p.Secret = nil
	}
	p.CreatedAt, p.UpdatedAt = unlessZero(created), unlessZero(updated)
	return p, err
}

// Proxy finds an upstream that was added. Errors: ErrNotFound.
func (db *DB) Proxy(ctx context.Context, name string) (Proxy, error) {
	p, err := scanProxy(db.queryRow(ctx, selectProxy+`WHERE name = $1`, name).Scan)
	return p, of(err, "proxy", name)
}

// Proxies lists those that were added, by name.
func (db *DB) Proxies(ctx context.Context, after string, n int) ([]Proxy, error) {
	rows, err := db.query(ctx, selectProxy+`WHERE name > $1 ORDER BY name LIMIT $2`, after, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (Proxy, error) { return scanProxy(r.Scan) })
}

// DeleteProxy takes an upstream away. What came from it stays, with what is known
// of it: who adds it again has its cache again. Errors: ErrNotFound.
func (db *DB) DeleteProxy(ctx context.Context, c Change, name string) error {
	return db.manage(ctx, c, func(t *tx) error {
		return of(found(t.exec(`DELETE FROM proxies WHERE name = $1`, name)), "proxy", name)
	})
}
