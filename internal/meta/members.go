package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/oci"
)

// Member is a user or group with a role in an organization or project.
type Member struct {
	ID             string // of the grant
	User           string // one of these two is set: a name
	Group          string
	OrganizationID string // one of these two is set
	ProjectID      string
	Prefix         string // a repository name of the project; "": all of it
	Role           access.Role
	CreatedAt      time.Time
}

// PutMember gives a role, or changes the one that the same user or group has
// on the same prefix of the same place, and returns what stands then. It claims
// the project. Errors: ErrNotFound of the user, group, organization or project,
// also of a deleted one; ErrInvalid of a prefix outside the project.
func (db *DB) PutMember(ctx context.Context, c Change, m Member) (Member, error) {
	db.born(&m.ID, &m.CreatedAt)
	err := db.manage(ctx, c, func(t *tx) error {
		user, group, err := m.subject(t)
		if err != nil {
			return err
		}
		if err := m.claimPlace(t); err != nil {
			return err
		}
		var created int64
		err = t.queryRow(`INSERT INTO grants (id, user_id, group_id, organization_id, project_id, prefix, role, created_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (COALESCE(project_id, organization_id), prefix, COALESCE(user_id, group_id)) DO UPDATE SET role = excluded.role
			RETURNING id, created_at`,
			m.ID, user, group, orNone(m.OrganizationID), orNone(m.ProjectID), m.Prefix, m.Role.String(), m.CreatedAt.UnixMilli()).
			Scan(&m.ID, &created)
		m.CreatedAt = time.UnixMilli(created)
		return err
	})
	return m, err
}

// RemoveMember takes the role of m.User or m.Group on m.Prefix away. The last
// owner may go: admins remain. Errors: ErrNotFound.
func (db *DB) RemoveMember(ctx context.Context, c Change, m Member) error {
	return db.manage(ctx, c, func(t *tx) error {
		user, group, err := m.subject(t)
		if err != nil {
			return err
		}
		err = found(t.exec(`DELETE FROM grants WHERE COALESCE(project_id, organization_id) = COALESCE($1, $2)
			AND prefix = $3 AND COALESCE(user_id, group_id) = COALESCE($4, $5)`,
			orNone(m.ProjectID), orNone(m.OrganizationID), m.Prefix, user, group))
		if errors.Is(err, ErrNotFound) {
			return fmt.Errorf("member %.80q with prefix %.255q %w", m.User+m.Group, m.Prefix, ErrNotFound)
		}
		return err
	})
}

// subject finds the ids of the user or group, one of which is nil.
func (m *Member) subject(t *tx) (user, group *string, err error) {
	var id string
	if m.User != "" {
		id, err = userID(t, m.User)
		return &id, nil, err
	}
	id, err = groupID(t, m.Group)
	return nil, &id, err
}

// claimPlace checks the organization or project and claims the latter.
func (m *Member) claimPlace(t *tx) error {
	if m.ProjectID == "" {
		if m.Prefix != "" {
			return fmt.Errorf("%w prefix %.255q: a role in an organization has none", access.ErrInvalid, m.Prefix)
		}
		return present(t, "organization", `SELECT id FROM organizations WHERE id = $1`, m.OrganizationID)
	}
	if m.Prefix != "" {
		if err := checkPrefixes(t, m.ProjectID, []string{m.Prefix}); err != nil {
			return err
		}
	}
	return of(found(t.exec(`UPDATE projects SET claimed = TRUE WHERE id = $1 AND deleted_at IS NULL`, m.ProjectID)), "project", m.ProjectID)
}

// checkPrefixes wants each to be the name of a repository of the project, which
// must not be deleted; of any project where projectID is "".
func checkPrefixes(t *tx, projectID string, prefixes []string) error {
	project := ""
	if projectID != "" {
		if err := t.queryRow(`SELECT name FROM projects WHERE id = $1 AND deleted_at IS NULL`, projectID).Scan(&project); err != nil {
			return of(err, "project", projectID)
		}
	}
	for _, prefix := range prefixes {
		if err := oci.CheckRepository(prefix); err != nil {
			return fmt.Errorf("%w prefix: %w", access.ErrInvalid, err)
		}
		if !access.Under(project, prefix) {
			return fmt.Errorf("%w prefix %q: it does not lie in project %q", access.ErrInvalid, prefix, project)
		}
	}
	return nil
}

// Members lists who has a role in the organization or project with this id, by
// id of the grant. What comes from above, a project's organization, is not in
// it.
func (db *DB) Members(ctx context.Context, place, after string, n int) ([]Member, error) {
	rows, err := db.query(ctx, `SELECT g.id, COALESCE(u.name, ''), COALESCE(ug.name, ''),
		COALESCE(g.organization_id, ''), COALESCE(g.project_id, ''), g.prefix, g.role, g.created_at
		FROM grants g LEFT JOIN users u ON u.id = g.user_id LEFT JOIN user_groups ug ON ug.id = g.group_id
		WHERE COALESCE(g.project_id, g.organization_id) = $1 AND g.id > $2 ORDER BY g.id LIMIT $3`, place, after, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (m Member, err error) {
		var role string
		var created int64
		if err := r.Scan(&m.ID, &m.User, &m.Group, &m.OrganizationID, &m.ProjectID, &m.Prefix, &role, &created); err != nil {
			return m, err
		}
		m.CreatedAt = time.UnixMilli(created)
		m.Role, err = access.ParseRole(role)
		return m, err
	})
}

// orNone is the column value of a reference that may be absent.
func orNone(id string) *string {
	if id == "" {
		return nil
	}
	return &id
}
