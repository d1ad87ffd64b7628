package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/berth-registry/berth/internal/oci"
)

// maxPageBytes bounds the manifests that one page of CheckManifests holds.
const maxPageBytes = 16 << 20

// CheckedBlob is a blob's row as an integrity check sees it.
type CheckedBlob struct {
	Digest  oci.Digest
	Size    int64
	Key     string
	Damaged bool
}

// CheckedManifest is a manifest's row as an integrity check sees it.
type CheckedManifest struct {
	RepositoryID, Repository string
	Digest                   oci.Digest
	Size                     int64
	Content                  []byte
}

// Totals of what there is to check.
type Totals struct{ Blobs, BlobBytes, Manifests int64 }

// CheckTotals counts blobs and manifests. It walks both tables.
func (db *DB) CheckTotals(ctx context.Context) (t Totals, err error) {
	err = db.queryRow(ctx, `SELECT COUNT(*), COALESCE(SUM(size), 0), (SELECT COUNT(*) FROM manifests) FROM blobs`).
		Scan(&t.Blobs, &t.BlobBytes, &t.Manifests)
	return t, err
}

// CheckDatabase asks the engine whether its own structures and the foreign
// keys are whole, and returns what it finds.
func (db *DB) CheckDatabase(ctx context.Context) (findings []string, err error) {
	findings, err = db.engine.check(ctx)
	return findings, classify(err)
}

// CheckBlobs lists up to n blobs that sort behind the digest after.
func (db *DB) CheckBlobs(ctx context.Context, after oci.Digest, n int) ([]CheckedBlob, error) {
	rows, err := db.query(ctx, `SELECT digest, size, key, damaged FROM blobs WHERE digest > $1 ORDER BY digest LIMIT $2`, after.String(), n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (b CheckedBlob, err error) {
		return b, r.Scan(&b.Digest, &b.Size, &b.Key, &b.Damaged)
	})
}

// LinkedBy names up to n repositories that link a blob.
func (db *DB) LinkedBy(ctx context.Context, d oci.Digest, n int) ([]string, error) {
	rows, err := db.query(ctx, `SELECT r.name FROM links l JOIN repositories r ON r.id = l.repository_id
		WHERE l.digest = $1 ORDER BY r.name LIMIT $2`, d.String(), n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (string, error) {
		name, err := scanString(r)
		return shown(name), err
	})
}

// CheckManifests lists manifests behind the one named by repository id and
// digest, at most n and fewer when they are large; an empty page is the last.
func (db *DB) CheckManifests(ctx context.Context, repositoryID string, after oci.Digest, n int) ([]CheckedManifest, error) {
	rows, err := db.query(ctx, `SELECT m.repository_id, r.name, m.digest, m.size, m.content
		FROM manifests m JOIN repositories r ON r.id = m.repository_id
		WHERE (m.repository_id, m.digest) > ($1, $2) ORDER BY m.repository_id, m.digest LIMIT $3`,
		repositoryID, after.String(), n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []CheckedManifest
	for size := 0; size < maxPageBytes && rows.Next(); {
		var m CheckedManifest
		if err := rows.Scan(&m.RepositoryID, &m.Repository, &m.Digest, &m.Size, &m.Content); err != nil {
			return nil, err
		}
		m.Repository = shown(m.Repository)
		size += len(m.Content)
		list = append(list, m)
	}
	return list, classify(rows.Err())
}

// CheckUploads lists up to n sessions of all callers that sort behind the id
// after.
func (db *DB) CheckUploads(ctx context.Context, after string, n int) ([]Upload, error) {
	rows, err := db.query(ctx, `SELECT id, repository, algorithm, size, version, hash, state FROM uploads
		WHERE id > $1 ORDER BY id LIMIT $2`, after, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (u Upload, err error) {
		err = r.Scan(&u.ID, &u.Repository, &u.Algorithm, &u.Size, &u.Version, &u.Hash, &u.State)
		u.Repository = shown(u.Repository)
		return u, err
	})
}

// UploadVersion is the version of anybody's session. Errors: ErrNotFound.
func (db *DB) UploadVersion(ctx context.Context, id string) (version int64, err error) {
	err = db.queryRow(ctx, `SELECT version FROM uploads WHERE id = $1`, id).Scan(&version)
	return version, err
}

// CheckedKey is an object as a row names it.
type CheckedKey struct {
	Key  string
	Kind string // "blob", "upload" or "dead"
	Size int64  // of a blob; 0 otherwise
	// Of a blob:
	Digest  oci.Digest
	Damaged bool
}

// Blob is the row of a blob's object.
func (k CheckedKey) Blob() CheckedBlob {
	return CheckedBlob{Digest: k.Digest, Size: k.Size, Key: k.Key, Damaged: k.Damaged}
}

// CheckKeys lists up to n objects that rows name, in the order of their keys,
// behind after.
func (db *DB) CheckKeys(ctx context.Context, after string, n int) ([]CheckedKey, error) {
	rows, err := db.query(ctx, `SELECT key, kind, size, digest, damaged FROM (
		SELECT * FROM (SELECT key, 'blob' AS kind, size, digest, damaged FROM blobs WHERE key > $1 ORDER BY key LIMIT $2) b
		UNION ALL SELECT * FROM (SELECT id, 'upload', 0, '', FALSE FROM uploads WHERE id > $1 ORDER BY id LIMIT $2) u
		UNION ALL SELECT * FROM (SELECT key, 'dead', 0, '', FALSE FROM dead_objects WHERE key > $1 ORDER BY key LIMIT $2) d
		) k ORDER BY key LIMIT $2`, after, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (k CheckedKey, err error) {
		return k, r.Scan(&k.Key, &k.Kind, &k.Size, &k.Digest, &k.Damaged)
	})
}

const ownerOfKey = `SELECT 'blob', size FROM blobs WHERE key = $1
	UNION ALL SELECT 'upload', size FROM uploads WHERE id = $1
	UNION ALL SELECT 'dead', 0 FROM dead_objects WHERE key = $1 LIMIT 1`

// KeyOwner says which kind of row names an object ("blob", "upload", "dead")
// and the size it gives. Errors: ErrNotFound: none, the object is an orphan.
func (db *DB) KeyOwner(ctx context.Context, key string) (kind string, size int64, err error) {
	err = db.queryRow(ctx, ownerOfKey, key).Scan(&kind, &size)
	return kind, size, err
}

// BuryOrphan makes an object that no row names a dead one. Errors: ErrInUse.
func (db *DB) BuryOrphan(ctx context.Context, key string) error {
	return db.update(ctx, func(t *tx) error {
		var kind string
		var size int64
		err := t.queryRow(ownerOfKey, key).Scan(&kind, &size)
		if err == nil {
			return fmt.Errorf("object %s %w: by a row of kind %q", key, ErrInUse, kind)
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
		return bury(t, DeadObject{Key: key}, db.millis())
	})
}

// MarkDamaged takes a blob whose bytes are lost out of service until the next
// push brings them again. Errors: ErrNotFound when it has changed since.
func (db *DB) MarkDamaged(ctx context.Context, b CheckedBlob) error {
	return db.update(ctx, func(t *tx) error {
		return found(t.exec(`UPDATE blobs SET damaged = TRUE WHERE digest = $1 AND key = $2`, b.Digest.String(), b.Key))
	})
}
