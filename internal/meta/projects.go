package meta

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/berth-registry/berth/internal/access"
)

// ProjectSpec is a project to be made.
type ProjectSpec struct {
	ID             string
	Name           string
	OrganizationID string // "": the default organization
	Visibility     access.Visibility
	Newcomers      access.Newcomers // open and claim make a project that nobody has claimed
	Plan           string           // name; "": that of the organization
	Owner          string           // id of the user who becomes its owner; "": nobody
	CreatedAt      time.Time
}

// Project is a project with what it uses.
type Project struct {
	ID             string
	Name           string
	OrganizationID string
	Organization   string // its name
	Visibility     access.Visibility
	Newcomers      access.Newcomers
	Claimed        bool
	Plan           string // name of its own plan; "": that of the organization
	CreatedAt      time.Time
	NamedAt        time.Time // since when the name is its own
	DeletedAt      time.Time // zero: not deleted

	Storage, Repositories       int64 // used: bytes, each blob once; count
	MaxStorage, MaxRepositories int64 // of the plan that counts; 0: no limit
}

// CreateProject makes a project. Errors: ErrExists, also of a project that a
// push made (see SetProject to claim it); *access.DeletedError; ErrNotFound of
// the organization, plan or owner.
func (db *DB) CreateProject(ctx context.Context, c Change, s ProjectSpec) (p Project, err error) {
	db.born(&s.ID, &s.CreatedAt)
	s.OrganizationID = cmp.Or(s.OrganizationID, defaultOrganization)
	err = db.manage(ctx, c, func(t *tx) error {
		if err := nameFree(t, s.Name); err != nil {
			return err
		}
		if err := db.insertProject(t, s); err != nil {
			return err
		}
		if s.Owner != "" {
			if err := db.insertOwner(t, s); err != nil {
				return err
			}
		}
		p, err = scanProjectRow(t.queryRow(selectProjectRow+`WHERE p.id = $1`, s.ID).Scan)
		return err
	})
	return p, err
}

// nameFree fails when a project has the name.
func nameFree(t *tx, name string) error {
	var deleted bool
	err := t.queryRow(`SELECT deleted_at IS NOT NULL FROM projects WHERE name = $1`, name).Scan(&deleted)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err == nil && deleted:
		return &access.DeletedError{Project: name}
	case err == nil:
		return of(ErrExists, "project", name)
	}
	return err
}

func (db *DB) insertProject(t *tx, s ProjectSpec) error {
	if err := present(t, "organization", `SELECT id FROM organizations WHERE id = $1`, s.OrganizationID); err != nil {
		return err
	}
	plan, err := planOrNone(t, s.Plan)
	if err != nil {
		return err
	}
	claimed := s.Newcomers != access.Open && s.Newcomers != access.Claim
	if _, err = t.exec(`INSERT INTO projects
		(id, name, organization_id, visibility, newcomers, claimed, plan_id, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		s.ID, s.Name, s.OrganizationID, s.Visibility, s.Newcomers, claimed, plan, s.CreatedAt.UnixMilli()); err != nil {
		return of(err, "project", s.Name)
	}
	_, err = t.exec(`INSERT INTO project_usage (project_id, storage, repositories) VALUES ($1, 0, 0)`, s.ID)
	return err
}

func (db *DB) insertOwner(t *tx, s ProjectSpec) error {
	if err := present(t, "user", `SELECT id FROM users WHERE id = $1`, s.Owner); err != nil {
		return err
	}
	_, err := t.exec(`INSERT INTO grants (id, user_id, project_id, prefix, role, created_at) VALUES ($1, $2, $3, '', $4, $5)`,
		newID(), s.Owner, s.ID, access.Owner.String(), db.millis())
	return err
}

// present fails with ErrNotFound unless query finds an id.
func present(t *tx, kind, query, id string) error {
	return of(t.queryRow(query, id).Scan(&id), kind, id)
}

const selectProjectRow = `SELECT p.id, p.name, o.id, o.name, p.visibility, p.newcomers, p.claimed, COALESCE(own.name, ''),
	p.created_at, COALESCE(p.named_at, p.created_at), p.deleted_at, COALESCE(u.storage, 0), COALESCE(u.repositories, 0), plan.storage, plan.repositories
	FROM projects p
	JOIN organizations o ON o.id = p.organization_id
	JOIN plans plan ON plan.id = COALESCE(p.plan_id, o.plan_id, 'default')
	LEFT JOIN plans own ON own.id = p.plan_id
	LEFT JOIN project_usage u ON u.project_id = p.id `

func scanProjectRow(scan func(...any) error) (p Project, err error) {
	var created, named int64
	var deleted sql.NullInt64
	err = scan(&p.ID, &p.Name, &p.OrganizationID, &p.Organization, &p.Visibility, &p.Newcomers, &p.Claimed, &p.Plan,
		&created, &named, &deleted, &p.Storage, &p.Repositories, &p.MaxStorage, &p.MaxRepositories)
	p.CreatedAt, p.NamedAt, p.DeletedAt = time.UnixMilli(created), time.UnixMilli(named), instant(deleted)
	return p, err
}

// Project finds a project by name, also a deleted one. Errors: ErrNotFound.
func (db *DB) Project(ctx context.Context, name string) (Project, error) {
	p, err := scanProjectRow(db.queryRow(ctx, selectProjectRow+`WHERE p.name = $1`, name).Scan)
	return p, of(err, "project", name)
}

// ProjectFilter narrows a list of projects.
type ProjectFilter struct {
	OrganizationID string // "": of all
	// Deleted lists those that are deleted and can be had back, instead of the
	// others. Only grants and View.Everything show them.
	Deleted bool
}

// Projects lists the projects that a view shows, by name. What others have
// costs nothing: each way to see projects is a walk of its own that is already
// in order.
func (db *DB) Projects(ctx context.Context, v View, f ProjectFilter, after string, n int) ([]Project, error) {
	if v.Everything && f.OrganizationID == "" {
		return db.listProjects(ctx, `WHERE p.name > $1 AND (p.deleted_at IS NOT NULL) = $2 AND COALESCE(p.deleted_at, 1) > 0 ORDER BY p.name LIMIT $3`, after, f.Deleted, n)
	}
	if f.OrganizationID != "" {
		return db.projectsIn(ctx, v, f, after, n)
	}
	var list []Project
	for _, visibility := range v.visibilities(f.Deleted) {
		some, err := db.listProjects(ctx, `WHERE p.visibility = $1 AND p.name > $2 AND p.deleted_at IS NULL ORDER BY p.name LIMIT $3`, visibility, after, n)
		if err != nil {
			return nil, err
		}
		list = append(list, some...)
	}
	for _, organization := range v.organizations() {
		some, err := db.organizationProjects(ctx, organization, f.Deleted, after, n)
		if err != nil {
			return nil, err
		}
		list = append(list, some...)
	}
	for _, id := range v.projects() {
		some, err := db.listProjects(ctx, `WHERE p.id = $1 AND p.name > $2 AND (p.deleted_at IS NOT NULL) = $3 AND COALESCE(p.deleted_at, 1) > 0`, id, after, f.Deleted)
		if err != nil {
			return nil, err
		}
		list = append(list, some...)
	}
	slices.SortFunc(list, func(a, b Project) int { return cmp.Compare(a.Name, b.Name) })
	list = slices.CompactFunc(list, func(a, b Project) bool { return a.ID == b.ID })
	return list[:min(n, len(list))], nil
}

// visibilities of projects that are seen without a grant.
func (v *View) visibilities(deleted bool) []access.Visibility {
	switch {
	case deleted:
		return nil
	case v.SignedIn:
		return []access.Visibility{access.Public, access.Internal}
	}
	return []access.Visibility{access.Public}
}

// projectsIn lists what a view shows of one organization: it walks that one.
func (db *DB) projectsIn(ctx context.Context, v View, f ProjectFilter, after string, n int) ([]Project, error) {
	all := v.Everything || slices.Contains(v.organizations(), f.OrganizationID)
	granted, visible := v.projects(), v.visibilities(f.Deleted)
	var list []Project
	for {
		page, err := db.organizationProjects(ctx, f.OrganizationID, f.Deleted, after, n)
		if err != nil {
			return nil, err
		}
		for _, p := range page {
			_, named := slices.BinarySearch(granted, p.ID)
			if all || named || slices.Contains(visible, p.Visibility) {
				list = append(list, p)
			}
		}
		if len(list) >= n || len(page) < n {
			return list[:min(n, len(list))], nil
		}
		after = page[n-1].Name
	}
}

func (db *DB) organizationProjects(ctx context.Context, id string, deleted bool, after string, n int) ([]Project, error) {
	return db.listProjects(ctx, `WHERE p.organization_id = $1 AND p.name > $2 AND (p.deleted_at IS NOT NULL) = $3 AND COALESCE(p.deleted_at, 1) > 0 ORDER BY p.name LIMIT $4`,
		id, after, deleted, n)
}

func (db *DB) listProjects(ctx context.Context, where string, args ...any) ([]Project, error) {
	rows, err := db.query(ctx, selectProjectRow+where, args...)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (Project, error) { return scanProjectRow(r.Scan) })
}

// ProjectChange says what becomes of a project; nil stays.
type ProjectChange struct {
	Visibility     *access.Visibility
	Newcomers      *access.Newcomers // "": as the server is configured
	OrganizationID *string
	Plan           *string // a plan's name; "": that of the organization
	// Claimed takes the project out of the hands of newcomers, or gives it back
	// to them. Where it is nil, a Visibility or closed Newcomers claim too.
	Claimed *bool
}

// claimed is what becomes of the column; nil: it stays.
func (p *ProjectChange) claimed() *bool {
	closed := p.Newcomers != nil && *p.Newcomers == access.Closed
	open := p.Newcomers != nil && (*p.Newcomers == access.Open || *p.Newcomers == access.Claim)
	if p.Claimed == nil && (closed || p.Visibility != nil && !open) {
		return new(true)
	}
	return p.Claimed
}

// SetProject changes the project with this id. Errors: ErrNotFound, also of
// the organization or plan and of a deleted project.
func (db *DB) SetProject(ctx context.Context, c Change, id string, p ProjectChange) error {
	return db.manage(ctx, c, func(t *tx) error {
		if p.OrganizationID != nil {
			if err := present(t, "organization", `SELECT id FROM organizations WHERE id = $1`, *p.OrganizationID); err != nil {
				return err
			}
		}
		err := found(t.exec(`UPDATE projects SET visibility = COALESCE($2, visibility), newcomers = COALESCE($3, newcomers),
			organization_id = COALESCE($4, organization_id), claimed = COALESCE($5, claimed)
			WHERE id = $1 AND deleted_at IS NULL`, id, p.Visibility, p.Newcomers, p.OrganizationID, p.claimed()))
		if err != nil {
			return of(err, "project", id)
		}
		return setPlan(t, "projects", id, p.Plan)
	})
}
