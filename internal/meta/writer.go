package meta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/oci"
)

// MissingError names content that a manifest needs and its repository lacks.
type MissingError struct{ Digests []oci.Digest }

func (e *MissingError) Error() string {
	return fmt.Sprintf("repository lacks %d referenced digests, first %s", len(e.Digests), e.Digests[0])
}

// newID makes an id that sorts by its time of birth.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

// CommitBlob ends the session u, which the caller leases and has sealed, with its
// lease, and links its bytes into its repository as blob d. Where another upload
// brought the same content before, that one is linked, u's bytes become a dead
// object, and kept is false. Errors: ErrLeased; ErrNoRepository of a deleted
// project; *QuotaError.
func (db *DB) CommitBlob(ctx context.Context, u Upload, d oci.Digest) (kept bool, err error) {
	err = db.content(ctx, func(t *tx) error {
		name, err := endUpload(t, u) // by which the repository goes now
		if err != nil {
			return err
		}
		p, err := db.place(t, name)
		if err != nil {
			return err
		}
		if kept, err = db.insertBlob(t, d, u); err != nil {
			return err
		}
		if !kept {
			if err := bury(t, DeadObject{Key: u.ID, Bytes: u.Size}, db.millis()); err != nil {
				return err
			}
		}
		return db.link(t, p, d, u.Size)
	})
	if err == nil {
		db.leases.Delete(u.ID)
	}
	return kept, err
}

// insertBlob records u's bytes as blob d unless good bytes are there already.
func (db *DB) insertBlob(t *tx, d oci.Digest, u Upload) (kept bool, err error) {
	n, err := t.exec(`INSERT INTO blobs (digest, size, key, created_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (digest) DO NOTHING`, d.String(), u.Size, u.ID, db.millis())
	if err != nil || n == 1 {
		return n == 1, err
	}
	var old string
	var size int64
	err = t.queryRow(`SELECT key, size FROM blobs WHERE digest = $1 AND damaged`, d.String()).Scan(&old, &size)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	n, err = t.exec(`UPDATE blobs SET key = $2, size = $3, damaged = FALSE WHERE digest = $1 AND key = $4`, d.String(), u.ID, u.Size, old)
	if err := unchanged(n, err); err != nil {
		return false, err
	}
	if err := bury(t, DeadObject{Key: old, Bytes: size}, db.millis()); err != nil {
		return false, err
	}
	return true, recharge(t, d, u.Size-size)
}

// link lets a repository serve blob d, which exists, and plans the look at
// whether a manifest came to hold it.
func (db *DB) link(t *tx, p place, d oci.Digest, size int64) error {
	n, err := t.exec(`INSERT INTO links (repository_id, digest, seen_at, review_at) VALUES ($1, $2, $3, $3)
		ON CONFLICT (repository_id, digest) DO NOTHING`, p.id, d.String(), db.millis())
	switch {
	case err == nil && n == 1:
		err = p.holdBlob(t, d, size)
	case err == nil:
		err = unchanged(t.exec(`UPDATE links SET seen_at = $3 WHERE repository_id = $1 AND digest = $2`, p.id, d.String(), db.millis()))
	}
	if err != nil {
		return err
	}
	return settle(t, p.id, d, "blob")
}

// unchanged turns "no row is as it was read" into errAgain.
func unchanged(n int64, err error) error {
	if err == nil && n == 0 {
		return errAgain
	}
	return err
}

// settle turns references that waited for d into real ones. The caller has
// changed or locked the project's usage, as reference's has: of a manifest and
// what it names that come at once, the one that comes second sees the other.
func settle(t *tx, repo string, d oci.Digest, kind string) error {
	table := "blob_references"
	if kind == "manifest" {
		table = "manifest_references"
	}
	n, err := t.exec(`INSERT INTO `+table+` (repository_id, digest, manifest)
		SELECT repository_id, digest, manifest FROM pending_references
		WHERE repository_id = $1 AND digest = $2 AND kind = $3`, repo, d.String(), kind)
	if err != nil || n == 0 {
		return err
	}
	_, err = t.exec(`DELETE FROM pending_references WHERE repository_id = $1 AND digest = $2 AND kind = $3`, repo, d.String(), kind)
	return err
}

// Mount links blob d of the repository from, or of any when from is "", into
// repo and returns its size. Errors: ErrNotFound; ErrNoRepository of a deleted
// project; *QuotaError.
func (db *DB) Mount(ctx context.Context, repo, from string, d oci.Digest) (size int64, err error) {
	err = db.content(ctx, func(t *tx) error {
		if size, err = mountable(t, from, d); err != nil {
			return err
		}
		p, err := db.place(t, repo)
		if err != nil {
			return err
		}
		return db.link(t, p, d, size)
	})
	return size, err
}

// mountable finds a blob to mount and its size. It never goes over the links of
// the blob, which may be as many as there are repositories: the writer would
// have to wait for that. Errors: ErrNotFound.
func mountable(t *tx, from string, d oci.Digest) (size int64, err error) {
	if from == "" {
		err = t.queryRow(`SELECT b.size FROM blobs b WHERE b.digest = $1 AND NOT b.damaged AND EXISTS
			(SELECT 1 FROM project_blobs pb JOIN projects p ON p.id = pb.project_id WHERE pb.digest = $1 AND p.deleted_at IS NULL)`,
			d.String()).Scan(&size)
		return size, err
	}
	err = t.queryRow(`SELECT b.size FROM repositories r
		JOIN links l ON l.repository_id = r.id AND l.digest = $2 JOIN blobs b ON b.digest = l.digest
		WHERE r.name = $1 AND r.name < $3 AND NOT b.damaged`, from, d.String(), hidden).Scan(&size)
	return size, err
}

// PutManifest is a manifest with everything that its transaction enforces.
type PutManifest struct {
	Repository string
	Digest     oci.Digest
	Content    []byte
	Parsed     *oci.Manifest
	Tags       []string
	// AllowMissing stores the manifest although content it names is absent.
	AllowMissing bool
}

// PutManifest stores a manifest, what it holds, and its tags; all or nothing.
// Errors: *MissingError; ErrNoRepository of a deleted project; *QuotaError.
func (db *DB) PutManifest(ctx context.Context, p PutManifest) error {
	annotations := ""
	if p.Parsed.Subject != nil && len(p.Parsed.Annotations) > 0 {
		text, err := json.Marshal(p.Parsed.Annotations)
		if err != nil {
			return err
		}
		annotations = string(text)
	}
	return db.content(ctx, func(t *tx) error {
		if err := db.putManifest(t, annotations, p); err != nil {
			return err
		}
		return db.record(t, ctx, func(e *audit.Event) {
			e.Action, e.Status = "manifest.write", 201
			e.Repository, e.Reference = p.Repository, strings.Join(p.Tags, ",")
			e.Digest, e.Bytes = p.Digest.String(), int64(len(p.Content))
		})
	})
}

func (db *DB) putManifest(t *tx, annotations string, p PutManifest) error {
	at, err := db.place(t, p.Repository)
	if err != nil {
		return err
	}
	isNew, err := db.insertManifest(t, at.id, annotations, p)
	if err != nil {
		return err
	}
	if isNew {
		if err := at.takeIn(t, p); err != nil {
			return err
		}
	}
	if len(p.Tags) == 0 {
		return db.loosen(t, at.id, p.Digest, isNew)
	}
	return db.tag(t, at.id, p.Digest, p.Tags)
}

// takeIn records what a manifest that has just been stored uses and holds.
func (p *place) takeIn(t *tx, m PutManifest) error {
	if err := p.holdManifest(t, int64(len(m.Content))); err != nil {
		return err
	}
	if err := reference(t, p.id, m); err != nil {
		return err
	}
	return settle(t, p.id, m.Digest, "manifest")
}

func (db *DB) insertManifest(t *tx, repo, annotations string, p PutManifest) (isNew bool, err error) {
	var subject *string
	if p.Parsed.Subject != nil {
		subject = new(p.Parsed.Subject.Digest.String())
	}
	n, err := t.exec(`INSERT INTO manifests
		(repository_id, digest, media_type, size, subject, artifact_type, created_at, annotations, content)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (repository_id, digest) DO NOTHING`,
		repo, p.Digest.String(), p.Parsed.MediaType, len(p.Content), subject, p.Parsed.ArtifactType,
		db.millis(), annotations, p.Content)
	return n == 1, err
}

// reference records what a new manifest holds; see settle.
func reference(t *tx, repo string, p PutManifest) error {
	var missing []oci.Digest
	hold := func(list []oci.Descriptor, kind, query string, optional bool) error {
		for i := range list {
			d := list[i].Digest
			n, err := t.exec(query, repo, d.String(), p.Digest.String())
			if err != nil {
				return err
			}
			switch {
			case n > 0:
			case !optional && !p.AllowMissing:
				missing = append(missing, d)
			default:
				if err := await(t, repo, d, kind, p.Digest); err != nil {
					return err
				}
			}
		}
		return nil
	}
	const holdLink = `INSERT INTO blob_references (repository_id, digest, manifest)
		SELECT l.repository_id, l.digest, $3 FROM links l JOIN blobs b ON b.digest = l.digest
		WHERE l.repository_id = $1 AND l.digest = $2`
	holdBlob := holdLink + ` AND NOT b.damaged`
	if p.AllowMissing {
		holdBlob = holdLink // a damaged blob may be missing, but not be deleted
	}
	const holdManifest = `INSERT INTO manifest_references (repository_id, digest, manifest)
		SELECT repository_id, digest, $3 FROM manifests WHERE repository_id = $1 AND digest = $2`
	if err := errors.Join(
		hold(p.Parsed.Blobs, "blob", holdBlob, false),
		hold(p.Parsed.Foreign, "blob", holdLink, true),
		hold(p.Parsed.Manifests, "manifest", holdManifest, false),
	); err != nil {
		return err
	}
	if len(missing) > 0 {
		return &MissingError{missing}
	}
	return nil
}

func await(t *tx, repo string, d oci.Digest, kind string, manifest oci.Digest) error {
	_, err := t.exec(`INSERT INTO pending_references (repository_id, digest, kind, manifest) VALUES ($1, $2, $3, $4)`,
		repo, d.String(), kind, manifest.String())
	return err
}

// tag points tags at a manifest of the repository, and plans the look at those
// that they pointed at.
func (db *DB) tag(t *tx, repo string, d oci.Digest, tags []string) error {
	for _, tag := range tags {
		var old oci.Digest
		err := t.lockedRow(`SELECT digest FROM tags WHERE repository_id = $1 AND name = $2`, repo, tag).Scan(&old)
		switch {
		case errors.Is(err, ErrNotFound):
			err = unchanged(t.exec(`INSERT INTO tags (repository_id, name, digest, updated_at) VALUES ($1, $2, $3, $4)
				ON CONFLICT (repository_id, name) DO NOTHING`, repo, tag, d.String(), db.millis()))
		case err == nil:
			_, err = t.exec(`UPDATE tags SET digest = $3, updated_at = $4 WHERE repository_id = $1 AND name = $2`,
				repo, tag, d.String(), db.millis())
			if err == nil && old != d {
				err = db.planManifest(t, repo, old)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
