package hosted

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

// checkPage is how many rows a check reads at a time.
const checkPage = 500

// orphanAge is how old an object without a row must be to be called an orphan:
// a row is always there first, but a check beside a running server reads the
// two at different moments.
const orphanAge = 10 * time.Minute

// CheckedMetadata is what Check needs of a database besides; *meta.DB has it.
type CheckedMetadata interface {
	Metadata
	CheckTotals(ctx context.Context) (meta.Totals, error)
	CheckDatabase(ctx context.Context) ([]string, error)
	CheckBlobs(ctx context.Context, after oci.Digest, n int) ([]meta.CheckedBlob, error)
	CheckManifests(ctx context.Context, repositoryID string, after oci.Digest, n int) ([]meta.CheckedManifest, error)
	CheckKeys(ctx context.Context, after string, n int) ([]meta.CheckedKey, error)
	CheckUploads(ctx context.Context, after string, n int) ([]meta.Upload, error)
	LinkedBy(ctx context.Context, d oci.Digest, n int) ([]string, error)
	MarkDamaged(ctx context.Context, b meta.CheckedBlob) error
	UploadVersion(ctx context.Context, id string) (int64, error)
	CheckUsage(ctx context.Context, after string) (meta.UsageCheck, error)
	RepairUsage(ctx context.Context, projectID string) error
}

// Finding is one thing that is wrong.
type Finding struct {
	Repositories []string   // that are concerned; at most ten are named
	Digest       oci.Digest // "" where content is not the matter
	Problem      string
	Repaired     string // what was done about it; "" for nothing
}

// Progress of a check: what has been looked at, of how much.
type Progress struct{ Done, Total meta.Totals }

// Checker holds rows against bytes, both ways. It changes nothing unless Repair
// is set, and works beside running servers: what looks wrong is looked at again
// before it is reported, for pushes and collections go on meanwhile.
type Checker struct {
	DB    CheckedMetadata
	Blobs blob.Store
	// Share of the blobs whose bytes are read and hashed anew, from 0 for none to
	// 1 for all. Which ones is left to chance, another one with each run.
	Share    float64
	Repair   bool
	Report   func(Finding)
	Progress func(Progress) // may be nil; called often

	progress Progress
}

// Run checks everything. Its error means that the check could not be finished;
// what is wrong with the content goes to Report.
func (c *Checker) Run(ctx context.Context) (err error) {
	if c.progress.Total, err = c.DB.CheckTotals(ctx); err != nil {
		return err
	}
	c.progress.Total.BlobBytes = int64(float64(c.progress.Total.BlobBytes) * c.Share)
	for _, step := range []func(context.Context) error{c.database, c.manifests, c.objects, c.uploads, c.blobs, c.usage} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *Checker) step(add meta.Totals) {
	c.progress.Done.Blobs += add.Blobs
	c.progress.Done.BlobBytes += add.BlobBytes
	c.progress.Done.Manifests += add.Manifests
	if c.Progress != nil {
		c.Progress(c.progress)
	}
}

func (c *Checker) database(ctx context.Context) error {
	problems, err := c.DB.CheckDatabase(ctx)
	for _, p := range problems {
		c.Report(Finding{Problem: "database: " + p})
	}
	return err
}

func (c *Checker) manifests(ctx context.Context) error {
	var last meta.CheckedManifest
	for {
		page, err := c.DB.CheckManifests(ctx, last.RepositoryID, last.Digest, checkPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, m := range page {
			_, err := oci.ParseDigest(m.Digest.String())
			if err != nil || int64(len(m.Content)) != m.Size || !m.Digest.Verify(m.Content) {
				c.Report(Finding{Repositories: []string{m.Repository}, Digest: m.Digest,
					Problem: "the stored manifest does not have its digest; delete it and push it again"})
			}
			c.step(meta.Totals{Manifests: 1})
		}
		last = page[len(page)-1]
		last.Content = nil
	}
}

// blobs hashes a share of the blobs. Whether they are there and of their size is
// known by then.
func (c *Checker) blobs(ctx context.Context) error {
	if c.Share <= 0 {
		return nil
	}
	for after := oci.Digest(""); ; {
		page, err := c.DB.CheckBlobs(ctx, after, checkPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, b := range page {
			after = b.Digest
			if b.Damaged || rand.Float64() >= c.Share {
				continue
			}
			problem, lost := c.bytes(ctx, b)
			if err := ctx.Err(); err != nil {
				return err
			}
			if problem != "" {
				if err := c.blob(ctx, b, problem, lost); err != nil {
					return err
				}
			}
		}
	}
}

// blob reports what is wrong with a blob, if it is still one.
func (c *Checker) blob(ctx context.Context, b meta.CheckedBlob, problem string, lost bool) error {
	kind, size, err := c.DB.KeyOwner(ctx, b.Key)
	if errors.Is(err, meta.ErrNotFound) || err == nil && (kind != "blob" || size != b.Size) {
		return nil // deleted while it was being checked
	}
	if err != nil {
		return err
	}
	repos, err := c.DB.LinkedBy(ctx, b.Digest, 10)
	if err != nil {
		return err
	}
	f := Finding{Repositories: repos, Digest: b.Digest, Problem: problem}
	if c.Repair && lost {
		switch err := c.DB.MarkDamaged(ctx, b); {
		case errors.Is(err, meta.ErrNotFound):
			return nil // deleted, or pushed again, while it was being checked
		case err != nil:
			return err
		}
		f.Repaired = "taken out of service until it is pushed again"
	}
	c.Report(f)
	return nil
}

// bytes says what is wrong with a blob's bytes; "" for nothing, or for what
// objects has told. They are lost where the store proves it; one that cannot be
// read now may be well tomorrow.
func (c *Checker) bytes(ctx context.Context, b meta.CheckedBlob) (problem string, lost bool) {
	if _, err := oci.ParseDigest(b.Digest.String()); err != nil {
		return "", false
	}
	rc, err := c.Blobs.Open(ctx, b.Key, 0, b.Size)
	if errors.Is(err, blob.ErrNotFound) {
		return "", false
	}
	if err != nil {
		return fmt.Sprintf("its bytes cannot be read: %v", err), false
	}
	defer rc.Close()
	h := b.Digest.Algorithm().New()
	n, err := io.Copy(io.MultiWriter(h, progressWriter{c}), contextReader{ctx, rc})
	switch {
	case ctx.Err() != nil:
		return "", false
	case n != b.Size && c.endsAt(ctx, b.Key, n):
		return "", false
	case err != nil:
		return fmt.Sprintf("its bytes cannot be read: %v", err), false
	}
	if got := b.Digest.Algorithm().FromHash(h); got != b.Digest {
		return fmt.Sprintf("its bytes have digest %s", got), true
	}
	return "", false
}

// endsAt reports whether there is no byte at off, which a connection that broke
// while reading does not prove.
func (c *Checker) endsAt(ctx context.Context, key string, off int64) bool {
	rc, err := c.Blobs.Open(ctx, key, off, 1)
	if err != nil {
		return errors.Is(err, blob.ErrNotFound)
	}
	defer rc.Close()
	n, err := io.ReadFull(rc, make([]byte, 1))
	return n == 0 && (err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF))
}

func (c *Checker) uploads(ctx context.Context) error {
	for after := ""; ; {
		page, err := c.DB.CheckUploads(ctx, after, checkPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, u := range page {
			after = u.ID
			if u.Size == 0 {
				continue
			}
			if err := c.upload(ctx, u); err != nil {
				return err
			}
		}
	}
}

// upload checks that the bytes a session has acknowledged are there.
func (c *Checker) upload(ctx context.Context, u meta.Upload) error {
	lost, err := c.lostUpload(ctx, u)
	if !lost || err != nil {
		return err
	}
	f := Finding{Repositories: []string{u.Repository},
		Problem: fmt.Sprintf("upload session %s has lost some of its %d bytes", u.ID, u.Size)}
	if now, gone := c.DB.UploadVersion(ctx, u.ID); gone != nil || now != u.Version {
		return nil // finished or cancelled while it was being checked
	}
	if c.Repair {
		switch err := c.DB.CancelUpload(ctx, u); {
		case errors.Is(err, meta.ErrLeased):
			return nil // its client is back
		case err != nil:
			return err
		}
		f.Repaired = "cancelled; the client starts anew"
	}
	c.Report(f)
	return nil
}

func (c *Checker) lostUpload(ctx context.Context, u meta.Upload) (lost bool, err error) {
	store, ok := c.Blobs.(blob.Prober)
	if !ok {
		return c.endsAt(ctx, u.ID, u.Size-1), ctx.Err()
	}
	err = store.Probe(ctx, u.ID, state(u))
	if errors.Is(err, blob.ErrNotFound) {
		return true, nil
	}
	return false, err
}

func (c *Checker) orphan(ctx context.Context, o blob.Object) error {
	f := Finding{Problem: fmt.Sprintf("object %s (%d bytes) belongs to no blob and no upload", o.Key, o.Size)}
	if c.Repair {
		if err := c.DB.BuryOrphan(ctx, o.Key); err != nil {
			return err
		}
		if err := c.Blobs.Delete(ctx, o.Key); err != nil {
			return err
		}
		if err := c.DB.ForgetDead(ctx, o.Key); err != nil {
			return err
		}
		f.Repaired = "deleted"
	}
	c.Report(f)
	return nil
}

// usage holds what projects are said to use against what they do use.
func (c *Checker) usage(ctx context.Context) error {
	for after := ""; ; {
		u, err := c.DB.CheckUsage(ctx, after)
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		after = u.ProjectID
		if u.Agrees() {
			continue
		}
		f := Finding{Problem: fmt.Sprintf("project %s is said to use %d bytes and %d repositories; found are %d and %d, and %d blobs are miscounted",
			u.Project, u.Storage, u.Repositories, u.ActualStorage, u.ActualRepositories, u.WrongBlobs)}
		if c.Repair {
			if err := c.DB.RepairUsage(ctx, u.ProjectID); err != nil {
				return err
			}
			f.Repaired = "counted anew"
		}
		c.Report(f)
	}
}

type progressWriter struct{ c *Checker }

func (w progressWriter) Write(p []byte) (int, error) {
	w.c.step(meta.Totals{BlobBytes: int64(len(p))})
	return len(p), nil
}

// contextReader ends a long read with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
