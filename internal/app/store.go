package app

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/fsblob"
	"github.com/berth-registry/berth/internal/blob/s3blob"
	"github.com/berth-registry/berth/internal/config"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/metrics"
)

// store is an opened hosted registry with what it stands on.
type store struct {
	locks    locks
	db       *meta.DB
	blobs    blob.Store
	inFolder bool // blobs are in one of the folders
	registry *hosted.Registry
	metrics  *metrics.Metrics
	tally    tally                           // of the collection under way
	folders  []string                        // that are ours alone and must take writes
	caches   atomic.Pointer[map[string]bool] // projects that are caches of other registries
}

// openStore opens the folders as their one owner and creates what is missing.
func openStore(ctx context.Context, c *config.Config) (*store, error) {
	st := &store{folders: foldersOf(c), metrics: metrics.New()}
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
	if st.blobs, err = openBlobs(ctx, c, st.metrics); err != nil {
		return err
	}
	if st.db, err = meta.Open(ctx, meta.Options{
		Path: c.Metadata.SQLite.Path, Postgres: c.Metadata.Postgres.URL,
		Connections: c.Metadata.Postgres.Connections, Timeout: c.Metadata.Postgres.Timeout,
		Observe: databaseHooks(st.metrics),
	}); err != nil {
		return err
	}
	st.showPools()
	o := registryOptions(c, st.isCache)
	o.OnCollect = st.collected
	st.registry = st.hosted(o)
	caches, err := cachesOf(ctx, c, st.db)
	st.caches.Store(&caches)
	return err
}

// hosted is a registry over what is open.
func (st *store) hosted(o hosted.Options) *hosted.Registry { return hosted.New(st.db, st.blobs, o) }

// cachesOf are the projects that are caches of other registries.
func cachesOf(ctx context.Context, c *config.Config, db *meta.DB) (map[string]bool, error) {
	names := map[string]bool{}
	for _, p := range c.Proxies {
		names[p.Name] = true
	}
	rows, err := managedProxies(ctx, db)
	for _, row := range rows {
		names[row.Name] = true
	}
	return names, err
}

// isCache reports whether a repository belongs to a cache of another registry.
func (st *store) isCache(repo string) bool {
	names := st.caches.Load()
	return names != nil && (*names)[access.ProjectOf(repo)]
}

// registryOptions are those that c gives a registry. What isCache says is given up
// by the cache itself, and not collected because no tag names it.
func registryOptions(c *config.Config, isCache func(repo string) bool) hosted.Options {
	return hosted.Options{
		Sparse: c.Sparse, UploadExpiry: c.Uploads.Expire, UnreferencedAge: c.GC.UnreferencedAfter,
		ProjectRetention: c.Projects.Retention, Rate: c.CollectRate(),
		SweepEvery: c.GC.SweepAfter, SweepAge: c.GC.SweepAfter,
		Retention: func(repo string) (keep hosted.Retention) {
			keep.Untagged, keep.Orphans = c.Retention(repo)
			if isCache(repo) {
				keep.Untagged = 0
			}
			return keep
		},
		Policy: c.RetentionName(), DeadAfter: deadAfter(c),
	}
}

// lateStart is how long after a URL's end a transfer may still begin: clocks
// differ.
const lateStart = 5 * time.Minute

// deadAfter is how long bytes outlive what they were: some client may have been
// sent to the bucket for them.
func deadAfter(c *config.Config) time.Duration {
	if c.Storage.S3.Bucket == "" || c.Storage.S3.Redirect == "never" {
		return 0
	}
	return c.Storage.S3.RedirectTTL + lateStart
}

// openBlobs opens the folder or the bucket, whose calls m counts.
func openBlobs(ctx context.Context, c *config.Config, m *metrics.Metrics) (blob.Store, error) {
	if c.Storage.S3.Bucket != "" {
		o := bucketOf(c)
		o.Observe = s3Hook(m)
		return s3blob.New(ctx, o)
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

// check proves that the database answers and that every folder takes writes.
func (st *store) check(ctx context.Context) error {
	errs := []error{st.db.Ping(ctx)}
	for _, dir := range st.folders {
		errs = append(errs, fsblob.CheckFolder(dir))
	}
	return errors.Join(errs...)
}
