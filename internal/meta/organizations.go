package meta

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/berth-registry/berth/internal/access"
)

// What people manage. Each write is one transaction with its audit row; those
// that create take an ID and a CreatedAt of the caller's choice, so that an
// answer can be made before, and choose where these are zero. Names were
// checked by the caller. Lists are paged: up to n entries behind the one that
// after names, in the order of names or, where the doc says so, of ids.
// Besides the errors they name, writes fail with *RepeatedError and
// ErrKeyReused, see Change. An error of something that is named reads as
// `user "bob" not found`.

// Organization holds projects.
type Organization struct {
	ID        string
	Name      string
	Plan      string // name of its plan; "": the default
	CreatedAt time.Time
}

// defaultOrganization is the id of the one that is always there.
const defaultOrganization = "default"

// CreateOrganization makes an organization. Errors: ErrExists, ErrNotFound of
// its plan.
func (db *DB) CreateOrganization(ctx context.Context, c Change, o Organization) (Organization, error) {
	db.born(&o.ID, &o.CreatedAt)
	return o, db.manage(ctx, c, func(t *tx) error {
		plan, err := planOrNone(t, o.Plan)
		if err != nil {
			return err
		}
		_, err = t.exec(`INSERT INTO organizations (id, name, plan_id, created_at) VALUES ($1, $2, $3, $4)`,
			o.ID, o.Name, plan, o.CreatedAt.UnixMilli())
		return of(err, "organization", o.Name)
	})
}

const selectOrganization = `SELECT o.id, o.name, COALESCE(p.name, ''), o.created_at
	FROM organizations o LEFT JOIN plans p ON p.id = o.plan_id `

func scanOrganization(scan func(...any) error) (o Organization, err error) {
	var created int64
	err = scan(&o.ID, &o.Name, &o.Plan, &created)
	o.CreatedAt = time.UnixMilli(created)
	return o, err
}

// Organization finds an organization by name. Errors: ErrNotFound.
func (db *DB) Organization(ctx context.Context, name string) (Organization, error) {
	o, err := scanOrganization(db.queryRow(ctx, selectOrganization+`WHERE o.name = $1`, name).Scan)
	return o, of(err, "organization", name)
}

// Organizations lists the organizations that a view shows, by name: all, or
// those that grants name.
func (db *DB) Organizations(ctx context.Context, v View, after string, n int) ([]Organization, error) {
	if v.Everything {
		rows, err := db.query(ctx, selectOrganization+`WHERE o.name > $1 ORDER BY o.name LIMIT $2`, after, n)
		if err != nil {
			return nil, err
		}
		return collect(rows, func(r *sql.Rows) (Organization, error) { return scanOrganization(r.Scan) })
	}
	var list []Organization
	for _, id := range v.organizations() {
		o, err := scanOrganization(db.queryRow(ctx, selectOrganization+`WHERE o.id = $1`, id).Scan)
		switch {
		case errors.Is(err, ErrNotFound): // since the grants were read
		case err != nil:
			return nil, err
		case o.Name > after:
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b Organization) int { return cmp.Compare(a.Name, b.Name) })
	return list[:min(n, len(list))], nil
}

// OrganizationChange says what becomes of an organization; nil stays.
type OrganizationChange struct {
	Name *string
	Plan *string // a plan's name; "": the default
}

// SetOrganization changes the organization with this id. Errors: ErrNotFound,
// also of the plan; ErrExists.
func (db *DB) SetOrganization(ctx context.Context, c Change, id string, o OrganizationChange) error {
	return db.manage(ctx, c, func(t *tx) error {
		if err := found(t.exec(`UPDATE organizations SET name = COALESCE($2, name) WHERE id = $1`, id, o.Name)); err != nil {
			if o.Name != nil && errors.Is(err, ErrExists) {
				return of(err, "organization", *o.Name)
			}
			return of(err, "organization", id)
		}
		return setPlan(t, "organizations", id, o.Plan)
	})
}

// DeleteOrganization deletes the organization with this id. Errors:
// ErrNotFound; ErrInUse while it has projects, also deleted ones, or members,
// and of the default one.
func (db *DB) DeleteOrganization(ctx context.Context, c Change, id string) error {
	return db.manage(ctx, c, func(t *tx) error {
		if id == defaultOrganization {
			return fmt.Errorf("the default organization %w: it cannot be deleted", ErrInUse)
		}
		err := found(t.exec(`DELETE FROM organizations WHERE id = $1`, id))
		if errors.Is(err, ErrInUse) {
			return fmt.Errorf("the organization %w: move or purge its projects and remove its members first", ErrInUse)
		}
		return of(err, "organization", id)
	})
}

// View is what somebody may see in lists.
type View struct {
	Everything bool           // an admin's
	SignedIn   bool           // internal projects too, not just public ones
	Grants     []access.Grant // whatever they name, as long as they are few thousand
}

// organizations that the grants name, each once.
func (v *View) organizations() []string {
	return v.granted(func(g *access.Grant) string { return g.OrganizationID })
}

// projects that the grants name, each once.
func (v *View) projects() []string {
	return v.granted(func(g *access.Grant) string { return g.ProjectID })
}

func (v *View) granted(id func(*access.Grant) string) []string {
	var ids []string
	for i := range v.Grants {
		if s := id(&v.Grants[i]); s != "" {
			ids = append(ids, s)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// NewID makes an id for something that is to be created.
func NewID() string { return newID() }

// born gives what is created an id and a time where it has none. Times are of
// the database's precision.
func (db *DB) born(id *string, at *time.Time) {
	if *id == "" {
		*id = newID()
	}
	if at.IsZero() {
		*at = db.now()
	}
	*at = at.Truncate(time.Millisecond)
}

// of says of what an error of this package is, in place of the engine's words.
func of(err error, kind, name string) error {
	for _, known := range []error{ErrNotFound, ErrExists, ErrInUse} {
		if errors.Is(err, known) {
			return fmt.Errorf("%s %.80q %w", kind, name, known)
		}
	}
	return err
}

// planOrNone is the id of the plan with this name, nil for "". Errors:
// ErrNotFound.
func planOrNone(t *tx, name string) (*string, error) {
	if name == "" {
		return nil, nil
	}
	id, err := planID(t, name)
	return &id, err
}

// setPlan assigns the plan with a name to a row of table; nil: it stays.
func setPlan(t *tx, table, id string, name *string) error {
	if name == nil {
		return nil
	}
	plan, err := planOrNone(t, *name)
	if err != nil {
		return err
	}
	return found(t.exec(`UPDATE `+table+` SET plan_id = $2 WHERE id = $1`, id, plan))
}
