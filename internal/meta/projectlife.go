package meta

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/oci"
)

// Counts of what a project has.
type Counts struct{ Repositories, Tags, Manifests, Bytes int64 }

// CountProject counts what a project has, also a deleted one; it walks its
// repositories. Errors: ErrNotFound.
func (db *DB) CountProject(ctx context.Context, id string) (Counts, error) {
	c, err := db.queryRow(ctx, countProject, id).scanCounts()
	return c, of(err, "project", id)
}

const countProject = `SELECT
	(SELECT count(*) FROM repositories r WHERE r.project_id = $1),
	(SELECT count(*) FROM repositories r JOIN tags t ON t.repository_id = r.id WHERE r.project_id = $1),
	(SELECT count(*) FROM repositories r JOIN manifests m ON m.repository_id = r.id WHERE r.project_id = $1),
	COALESCE(u.storage, 0)
	FROM projects p LEFT JOIN project_usage u ON u.project_id = p.id WHERE p.id = $1`

func (r row) scanCounts() (c Counts, err error) {
	err = r.Scan(&c.Repositories, &c.Tags, &c.Manifests, &c.Bytes)
	return c, err
}

// RenameProject gives a project another name, and with it all its repositories,
// its open upload sessions, and what grants, keys and trust rules say of them.
// Errors: ErrNotFound, also of a deleted project; ErrExists, also where a
// deleted project holds the name; oci.ErrRepository of a name that is none or
// makes that of a repository too long.
func (db *DB) RenameProject(ctx context.Context, c Change, id, name string) error {
	if err := oci.CheckRepository(name); err != nil {
		return err
	}
	if strings.Contains(name, "/") {
		return fmt.Errorf("%w: %q has more than one segment", oci.ErrRepository, name)
	}
	return db.manage(ctx, c, func(t *tx) error {
		var old string
		err := t.queryRow(`SELECT name FROM projects WHERE id = $1 AND deleted_at IS NULL`, id).Scan(&old)
		if err != nil || old == name {
			return of(err, "project", id)
		}
		if err := nameFree(t, name); err != nil {
			return err
		}
		if err := namesFit(t, id, len(name)-len(old)); err != nil {
			return err
		}
		if _, err := t.exec(`UPDATE projects SET name = $2, named_at = $3 WHERE id = $1`, id, name, db.millis()); err != nil {
			return of(err, "project", name)
		}
		if err := moveRepositories(t, id, old, name); err != nil {
			return err
		}
		// Policies of collection go by names.
		if _, err := t.exec(`DELETE FROM collection WHERE name = 'policy'`); err != nil {
			return err
		}
		return movePrefixes(t, id, old, name)
	})
}

// namesFit checks that repositories' names may grow by so many bytes.
func namesFit(t *tx, project string, by int) error {
	var longest int
	err := t.queryRow(`SELECT COALESCE(max(length(name)), 0) FROM repositories WHERE project_id = $1`, project).Scan(&longest)
	if err == nil && longest+by > oci.MaxRepository {
		err = fmt.Errorf("%w: a repository's name would have %d bytes; at most %d are allowed", oci.ErrRepository, longest+by, oci.MaxRepository)
	}
	return err
}

// moveRepositories renames a project's repositories and upload sessions.
func moveRepositories(t *tx, id, from, to string) error {
	rest := len(from) + 1 // where in a name begins what stays
	if _, err := t.exec(`UPDATE repositories SET name = $1 || substr(name, $2) WHERE project_id = $3`, to, rest, id); err != nil {
		return err
	}
	_, err := t.exec(`UPDATE uploads SET repository = $1 || substr(repository, $2)
		WHERE repository = $3 OR substr(repository, 1, $2) = $3 || '/'`, to, rest, from)
	return err
}

// movePrefixes renames what grants, keys and trust rules are limited to. Users'
// keys may name repositories of any project, so that all keys are looked at.
func movePrefixes(t *tx, id, from, to string) error {
	if _, err := t.exec(`UPDATE grants SET prefix = $1 || substr(prefix, $2)
		WHERE COALESCE(project_id, organization_id) = $3 AND (prefix = $4 OR substr(prefix, 1, $2) = $4 || '/')`,
		to, len(from)+1, id, from); err != nil {
		return err
	}
	named := `%"` + from + `%` // what matches besides is left by movePrefixList
	if err := movePrefixLists(t, from, to, `UPDATE keys SET prefixes = $2 WHERE id = $1`,
		`SELECT id, prefixes FROM keys WHERE prefixes LIKE $1`, named); err != nil {
		return err
	}
	return movePrefixLists(t, from, to, `UPDATE trust_rules SET prefixes = $2 WHERE id = $1`,
		`SELECT id, prefixes FROM trust_rules WHERE project_id = $1`, id)
}

type prefixList struct{ id, prefixes string }

func movePrefixLists(t *tx, from, to, update, query, arg string) error {
	rows, err := t.query(query, arg)
	if err != nil {
		return err
	}
	lists, err := collect(rows, func(r *sql.Rows) (l prefixList, err error) { return l, r.Scan(&l.id, &l.prefixes) })
	if err != nil {
		return err
	}
	for _, l := range lists {
		moved, err := movePrefixList(l.prefixes, from, to)
		if err != nil {
			return err
		}
		if moved == "" {
			continue
		}
		if _, err := t.exec(update, l.id, moved); err != nil {
			return err
		}
	}
	return nil
}

// movePrefixList renames in a JSON list; "" where nothing is to be renamed.
func movePrefixList(text, from, to string) (string, error) {
	var list []string
	if err := fromJSON(text, &list); err != nil {
		return "", err
	}
	moved := false
	for i, prefix := range list {
		if access.Under(from, prefix) {
			list[i], moved = to+prefix[len(from):], true
		}
	}
	if !moved {
		return "", nil
	}
	result, err := json.Marshal(list)
	return string(result), err
}

// DeleteProject hides a project with all that it has, at once, until it is
// restored or purged, and counts that. Its name stays taken.
// Errors: ErrNotFound, also of a deleted project.
func (db *DB) DeleteProject(ctx context.Context, c Change, id string) (n Counts, err error) {
	err = db.manage(ctx, c, func(t *tx) error {
		var name string
		err := t.queryRow(`UPDATE projects SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL RETURNING name`, id, db.millis()).Scan(&name)
		if err != nil {
			return of(err, "project", id)
		}
		return moveRepositories(t, id, name, hidden+name)
	})
	if err != nil {
		return n, err
	}
	// Nothing is added to what is hidden, and others need not wait for the count.
	return db.CountProject(ctx, id)
}

// RestoreProject undoes DeleteProject. Errors: ErrNotFound, also of a project
// that is not deleted, or whose purge has begun.
func (db *DB) RestoreProject(ctx context.Context, c Change, id string) error {
	return db.manage(ctx, c, func(t *tx) error {
		var name string
		err := t.queryRow(`UPDATE projects SET deleted_at = NULL WHERE id = $1 AND deleted_at > 0 RETURNING name`, id).Scan(&name)
		if err != nil {
			return of(err, "project", id)
		}
		return moveRepositories(t, id, hidden+name, name)
	})
}

// PurgeProjects removes projects that were deleted before the given time, with
// all that they have and no way back, about n rows at a time. It returns how
// many projects are gone and how many rows; fewer than n when nothing is left
// to do. A project whose purge has begun has a deleted_at of 0.
func (db *DB) PurgeProjects(ctx context.Context, before time.Time, n int) (purged, rows int, err error) {
	list, err := db.query(ctx, `SELECT id FROM projects WHERE deleted_at < $1 ORDER BY deleted_at LIMIT $2`, before.UnixMilli(), n)
	if err != nil {
		return 0, 0, err
	}
	due, err := collect(list, scanString)
	if err != nil {
		return 0, 0, err
	}
	var first error // what fails for one project does not stop the others
	for _, id := range due {
		if rows >= n {
			break
		}
		p, err := db.purgeSome(ctx, id, before, n-rows)
		switch {
		case err == nil:
			rows = n - p.room
		case ctx.Err() != nil || hopeless(err):
			return purged, rows, errors.Join(first, err)
		case first == nil:
			first = fmt.Errorf("purge project %s: %w", id, err)
		}
		if err == nil && p.done {
			purged++
		}
	}
	return purged, rows, first
}

// purgeSome removes up to so many rows of a project.
func (db *DB) purgeSome(ctx context.Context, id string, before time.Time, room int) (p purge, err error) {
	err = db.change(ctx, func(t *tx) error {
		p = purge{db: db, t: t, room: room}
		err := t.queryRow(`SELECT id, name FROM projects WHERE id = $1 AND deleted_at < $2`, id, before.UnixMilli()).Scan(&p.project, &p.name)
		if errors.Is(err, ErrNotFound) {
			return nil // restored, or purged by another
		}
		if err == nil {
			err = p.run()
		}
		if err != nil || !p.done {
			return err
		}
		// Until now the project was deleted to whoever asked; from now on its
		// name is free.
		return t.raise()
	})
	return p, err
}

// DeletedProject is a project that can be restored, or whose purge has begun.
type DeletedProject struct {
	ID, Name  string
	DeletedAt int64 // in ms; 0: its purge has begun
	Bytes     int64
}

// DeletedProjects lists up to n deleted projects behind the one given, in the
// order in which they are purged.
func (db *DB) DeletedProjects(ctx context.Context, after DeletedProject, n int) ([]DeletedProject, error) {
	rows, err := db.query(ctx, `SELECT p.id, p.name, p.deleted_at, COALESCE(u.storage, 0)
		FROM projects p LEFT JOIN project_usage u ON u.project_id = p.id
		WHERE p.deleted_at IS NOT NULL AND (p.deleted_at, p.id) > ($1, $2) ORDER BY p.deleted_at, p.id LIMIT $3`,
		after.DeletedAt, after.ID, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (p DeletedProject, err error) {
		return p, r.Scan(&p.ID, &p.Name, &p.DeletedAt, &p.Bytes)
	})
}

// purge removes one project row by row, in the order of the foreign keys, until
// its room is used up; the next one goes on where it stopped.
type purge struct {
	db            *DB
	t             *tx
	project, name string
	room          int // rows that may still be removed
	done          bool
}

func (p *purge) run() error {
	if _, err := p.t.exec(`UPDATE projects SET deleted_at = 0 WHERE id = $1`, p.project); err != nil {
		return err
	}
	for _, step := range [...]func() error{p.repositories, p.uploads, p.access, p.itself} {
		if err := step(); err != nil || p.room <= 0 {
			return err
		}
	}
	return nil
}

// each runs deletions one after the other while there is room. Their $1 is id,
// their $2 how many rows may go.
func (p *purge) each(id string, queries ...string) error {
	for _, query := range queries {
		if p.room <= 0 {
			return nil
		}
		n, err := p.t.exec(query, id, p.room)
		if err != nil {
			return err
		}
		p.room -= int(n)
	}
	return nil
}

func (p *purge) repositories() error {
	for p.room > 0 {
		r := place{project: p.project}
		err := p.t.queryRow(`SELECT id FROM repositories WHERE project_id = $1 LIMIT 1`, p.project).Scan(&r.id)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.repository(r); err != nil {
			return err
		}
	}
	return nil
}

func (p *purge) repository(r place) error {
	if err := p.each(r.id,
		`DELETE FROM tags WHERE repository_id = $1 AND name IN (SELECT name FROM tags WHERE repository_id = $1 LIMIT $2)`,
		`DELETE FROM blob_references WHERE repository_id = $1 AND (digest, manifest) IN
			(SELECT digest, manifest FROM blob_references WHERE repository_id = $1 LIMIT $2)`,
		`DELETE FROM manifest_references WHERE repository_id = $1 AND (digest, manifest) IN
			(SELECT digest, manifest FROM manifest_references WHERE repository_id = $1 LIMIT $2)`,
		`DELETE FROM pending_references WHERE repository_id = $1 AND (digest, kind, manifest) IN
			(SELECT digest, kind, manifest FROM pending_references WHERE repository_id = $1 LIMIT $2)`,
		`DELETE FROM manifests WHERE repository_id = $1 AND digest IN (SELECT digest FROM manifests WHERE repository_id = $1 LIMIT $2)`,
		`DELETE FROM manifest_reviews WHERE repository_id = $1 AND digest IN (SELECT digest FROM manifest_reviews WHERE repository_id = $1 LIMIT $2)`,
	); err != nil || p.room <= 0 {
		return err
	}
	links, err := p.t.strings(`SELECT digest FROM links WHERE repository_id = $1 LIMIT $2`, r.id, p.room)
	if err != nil {
		return err
	}
	for _, digest := range links {
		if err := p.db.unlink(p.t, r, oci.Digest(digest), math.MaxInt64); err != nil {
			return err
		}
		p.room--
	}
	if p.room <= 0 {
		return nil
	}
	p.room--
	_, err = p.t.exec(`DELETE FROM repositories WHERE id = $1`, r.id)
	return err
}

// uploads ends the project's sessions, but for those that are being written to:
// they cannot be committed, and expire.
func (p *purge) uploads() error {
	name := hidden + p.name
	ids, err := p.t.strings(`SELECT id FROM uploads WHERE (repository = $1 OR substr(repository, 1, $2) = $1 || '/')
		AND lease_until < $3 LIMIT $4`, name, len(name)+1, p.db.millis(), p.room)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, leased := p.db.leases.Load(id); leased {
			continue
		}
		if _, err := p.db.expire(p.t, id, math.MaxInt64); err != nil {
			return err
		}
		p.room--
	}
	return nil
}

func (p *purge) access() error {
	if err := stayGuarded(p.t); err != nil {
		return err
	}
	return p.each(p.project,
		`DELETE FROM refresh_tokens WHERE id IN (SELECT r.id FROM keys k JOIN refresh_tokens r ON r.key_id = k.id
			WHERE COALESCE(k.user_id, k.project_id) = $1 LIMIT $2)`,
		`DELETE FROM keys WHERE id IN (SELECT id FROM keys WHERE COALESCE(user_id, project_id) = $1 LIMIT $2)`,
		`DELETE FROM grants WHERE id IN (SELECT id FROM grants WHERE COALESCE(project_id, organization_id) = $1 LIMIT $2)`,
		`DELETE FROM trust_rules WHERE id IN (SELECT id FROM trust_rules WHERE project_id = $1 LIMIT $2)`,
	)
}

func (p *purge) itself() error {
	if err := p.each(p.project,
		`DELETE FROM project_blobs WHERE project_id = $1 AND digest IN (SELECT digest FROM project_blobs WHERE project_id = $1 LIMIT $2)`,
	); err != nil || p.room <= 0 {
		return err
	}
	for _, query := range [...]string{`DELETE FROM project_usage WHERE project_id = $1`, `DELETE FROM projects WHERE id = $1`} {
		if _, err := p.t.exec(query, p.project); err != nil {
			return err
		}
	}
	p.room--
	p.done = true
	return nil
}
