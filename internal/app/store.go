package app

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/fsblob"
	"github.com/berth-registry/berth/internal/blob/s3blob"
	"github.com/berth-registry/berth/internal/config"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
)

// store is an opened hosted registry with what it stands on.
type store struct {
	locks    locks
	db       *meta.DB
	blobs    blob.Store
	inFolder bool // blobs are in one of the folders
	registry *hosted.Registry
	tally    tally    // of the collection under way
	folders  []string // that are ours alone and must take writes
}

// openStore opens the folders as their one owner and creates what is missing.
func openStore(ctx context.Context, c *config.Config) (*store, error) {
	st := &store{folders: foldersOf(c)}
	if err := st.open(ctx, c); err != nil {
		st.close()
		return nil, err
	}
	return st, nil
}

// foldersOf lists where c keeps things, each folder once.
func foldersOf(c *config.Config) (dirs []string) {
	all := []string{c.Data}
	if file := c.Metadata.SQLite.Path; file != "" {
		all = append(all, filepath.Dir(file))
	}
	if folder := c.Storage.Folder.Path; folder != "" {
		all = append(all, folder)
	}
	for _, dir := range all {
		if dir = filepath.Clean(dir); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func (st *store) open(ctx context.Context, c *config.Config) (err error) {
	for _, dir := range st.folders {
		if err := fsblob.MakeFolder(dir); err != nil {
			return err
		}
		if err := fsblob.CheckFolder(dir); err != nil {
			return err
		}
	}
	if st.locks, err = lockFolders(st.folders...); err != nil {
		return err
	}
	st.inFolder = c.Storage.S3.Bucket == ""
	if st.blobs, err = openBlobs(ctx, c); err != nil {
		return err
	}
	if st.db, err = meta.Open(ctx, meta.Options{Path: c.Metadata.SQLite.Path, Postgres: c.Metadata.Postgres.URL}); err != nil {
		return err
	}
	o := registryOptions(c)
	o.OnCollect = st.tally.add
	st.registry = hosted.New(st.db, st.blobs, o)
	return nil
}

// registryOptions are those that c gives a registry.
func registryOptions(c *config.Config) hosted.Options {
	return hosted.Options{
		Sparse: c.Sparse, UploadExpiry: c.Uploads.Expire, UnreferencedAge: c.GC.UnreferencedAfter,
		ProjectRetention: c.Projects.Retention, Rate: c.CollectRate(),
		SweepEvery: c.GC.SweepAfter, SweepAge: c.GC.SweepAfter,
		Retention: func(repo string) (keep hosted.Retention) {
			keep.Untagged, keep.Orphans = c.Retention(repo)
			return keep
		},
		Policy: c.RetentionName(),
	}
}

// openBlobs opens the folder or the bucket.
func openBlobs(ctx context.Context, c *config.Config) (blob.Store, error) {
	if o := c.Storage.S3; o.Bucket != "" {
		return s3blob.New(ctx, bucketOf(c))
	}
	return fsblob.New(c.Storage.Folder.Path)
}

// bucketOf is the bucket that c describes.
func bucketOf(c *config.Config) s3blob.Options {
	o := c.Storage.S3
	return s3blob.Options{
		Bucket: o.Bucket, Region: o.Region, Endpoint: o.Endpoint, PublicEndpoint: o.PublicEndpoint, PathStyle: o.PathStyle, Prefix: o.Prefix,
		PartSize: o.PartSize, EqualParts: o.EqualParts, Memory: o.Memory, TotalMemory: o.TotalMemory, Scratch: c.Data,
		Checksum: s3blob.Checksum(o.Checksum), Encryption: o.Encryption, KMSKey: o.KMSKey, StorageClass: o.StorageClass,
		Attempts: o.Attempts, Timeout: o.Timeout,
	}
}

// redirects says which clients go to the bucket for blobs; nil: all. A folder
// has no addresses to go to.
func redirects(c *config.Config) func(*http.Request) bool {
	switch c.Storage.S3.Redirect {
	case "never":
		return func(*http.Request) bool { return false }
	case "networks":
		near := c.RedirectNetworks()
		return func(r *http.Request) bool {
			from := auth.AddressOf(r)
			return slices.ContainsFunc(near, func(p netip.Prefix) bool { return p.Contains(from) })
		}
	}
	return nil
}

func (st *store) close() {
	if st.db != nil {
		st.db.Close()
	}
	st.locks.release()
}

// check proves that the database answers and that every folder, and the bucket,
// take writes.
func (st *store) check(ctx context.Context) error {
	errs := []error{st.db.Ping(ctx)}
	for _, dir := range st.folders {
		errs = append(errs, fsblob.CheckFolder(dir))
	}
	if !st.inFolder {
		errs = append(errs, st.blobs.Check(ctx))
	}
	return errors.Join(errs...)
}
