package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/berth-registry/berth/internal/access"
)

// CreatePlan makes a plan, whose rates the caller has validated. Errors:
// ErrExists.
func (db *DB) CreatePlan(ctx context.Context, c Change, p access.Plan) (access.Plan, error) {
	db.born(&p.ID, &p.CreatedAt)
	rates, err := listJSON(p.Rates)
	if err != nil {
		return p, err
	}
	return p, db.manage(ctx, c, func(t *tx) error {
		_, err := t.exec(`INSERT INTO plans (id, name, rates, max_blob, max_manifest, storage, repositories, created_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			p.ID, p.Name, rates, p.MaxBlob, p.MaxManifest, p.Storage, p.Repositories, p.CreatedAt.UnixMilli())
		return of(err, "plan", p.Name)
	})
}

// Plan finds a plan by name. Errors: ErrNotFound.
func (db *DB) Plan(ctx context.Context, name string) (access.Plan, error) {
	p, err := scanPlan(db.queryRow(ctx, selectPlan+`WHERE name = $1`, name).Scan)
	return p, of(err, "plan", name)
}

// Plans lists all plans, by name.
func (db *DB) Plans(ctx context.Context, after string, n int) ([]access.Plan, error) {
	rows, err := db.query(ctx, selectPlan+`WHERE name > $1 ORDER BY name LIMIT $2`, after, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (access.Plan, error) { return scanPlan(r.Scan) })
}

// PlanChange says what becomes of a plan; nil stays.
type PlanChange struct {
	Name         *string
	Rates        *[]access.Rate // that the caller has validated
	MaxBlob      *int64
	MaxManifest  *int64
	Storage      *int64
	Repositories *int64
}

// SetPlan changes the plan with this name; the default one keeps its name.
// Errors: ErrNotFound; ErrExists of the new name; ErrInUse of the default's
// name.
func (db *DB) SetPlan(ctx context.Context, c Change, name string, p PlanChange) error {
	var rates *string
	if p.Rates != nil {
		text, err := listJSON(*p.Rates)
		if err != nil {
			return err
		}
		rates = &text
	}
	return db.manage(ctx, c, func(t *tx) error {
		id, err := planID(t, name)
		if err != nil {
			return err
		}
		renamed := name
		if p.Name != nil && *p.Name != name {
			if id == access.DefaultPlan {
				return fmt.Errorf("the name of the default plan %w: it cannot be changed", ErrInUse)
			}
			renamed = *p.Name
		}
		_, err = t.exec(`UPDATE plans SET name = $2, rates = COALESCE($3, rates), max_blob = COALESCE($4, max_blob),
			max_manifest = COALESCE($5, max_manifest), storage = COALESCE($6, storage), repositories = COALESCE($7, repositories)
			WHERE id = $1`, id, renamed, rates, p.MaxBlob, p.MaxManifest, p.Storage, p.Repositories)
		return of(err, "plan", renamed)
	})
}

// DeletePlan deletes a plan. Errors: ErrNotFound; ErrInUse while anybody has
// it, and of the default one.
func (db *DB) DeletePlan(ctx context.Context, c Change, name string) error {
	return db.manage(ctx, c, func(t *tx) error {
		id, err := planID(t, name)
		if err != nil {
			return err
		}
		if id == access.DefaultPlan {
			return fmt.Errorf("the default plan %w: it cannot be deleted", ErrInUse)
		}
		err = found(t.exec(`DELETE FROM plans WHERE id = $1`, id))
		if errors.Is(err, ErrInUse) {
			return fmt.Errorf("plan %q %w: give those who have it another one first; a deleted project has it until it is restored or purged", name, ErrInUse)
		}
		return err
	})
}

// planID is the id of the plan with this name. Errors: ErrNotFound.
func planID(t *tx, name string) (id string, err error) {
	err = t.queryRow(`SELECT id FROM plans WHERE name = $1`, name).Scan(&id)
	return id, of(err, "plan", name)
}

// PruneIdempotency forgets up to n requests that were answered before then,
// and returns how many.
func (db *DB) PruneIdempotency(ctx context.Context, before time.Time, n int) (pruned int, err error) {
	err = db.update(ctx, func(t *tx) error {
		count, err := t.exec(`DELETE FROM idempotency WHERE id IN
			(SELECT id FROM idempotency WHERE created_at < $1 ORDER BY created_at LIMIT $2)`, before.UnixMilli(), n)
		pruned = int(count)
		return err
	})
	return pruned, err
}
