package meta

import (
	"context"
	"database/sql"
	"encoding/json"

	"github.com/berth-registry/berth/internal/access"
)

// CreateTrustRule makes a rule of a project. Errors: ErrExists; ErrNotFound of
// the project, also of a deleted one; ErrInvalid of a prefix.
func (db *DB) CreateTrustRule(ctx context.Context, c Change, r access.TrustRule) (access.TrustRule, error) {
	db.born(&r.ID, &r.CreatedAt)
	if r.Claims == nil {
		r.Claims = map[string]string{}
	}
	claims, err := json.Marshal(r.Claims)
	if err != nil {
		return r, err
	}
	prefixes, err := listJSON(r.Prefixes)
	if err != nil {
		return r, err
	}
	return r, db.manage(ctx, c, func(t *tx) error {
		if err := checkPrefixes(t, r.ProjectID, r.Prefixes); err != nil {
			return err
		}
		_, err := t.exec(`INSERT INTO trust_rules
			(id, project_id, name, issuer, audience, claims, role, prefixes, created_at, created_by)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			r.ID, r.ProjectID, r.Name, r.Issuer, r.Audience, string(claims), r.Role.String(), prefixes, r.CreatedAt.UnixMilli(), r.CreatedBy)
		return of(err, "trust rule", r.Name)
	})
}

// TrustRule finds a rule of the project with this id by name. Errors:
// ErrNotFound.
func (db *DB) TrustRule(ctx context.Context, projectID, name string) (access.TrustRule, error) {
	r, err := scanTrust(db.queryRow(ctx, selectTrust+`WHERE project_id = $1 AND name = $2`, projectID, name).Scan)
	return r, of(err, "trust rule", name)
}

// ProjectTrustRules lists the rules of the project with this id, by name.
func (db *DB) ProjectTrustRules(ctx context.Context, projectID, after string, n int) ([]access.TrustRule, error) {
	rows, err := db.query(ctx, selectTrust+`WHERE project_id = $1 AND name > $2 ORDER BY name LIMIT $3`, projectID, after, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (access.TrustRule, error) { return scanTrust(r.Scan) })
}

// DeleteTrustRule deletes a rule of the project with this id by name; tokens
// that it gave are worthless from then on. Errors: ErrNotFound.
func (db *DB) DeleteTrustRule(ctx context.Context, c Change, projectID, name string) error {
	return db.manage(ctx, c, func(t *tx) error {
		return of(found(t.exec(`DELETE FROM trust_rules WHERE project_id = $1 AND name = $2`, projectID, name)), "trust rule", name)
	})
}
