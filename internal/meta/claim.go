package meta

import (
	"context"
	"errors"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
)

// ClaimProject makes a user the owner of a project that nobody has claimed, and
// makes the project if it does not exist. won says whether it was this call: of
// many that race one wins, and a project that is deleted, or whose own setting
// is not to be claimed, is won by nobody. Errors: ErrNotFound where the user is
// gone or locked; nothing is claimed then.
func (db *DB) ClaimProject(ctx context.Context, name, userID string) (won bool, err error) {
	err = db.change(ctx, func(t *tx) error {
		won = false
		var locked bool
		err := t.queryRow(`SELECT locked FROM users WHERE id = $1`, userID).Scan(&locked)
		if err != nil {
			return err
		}
		if locked {
			return ErrNotFound
		}
		id, err := db.takeProject(t, name)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		won = true
		return db.ownProject(t, ctx, id, name, userID)
	})
	return won && err == nil, err
}

// takeProject marks a project as claimed. Errors: ErrNotFound where it is not
// to be had, also of one that is deleted.
func (db *DB) takeProject(t *tx, name string) (id string, err error) {
	p, err := db.projectPlace(t, name)
	if errors.Is(err, ErrNoRepository) {
		return "", ErrNotFound
	}
	if err != nil {
		return "", err
	}
	err = t.queryRow(`UPDATE projects SET claimed = TRUE
		WHERE id = $1 AND NOT claimed AND deleted_at IS NULL AND newcomers IN ('', 'claim') RETURNING id`, p.project).Scan(&id)
	return id, err
}

// ownProject grants a user the whole project, whatever role there was before.
func (db *DB) ownProject(t *tx, ctx context.Context, id, name, userID string) error {
	_, err := t.exec(`INSERT INTO grants (id, user_id, project_id, prefix, role, created_at) VALUES ($1, $2, $3, '', $4, $5)
		ON CONFLICT (COALESCE(project_id, organization_id), prefix, COALESCE(user_id, group_id)) DO UPDATE SET role = excluded.role`,
		newID(), userID, id, access.Owner.String(), db.millis())
	if err != nil {
		return err
	}
	if err := t.raise(); err != nil {
		return err
	}
	return db.record(t, ctx, func(e *audit.Event) { e.Action, e.Project, e.Status = "project.claim", name, 201 })
}
