package meta

import (
	"context"
	"errors"
	"time"

	"github.com/berth-registry/berth/internal/oci"
)

// ProxyTag is what upstream last said of a reference of a repository here.
// Errors: ErrNotFound.
func (db *DB) ProxyTag(ctx context.Context, repo, ref string) (t ProxyTag, err error) {
	var checked, gone int64
	err = db.queryRow(ctx, `SELECT digest, checked_at, gone_since FROM proxy_tags WHERE repository = $1 AND reference = $2`,
		repo, ref).Scan(&t.Digest, &checked, &gone)
	t.CheckedAt, t.GoneSince = unlessZero(checked), unlessZero(gone)
	return t, err
}

// SaveProxyTag keeps it. A loss of power may undo that: it is asked for again.
func (db *DB) SaveProxyTag(ctx context.Context, repo, ref string, t ProxyTag) error {
	var checked int64
	return db.hintRow(ctx, `INSERT INTO proxy_tags (repository, reference, digest, checked_at, gone_since) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (repository, reference) DO UPDATE SET digest = excluded.digest, checked_at = excluded.checked_at,
		gone_since = excluded.gone_since RETURNING checked_at`,
		repo, ref, t.Digest.String(), millisOf(t.CheckedAt), millisOf(t.GoneSince)).Scan(&checked)
}

// millisOf is a time as rows have it, 0 of the zero Time.
func millisOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// forgetPage is how many rows one transaction of forgetting goes over.
const forgetPage = 500

// ForgetProxyTags makes references be asked for again: one, or with an empty ref
// all of a repository, or with an empty repo too all of a proxy. What they stood
// for stays known, for where upstream does not answer.
func (db *DB) ForgetProxyTags(ctx context.Context, proxy, repo, ref string) error {
	if ref != "" {
		return ignoreNotFound(db.hintRow(ctx, `UPDATE proxy_tags SET checked_at = 0
			WHERE repository = $1 AND reference = $2 RETURNING checked_at`, repo, ref).Scan(new(int64)))
	}
	return db.eachProxyRow(ctx, proxy, repo, forgetTags)
}

// proxyRows are statements that go over the rows of a table by repository and a
// second column: which is the last of a page, and what is done to a page.
type proxyRows struct{ last, do string }

var (
	forgetTags = proxyRows{
		`SELECT repository, reference FROM proxy_tags WHERE (repository, reference) > ($1, $2) AND repository < $3
			ORDER BY repository, reference LIMIT 1 OFFSET $4`,
		`UPDATE proxy_tags SET checked_at = 0 WHERE (repository, reference) > ($1, $2) AND repository < $3
			AND (repository, reference) <= ($4, $5)`,
	}
	forgetReferrers = proxyRows{
		`SELECT repository, subject FROM proxy_referrers WHERE (repository, subject) > ($1, $2) AND repository < $3
			ORDER BY repository, subject LIMIT 1 OFFSET $4`,
		`UPDATE proxy_referrers SET checked_at = $6 WHERE (repository, subject) > ($1, $2) AND repository < $3
			AND (repository, subject) <= ($4, $5) AND checked_at > $6`,
	}
)

// eachProxyRow does something to all rows of a repository, or of all of a proxy's,
// page by page.
func (db *DB) eachProxyRow(ctx context.Context, proxy, repo string, q proxyRows, more ...any) error {
	from, to := proxyRange(proxy, repo)
	for second := ""; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		lastRepo, last := to, ""
		err := db.queryRow(ctx, q.last, from, second, to, forgetPage-1).Scan(&lastRepo, &last)
		if ignoreNotFound(err) != nil {
			return err
		}
		if failed := db.hint(ctx, func(t *tx) error {
			_, err := t.exec(q.do, append([]any{from, second, to, lastRepo, last}, more...)...)
			return err
		}); failed != nil || err != nil { // it was the last page
			return failed
		}
		from, second = lastRepo, last
	}
}

// proxyRange is the range of names, from <= name < to, that is one repository, or
// with an empty one all that belong to a proxy.
func proxyRange(proxy, repo string) (from, to string) {
	if repo == "" {
		return proxy + "/", proxy + "0" // which comes next after "/"
	}
	return repo, repo + "\x01" // before any longer name
}

func ignoreNotFound(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// ProxyReferrers is what upstream last listed. Errors: ErrNotFound.
func (db *DB) ProxyReferrers(ctx context.Context, repo string, subject oci.Digest) (r ProxyReferrers, err error) {
	var checked int64
	err = db.queryRow(ctx, `SELECT list, checked_at FROM proxy_referrers WHERE repository = $1 AND subject = $2`,
		repo, subject.String()).Scan(&r.List, &checked)
	r.CheckedAt = unlessZero(checked)
	return r, err
}

// SaveProxyReferrers keeps it, as SaveProxyTag does.
func (db *DB) SaveProxyReferrers(ctx context.Context, repo string, subject oci.Digest, r ProxyReferrers) error {
	return db.hintRow(ctx, `INSERT INTO proxy_referrers (repository, subject, checked_at, list) VALUES ($1, $2, $3, $4)
		ON CONFLICT (repository, subject) DO UPDATE SET checked_at = excluded.checked_at, list = excluded.list RETURNING checked_at`,
		repo, subject.String(), millisOf(r.CheckedAt), r.List).Scan(new(int64))
}

// AgeProxyReferrers makes lists of referrers count as last checked at that time,
// where they were later: of one subject, or with an empty one of all of a
// repository, or with an empty repo too of all of a proxy.
func (db *DB) AgeProxyReferrers(ctx context.Context, proxy, repo string, subject oci.Digest, at time.Time) error {
	if subject != "" {
		return ignoreNotFound(db.hintRow(ctx, `UPDATE proxy_referrers SET checked_at = $3
			WHERE repository = $1 AND subject = $2 AND checked_at > $3 RETURNING checked_at`,
			repo, subject.String(), at.UnixMilli()).Scan(new(int64)))
	}
	return db.eachProxyRow(ctx, proxy, repo, forgetReferrers, at.UnixMilli())
}

// ProxyPause is until when an upstream asked to be left alone; the zero Time: it
// did not.
func (db *DB) ProxyPause(ctx context.Context, proxy string) (time.Time, error) {
	var until int64
	err := db.queryRow(ctx, `SELECT paused_until FROM proxy_pauses WHERE proxy = $1`, proxy).Scan(&until)
	return unlessZero(until), ignoreNotFound(err)
}

// PauseProxy notes it. A pause is only ever prolonged.
func (db *DB) PauseProxy(ctx context.Context, proxy string, until time.Time) error {
	return ignoreNotFound(db.hintRow(ctx, `INSERT INTO proxy_pauses (proxy, paused_until) VALUES ($1, $2)
		ON CONFLICT (proxy) DO UPDATE SET paused_until = excluded.paused_until
		WHERE proxy_pauses.paused_until < excluded.paused_until RETURNING paused_until`, proxy, until.UnixMilli()).Scan(new(int64)))
}
