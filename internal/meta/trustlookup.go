package meta

import (
	"context"
	"database/sql"

	"github.com/berth-registry/berth/internal/access"
)

// TrustsIssuer reports whether any rule names the issuer. Rules of deleted
// projects do not count, here and below.
func (db *DB) TrustsIssuer(ctx context.Context, issuer string) (yes bool, err error) {
	return yes, db.queryRow(ctx, `SELECT EXISTS (SELECT 1 FROM trust_rules t JOIN projects p ON p.id = t.project_id
		WHERE t.issuer = $1 AND p.deleted_at IS NULL)`, issuer).Scan(&yes)
}

// TrustRules lists the rules that name the issuer and the audience.
func (db *DB) TrustRules(ctx context.Context, issuer, audience string) ([]access.TrustRule, error) {
	rows, err := db.query(ctx, selectTrust+`WHERE issuer = $1 AND audience = $2
		AND EXISTS (SELECT 1 FROM projects p WHERE p.id = project_id AND p.deleted_at IS NULL)`, issuer, audience)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (access.TrustRule, error) { return scanTrust(r.Scan) })
}
