package meta

import (
	"context"
	"errors"

	"github.com/berth-registry/berth/internal/oci"
)

// Manifest is a stored manifest.
type Manifest struct {
	Digest    oci.Digest
	MediaType string
	Size      int64
	Content   []byte // nil from Resolve
	// LooseSince is when nothing came to hold it any more, or a client was last
	// told of it since, in ms; 0 for not known. Negative: it is held, or was asked
	// for by its tag.
	LooseSince int64
}

// Blob is a blob as one repository links it.
type Blob struct {
	Size   int64
	Key    string // of its bytes in the blob store
	SeenAt int64  // when a client was last told that it is here, in ms
}

const (
	// Nested, so that there is one way to go: a planner that knows little of the
	// tables may begin a join with all of the repository's manifests, or walk the
	// index for all of that digest.
	manifestByTag = `, -1 FROM manifests m WHERE (m.repository_id, m.digest) =
		(SELECT t.repository_id, t.digest FROM tags t
		WHERE t.repository_id = (SELECT r.id FROM repositories r WHERE r.name = $1) AND t.name = $2)`
	manifestByDigest = `, COALESCE((SELECT v.since FROM manifest_reviews v
		WHERE v.repository_id = m.repository_id AND v.digest = m.digest), -1) FROM manifests m
		WHERE m.repository_id = (SELECT r.id FROM repositories r WHERE r.name = $1) AND m.digest = $2`
	selectBlob = `SELECT b.size, b.key, l.seen_at FROM links l JOIN blobs b ON b.digest = l.digest
		WHERE l.repository_id = (SELECT r.id FROM repositories r WHERE r.name = $1) AND l.digest = $2 AND NOT b.damaged`
	selectManifest = `SELECT m.digest, m.media_type, m.size, m.content`
	selectResolved = `SELECT m.digest, m.media_type, m.size`
)

// Manifest finds a manifest with its content.
// Errors: ErrNotFound, ErrNoRepository.
func (db *DB) Manifest(ctx context.Context, repo string, ref oci.Ref) (Manifest, error) {
	query := selectManifest + manifestByTag
	if ref.IsDigest() {
		query = selectManifest + manifestByDigest
	}
	var m Manifest
	err := db.queryRow(ctx, query, repo, ref.String()).Scan(&m.Digest, &m.MediaType, &m.Size, &m.Content, &m.LooseSince)
	return m, db.whyNotFound(ctx, repo, err)
}

// Resolve finds a manifest without reading its content. Errors as Manifest.
func (db *DB) Resolve(ctx context.Context, repo string, ref oci.Ref) (Manifest, error) {
	query := selectResolved + manifestByTag
	if ref.IsDigest() {
		query = selectResolved + manifestByDigest
	}
	var m Manifest
	err := db.queryRow(ctx, query, repo, ref.String()).Scan(&m.Digest, &m.MediaType, &m.Size, &m.LooseSince)
	return m, db.whyNotFound(ctx, repo, err)
}

// Blob finds a blob that repo links. Errors: ErrNotFound, ErrNoRepository.
func (db *DB) Blob(ctx context.Context, repo string, d oci.Digest) (Blob, error) {
	var b Blob
	err := db.queryRow(ctx, selectBlob, repo, d.String()).Scan(&b.Size, &b.Key, &b.SeenAt)
	return b, db.whyNotFound(ctx, repo, err)
}

// TouchBlob notes that a client was told of the blob, which keeps collection
// away while it pushes the manifest. Errors: ErrNotFound (collected meanwhile).
func (db *DB) TouchBlob(ctx context.Context, repo string, d oci.Digest) error {
	var seen int64
	return db.hintRow(ctx, `UPDATE links SET seen_at = $3
		WHERE repository_id = (SELECT id FROM repositories WHERE name = $1) AND digest = $2 RETURNING seen_at`,
		repo, d.String(), db.millis()).Scan(&seen)
}

// whyNotFound tells a missing repository from missing content; only a miss
// pays for the question.
func (db *DB) whyNotFound(ctx context.Context, repo string, err error) error {
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	var one int
	missing := db.queryRow(ctx, `SELECT 1 FROM repositories WHERE name = $1`, repo).Scan(&one)
	switch {
	case missing == nil:
		return err
	case errors.Is(missing, ErrNotFound):
		return ErrNoRepository
	}
	return missing
}
