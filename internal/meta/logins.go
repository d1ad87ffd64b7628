package meta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
)

// maxLogins bounds the log-ins that are under way: anybody may begin one.
const maxLogins = 10_000

// Errors of log-ins, for errors.Is.
var (
	ErrManyLogins = errors.New("too many log-ins are under way")
	ErrLocked     = errors.New("user is locked")
)

// SaveLogin keeps a document until it is taken or expires. It need not survive
// a power cut: its owner begins again. Errors: ErrManyLogins, ErrExists.
func (db *DB) SaveLogin(ctx context.Context, id, document string, expires time.Time) error {
	return db.hint(ctx, func(t *tx) error {
		_, err := t.exec(`DELETE FROM logins WHERE id IN (SELECT id FROM logins WHERE expires_at <= $1 LIMIT 100)`, db.millis())
		if err != nil {
			return err
		}
		var n int
		if err := t.queryRow(`SELECT COUNT(*) FROM logins`).Scan(&n); err != nil {
			return err
		}
		if n >= maxLogins {
			return ErrManyLogins
		}
		_, err = t.exec(`INSERT INTO logins (id, document, expires_at) VALUES ($1, $2, $3)`, id, document, expires.UnixMilli())
		return err
	})
}

// TakeLogin hands a document out, once. Errors: ErrNotFound, also where it was
// taken before or has expired.
func (db *DB) TakeLogin(ctx context.Context, id string) (document string, err error) {
	err = db.update(ctx, func(t *tx) error {
		return t.queryRow(`DELETE FROM logins WHERE id = $1 AND expires_at > $2 RETURNING document`, id, db.millis()).Scan(&document)
	})
	return document, err
}

// ProvidedUser is a person as an identity provider describes them.
type ProvidedUser struct {
	Issuer, Subject string // who it is, for ever
	// Name is the one to have; where another user has it, a number follows.
	Name   string
	Groups []string // names, by the provider's own
}

// LogInUser finds or makes the user whom an identity provider vouches for, with
// the memberships that the provider says, and records the log-in. Whoever has
// the name already keeps it. Errors: ErrLocked, which is recorded too.
func (db *DB) LogInUser(ctx context.Context, p ProvidedUser) (u access.Subject, err error) {
	err = db.change(ctx, func(t *tx) error {
		u, err = db.provided(t, p)
		if err != nil {
			return err
		}
		if !u.Locked {
			if err := db.claimGroups(t, u.ID, p.Groups); err != nil {
				return err
			}
		}
		return db.record(t, ctx, func(e *audit.Event) {
			e.Action, e.Identity, e.Status = "login", access.User.String()+":"+u.Name, 200
			if u.Locked {
				e.Status, e.Reason = 403, "the user is locked"
			}
		})
	})
	if err == nil && u.Locked {
		err = ErrLocked
	}
	return u, err
}

// provided finds or makes the user.
func (db *DB) provided(t *tx, p ProvidedUser) (access.Subject, error) {
	u := access.Subject{Kind: access.User}
	err := t.queryRow(`SELECT id, name, locked FROM users WHERE issuer = $1 AND subject = $2`, p.Issuer, p.Subject).
		Scan(&u.ID, &u.Name, &u.Locked)
	if !errors.Is(err, ErrNotFound) {
		return u, err
	}
	u.ID = newID()
	if u.Name, err = freeName(p.Name, func(name string) error {
		var one int
		return t.queryRow(`SELECT 1 FROM users WHERE name = $1`, name).Scan(&one)
	}); err != nil {
		return u, err
	}
	if err := db.insertUser(t, UserSpec{ID: u.ID, Name: u.Name, Issuer: p.Issuer, Subject: p.Subject, CreatedAt: db.now()}); err != nil {
		return u, err
	}
	return u, t.raise()
}

// maxTried bounds the names that freeName looks at.
const maxTried = 1000

// freeName is a name that taken does not find: want, or want with a number.
// taken fails with ErrNotFound for a free one.
func freeName(want string, taken func(string) error) (string, error) {
	for n := 1; n <= maxTried; n++ {
		name := want
		if n > 1 {
			suffix := fmt.Sprintf("-%d", n)
			name = strings.TrimRight(want[:min(len(want), access.MaxName-len(suffix))], "._-") + suffix
		}
		switch err := taken(name); {
		case errors.Is(err, ErrNotFound):
			return name, nil
		case err != nil:
			return "", err
		}
	}
	return "", fmt.Errorf("%.80q and %d names like it are taken: %w", want, maxTried, ErrExists)
}

// claimGroups makes a user's memberships by claim those of groups, of which
// some may be unknown here. Memberships that people gave stay. A group of admins
// must name its claim: at some providers everybody can make groups.
func (db *DB) claimGroups(t *tx, user string, groups []string) error {
	wanted := map[string]bool{}
	for _, g := range groups {
		var id string
		err := t.queryRow(`SELECT id FROM user_groups WHERE claim = $1 UNION ALL
			SELECT id FROM user_groups WHERE name = $1 AND claim IS NULL AND NOT admin LIMIT 1`, g).Scan(&id)
		if err == nil {
			wanted[id] = true
		} else if !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	held, err := t.strings(`SELECT group_id FROM group_members WHERE user_id = $1 AND by_claim`, user)
	if err != nil {
		return err
	}
	changed := int64(0)
	for _, id := range held {
		if wanted[id] {
			continue
		}
		n, err := t.exec(`DELETE FROM group_members WHERE group_id = $1 AND user_id = $2`, id, user)
		if err != nil {
			return err
		}
		changed += n
	}
	for id := range wanted {
		n, err := t.exec(`INSERT INTO group_members (group_id, user_id, by_claim) VALUES ($1, $2, TRUE)
			ON CONFLICT (group_id, user_id) DO NOTHING`, id, user)
		if err != nil {
			return err
		}
		changed += n
	}
	if changed == 0 {
		return nil
	}
	return t.raise()
}

// CreateLoginKey gives a user a key after a log-in: k with its name made
// unique among theirs. hash is the hex SHA-256 of the secret. Errors:
// ErrNotFound, ErrLocked.
func (db *DB) CreateLoginKey(ctx context.Context, k access.Key, hash string) (user string, err error) {
	err = db.change(ctx, func(t *tx) error {
		k := k
		var locked bool
		if err := t.queryRow(`SELECT name, locked FROM users WHERE id = $1`, k.UserID).Scan(&user, &locked); err != nil {
			return err
		}
		if locked {
			return ErrLocked
		}
		name, err := freeName(k.Name, func(name string) error {
			var one int
			return t.queryRow(`SELECT 1 FROM keys WHERE COALESCE(user_id, project_id) = $1 AND name = $2 AND revoked_at IS NULL`,
				k.UserID, name).Scan(&one)
		})
		if err != nil {
			return err
		}
		k.ID, k.Name, k.CreatedBy, k.CreatedAt = newID(), name, user, db.now()
		if err := insertKey(t, k, hash); err != nil {
			return err
		}
		if err := db.record(t, ctx, func(e *audit.Event) {
			e.Action, e.Identity, e.Key, e.Reference, e.Status = "key.create", access.User.String()+":"+user, k.ID, name, 200
		}); err != nil {
			return err
		}
		return t.raise()
	})
	return user, err
}
