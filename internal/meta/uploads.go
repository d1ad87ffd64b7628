package meta

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/oci"
)

// Upload is an upload session's row. Its id is also the key of its bytes.
type Upload struct {
	ID         string
	Repository string
	Algorithm  oci.Algorithm
	Size       int64  // bytes durably received
	Version    int64  // of the lease; what it must still be when saving
	Hash       []byte // state of the hash over the bytes received
	State      []byte // of the blob store
	// MaxBlob is what the project's plan allows at this moment, 0 for no limit:
	// more need not be received, for CommitBlob would refuse it.
	MaxBlob int64
}

// selectUpload finds the session of a repository whose project is $4, and of
// its owner; where there is no project yet, the default organization's plan
// will be its.
const selectUpload = `SELECT u.id, u.repository, u.algorithm, u.size, u.version, u.hash, u.state, l.max_blob
	FROM uploads u LEFT JOIN projects p ON p.name = $4
	JOIN organizations o ON o.id = COALESCE(p.organization_id, 'default')
	JOIN plans l ON l.id = COALESCE(p.plan_id, o.plan_id, 'default')
	WHERE u.id = $1 AND u.repository = $2 AND u.owner = $3`

// leaseUpload returns the same columns.
const leaseUpload = `UPDATE uploads SET lease_owner = $5, lease_until = $6, version = version + $8
	WHERE id = $1 AND repository = $2 AND owner = $3 AND (lease_until <= $7 OR lease_owner = $5)
	RETURNING id, repository, algorithm, size, version, hash, state,
		(SELECT l.max_blob FROM plans l WHERE l.id = COALESCE((SELECT p.plan_id FROM projects p WHERE p.name = $4),
			(SELECT o.plan_id FROM organizations o WHERE o.id =
				COALESCE((SELECT p.organization_id FROM projects p WHERE p.name = $4), 'default')), 'default'))`

func (r row) scanUpload() (u Upload, err error) {
	err = r.Scan(&u.ID, &u.Repository, &u.Algorithm, &u.Size, &u.Version, &u.Hash, &u.State, &u.MaxBlob)
	return u, err
}

// owner is whose the sessions are that an operation begins and may touch; ""
// is that of all who have no identity.
func owner(ctx context.Context) string {
	if c := audit.CallerOf(ctx); c != nil {
		return c.Owner
	}
	return ""
}

// CreateUpload stores a new session of the caller that nobody leases. It is synced with the
// first bytes that arrive: a session without any is nothing to lose.
//
// A connection that was given up for lost may deliver the statement once more, when
// the session has ended: a second one of that id would expire, and take the bytes
// of the blob with it that the first became.
func (db *DB) CreateUpload(ctx context.Context, u Upload) error {
	err := db.hintRow(ctx, `INSERT INTO uploads
		(id, repository, algorithm, size, version, lease_owner, lease_until, updated_at, hash, state, owner)
		SELECT $1, $2, $3, $4, 0, '', 0, $5, $6, $7, $8
		WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE key = $1) AND NOT EXISTS (SELECT 1 FROM dead_objects WHERE key = $1)
		ON CONFLICT (id) DO UPDATE SET updated_at = excluded.updated_at
		WHERE uploads.repository = excluded.repository AND uploads.owner = excluded.owner AND uploads.version = 0
		RETURNING id`,
		u.ID, u.Repository, string(u.Algorithm), u.Size, db.millis(), u.Hash, u.State, owner(ctx)).Scan(&u.ID)
	if errors.Is(err, ErrNotFound) {
		err = ErrExists
	}
	return err
}

// Upload reads a session. Errors: ErrNotFound, also for another repository's
// or another caller's.
func (db *DB) Upload(ctx context.Context, repo, id string) (Upload, error) {
	return db.queryRow(ctx, selectUpload, id, repo, owner(ctx), access.ProjectOf(repo)).scanUpload()
}

// LeaseUpload makes the caller the session's one writer for ttl and returns
// the row as of now. Errors: ErrNotFound as Upload; ErrLeased, with the row.
//
// A lease need not be durable, for what it protects is saved in transactions
// that are. But a database that crashes may forget it, and give the next one
// before its holder has ended: versions go up by chance, so that no two leases
// have the same one.
func (db *DB) LeaseUpload(ctx context.Context, repo, id string, ttl time.Duration) (u Upload, err error) {
	if !db.shared {
		return db.leaseHere(ctx, repo, id)
	}
	now := db.millis()
	// A name of its own for each lease, so that asking twice is taking it once.
	u, err = db.hintRow(ctx, leaseUpload, id, repo, owner(ctx), access.ProjectOf(repo),
		db.owner+"/"+newID(), now+ttl.Milliseconds(), now, 1+rand.Int64N(maxLeaseStep)).scanUpload()
	if !errors.Is(err, ErrNotFound) {
		return u, err
	}
	if u, err = db.Upload(ctx, repo, id); err == nil {
		err = ErrLeased
	}
	return u, err
}

// maxLeaseStep is by how much a lease raises the version at most: there is room
// for 2^31 of them.
const maxLeaseStep = 1 << 32

// leaseHere leases a session where this process owns the database alone. Such a
// lease ends with the process at the latest, so it need not be stored.
func (db *DB) leaseHere(ctx context.Context, repo, id string) (Upload, error) {
	if _, taken := db.leases.LoadOrStore(id, true); taken {
		u, err := db.Upload(ctx, repo, id)
		if err == nil {
			err = ErrLeased
		}
		return u, err
	}
	u, err := db.Upload(ctx, repo, id)
	if err != nil {
		db.leases.Delete(id)
	}
	return u, err
}

// RenewUpload prolongs a lease. Errors: ErrLeased when it was lost or given back.
func (db *DB) RenewUpload(ctx context.Context, id string, version int64, ttl time.Duration) error {
	if !db.shared {
		return nil
	}
	err := db.hintRow(ctx, `UPDATE uploads SET lease_until = $3 WHERE id = $1 AND version = $2 RETURNING id`,
		id, version, db.millis()+ttl.Milliseconds()).Scan(&id)
	if errors.Is(err, ErrNotFound) {
		err = ErrLeased
	}
	return err
}

// SaveUpload stores a session's progress; the lease stays.
// Errors: ErrLeased when the lease was lost; nothing is stored then.
func (db *DB) SaveUpload(ctx context.Context, u Upload) error {
	return db.update(ctx, func(t *tx) error {
		return fenced(t.exec(`UPDATE uploads
			SET size = $3, algorithm = $4, hash = $5, state = $6, updated_at = $7
			WHERE id = $1 AND version = $2`,
			u.ID, u.Version, u.Size, string(u.Algorithm), u.Hash, u.State, db.millis()))
	})
}

// ReleaseUpload ends a lease, also one whose session has ended. It raises the
// version, so that a renewal still under way does not take the lease again.
func (db *DB) ReleaseUpload(ctx context.Context, id string, version int64) error {
	if !db.shared {
		db.leases.Delete(id)
		return nil
	}
	err := db.hintRow(ctx, `UPDATE uploads SET lease_until = 0, version = version + 1
		WHERE id = $1 AND version = $2 RETURNING id`, id, version).Scan(&id)
	if errors.Is(err, ErrNotFound) { // given back, lost or ended before
		err = nil
	}
	return err
}

// CancelUpload ends a session that the caller leases, and the lease; its bytes
// become a dead object. Errors: ErrLeased.
func (db *DB) CancelUpload(ctx context.Context, u Upload) error {
	err := db.update(ctx, func(t *tx) error {
		if _, err := endUpload(t, u); err != nil {
			return err
		}
		return bury(t, DeadObject{Key: u.ID, Unsealed: true, Size: u.Size, State: u.State, Bytes: u.Size}, db.millis())
	})
	if err == nil {
		db.leases.Delete(u.ID)
	}
	return err
}

// endUpload returns the session's repository, which may have been renamed since
// u was read.
func endUpload(t *tx, u Upload) (repo string, err error) {
	err = t.queryRow(`DELETE FROM uploads WHERE id = $1 AND version = $2 RETURNING repository`, u.ID, u.Version).Scan(&repo)
	if errors.Is(err, ErrNotFound) {
		err = ErrLeased
	}
	return repo, err
}

// fenced turns "no row has that version" into the loss of the lease.
func fenced(n int64, err error) error {
	if err == nil && n == 0 {
		return ErrLeased
	}
	return err
}

// ExpireUploads ends up to n sessions that nobody has touched since before and
// returns how many. Their bytes become dead objects.
func (db *DB) ExpireUploads(ctx context.Context, before time.Time, n int) (count int, err error) {
	rows, err := db.query(ctx, `SELECT id FROM uploads WHERE updated_at < $1 AND lease_until < $2
		ORDER BY updated_at LIMIT $3`, before.UnixMilli(), db.millis(), n)
	if err != nil {
		return 0, err
	}
	ids, err := collect(rows, scanString)
	if err != nil {
		return 0, err
	}
	sum, err := turns[string]{
		db: db,
		look: func(t *tx, id string) (Reviewed, error) {
			if _, leased := db.leases.Load(id); leased {
				return Reviewed{Seen: 1}, nil
			}
			gone, err := db.expire(t, id, before.UnixMilli())
			if gone {
				return Reviewed{Seen: 1, Removed: 1}, err
			}
			return Reviewed{Seen: 1}, err
		},
		putOff: func(t *tx, id string) error {
			_, err := t.exec(`UPDATE uploads SET updated_at = $2 WHERE id = $1`, id, before.Add(putOff).UnixMilli())
			return err
		},
		name: func(id string) string { return "upload session " + id },
	}.run(ctx, ids)
	return sum.Removed, err
}

// IdleUpload is an open session as collection sees it.
type IdleUpload struct {
	ID, Repository string
	Size           int64
	UpdatedAt      int64 // in ms
}

// IdleUploads lists up to n sessions of all callers that sort behind the id
// after.
func (db *DB) IdleUploads(ctx context.Context, after string, n int) ([]IdleUpload, error) {
	rows, err := db.query(ctx, `SELECT id, repository, size, updated_at FROM uploads WHERE id > $1 ORDER BY id LIMIT $2`, after, n)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (u IdleUpload, err error) {
		err = r.Scan(&u.ID, &u.Repository, &u.Size, &u.UpdatedAt)
		u.Repository = shown(u.Repository)
		return u, err
	})
}

// expire ends a session that is not leased and that nobody has touched since
// before; gone is false where somebody came back to it.
func (db *DB) expire(t *tx, id string, before int64) (gone bool, err error) {
	o := DeadObject{Key: id, Unsealed: true}
	err = t.queryRow(`DELETE FROM uploads WHERE id = $1 AND updated_at < $2 AND lease_until < $3 RETURNING size, state`,
		id, before, db.millis()).Scan(&o.Size, &o.State)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	o.Bytes = o.Size
	return true, bury(t, o, db.millis())
}
