package hosted_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// allow sets what the default plan allows.
func (s *stack) allow(t *testing.T, c meta.PlanChange) {
	t.Helper()
	if err := s.db.SetPlan(t.Context(), meta.Change{}, access.DefaultPlan, c); err != nil {
		t.Fatal(err)
	}
}

// wantQuota checks that err tells the client of a quota and what to do.
func wantQuota(t *testing.T, what string, err error, code registry.Code, quota meta.Quota, limit int64) {
	t.Helper()
	registrytest.WantCode(t, what, err, code)
	var coded *registry.Error
	if !errors.As(err, &coded) {
		return
	}
	detail, ok := coded.Detail.(map[string]any)
	if !ok || detail["quota"] != quota || detail["limit"] != limit || detail["hint"] == nil || detail["asked"] == int64(0) {
		t.Errorf("%s: the detail is %v", what, coded.Detail)
	}
}

func TestQuotas(t *testing.T) {
	s := newStack(t, hosted.Options{})
	image := registrytest.PushImage(t, s, repo, "v1")
	project, err := s.db.Project(t.Context(), "team")
	if err != nil {
		t.Fatal(err)
	}
	full := project.Storage + 10
	s.allow(t, meta.PlanChange{Storage: &full, Repositories: new(int64(1))})
	content := registrytest.Random(11)
	d := oci.SHA256.FromBytes(content)
	u := start(t, s)
	_, err = u.Commit(t.Context(), 0, reader(content), d)
	wantQuota(t, "commit a blob", err, registry.Denied, meta.Storage, full)
	_, err = s.PutManifest(t.Context(), repo, registry.Manifest{MediaType: image.Manifest.MediaType, Content: append([]byte(" "), image.Manifest.Content...)})
	wantQuota(t, "put a manifest", err, registry.Denied, meta.Storage, full)
	_, err = s.Mount(t.Context(), "team/other", repo, image.Config.Digest)
	wantQuota(t, "mount into a second repository", err, registry.Denied, meta.Repositories, 1)
	// The session kept its bytes: with more room it is finished.
	s.allow(t, meta.PlanChange{Storage: new(full + 1)})
	commit(t, s, resume(t, s, u.ID(), 11), nil, content, d)
	s.allow(t, meta.PlanChange{MaxManifest: new(int64(10)), Storage: new(int64(0))})
	_, err = s.PutManifest(t.Context(), repo, registry.Manifest{MediaType: image.Manifest.MediaType, Content: append([]byte(" "), image.Manifest.Content...)})
	wantQuota(t, "put a large manifest", err, registry.ManifestTooLarge, meta.ManifestSize, 10)
	registrytest.PushManifest(t, s, repo, image.Manifest) // which is there
	s.wantHealthy(t)
}

// endless is a body without end, of which is counted what is read.
type endless struct{ read int64 }

func (r *endless) Read(p []byte) (int, error) {
	r.read += int64(len(p))
	return len(p), nil
}

// TestBlobTooLarge: what a plan does not allow is not even received.
func TestBlobTooLarge(t *testing.T) {
	const most = 1 << 20
	s := newStack(t, hosted.Options{})
	u := start(t, s)
	if err := u.Append(t.Context(), 0, reader(registrytest.Random(1000))); err != nil {
		t.Fatal(err)
	}
	s.allow(t, meta.PlanChange{MaxBlob: new(int64(most))})
	body := &endless{}
	wantQuota(t, "append without end", u.Append(t.Context(), -1, body), registry.BlobTooLarge, meta.BlobSize, most)
	if body.read > 2*most {
		t.Errorf("%d bytes were read of a blob that may have %d", body.read, most)
	}
	body = &endless{}
	_, err := start(t, s).Commit(t.Context(), 0, body, oci.SHA256.FromBytes(nil))
	wantQuota(t, "commit without end", err, registry.BlobTooLarge, meta.BlobSize, most)
	if body.read > 2*most {
		t.Errorf("%d bytes were read of a blob that may have %d", body.read, most)
	}
	content := registrytest.Random(most)
	d := oci.SHA256.FromBytes(content)
	commit(t, s, start(t, s), content, content, d)
	u = start(t, s)
	if err := u.Append(t.Context(), 0, reader(content[:most-1])); err != nil {
		t.Fatal(err)
	}
	wantQuota(t, "append two more", u.Append(t.Context(), -1, reader([]byte("xx"))), registry.BlobTooLarge, meta.BlobSize, most)
	commit(t, s, resume(t, s, u.ID(), most-1), content[most-1:], content, d)
}

// TestLimitLoweredMeanwhile: the transaction has the last word.
func TestLimitLoweredMeanwhile(t *testing.T) {
	s := newStack(t, hosted.Options{})
	content := registrytest.Random(1000)
	u := start(t, s)
	if err := u.Append(t.Context(), 0, reader(content)); err != nil {
		t.Fatal(err)
	}
	s.allow(t, meta.PlanChange{MaxBlob: new(int64(999))})
	_, err := u.Commit(t.Context(), -1, nil, oci.SHA256.FromBytes(content))
	wantQuota(t, "commit", err, registry.BlobTooLarge, meta.BlobSize, 999)
	_, err = s.Blob(t.Context(), repo, oci.SHA256.FromBytes(content))
	registrytest.WantCode(t, "find what was refused", err, registry.NameUnknown)
}

// TestSessionIsItsOwners: to all others it is unknown, whatever they ask of it.
func TestSessionIsItsOwners(t *testing.T) {
	s := newStack(t, hosted.Options{})
	by := func(owner string) context.Context {
		return audit.WithCaller(t.Context(), &audit.Caller{Owner: owner})
	}
	content := registrytest.Random(1000)
	d := oci.SHA256.FromBytes(content)
	u, err := s.StartUpload(by("user:a"), repo, registry.UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Append(by("user:a"), 0, reader(content[:500])); err != nil {
		t.Fatal(err)
	}
	for _, other := range []struct {
		owner, repo string
	}{{"user:b", repo}, {"", repo}, {"user:a", "team/other"}} {
		_, err := s.ResumeUpload(by(other.owner), other.repo, u.ID())
		registrytest.WantCode(t, "resume another's session", err, registry.UploadUnknown)
	}
	// Nor does an identity that changes on the way get through.
	registrytest.WantCode(t, "append to another's session", u.Append(by("user:b"), -1, reader(content)), registry.UploadUnknown)
	_, err = u.Commit(by("user:b"), -1, nil, oci.SHA256.FromBytes(content[:500]))
	registrytest.WantCode(t, "commit another's session", err, registry.UploadUnknown)
	registrytest.WantCode(t, "cancel another's session", u.Cancel(by("user:b")), registry.UploadUnknown)
	u, err = s.ResumeUpload(by("user:a"), repo, u.ID())
	if err != nil || u.Offset() != 500 {
		t.Fatalf("resume one's own session: %v", err)
	}
	if _, err := u.Commit(by("user:a"), 500, reader(content[500:]), d); err != nil {
		t.Fatal(err)
	}
	registrytest.WantBlob(t, s, repo, d, content)
}

// TestCheckAnothersSession: the checker belongs to nobody and sees all.
func TestCheckAnothersSession(t *testing.T) {
	s := newStack(t, hosted.Options{})
	ctx := audit.WithCaller(t.Context(), &audit.Caller{Owner: "user:a"})
	u, err := s.StartUpload(ctx, repo, registry.UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Append(ctx, 0, reader(registrytest.Random(500))); err != nil {
		t.Fatal(err)
	}
	if err := damages["truncated"].do(s.file(t, u.ID())); err != nil {
		t.Fatal(err)
	}
	s.wantFinding(t, true, "", u.ID())
	s.wantHealthy(t)
}

func TestDeletedProject(t *testing.T) {
	s := newStack(t, hosted.Options{ProjectRetention: time.Hour})
	image := registrytest.PushImage(t, s, repo, "v1")
	kept := registrytest.PushImage(t, s, "mine/app", "v1")
	if _, err := s.Mount(t.Context(), "mine/app", repo, image.Config.Digest); err != nil {
		t.Fatal(err)
	}
	project, err := s.db.Project(t.Context(), "team")
	if err != nil {
		t.Fatal(err)
	}
	u := start(t, s)
	remove := func() {
		t.Helper()
		if _, err := s.db.DeleteProject(t.Context(), meta.Change{}, project.ID); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	_, err = s.Manifest(t.Context(), repo, oci.TagRef("v1"))
	registrytest.WantCode(t, "get a manifest", err, registry.NameUnknown)
	_, err = s.PutManifest(t.Context(), repo, image.Manifest)
	registrytest.WantCode(t, "put a manifest", err, registry.NameUnknown)
	_, err = s.ResumeUpload(t.Context(), repo, u.ID())
	registrytest.WantCode(t, "resume a session", err, registry.UploadUnknown)
	fresh := start(t, s)
	_, err = fresh.Commit(t.Context(), -1, reader([]byte("x")), oci.SHA256.FromBytes([]byte("x")))
	registrytest.WantCode(t, "push a blob", err, registry.NameUnknown)
	wantCollected(t, s, hosted.Collected{})
	s.wantHealthy(t)
	if err := s.db.RestoreProject(t.Context(), meta.Change{}, project.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Manifest(t.Context(), repo, oci.TagRef("v1")); err != nil {
		t.Errorf("get a manifest that is back: %v", err)
	}
	s.shift(-2 * time.Hour)
	remove()
	s.shift(0)
	// A layer and two sessions; the config lives on in another project.
	wantCollected(t, s, hosted.Collected{Projects: 1, Objects: 3, Bytes: 401})
	_, err = s.db.Project(t.Context(), "team")
	if !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("find a project that was purged: %v", err)
	}
	for _, d := range []oci.Digest{kept.Config.Digest, kept.Layers[0].Digest, image.Config.Digest} {
		b, err := s.Blob(t.Context(), "mine/app", d)
		if err != nil {
			t.Fatalf("a blob of another project: %v", err)
		}
		rc, err := b.Open(t.Context(), 0, b.Descriptor().Size)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, rc); err != nil {
			t.Error(err)
		}
		rc.Close()
	}
	s.wantHealthy(t)
}

// TestPurgeInBatches: a project of many rows goes in one collection.
func TestPurgeInBatches(t *testing.T) {
	s := newStack(t, hosted.Options{})
	for range 60 {
		registrytest.PushImage(t, s, repo, "v1")
	}
	project, err := s.db.Project(t.Context(), "team")
	if err != nil {
		t.Fatal(err)
	}
	s.shift(-8 * 24 * time.Hour)
	if _, err := s.db.DeleteProject(t.Context(), meta.Change{}, project.ID); err != nil {
		t.Fatal(err)
	}
	s.shift(0)
	wantCollected(t, s, hosted.Collected{Projects: 1, Objects: 120, Bytes: 60 * 440})
	if n := objects(t, s.blobs); n != 0 {
		t.Errorf("%d objects are left", n)
	}
	s.wantHealthy(t)
}
