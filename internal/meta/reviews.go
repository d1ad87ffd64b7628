package meta

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/oci"
)

// Retention is how long a repository keeps manifests that nothing holds; 0 is
// for ever.
type Retention struct {
	Untagged time.Duration // those without a tag, whose subject, if any, is there
	Orphans  time.Duration // those without a tag whose subject is gone, or never came
}

// The rows of manifest_reviews are planned by whatever may take away the last
// that holds a manifest, in the transaction that does so: whoever looks at a
// manifest either sees that it is not held any more, or removes the row before
// that transaction plans it.

// planManifest plans the look at a manifest that may have lost what held it.
func (db *DB) planManifest(t *tx, repo string, d oci.Digest) error {
	_, err := t.exec(`INSERT INTO manifest_reviews (repository_id, digest, since, review_at) VALUES ($1, $2, $3, $3)
		ON CONFLICT (repository_id, digest) DO UPDATE SET since = excluded.since, review_at = excluded.review_at`,
		repo, d.String(), db.millis())
	return err
}

// planChildren plans the look at what an index holds that goes.
func (db *DB) planChildren(t *tx, repo string, index oci.Digest) error {
	_, err := t.exec(`INSERT INTO manifest_reviews (repository_id, digest, since, review_at)
		SELECT repository_id, digest, CAST($3 AS BIGINT), CAST($3 AS BIGINT) FROM manifest_references WHERE repository_id = $1 AND manifest = $2
		ON CONFLICT (repository_id, digest) DO UPDATE SET since = excluded.since, review_at = excluded.review_at`,
		repo, index.String(), db.millis())
	return err
}

// referrerPage is how many referrers of a subject are planned in one transaction.
const referrerPage = 100

// planReferrers plans the look at referrers of a subject that goes, and at the
// subject's own digest where there are too many of them for one transaction.
func (db *DB) planReferrers(t *tx, repo string, subject oci.Digest) error {
	n, err := t.exec(`INSERT INTO manifest_reviews (repository_id, digest, since, review_at)
		SELECT repository_id, digest, CAST($3 AS BIGINT), CAST($3 AS BIGINT) FROM manifests
			WHERE repository_id = $1 AND subject = $2 ORDER BY digest LIMIT $4
		ON CONFLICT (repository_id, digest) DO UPDATE SET since = excluded.since, review_at = excluded.review_at`,
		repo, subject.String(), db.millis(), referrerPage)
	if err != nil || n < referrerPage {
		return err
	}
	return db.planManifest(t, repo, subject)
}

// planRest plans the look at all referrers of a subject that is gone.
func (db *DB) planRest(ctx context.Context, repo string, subject oci.Digest) error {
	for after := ""; ; {
		rows, err := db.query(ctx, `SELECT digest FROM manifests WHERE repository_id = $1 AND subject = $2 AND digest > $3
			ORDER BY digest LIMIT $4`, repo, subject.String(), after, referrerPage)
		if err != nil {
			return err
		}
		page, err := collect(rows, scanString)
		if err != nil || len(page) == 0 {
			return err
		}
		if err := db.hint(ctx, func(t *tx) error {
			for _, d := range page {
				if err := db.planManifest(t, repo, oci.Digest(d)); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
		after = page[len(page)-1]
	}
}

// loosen plans the look at a manifest that was put without a tag. One that was
// there already must not be collected before this transaction ends.
func (db *DB) loosen(t *tx, repo string, d oci.Digest, isNew bool) error {
	if err := db.planManifest(t, repo, d); err != nil || isNew {
		return err
	}
	return t.lock(`SELECT digest FROM manifests WHERE repository_id = $1 AND digest = $2`, repo, d.String())
}

func forgetReview(t *tx, repo string, d oci.Digest) error {
	_, err := t.exec(`DELETE FROM manifest_reviews WHERE repository_id = $1 AND digest = $2`, repo, d.String())
	return err
}

// TouchManifest notes that a client was told of a manifest by its digest, which
// keeps collection away while it pushes an index, and for as long as it comes
// again. Errors: ErrNotFound (collected meanwhile).
func (db *DB) TouchManifest(ctx context.Context, repo string, d oci.Digest) error {
	return db.hint(ctx, func(t *tx) error {
		n, err := t.exec(`UPDATE manifest_reviews SET since = $3
			WHERE repository_id = (SELECT id FROM repositories WHERE name = $1) AND digest = $2`, repo, d.String(), db.millis())
		if err != nil || n > 0 {
			return err
		}
		// Held again, or gone.
		var one int
		return t.queryRow(`SELECT 1 FROM repositories r JOIN manifests m ON m.repository_id = r.id AND m.digest = $2
			WHERE r.name = $1`, repo, d.String()).Scan(&one)
	})
}

// LooseManifest is a manifest that nothing may hold any more.
type LooseManifest struct {
	RepositoryID string
	Repository   string // "" where it is gone
	Deleted      bool   // with its project, which can be restored
	Digest       oci.Digest
	Subject      oci.Digest // "" for none
	Size         int64
	Since        int64 // when a client was last told of it, or that began, in ms; 0: not known

	project                         string
	present                         bool // it is there
	tagged, indexed, subjectPresent bool
}

// Held reports whether something holds it after all, or it is gone already.
func (m *LooseManifest) Held() bool {
	return !m.present || m.tagged || m.indexed || m.subjectPresent
}

// Keep is how long such a manifest is kept; 0 is for ever.
func (m *LooseManifest) Keep(o Retention) time.Duration {
	if m.Subject != "" {
		return o.Orphans
	}
	return o.Untagged
}

const selectLoose = `SELECT v.repository_id, v.digest, v.since, COALESCE(r.name, ''), COALESCE(r.project_id, ''),
	COALESCE(m.size, -1), COALESCE(m.subject, ''),
	EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = v.repository_id AND t.digest = v.digest),
	EXISTS (SELECT 1 FROM manifest_references h WHERE h.repository_id = v.repository_id AND h.digest = v.digest),
	EXISTS (SELECT 1 FROM manifests s WHERE s.repository_id = m.repository_id AND s.digest = m.subject)
	FROM manifest_reviews v LEFT JOIN repositories r ON r.id = v.repository_id
	LEFT JOIN manifests m ON m.repository_id = v.repository_id AND m.digest = v.digest `

func scanLoose(r interface{ Scan(...any) error }) (m LooseManifest, err error) {
	err = r.Scan(&m.RepositoryID, &m.Digest, &m.Since, &m.Repository, &m.project, &m.Size, &m.Subject,
		&m.tagged, &m.indexed, &m.subjectPresent)
	m.present = m.Size >= 0
	m.Deleted = isHidden(m.Repository)
	m.Repository = shown(m.Repository)
	return m, err
}

// LooseManifests lists up to n manifests behind the one named by repository id
// and digest. It is for people: collection itself goes by what is due.
func (db *DB) LooseManifests(ctx context.Context, repositoryID string, after oci.Digest, n int) ([]LooseManifest, error) {
	rows, err := db.query(ctx, selectLoose+`WHERE (v.repository_id, v.digest) > ($1, $2)
		ORDER BY v.repository_id, v.digest LIMIT $3`, repositoryID, after.String(), n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (LooseManifest, error) { return scanLoose(r) })
}

// verdict on a loose manifest.
type verdict int

const (
	forget  verdict = iota // it is held, or gone: nothing is to be looked at
	wait                   // until a time, or for as long as the policy stays
	goesNow                // it is due
)

// verdict says what becomes of a manifest now. next is when it is looked at
// again, nil for never, and since what it is to be counted from.
func (m *LooseManifest) verdict(o Retention, now int64) (v verdict, since int64, next *int64) {
	if m.Held() {
		return forget, 0, nil
	}
	keep := m.Keep(o).Milliseconds()
	since = m.Since
	switch {
	case m.Deleted: // nobody can ask for it; its time begins anew when it is restored
		return wait, now, new(now + putOff.Milliseconds())
	case since == 0:
		since = now
	}
	switch {
	case keep == 0:
		return wait, since, nil
	case since+keep > now:
		return wait, since, new(since + keep)
	}
	return goesNow, since, nil
}

// review looks at loose manifests by a policy, at a time.
type review struct {
	db     *DB
	policy func(repo string) Retention
	now    int64
}

// CollectManifests looks at up to n manifests whose look is planned. What is
// held is forgotten, what may not go yet is planned anew, and what nothing has
// held for as long as the policy of its repository says is removed.
func (db *DB) CollectManifests(ctx context.Context, policy func(repo string) Retention, now time.Time, n int) (sum Reviewed, err error) {
	rows, err := db.query(ctx, selectLoose+`WHERE v.review_at <= $1 ORDER BY v.review_at LIMIT $2`, now.UnixMilli(), n)
	if err != nil {
		return sum, err
	}
	list, err := collect(rows, func(r *sql.Rows) (LooseManifest, error) { return scanLoose(r) })
	if err != nil {
		return sum, err
	}
	v := review{db, policy, now.UnixMilli()}
	var stay, due []LooseManifest
	for _, m := range list {
		if !m.present {
			if err := db.planRest(ctx, m.RepositoryID, m.Digest); err != nil {
				return sum, err
			}
		}
		if what, _, _ := m.verdict(policy(m.Repository), v.now); what == goesNow {
			due = append(due, m)
		} else {
			stay = append(stay, m)
		}
	}
	sum, err = v.turns(nil, v.settle).run(ctx, stay)
	slices.SortStableFunc(due, func(a, b LooseManifest) int { return strings.Compare(a.project, b.project) })
	for _, part := range runs(due, func(m LooseManifest) string { return m.project }) {
		if err != nil && (hopeless(err) || ctx.Err() != nil) {
			break
		}
		lock := func(t *tx) error { return mayLack(lockUsage(t, part[0].project)) }
		got, failed := v.turns(lock, v.remove).run(ctx, part)
		sum.add(got)
		err = errors.Join(err, failed)
	}
	return sum, err
}

func (v review) turns(begin func(*tx) error, look func(*tx, LooseManifest) (Reviewed, error)) turns[LooseManifest] {
	return turns[LooseManifest]{
		db: v.db, begin: begin, look: look,
		putOff: func(t *tx, m LooseManifest) error {
			_, err := t.exec(`UPDATE manifest_reviews SET review_at = $3 WHERE repository_id = $1 AND digest = $2`,
				m.RepositoryID, m.Digest.String(), v.now+putOff.Milliseconds())
			return err
		},
		name: func(m LooseManifest) string { return fmt.Sprintf("manifest %s in %s", m.Digest, m.Repository) },
	}
}

// again locks the row of a manifest that was read before and reads it anew.
// Errors: ErrNotFound: somebody else has looked at it.
func (v review) again(t *tx, m LooseManifest) (LooseManifest, error) {
	err := t.lock(`SELECT digest FROM manifest_reviews WHERE repository_id = $1 AND digest = $2`, m.RepositoryID, m.Digest.String())
	if errors.Is(err, errAgain) {
		return m, ErrNotFound
	}
	if err != nil {
		return m, err
	}
	return scanLoose(t.queryRow(selectLoose+`WHERE v.repository_id = $1 AND v.digest = $2`, m.RepositoryID, m.Digest.String()))
}

// settle looks at a manifest that will stay, as far as is known. What turns out
// to be due is left so.
func (v review) settle(t *tx, m LooseManifest) (Reviewed, error) {
	seen := Reviewed{Seen: 1}
	now, err := v.again(t, m)
	if errors.Is(err, ErrNotFound) {
		return seen, nil
	}
	if err != nil {
		return seen, err
	}
	what, since, next := now.verdict(v.policy(now.Repository), v.now)
	switch {
	case what == forget:
		err = forgetReview(t, m.RepositoryID, m.Digest)
	case what == wait:
		_, err = t.exec(`UPDATE manifest_reviews SET since = $3, review_at = $4 WHERE repository_id = $1 AND digest = $2`,
			m.RepositoryID, m.Digest.String(), since, next)
	}
	return seen, err
}

// remove looks at a manifest that is due, as far as is known, and removes it if
// it still is. It leaves tags alone: one that comes now makes the removal fail.
func (v review) remove(t *tx, m LooseManifest) (Reviewed, error) {
	seen := Reviewed{Seen: 1}
	now, err := v.again(t, m)
	if errors.Is(err, ErrNotFound) {
		return seen, nil
	}
	if err != nil {
		return seen, err
	}
	keep := v.policy(now.Repository)
	if what, _, _ := now.verdict(keep, v.now); what != goesNow || now.project != m.project {
		return seen, nil // it stays due
	}
	var held *ReferencedError
	_, err = v.db.takeOut(t, place{id: now.RepositoryID, project: now.project}, now.Digest)
	switch {
	case errors.As(err, &held), errors.Is(err, ErrNotFound):
		// An index holds it now, or it is gone; in SQLite neither can be.
		return seen, errAgain
	case err != nil:
		return seen, err
	}
	seen.Removed = 1
	if now.Subject != "" {
		seen.Referrers = 1
	}
	return seen, v.db.insertAudit(t, audit.Event{
		Identity: "system:collection", Action: "manifest.collect", Status: 202, Repository: now.Repository,
		Digest: now.Digest.String(), Bytes: now.Size, Reason: now.Why(keep),
	})
}

// Why says for people why a manifest that nothing holds goes.
func (m *LooseManifest) Why(o Retention) string {
	since := "since it was first looked at"
	if m.Since > 0 {
		since = "since " + time.UnixMilli(m.Since).UTC().Format(time.RFC3339)
	}
	if m.Subject != "" {
		return fmt.Sprintf("without a tag, and its subject is absent, %s; such manifests are kept for %s", since, InDays(o.Orphans))
	}
	return fmt.Sprintf("without a tag, %s; such manifests are kept for %s", since, InDays(o.Untagged))
}

// InDays is d as people say it: 7d.
func InDays(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}

// planned is how far all loose manifests have been planned by a policy.
type planned struct {
	Policy       string     `json:"policy"`
	RepositoryID string     `json:"repository,omitempty"`
	Digest       oci.Digest `json:"digest,omitempty"`
	Done         bool       `json:"done,omitempty"`
}

// PlanManifests plans the looks at all loose manifests anew, n at a time, where
// the policy is another than it was at the last collection; it is named by a
// text. It returns how many it planned, fewer than n when that is done.
func (db *DB) PlanManifests(ctx context.Context, policy string, n int) (count int, err error) {
	was, err := readPlanned(db.queryRow(ctx, selectPlanned))
	if err != nil || was.Policy == policy && was.Done {
		return 0, err
	}
	err = db.hint(ctx, func(t *tx) error {
		count = 0
		p, err := readPlanned(t.lockedRow(selectPlanned))
		if err != nil {
			return err
		}
		if p.Policy != policy {
			p = planned{Policy: policy}
		}
		count, err = planPage(t, &p, n)
		if err != nil {
			return err
		}
		text, err := json.Marshal(p)
		if err != nil {
			return err
		}
		_, err = t.exec(`INSERT INTO collection (name, value) VALUES ('policy', $1)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value`, string(text))
		return err
	})
	return count, err
}

const selectPlanned = `SELECT value FROM collection WHERE name = 'policy'`

func readPlanned(r row) (p planned, err error) {
	var text string
	err = r.Scan(&text)
	if errors.Is(err, ErrNotFound) {
		return p, nil
	}
	if err == nil {
		err = fromJSON(text, &p)
	}
	return p, err
}

// planPage plans the looks at the manifests behind p, and moves p there.
func planPage(t *tx, p *planned, n int) (count int, err error) {
	rows, err := t.query(`SELECT repository_id, digest FROM manifest_reviews WHERE (repository_id, digest) > ($1, $2)
		ORDER BY repository_id, digest LIMIT $3`, p.RepositoryID, p.Digest.String(), n)
	if err != nil {
		return 0, err
	}
	page, err := collect(rows, func(r *sql.Rows) (m LooseManifest, err error) { return m, r.Scan(&m.RepositoryID, &m.Digest) })
	if err != nil {
		return 0, err
	}
	p.Done = len(page) < n
	if len(page) == 0 {
		return 0, nil
	}
	last := page[len(page)-1]
	_, err = t.exec(`UPDATE manifest_reviews SET review_at = 0
		WHERE (repository_id, digest) > ($1, $2) AND (repository_id, digest) <= ($3, $4)`,
		p.RepositoryID, p.Digest.String(), last.RepositoryID, last.Digest.String())
	p.RepositoryID, p.Digest = last.RepositoryID, last.Digest
	return len(page), err
}
