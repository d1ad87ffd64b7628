package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Group is a set of users. Those of whom an identity provider says Claim join
// at log-in and leave when it says so no more.
type Group struct {
	ID        string
	Name      string
	Claim     string // "": none
	Admin     bool   // its users may do everything
	CreatedAt time.Time
}

// CreateGroup makes a group. Errors: ErrExists, also of the claim.
func (db *DB) CreateGroup(ctx context.Context, c Change, g Group) (Group, error) {
	db.born(&g.ID, &g.CreatedAt)
	return g, db.manage(ctx, c, func(t *tx) error {
		if err := claimFree(t, g.ID, g.Claim); err != nil {
			return err
		}
		_, err := t.exec(`INSERT INTO user_groups (id, name, claim, admin, created_at) VALUES ($1, $2, $3, $4, $5)`,
			g.ID, g.Name, orNone(g.Claim), g.Admin, g.CreatedAt.UnixMilli())
		return of(err, "group", g.Name)
	})
}

// claimFree fails when a group other than the one with this id has the claim.
func claimFree(t *tx, id, claim string) error {
	var name string
	err := t.queryRow(`SELECT name FROM user_groups WHERE claim = $1 AND id <> $2`, claim, id).Scan(&name)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err == nil:
		return fmt.Errorf("a group with claim %.255q %w: %q", claim, ErrExists, name)
	}
	return err
}

const selectGroup = `SELECT id, name, COALESCE(claim, ''), admin, created_at FROM user_groups `

func scanGroup(scan func(...any) error) (g Group, err error) {
	var created int64
	err = scan(&g.ID, &g.Name, &g.Claim, &g.Admin, &created)
	g.CreatedAt = time.UnixMilli(created)
	return g, err
}

// Group finds a group by name. Errors: ErrNotFound.
func (db *DB) Group(ctx context.Context, name string) (Group, error) {
	g, err := scanGroup(db.queryRow(ctx, selectGroup+`WHERE name = $1`, name).Scan)
	return g, of(err, "group", name)
}

// Groups lists all groups, by name.
func (db *DB) Groups(ctx context.Context, after string, n int) ([]Group, error) {
	rows, err := db.query(ctx, selectGroup+`WHERE name > $1 ORDER BY name LIMIT $2`, after, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (Group, error) { return scanGroup(r.Scan) })
}

// GroupChange says what becomes of a group; nil stays.
type GroupChange struct {
	Name  *string
	Claim *string // "": none
	Admin *bool
}

// SetGroup changes the group with this name. Errors: ErrNotFound; ErrExists of
// the new name or claim.
func (db *DB) SetGroup(ctx context.Context, c Change, name string, g GroupChange) error {
	return db.manage(ctx, c, func(t *tx) error {
		id, err := groupID(t, name)
		if err != nil {
			return err
		}
		if g.Claim != nil {
			if err := claimFree(t, id, *g.Claim); err != nil {
				return err
			}
			if _, err := t.exec(`UPDATE user_groups SET claim = $2 WHERE id = $1`, id, orNone(*g.Claim)); err != nil {
				return err
			}
		}
		renamed := name
		if g.Name != nil {
			renamed = *g.Name
		}
		_, err = t.exec(`UPDATE user_groups SET name = $2, admin = COALESCE($3, admin) WHERE id = $1`, id, renamed, g.Admin)
		return of(err, "group", renamed)
	})
}

// DeleteGroup deletes a group with its roles and memberships. Errors:
// ErrNotFound.
func (db *DB) DeleteGroup(ctx context.Context, c Change, name string) error {
	return db.manage(ctx, c, func(t *tx) error {
		id, err := groupID(t, name)
		if err != nil {
			return err
		}
		for _, query := range [...]string{
			`DELETE FROM grants WHERE group_id = $1`,
			`DELETE FROM group_members WHERE group_id = $1`,
			`DELETE FROM user_groups WHERE id = $1`,
		} {
			if _, err := t.exec(query, id); err != nil {
				return of(err, "group", name)
			}
		}
		return nil
	})
}

// AddGroupUser puts a user into a group, to stay whatever an identity provider
// says. Errors: ErrNotFound of either.
func (db *DB) AddGroupUser(ctx context.Context, c Change, group, user string) error {
	return db.groupUser(ctx, c, group, user, func(t *tx, group, user string) error {
		_, err := t.exec(`INSERT INTO group_members (group_id, user_id, by_claim) VALUES ($1, $2, FALSE)
			ON CONFLICT (group_id, user_id) DO UPDATE SET by_claim = FALSE`, group, user)
		return err
	})
}

// RemoveGroupUser takes a user out of a group; one who is there by a claim
// comes back at the next log-in. Errors: ErrNotFound of either, and where the
// user is not in the group.
func (db *DB) RemoveGroupUser(ctx context.Context, c Change, group, user string) error {
	return db.groupUser(ctx, c, group, user, func(t *tx, groupID, userID string) error {
		err := found(t.exec(`DELETE FROM group_members WHERE group_id = $1 AND user_id = $2`, groupID, userID))
		return of(err, "in group "+group+", user", user)
	})
}

func (db *DB) groupUser(ctx context.Context, c Change, group, user string, fn func(t *tx, group, user string) error) error {
	return db.manage(ctx, c, func(t *tx) error {
		groupID, err := groupID(t, group)
		if err != nil {
			return err
		}
		userID, err := userID(t, user)
		if err != nil {
			return err
		}
		return fn(t, groupID, userID)
	})
}

// GroupUser is a user as member of a group.
type GroupUser struct {
	ID, Name string
	ByClaim  bool // an identity provider said so
}

// GroupUsers lists the users of the group with this name, by id of the user.
// Errors: ErrNotFound.
func (db *DB) GroupUsers(ctx context.Context, group, after string, n int) ([]GroupUser, error) {
	g, err := db.Group(ctx, group)
	if err != nil {
		return nil, err
	}
	rows, err := db.query(ctx, `SELECT u.id, u.name, m.by_claim FROM group_members m JOIN users u ON u.id = m.user_id
		WHERE m.group_id = $1 AND m.user_id > $2 ORDER BY m.user_id LIMIT $3`, g.ID, after, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (u GroupUser, err error) { return u, r.Scan(&u.ID, &u.Name, &u.ByClaim) })
}

// groupID is the id of the group with this name. Errors: ErrNotFound.
func groupID(t *tx, name string) (id string, err error) {
	err = t.queryRow(`SELECT id FROM user_groups WHERE name = $1`, name).Scan(&id)
	return id, of(err, "group", name)
}
