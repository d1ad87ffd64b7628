package meta

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/oci"
)

// Quota is what a plan bounds besides rates.
type Quota string

// The quotas.
const (
	BlobSize     Quota = "blob size"     // bytes of one blob that comes into the project
	ManifestSize Quota = "manifest size" // bytes of one manifest that does
	Storage      Quota = "storage"       // bytes of the project, each blob once
	Repositories Quota = "repositories"
)

// QuotaError says which quota of the project's plan does not allow what was
// asked for. One that is exceeded already refuses growth alone.
type QuotaError struct {
	Quota       Quota
	Limit       int64
	Used, Asked int64 // of sizes of one thing Used is 0
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("quota of %s: %d are in use, %d more are asked for, %d are allowed", e.Quota, e.Used, e.Asked, e.Limit)
}

// quotas are those of a plan; 0 is none.
type quotas struct{ blobSize, manifestSize, storage, repositories int64 }

// place is a repository that content is written to, in a project whose plan has
// these quotas.
type place struct {
	id, project string
	quotas
}

const (
	selectQuotas = `, l.max_blob, l.max_manifest, l.storage, l.repositories FROM `
	joinPlan     = ` JOIN organizations o ON o.id = p.organization_id
		JOIN plans l ON l.id = COALESCE(p.plan_id, o.plan_id, 'default') `
	selectPlace = `SELECT r.id, p.id` + selectQuotas +
		`repositories r JOIN projects p ON p.id = r.project_id` + joinPlan + `WHERE r.name = $1`
	selectProjectPlace = `SELECT p.deleted_at IS NOT NULL, p.id` + selectQuotas + `projects p` + joinPlan + `WHERE p.name = $1`
)

// place finds or creates a repository and its project. Only within change, for
// whether there is a project matters to access.
// Errors: ErrNoRepository of a deleted project; *QuotaError.
func (db *DB) place(t *tx, name string) (p place, err error) {
	if isHidden(name) {
		return p, ErrNoRepository
	}
	err = t.queryRow(selectPlace, name).Scan(&p.id, &p.project, &p.blobSize, &p.manifestSize, &p.quotas.storage, &p.quotas.repositories)
	if !errors.Is(err, ErrNotFound) {
		return p, err
	}
	if p, err = db.projectPlace(t, access.ProjectOf(name)); err != nil {
		return p, err
	}
	if err := p.grow(t, Repositories, 1); err != nil {
		return p, err
	}
	// A project that is renamed or deleted meanwhile would not take it along.
	if err := t.lock(`SELECT id FROM projects WHERE name = $1 AND deleted_at IS NULL`, access.ProjectOf(name)); err != nil {
		return p, err
	}
	p.id = newID()
	_, err = t.exec(`INSERT INTO repositories (id, name, created_at, project_id) VALUES ($1, $2, $3, $4)`, p.id, name, db.millis(), p.project)
	return p, err
}

// projectPlace finds a project, or creates one that nobody has claimed.
func (db *DB) projectPlace(t *tx, name string) (p place, err error) {
	var deleted bool
	find := func() error {
		return t.queryRow(selectProjectPlace, name).Scan(&deleted, &p.project, &p.blobSize, &p.manifestSize, &p.quotas.storage, &p.quotas.repositories)
	}
	if err = find(); errors.Is(err, ErrNotFound) {
		if _, err := t.exec(`INSERT INTO projects (id, name, organization_id, visibility, newcomers, claimed, created_at)
			VALUES ($1, $2, $3, $4, '', FALSE, $5) ON CONFLICT (name) DO NOTHING`,
			newID(), name, defaultOrganization, access.Private, db.millis()); err != nil {
			return p, err
		}
		if err := t.raise(); err != nil {
			return p, err
		}
		err = find()
	}
	if err == nil && deleted {
		err = ErrNoRepository
	}
	return p, err
}

// growth adds to a project's usage unless that would exceed a limit.
var growth = map[Quota]string{
	Storage:      `UPDATE project_usage SET storage = storage + $2 WHERE project_id = $1 AND storage + $2 <= $3`,
	Repositories: `UPDATE project_usage SET repositories = repositories + $2 WHERE project_id = $1 AND repositories + $2 <= $3`,
}

// grow adds to what the project uses. Errors: *QuotaError.
func (p *place) grow(t *tx, what Quota, by int64) error {
	if by == 0 {
		return nil
	}
	charged, err := p.charge(t, what, by)
	if err != nil || charged {
		return err
	}
	// A project that never used anything may have no row, or had none until now.
	if _, err := t.exec(`INSERT INTO project_usage (project_id, storage, repositories) VALUES ($1, 0, 0)
		ON CONFLICT (project_id) DO NOTHING`, p.project); err != nil {
		return err
	}
	if charged, err = p.charge(t, what, by); err != nil || charged {
		return err
	}
	return p.exceeded(t, what, by)
}

// charge adds to what the project uses, which has a row, unless it would exceed
// the limit.
func (p *place) charge(t *tx, what Quota, by int64) (charged bool, err error) {
	t.wanted = true
	n, err := t.exec(growth[what], p.project, by, p.limit(what))
	return n == 1, err
}

// limit of a quota of the project; one of 0 is none.
func (p *place) limit(what Quota) int64 {
	limit := p.quotas.storage
	if what == Repositories {
		limit = p.quotas.repositories
	}
	if limit == 0 {
		limit = math.MaxInt64
	}
	return limit
}

func (p *place) exceeded(t *tx, what Quota, by int64) error {
	var storage, repositories int64
	if err := t.queryRow(`SELECT storage, repositories FROM project_usage WHERE project_id = $1`, p.project).Scan(&storage, &repositories); err != nil {
		return err
	}
	used := storage
	if what == Repositories {
		used = repositories
	}
	return &QuotaError{Quota: what, Limit: p.limit(what), Used: used, Asked: by}
}

// shrink takes bytes off what a project uses.
func shrink(t *tx, project string, bytes int64) error {
	if bytes == 0 {
		return nil
	}
	_, err := t.exec(`UPDATE project_usage SET storage = storage - $2 WHERE project_id = $1`, project, bytes)
	return err
}

// holdBlob counts a new link to a blob; the first one in the project is charged.
func (p *place) holdBlob(t *tx, d oci.Digest, size int64) error {
	if p.blobSize == 0 || size <= p.blobSize {
		// Most are new to the project: charged at once, which locks the usage too.
		charged, err := p.charge(t, Storage, size)
		if err != nil {
			return err
		}
		if charged {
			links, err := p.countLink(t, d)
			if err == nil && links > 1 {
				err = shrink(t, p.project, size)
			}
			return err
		}
	}
	if err := lockUsage(t, p.project); err != nil {
		return err
	}
	links, err := p.countLink(t, d)
	if err != nil || links > 1 {
		return err
	}
	if p.blobSize > 0 && size > p.blobSize {
		return &QuotaError{Quota: BlobSize, Limit: p.blobSize, Asked: size}
	}
	return p.grow(t, Storage, size)
}

// countLink counts a new link of the project to a blob. The project's usage is
// locked.
func (p *place) countLink(t *tx, d oci.Digest) (links int64, err error) {
	err = t.queryRow(`INSERT INTO project_blobs (project_id, digest, links) VALUES ($1, $2, 1)
		ON CONFLICT (project_id, digest) DO UPDATE SET links = project_blobs.links + 1 RETURNING links`,
		p.project, d.String()).Scan(&links)
	return links, err
}

// lockUsage keeps others from changing what a project with repositories uses.
// It comes before project_blobs everywhere, so that nobody waits in a circle.
func lockUsage(t *tx, project string) error {
	t.wanted = true
	return t.lock(`SELECT project_id FROM project_usage WHERE project_id = $1`, project)
}

// mayLack lets it pass that there was no row to lock: where nothing is counted,
// nobody is in the way.
func mayLack(err error) error {
	if errors.Is(err, errAgain) {
		return nil
	}
	return err
}

// holdManifest charges a new manifest.
func (p *place) holdManifest(t *tx, size int64) error {
	if p.manifestSize > 0 && size > p.manifestSize {
		return &QuotaError{Quota: ManifestSize, Limit: p.manifestSize, Asked: size}
	}
	return p.grow(t, Storage, size)
}

// dropBlob counts a link that is gone; with the last one in the project its
// bytes are given back. The blob's row must still be there.
func dropBlob(t *tx, project string, d oci.Digest) error {
	if err := lockUsage(t, project); err != nil {
		return err
	}
	var links int64
	err := t.queryRow(`UPDATE project_blobs SET links = links - 1 WHERE project_id = $1 AND digest = $2 RETURNING links`,
		project, d.String()).Scan(&links)
	if errors.Is(err, ErrNotFound) || err == nil && links > 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := t.exec(`DELETE FROM project_blobs WHERE project_id = $1 AND digest = $2`, project, d.String()); err != nil {
		return err
	}
	var size int64
	if err := t.queryRow(`SELECT size FROM blobs WHERE digest = $1`, d.String()).Scan(&size); err != nil {
		return err
	}
	return shrink(t, project, size)
}

// recharge corrects what projects use where the row of a blob that they have
// gave another size than its bytes.
func recharge(t *tx, d oci.Digest, by int64) error {
	if by == 0 {
		return nil
	}
	_, err := t.exec(`UPDATE project_usage SET storage = storage + $2
		WHERE project_id IN (SELECT project_id FROM project_blobs WHERE digest = $1)`, d.String(), by)
	return err
}

// UsageCheck holds what a project is said to use against what it does use.
type UsageCheck struct {
	ProjectID, Project                string
	Storage, Repositories             int64 // as counted along the way
	ActualStorage, ActualRepositories int64 // as found
	WrongBlobs                        int64 // whose links are miscounted
}

// Agrees reports whether the count is right.
func (c *UsageCheck) Agrees() bool {
	return c.Storage == c.ActualStorage && c.Repositories == c.ActualRepositories && c.WrongBlobs == 0
}

// What a project's repositories link, and how often. A link without a blob is
// damage that the foreign keys show.
const linksOfProject = `SELECT l.digest AS digest, count(*) AS links FROM repositories r
	JOIN links l ON l.repository_id = r.id JOIN blobs b ON b.digest = l.digest
	WHERE r.project_id = $1 GROUP BY l.digest`

const storageOfProject = `(SELECT COALESCE(sum(b.size), 0) FROM blobs b WHERE b.digest IN
		(SELECT l.digest FROM repositories r JOIN links l ON l.repository_id = r.id WHERE r.project_id = $1))
	+ (SELECT COALESCE(sum(m.size), 0) FROM repositories r JOIN manifests m ON m.repository_id = r.id WHERE r.project_id = $1)`

const checkUsage = `SELECT p.name, COALESCE(u.storage, 0), COALESCE(u.repositories, 0), ` + storageOfProject + `,
	(SELECT count(*) FROM repositories r WHERE r.project_id = $1),
	(SELECT count(*) FROM (SELECT digest FROM (` + linksOfProject + `
		UNION ALL SELECT digest, -links FROM project_blobs WHERE project_id = $1) AS counted
		GROUP BY digest HAVING sum(links) <> 0) AS wrong)
	FROM projects p LEFT JOIN project_usage u ON u.project_id = p.id WHERE p.id = $1`

// CheckUsage looks at the first project that sorts behind the id after and is
// not being purged. It walks all that the project has. Errors: ErrNotFound:
// there is none.
func (db *DB) CheckUsage(ctx context.Context, after string) (c UsageCheck, err error) {
	err = db.queryRow(ctx, `SELECT id FROM projects WHERE id > $1 AND COALESCE(deleted_at, 1) > 0 ORDER BY id LIMIT 1`, after).Scan(&c.ProjectID)
	if err != nil {
		return c, err
	}
	err = db.queryRow(ctx, checkUsage, c.ProjectID).Scan(&c.Project, &c.Storage, &c.Repositories,
		&c.ActualStorage, &c.ActualRepositories, &c.WrongBlobs)
	if errors.Is(err, ErrNotFound) { // purged since
		return db.CheckUsage(ctx, c.ProjectID)
	}
	return c, err
}

// RepairUsage counts anew what a project uses.
func (db *DB) RepairUsage(ctx context.Context, projectID string) error {
	return db.update(ctx, func(t *tx) error {
		// First a row, then its lock: no push may add to what is counted here.
		if _, err := t.exec(`INSERT INTO project_usage (project_id, storage, repositories)
			SELECT id, 0, 0 FROM projects WHERE id = $1 ON CONFLICT (project_id) DO UPDATE SET storage = project_usage.storage`, projectID); err != nil {
			return err
		}
		for _, query := range [...]string{
			`DELETE FROM project_blobs WHERE project_id = $1`,
			`INSERT INTO project_blobs (project_id, digest, links) SELECT $1, digest, links FROM (` + linksOfProject + `) AS found`,
			`INSERT INTO project_usage (project_id, storage, repositories)
				SELECT p.id, ` + storageOfProject + `, (SELECT count(*) FROM repositories r WHERE r.project_id = $1)
				FROM projects p WHERE p.id = $1
				ON CONFLICT (project_id) DO UPDATE SET storage = excluded.storage, repositories = excluded.repositories`,
		} {
			if _, err := t.exec(query, projectID); err != nil {
				return err
			}
		}
		return nil
	})
}

// hidden begins the names of a deleted project's repositories and upload
// sessions, and none else: no name has a "~", which sorts behind all that names
// are made of. Look-ups by name find nothing of such a project, and pay nothing
// for it; deleting and restoring one touch each of its repositories' rows.
const hidden = "~"

func isHidden(name string) bool { return strings.HasPrefix(name, hidden) }

// shown is the name that a repository has or had.
func shown(name string) string { return strings.TrimPrefix(name, hidden) }
