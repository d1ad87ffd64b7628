package meta

import (
	"context"
	"database/sql"
	"encoding/json"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/oci"
)

// maxReferrerBytes bounds the annotations that one page of Referrers holds.
const maxReferrerBytes = 4 << 20

// Tags lists up to n tags that sort bytewise after the given one.
// Errors: ErrNoRepository.
func (db *DB) Tags(ctx context.Context, repo, after string, n int) ([]string, error) {
	var id string
	if err := db.queryRow(ctx, `SELECT id FROM repositories WHERE name = $1`, repo).Scan(&id); err != nil {
		return nil, db.whyNotFound(ctx, repo, err)
	}
	rows, err := db.query(ctx, `SELECT name FROM tags
		WHERE repository_id = $1 AND name > $2 ORDER BY name LIMIT $3`, id, after, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, scanString)
}

// Repositories lists up to n names that sort bytewise after the given one.
func (db *DB) Repositories(ctx context.Context, after string, n int) ([]string, error) {
	rows, err := db.query(ctx, `SELECT name FROM repositories WHERE name > $1 AND name < $2 ORDER BY name LIMIT $3`, after, hidden, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, scanString)
}

// Referrers lists up to n referrers of subject behind the digest after, fewer
// when their annotations are large; only an empty page is the last one.
func (db *DB) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest, n int) ([]oci.Descriptor, error) {
	rows, err := db.query(ctx, `SELECT m.digest, m.media_type, m.size, m.artifact_type, m.annotations
		FROM repositories r JOIN manifests m ON m.repository_id = r.id AND m.subject = $2
		WHERE r.name = $1 AND m.digest > $3 AND ($4 = '' OR m.artifact_type = $4)
		ORDER BY m.digest LIMIT $5`, repo, subject.String(), after.String(), artifactType, n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []oci.Descriptor
	for size := 0; size < maxReferrerBytes && rows.Next(); {
		var d oci.Descriptor
		var annotations sql.RawBytes
		if err := rows.Scan(&d.Digest, &d.MediaType, &d.Size, &d.ArtifactType, &annotations); err != nil {
			return nil, err
		}
		size += len(annotations)
		if len(annotations) > 0 {
			if err := json.Unmarshal(annotations, &d.Annotations); err != nil {
				return nil, err
			}
		}
		list = append(list, d)
	}
	return list, classify(rows.Err())
}

func scanString(r *sql.Rows) (s string, err error) { return s, r.Scan(&s) }

// Holders lists up to n repositories that link an undamaged blob, those of
// near's project before others.
func (db *DB) Holders(ctx context.Context, near string, d oci.Digest, n int) ([]string, error) {
	const holders = `SELECT r.name FROM links l JOIN blobs b ON b.digest = l.digest JOIN repositories r ON r.id = l.repository_id
		WHERE l.digest = $1 AND NOT b.damaged AND r.name < $2 `
	rows, err := db.query(ctx, holders+`AND r.project_id = (SELECT id FROM projects WHERE name = $3) LIMIT $4`,
		d.String(), hidden, access.ProjectOf(near), n)
	if err != nil {
		return nil, err
	}
	list, err := collect(rows, scanString)
	if err != nil || len(list) == n {
		return list, err
	}
	rows, err = db.query(ctx, holders+`AND r.project_id NOT IN (SELECT id FROM projects WHERE name = $3) LIMIT $4`,
		d.String(), hidden, access.ProjectOf(near), n-len(list))
	if err != nil {
		return nil, err
	}
	others, err := collect(rows, scanString)
	return append(list, others...), err
}
