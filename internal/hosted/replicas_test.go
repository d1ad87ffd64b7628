package hosted_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-registry/berth/internal/blob/fsblob"
	"github.com/berth-registry/berth/internal/blob/s3blob/s3test"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// TestReplicasConform holds a registry on PostgreSQL and S3 to the suite: one
// process, and two of which each call takes the other one.
func TestReplicasConform(t *testing.T) {
	server := s3test.Start(t)
	var prefix atomic.Int64
	for _, n := range []int{1, 2} {
		open := func(o hosted.Options) func(t *testing.T) registry.Registry {
			return func(t *testing.T) registry.Registry {
				url, prefix := metatest.URL(t), fmt.Sprint(prefix.Add(1))
				all := &turns{}
				for range n {
					db := openDB(t, meta.Options{Postgres: url})
					all.replicas = append(all.replicas, hosted.New(db, bucket(t, server, prefix, nil), o))
				}
				return all
			}
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			sparse := hosted.Options{Sparse: func(name string) bool { return name == repo }}
			registrytest.Run(t, open(hosted.Options{}), registrytest.Options{Sparse: open(sparse)})
		})
	}
}

// turns gives each call to the next replica, as a load balancer does.
type turns struct {
	replicas []registry.Registry
	calls    atomic.Int64
}

var _ registry.Registry = (*turns)(nil)

func (t *turns) next() registry.Registry {
	return t.replicas[int(t.calls.Add(1))%len(t.replicas)]
}

func (t *turns) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	return t.next().Resolve(ctx, repo, ref)
}

func (t *turns) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	return t.next().Manifest(ctx, repo, ref)
}

func (t *turns) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	return t.next().Blob(ctx, repo, d)
}

func (t *turns) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return t.next().Tags(ctx, repo, after)
}

func (t *turns) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return t.next().Referrers(ctx, repo, subject, artifactType, after)
}

func (t *turns) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return t.next().Repositories(ctx, after)
}

func (t *turns) Holders(ctx context.Context, near string, d oci.Digest) iter.Seq2[string, error] {
	return t.next().Holders(ctx, near, d)
}

func (t *turns) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags ...string) (registry.PutResult, error) {
	return t.next().PutManifest(ctx, repo, m, tags...)
}

func (t *turns) Mount(ctx context.Context, repo, from string, d oci.Digest) (oci.Descriptor, error) {
	return t.next().Mount(ctx, repo, from, d)
}

func (t *turns) DeleteTag(ctx context.Context, repo, tag string) error {
	return t.next().DeleteTag(ctx, repo, tag)
}

func (t *turns) DeleteManifest(ctx context.Context, repo string, d oci.Digest) error {
	return t.next().DeleteManifest(ctx, repo, d)
}

func (t *turns) DeleteBlob(ctx context.Context, repo string, d oci.Digest) error {
	return t.next().DeleteBlob(ctx, repo, d)
}

func (t *turns) StartUpload(ctx context.Context, repo string, o registry.UploadOptions) (registry.Upload, error) {
	u, err := t.next().StartUpload(ctx, repo, o)
	return t.upload(repo, u), err
}

func (t *turns) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	u, err := t.next().ResumeUpload(ctx, repo, id)
	return t.upload(repo, u), err
}

func (t *turns) upload(repo string, u registry.Upload) registry.Upload {
	if u == nil {
		return nil
	}
	return &turningUpload{Upload: u, t: t, repo: repo}
}

// turningUpload is resumed on the next replica with each call, as by a client
// that sends the next request.
type turningUpload struct {
	registry.Upload // on the replica of the last call
	t               *turns
	repo            string
}

func (u *turningUpload) turn(ctx context.Context) error {
	next, err := u.t.next().ResumeUpload(ctx, u.repo, u.ID())
	if err == nil {
		u.Upload = next
	}
	return err
}

func (u *turningUpload) Append(ctx context.Context, off int64, r io.Reader) error {
	if err := u.turn(ctx); err != nil {
		return err
	}
	return u.Upload.Append(ctx, off, r)
}

func (u *turningUpload) Commit(ctx context.Context, off int64, r io.Reader, d oci.Digest) (oci.Descriptor, error) {
	if err := u.turn(ctx); err != nil {
		return oci.Descriptor{}, err
	}
	return u.Upload.Commit(ctx, off, r, d)
}

func (u *turningUpload) Cancel(ctx context.Context) error {
	if err := u.turn(ctx); err != nil {
		return err
	}
	return u.Upload.Cancel(ctx)
}

// lateLease is a database whose answer to LeaseUpload finds its process frozen.
type lateLease struct {
	*meta.DB
	frozen func()
}

func (m lateLease) LeaseUpload(ctx context.Context, repo, id string, ttl time.Duration) (meta.Upload, error) {
	u, err := m.DB.LeaseUpload(ctx, repo, id, ttl)
	m.frozen()
	return u, err
}

// TestFrozenBeforeWriting freezes a process when it has just got a lease, until
// another has taken the session over and committed it. What was committed in a
// folder that both use stays, though the first had yet to open the file.
func TestFrozenBeforeWriting(t *testing.T) {
	for _, before := range []int{0, 1000} {
		t.Run(fmt.Sprint(before), func(t *testing.T) {
			file, folder := metatest.File(t), t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				replica := func() (*meta.DB, *fsblob.Store) {
					files, err := fsblob.New(folder)
					if err != nil {
						t.Fatal(err)
					}
					return openDB(t, meta.Options{Path: file, Shared: true}), files
				}
				db, files := replica()
				other := hosted.New(db, files, hosted.Options{})
				content := registrytest.Random(before + 5000)
				d := oci.SHA256.FromBytes(content)
				u := start(t, other)
				if err := u.Append(t.Context(), 0, reader(content[:before])); err != nil {
					t.Fatal(err)
				}
				mine, files := replica()
				frozen := hosted.New(lateLease{mine, func() {
					time.Sleep(20 * time.Second) // the lease runs out
					commit(t, other, resume(t, other, u.ID(), int64(before)), content[before:], content, d)
				}}, files, hosted.Options{})
				if _, err := resume(t, frozen, u.ID(), int64(before)).Commit(t.Context(), -1, reader(content[before:]), d); err == nil {
					t.Error("a process that was frozen commits")
				}
				registrytest.WantBlob(t, other, repo, d, content)
			})
		})
	}
}
