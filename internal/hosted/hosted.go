// Package hosted is the registry that keeps its own content: what it knows in
// SQL, its bytes in a blob store. It joins the two so that neither ever claims
// what the other does not have: bytes are durable before a row names them, and
// rows are gone before bytes are freed.
package hosted

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// Metadata is what a hosted registry needs of a database; *meta.DB is one.
type Metadata interface {
	Manifest(ctx context.Context, repo string, ref oci.Ref) (meta.Manifest, error)
	Resolve(ctx context.Context, repo string, ref oci.Ref) (meta.Manifest, error)
	Blob(ctx context.Context, repo string, d oci.Digest) (meta.Blob, error)
	TouchBlob(ctx context.Context, repo string, d oci.Digest) error
	TouchManifest(ctx context.Context, repo string, d oci.Digest) error
	Tags(ctx context.Context, repo, after string, n int) ([]string, error)
	Repositories(ctx context.Context, after string, n int) ([]string, error)
	Holders(ctx context.Context, near string, d oci.Digest, n int) ([]string, error)
	Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest, n int) ([]oci.Descriptor, error)

	CreateUpload(ctx context.Context, u meta.Upload) error
	Upload(ctx context.Context, repo, id string) (meta.Upload, error)
	LeaseUpload(ctx context.Context, repo, id string, ttl time.Duration) (meta.Upload, error)
	RenewUpload(ctx context.Context, id string, version int64, ttl time.Duration) error
	SaveUpload(ctx context.Context, u meta.Upload) error
	ReleaseUpload(ctx context.Context, id string, version int64) error
	CancelUpload(ctx context.Context, u meta.Upload) error
	BuryOrphan(ctx context.Context, key string) error

	CommitBlob(ctx context.Context, u meta.Upload, d oci.Digest) (kept bool, err error)
	Mount(ctx context.Context, repo, from string, d oci.Digest) (size int64, err error)
	PutManifest(ctx context.Context, p meta.PutManifest) error
	DeleteTag(ctx context.Context, repo, tag string) error
	DeleteManifest(ctx context.Context, repo string, d oci.Digest) error
	DeleteBlob(ctx context.Context, repo string, d oci.Digest) error

	PurgeProjects(ctx context.Context, before time.Time, n int) (purged, rows int, err error)
	ExpireUploads(ctx context.Context, before time.Time, n int) (int, error)
	CollectLinks(ctx context.Context, before time.Time, n int) (removed, seen int, err error)
	PlanManifests(ctx context.Context, policy string, n int) (int, error)
	CollectManifests(ctx context.Context, policy func(repo string) meta.Retention, now time.Time, n int) (meta.Reviewed, error)
	ClaimSweep(ctx context.Context, every time.Duration) (mine bool, err error)
	KeyOwner(ctx context.Context, key string) (kind string, size int64, err error)
	DeadObjects(ctx context.Context, before time.Time, n int) ([]meta.DeadObject, error)
	ForgetDead(ctx context.Context, keys ...string) error
	DeferDead(ctx context.Context, by time.Duration, keys ...string) error

	DeletedProjects(ctx context.Context, after meta.DeletedProject, n int) ([]meta.DeletedProject, error)
	IdleUploads(ctx context.Context, after string, n int) ([]meta.IdleUpload, error)
	LooseManifests(ctx context.Context, repositoryID string, after oci.Digest, n int) ([]meta.LooseManifest, error)
	LooseLinks(ctx context.Context, after meta.LooseLink, n int) ([]meta.LooseLink, error)
	DeadQueue(ctx context.Context, at int64, key string, n int) ([]meta.DeadObject, error)
}

// Options of New; the zero value is useful.
type Options struct {
	// Sparse says whether a repository takes manifests that name content it
	// does not have. nil: none does.
	Sparse func(repo string) bool
	// UploadExpiry is how long an untouched upload session lives. Default 7 days.
	UploadExpiry time.Duration
	// UnreferencedAge is how long a blob that no manifest holds is kept after
	// a client was last told that it is there. Default 24 hours.
	UnreferencedAge time.Duration
	// ProjectRetention is how long a deleted project can be restored before it
	// is purged. Default 7 days.
	ProjectRetention time.Duration
	// Retention says how long a repository keeps manifests that nothing holds.
	// nil: without a tag for ever, without their subject 7 days.
	Retention func(repo string) Retention
	// Policy names what Retention says: where it is another than at the last
	// collection, all such manifests are looked at again.
	Policy string
	// DeadAfter is how long the bytes of what was deleted stay in the blob store:
	// longer than any URL of them is good. 0: they go with the next collection.
	DeadAfter time.Duration
	// Rate bounds how many rows a second collection looks at; between its steps it
	// rests for longer than they take. 0: no bound, and no rest.
	Rate int
	// SweepEvery is how often a blob store that can be swept is; SweepAge how old
	// what is swept must be. Default 1 hour.
	SweepEvery, SweepAge time.Duration
	// OnCollect is told of what a collection removed, batch by batch; may be nil.
	OnCollect func(delta Collected)
}

// Retention is how long manifests that nothing holds are kept; 0 is for ever.
type Retention = meta.Retention

// Registry is a hosted registry.
type Registry struct {
	db    Metadata
	blobs blob.Store
	o     Options
}

var _ registry.Registry = (*Registry)(nil)

// New joins a database and a blob store; the caller closes them.
func New(db Metadata, blobs blob.Store, o Options) *Registry {
	if o.Sparse == nil {
		o.Sparse = func(string) bool { return false }
	}
	if o.UploadExpiry == 0 {
		o.UploadExpiry = 7 * 24 * time.Hour
	}
	if o.UnreferencedAge == 0 {
		o.UnreferencedAge = 24 * time.Hour
	}
	if o.ProjectRetention == 0 {
		o.ProjectRetention = 7 * 24 * time.Hour
	}
	if o.Retention == nil {
		o.Retention = func(string) Retention { return Retention{Orphans: 7 * 24 * time.Hour} }
	}
	o.SweepEvery, o.SweepAge = cmp.Or(o.SweepEvery, time.Hour), cmp.Or(o.SweepAge, time.Hour)
	return &Registry{db: db, blobs: blobs, o: o}
}

// coded gives an error of the layers below its code. unknown is the code of
// "not found" in the caller's context.
func coded(err error, repo string, unknown registry.Code, what any) error {
	var missing *meta.MissingError
	var held *meta.ReferencedError
	var quota *meta.QuotaError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, meta.ErrNotFound):
		return &registry.Error{Code: unknown, Repo: repo, Detail: what}
	case errors.Is(err, meta.ErrNoRepository):
		return &registry.Error{Code: registry.NameUnknown, Repo: repo, Detail: map[string]string{"name": repo}}
	case errors.As(err, &missing):
		return &registry.Error{Code: registry.ManifestBlobUnknown, Repo: repo, Detail: missing.Digests}
	case errors.As(err, &held):
		return &registry.Error{Code: registry.Referenced, Repo: repo, Detail: map[string]any{
			"heldBy": held.By, "hint": "delete the manifests that hold it first"}}
	case errors.As(err, &quota):
		return exceeded(quota, repo)
	case errors.Is(err, blob.ErrFull), errors.Is(err, meta.ErrFull):
		return &registry.Error{Code: registry.InsufficientStorage, Repo: repo,
			Detail: "the registry's storage is full; try again when its operator has freed space", Err: err}
	case errors.Is(err, blob.ErrUnavailable):
		return &registry.Error{Code: registry.Unavailable, Repo: repo,
			Detail: "the registry's storage cannot be reached or is overloaded; try again", Err: err}
	case errors.Is(err, blob.ErrNotFound):
		return &registry.Error{Code: unknown, Repo: repo, Detail: what, Err: err}
	case errors.Is(err, meta.ErrClosed):
		return &registry.Error{Code: registry.Unavailable, Repo: repo, Detail: "the registry is shutting down; try again", Err: err}
	case errors.Is(err, meta.ErrUnavailable):
		return &registry.Error{Code: registry.Unavailable, Repo: repo, Detail: "the registry's database is not available; try again", Err: err}
	}
	return err
}

// exceeded says which quota of its plan a project cannot go beyond, and what
// to do.
func exceeded(q *meta.QuotaError, repo string) error {
	detail := map[string]any{"quota": q.Quota, "limit": q.Limit, "asked": q.Asked}
	e := &registry.Error{Code: registry.Denied, Repo: repo, Detail: detail, Err: q}
	switch q.Quota {
	case meta.BlobSize:
		e.Code = registry.BlobTooLarge
		detail["hint"] = "split it up, or ask the registry's operator for a plan that allows larger blobs"
	case meta.ManifestSize:
		e.Code = registry.ManifestTooLarge
		detail["hint"] = "make it smaller, or ask the registry's operator for a plan that allows larger manifests"
	case meta.Repositories:
		detail["used"] = q.Used
		detail["hint"] = "push to a repository that exists, or ask the registry's operator for a plan that allows more of them"
	default:
		detail["used"] = q.Used
		detail["hint"] = "delete manifests that are not needed, or ask the registry's operator for a plan that allows more; what is deleted is given back as it is collected"
	}
	return e
}
