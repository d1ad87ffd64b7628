package meta

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
)

// UserSpec is a user to be made.
type UserSpec struct {
	ID       string
	Name     string
	Password string // argon2id in PHC form; "": none
	Issuer   string // both or none: who the user is at an identity provider
	Subject  string
	Admin    bool
	Plan     string // name; "": the default
	// CreatedAt also is the time before which no token counts.
	CreatedAt time.Time
}

// User is somebody who can log in.
type User struct {
	ID              string
	Name            string
	HasPassword     bool
	Issuer, Subject string // "" for those whom no identity provider vouches for
	Admin           bool   // by themselves; groups may make them so too
	Locked          bool
	Plan            string // name of their own plan; "": the default
	ValidAfter      time.Time
	CreatedAt       time.Time
}

// CreateUser makes a user. The very first user of a database is an admin,
// whatever s says. Errors: ErrExists, ErrNotFound of the plan.
func (db *DB) CreateUser(ctx context.Context, c Change, s UserSpec) (u User, err error) {
	db.born(&s.ID, &s.CreatedAt)
	err = db.manage(ctx, c, func(t *tx) error {
		none, err := noUsers(t)
		if err != nil {
			return err
		}
		s := s
		s.Admin = s.Admin || none
		if err := db.insertUser(t, s); err != nil {
			return err
		}
		u, err = scanUser(t.queryRow(selectUser+`WHERE u.id = $1`, s.ID).Scan)
		return err
	})
	return u, err
}

// noUsers reports whether there is no user at all.
func noUsers(t *tx) (bool, error) {
	var id string
	err := t.queryRow(`SELECT id FROM users WHERE id > '' LIMIT 1`).Scan(&id)
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	return false, err
}

// insertUser inserts a user as s says; s has an ID and a CreatedAt.
func (db *DB) insertUser(t *tx, s UserSpec) error {
	plan, err := planOrNone(t, s.Plan)
	if err != nil {
		return err
	}
	_, err = t.exec(`INSERT INTO users (id, name, password, issuer, subject, admin, locked, plan_id, valid_after, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, FALSE, $7, 0, $8)`,
		s.ID, s.Name, s.Password, orNone(s.Issuer), orNone(s.Subject), s.Admin, plan, s.CreatedAt.UnixMilli())
	return of(err, "user", s.Name)
}

const selectUser = `SELECT u.id, u.name, u.password <> '', COALESCE(u.issuer, ''), COALESCE(u.subject, ''), u.admin, u.locked,
	COALESCE(p.name, ''), u.valid_after, u.created_at FROM users u LEFT JOIN plans p ON p.id = u.plan_id `

func scanUser(scan func(...any) error) (u User, err error) {
	var after, created int64
	err = scan(&u.ID, &u.Name, &u.HasPassword, &u.Issuer, &u.Subject, &u.Admin, &u.Locked, &u.Plan, &after, &created)
	u.ValidAfter, u.CreatedAt = time.UnixMilli(after), time.UnixMilli(created)
	return u, err
}

// User finds a user by name. Errors: ErrNotFound.
func (db *DB) User(ctx context.Context, name string) (User, error) {
	u, err := scanUser(db.queryRow(ctx, selectUser+`WHERE u.name = $1`, name).Scan)
	return u, of(err, "user", name)
}

// Users lists all users, by name.
func (db *DB) Users(ctx context.Context, after string, n int) ([]User, error) {
	rows, err := db.query(ctx, selectUser+`WHERE u.name > $1 ORDER BY u.name LIMIT $2`, after, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (User, error) { return scanUser(r.Scan) })
}

// UserChange says what becomes of a user; nil stays.
type UserChange struct {
	Password *string // argon2id in PHC form; "": none. It ends the user's sessions.
	Locked   *bool
	Admin    *bool
	Plan     *string // name; "": the default
}

// SetUser changes the user with this name. Errors: ErrNotFound, also of the
// plan; ErrLastAdmin.
func (db *DB) SetUser(ctx context.Context, c Change, name string, u UserChange) error {
	return db.manage(ctx, c, func(t *tx) error {
		id, err := userID(t, name)
		if err != nil {
			return err
		}
		if err := keepingAdmin(t, func() error {
			_, err := t.exec(`UPDATE users SET password = COALESCE($2, password), locked = COALESCE($3, locked),
				admin = COALESCE($4, admin) WHERE id = $1`, id, u.Password, u.Locked, u.Admin)
			return err
		}); err != nil {
			return err
		}
		if u.Password != nil {
			if err := db.endSessions(t, id); err != nil {
				return err
			}
		}
		return setPlan(t, "users", id, u.Plan)
	})
}

// DeleteUser deletes a user with all roles, memberships, keys and sessions.
// The audit trail stays. Errors: ErrNotFound, ErrLastAdmin.
func (db *DB) DeleteUser(ctx context.Context, c Change, name string) error {
	return db.manage(ctx, c, func(t *tx) error {
		id, err := userID(t, name)
		if err != nil {
			return err
		}
		if err := stayGuarded(t); err != nil {
			return err
		}
		return keepingAdmin(t, func() error {
			for _, query := range [...]string{
				`DELETE FROM grants WHERE user_id = $1`,
				`DELETE FROM group_members WHERE user_id = $1`,
				`DELETE FROM refresh_tokens WHERE user_id = $1`,
				`DELETE FROM refresh_tokens WHERE key_id IN (SELECT id FROM keys WHERE COALESCE(user_id, project_id) = $1)`,
				`DELETE FROM keys WHERE COALESCE(user_id, project_id) = $1`,
				`DELETE FROM users WHERE id = $1`,
			} {
				if _, err := t.exec(query, id); err != nil {
					return of(err, "user", name)
				}
			}
			return nil
		})
	})
}

// EndSessions makes every token that the user was given until now worthless.
// Keys stay good. Errors: ErrNotFound.
func (db *DB) EndSessions(ctx context.Context, c Change, name string) error {
	return db.manage(ctx, c, func(t *tx) error {
		id, err := userID(t, name)
		if err != nil {
			return err
		}
		return db.endSessions(t, id)
	})
}

func (db *DB) endSessions(t *tx, id string) error {
	if _, err := t.exec(`DELETE FROM refresh_tokens WHERE user_id = $1`, id); err != nil {
		return err
	}
	// It rises each time, whatever the clock says: who logs in meanwhile is known
	// by it.
	_, err := t.exec(`UPDATE users SET valid_after = CASE WHEN valid_after < $2 THEN $2 ELSE valid_after + 1 END WHERE id = $1`,
		id, db.millis())
	return err
}

// keepingAdmin runs a step that must not take away the last user who is an
// admin by themselves and not locked. Admins through groups do not count: what
// an identity provider says of them may change, and nobody could change it here.
func keepingAdmin(t *tx, step func() error) error {
	before, err := hasAdmin(t)
	if err != nil {
		return err
	}
	if err := step(); err != nil {
		return err
	}
	after, err := hasAdmin(t)
	if err == nil && before && !after {
		return ErrLastAdmin
	}
	return err
}

func hasAdmin(t *tx) (bool, error) {
	var id string
	err := t.queryRow(`SELECT id FROM users WHERE admin AND NOT locked AND id > '' LIMIT 1`).Scan(&id)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// userID is the id of the user with this name. Errors: ErrNotFound.
func userID(t *tx, name string) (id string, err error) {
	err = t.queryRow(`SELECT id FROM users WHERE name = $1`, name).Scan(&id)
	return id, of(err, "user", name)
}

// adminName is the user whom AdminReset and FirstAdmin are about.
const adminName = "admin"

// AdminReset gives the user "admin", who is made, unlocked and made an admin as
// needed, the key k, for which hash is kept. A live key of that user with the
// same name is revoked; others stay. It asks for no right: it is for those who
// have the data folder.
func (db *DB) AdminReset(ctx context.Context, k access.Key, hash string) error {
	return db.change(ctx, func(t *tx) error { return db.resetAdmin(t, k, hash) })
}

// FirstAdmin is AdminReset where there is no user yet; done is false where
// there is one.
func (db *DB) FirstAdmin(ctx context.Context, k access.Key, hash string) (done bool, err error) {
	err = db.change(ctx, func(t *tx) error {
		if done, err = noUsers(t); err != nil || !done {
			return err
		}
		return db.resetAdmin(t, k, hash)
	})
	return done && err == nil, err
}

func (db *DB) resetAdmin(t *tx, k access.Key, hash string) (err error) {
	if k.UserID, err = db.makeAdmin(t); err != nil {
		return err
	}
	db.born(&k.ID, &k.CreatedAt)
	if old, err := keyID(t, k.UserID, k.Name); err == nil {
		if err := db.revoke(t, old); err != nil {
			return err
		}
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	if err := insertKey(t, k, hash); err != nil {
		return err
	}
	if err := t.raise(); err != nil {
		return err
	}
	return db.insertAudit(t, audit.Event{Action: "admin.reset", Identity: access.Local.String(), Reference: adminName + "/" + k.Name, Status: 200})
}

// makeAdmin makes the user "admin" one that can log in and may do everything.
func (db *DB) makeAdmin(t *tx) (string, error) {
	id, err := userID(t, adminName)
	if errors.Is(err, ErrNotFound) {
		id = newID()
		return id, db.insertUser(t, UserSpec{ID: id, Name: adminName, Admin: true, CreatedAt: db.now()})
	}
	if err != nil {
		return "", err
	}
	_, err = t.exec(`UPDATE users SET admin = TRUE, locked = FALSE WHERE id = $1`, id)
	return id, err
}
