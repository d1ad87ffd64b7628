package meta

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/berth-registry/berth/internal/access"
)

// The look-ups that access is decided by. All errors ErrNotFound.

const selectProject = `SELECT p.id, p.name, p.organization_id, p.visibility, p.newcomers, p.claimed,
	COALESCE(p.plan_id, o.plan_id, ''), p.deleted_at IS NOT NULL
	FROM projects p JOIN organizations o ON o.id = p.organization_id `

// ProjectAccess finds a project by its name, also a deleted one.
func (db *DB) ProjectAccess(ctx context.Context, name string) (access.Project, error) {
	return db.queryRow(ctx, selectProject+`WHERE p.name = $1`, name).scanProject()
}

// ProjectAccessByID is ProjectAccess by id.
func (db *DB) ProjectAccessByID(ctx context.Context, id string) (access.Project, error) {
	return db.queryRow(ctx, selectProject+`WHERE p.id = $1`, id).scanProject()
}

func (r row) scanProject() (p access.Project, err error) {
	return p, r.Scan(&p.ID, &p.Name, &p.OrganizationID, &p.Visibility, &p.Newcomers, &p.Claimed, &p.Plan, &p.Deleted)
}

// UserAccess is a user with all grants, own and through groups.
func (db *DB) UserAccess(ctx context.Context, id string) (access.Subject, error) {
	s := access.Subject{Kind: access.User, ID: id}
	var after int64
	err := db.queryRow(ctx, `SELECT u.name, u.locked, u.valid_after, COALESCE(u.plan_id, ''),
		u.admin OR EXISTS (SELECT 1 FROM group_members m JOIN user_groups g ON g.id = m.group_id WHERE m.user_id = u.id AND g.admin)
		FROM users u WHERE u.id = $1`, id).Scan(&s.Name, &s.Locked, &after, &s.Plan, &s.Admin)
	if err != nil {
		return s, err
	}
	s.ValidAfter = time.UnixMilli(after)
	// Two walks: PostgreSQL would read the table whole for an OR.
	const grants = `SELECT COALESCE(organization_id, ''), COALESCE(project_id, ''), prefix, role FROM grants `
	rows, err := db.query(ctx, grants+`WHERE user_id = $1
		UNION ALL `+grants+`WHERE group_id IN (SELECT group_id FROM group_members WHERE user_id = $1)`, id)
	if err != nil {
		return s, err
	}
	s.Grants, err = collect(rows, func(r *sql.Rows) (g access.Grant, err error) {
		var role string
		if err := r.Scan(&g.OrganizationID, &g.ProjectID, &g.Prefix, &role); err != nil {
			return g, err
		}
		g.Role, err = access.ParseRole(role)
		return g, err
	})
	return s, err
}

// Login finds a user by name.
func (db *DB) Login(ctx context.Context, name string) (l access.Login, err error) {
	var after int64
	err = db.queryRow(ctx, `SELECT id, password, valid_after FROM users WHERE name = $1`, name).Scan(&l.UserID, &l.Password, &after)
	l.ValidAfter = time.UnixMilli(after)
	return l, err
}

const selectKey = `SELECT id, name, COALESCE(user_id, ''), COALESCE(project_id, ''), role, prefixes, addresses,
	created_at, created_by, expires_at, revoked_at, last_used FROM keys `

// KeyByHash finds a key, also an expired or revoked one, by the hex SHA-256 of
// its secret.
func (db *DB) KeyByHash(ctx context.Context, hash string) (access.Key, error) {
	return scanKey(db.queryRow(ctx, selectKey+`WHERE hash = $1`, hash).Scan)
}

// KeyByID is KeyByHash by id.
func (db *DB) KeyByID(ctx context.Context, id string) (access.Key, error) {
	return scanKey(db.queryRow(ctx, selectKey+`WHERE id = $1`, id).Scan)
}

func scanKey(scan func(...any) error) (k access.Key, err error) {
	var role, prefixes, addresses string
	var created int64
	var expires, revoked, used sql.NullInt64
	if err := scan(&k.ID, &k.Name, &k.UserID, &k.ProjectID, &role, &prefixes, &addresses,
		&created, &k.CreatedBy, &expires, &revoked, &used); err != nil {
		return k, err
	}
	k.CreatedAt, k.ExpiresAt, k.RevokedAt, k.LastUsed = time.UnixMilli(created), instant(expires), instant(revoked), instant(used)
	if role != access.None.String() {
		if k.Role, err = access.ParseRole(role); err != nil {
			return k, err
		}
	}
	if err := fromJSON(prefixes, &k.Prefixes); err != nil {
		return k, err
	}
	return k, fromJSON(addresses, &k.Addresses)
}

const selectTrust = `SELECT id, project_id, name, issuer, audience, claims, role, prefixes, created_at, created_by FROM trust_rules `

// TrustRuleByID finds a trust rule.
func (db *DB) TrustRuleByID(ctx context.Context, id string) (access.TrustRule, error) {
	return scanTrust(db.queryRow(ctx, selectTrust+`WHERE id = $1`, id).Scan)
}

func scanTrust(scan func(...any) error) (r access.TrustRule, err error) {
	var role, claims, prefixes string
	var created int64
	if err := scan(&r.ID, &r.ProjectID, &r.Name, &r.Issuer, &r.Audience, &claims, &role, &prefixes, &created, &r.CreatedBy); err != nil {
		return r, err
	}
	r.CreatedAt = time.UnixMilli(created)
	if r.Role, err = access.ParseRole(role); err != nil {
		return r, err
	}
	if err := fromJSON(claims, &r.Claims); err != nil {
		return r, err
	}
	return r, fromJSON(prefixes, &r.Prefixes)
}

const selectPlan = `SELECT id, name, rates, max_blob, max_manifest, storage, repositories, created_at FROM plans `

// PlanByID finds a plan.
func (db *DB) PlanByID(ctx context.Context, id string) (access.Plan, error) {
	return scanPlan(db.queryRow(ctx, selectPlan+`WHERE id = $1`, id).Scan)
}

func scanPlan(scan func(...any) error) (p access.Plan, err error) {
	var rates string
	var created int64
	if err := scan(&p.ID, &p.Name, &rates, &p.MaxBlob, &p.MaxManifest, &p.Storage, &p.Repositories, &created); err != nil {
		return p, err
	}
	p.CreatedAt = time.UnixMilli(created)
	return p, fromJSON(rates, &p.Rates)
}

// Guarded reports whether there ever was a credential: a user or a key, also one
// that is revoked, expired or deleted: a registry that once asked for log-in
// never stops asking by itself.
func (db *DB) Guarded(ctx context.Context) (yes bool, err error) {
	return yes, db.queryRow(ctx, `SELECT guarded OR EXISTS (SELECT 1 FROM keys) OR EXISTS (SELECT 1 FROM users)
		FROM access_generation WHERE id = 1`).Scan(&yes)
}

// stayGuarded has Guarded say what it says now whatever is deleted next.
func stayGuarded(t *tx) error {
	_, err := t.exec(`UPDATE access_generation SET guarded = TRUE WHERE id = 1 AND NOT guarded
		AND (EXISTS (SELECT 1 FROM keys WHERE id > '') OR EXISTS (SELECT 1 FROM users WHERE id > ''))`)
	return err
}

// instant is the time of a nullable column, zero for null.
func instant(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return time.UnixMilli(ms.Int64)
}

// orNull is the column value of a time that may be zero.
func orNull(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	return new(t.UnixMilli())
}

func fromJSON(text string, v any) error {
	if err := json.Unmarshal([]byte(text), v); err != nil {
		return fmt.Errorf("a stored list is damaged: %w", err)
	}
	return nil
}
