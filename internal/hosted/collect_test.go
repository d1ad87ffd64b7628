package hosted_test

import (
	"errors"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

func wantCollected(t *testing.T, s *stack, want hosted.Collected) {
	t.Helper()
	got, err := s.Collect(t.Context())
	if err != nil || got != want {
		t.Errorf("collected %+v, %v; want %+v", got, err, want)
	}
}

func TestCollect(t *testing.T) {
	s := newStack(t, hosted.Options{})
	s.shift(-25 * time.Hour)
	held := registrytest.PushImage(t, s, repo, "v1")
	loose := registrytest.PushBlob(t, s, repo, registrytest.Random(100))
	told := registrytest.PushBlob(t, s, repo, registrytest.Random(100))
	mounted := registrytest.PushBlob(t, s, repo, registrytest.Random(100))
	s.shift(0)
	fresh := registrytest.PushBlob(t, s, repo, registrytest.Random(100))
	if _, err := s.Blob(t.Context(), repo, told.Digest); err != nil { // a client is told that it is there
		t.Fatal(err)
	}
	if _, err := s.Mount(t.Context(), "team/other", repo, mounted.Digest); err != nil {
		t.Fatal(err)
	}
	file := s.file(t, s.key(t, loose.Digest))
	wantCollected(t, s, hosted.Collected{Links: 2, Objects: 1, Bytes: 100})
	for _, d := range []oci.Digest{loose.Digest, mounted.Digest} {
		_, err := s.Blob(t.Context(), repo, d)
		registrytest.WantCode(t, "find a collected blob", err, registry.BlobUnknown)
	}
	if exists(t, file) {
		t.Error("a collected blob's file is still there")
	}
	for _, d := range []oci.Digest{held.Config.Digest, held.Layers[0].Digest, told.Digest, fresh.Digest} {
		if _, err := s.Blob(t.Context(), repo, d); err != nil {
			t.Errorf("a blob that must stay is gone: %v", err)
		}
	}
	if b, err := s.Blob(t.Context(), "team/other", mounted.Digest); err != nil || len(registrytest.ReadBlob(t, b, 0, 100)) != 100 {
		t.Errorf("a mounted blob went with its origin: %v", err)
	}
	wantCollected(t, s, hosted.Collected{})
}

func TestCollectAfterDelete(t *testing.T) {
	s := newStack(t, hosted.Options{UnreferencedAge: time.Hour})
	s.shift(-2 * time.Hour)
	image := registrytest.PushImage(t, s, repo, "v1")
	wantCollected(t, s, hosted.Collected{}) // looked at, and held
	if err := s.DeleteManifest(t.Context(), repo, image.Manifest.Digest); err != nil {
		t.Fatal(err)
	}
	wantCollected(t, s, hosted.Collected{Links: 2, Objects: 2, Bytes: image.Config.Size + image.Layers[0].Size})
	if n := objects(t, s.blobs); n != 0 {
		t.Errorf("%d objects of an empty registry", n)
	}
}

func TestCollectUploads(t *testing.T) {
	s := newStack(t, hosted.Options{UploadExpiry: time.Hour})
	s.shift(-2 * time.Hour)
	old, empty := start(t, s), start(t, s)
	if err := old.Append(t.Context(), 0, reader(registrytest.Random(500))); err != nil {
		t.Fatal(err)
	}
	s.shift(0)
	fresh := start(t, s)
	if err := fresh.Append(t.Context(), 0, reader(registrytest.Random(500))); err != nil {
		t.Fatal(err)
	}
	file := s.file(t, old.ID())
	wantCollected(t, s, hosted.Collected{Uploads: 2, Objects: 2, Bytes: 500})
	if exists(t, file) {
		t.Error("an expired session's file is still there")
	}
	for _, id := range []string{old.ID(), empty.ID()} {
		_, err := s.ResumeUpload(t.Context(), repo, id)
		registrytest.WantCode(t, "resume an expired session", err, registry.UploadUnknown)
	}
	resume(t, s, fresh.ID(), 500)
}

// TestCollectTriesAgain: bytes that cannot be freed are reported and kept in
// mind, and are in no other object's way.
func TestCollectTriesAgain(t *testing.T) {
	s := newStack(t, hosted.Options{})
	s.shift(-25 * time.Hour)
	for range 3 {
		registrytest.PushBlob(t, s, repo, registrytest.Random(100))
	}
	s.blobs.Fail("Delete", 1, errBroken) // of all at once
	s.blobs.Fail("Delete", 3, errBroken) // of the second
	got, err := s.Collect(t.Context())
	if want := (hosted.Collected{Links: 3, Objects: 2, Bytes: 200}); got != want || !errors.Is(err, errBroken) {
		t.Errorf("collected %+v, %v; want %+v and the failure", got, err, want)
	}
	wantCollected(t, s, hosted.Collected{Objects: 1, Bytes: 100})
	if n := objects(t, s.blobs); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

func TestDeletedBlobIsFreed(t *testing.T) {
	s := newStack(t, hosted.Options{})
	content := registrytest.Random(100)
	d := registrytest.PushBlob(t, s, repo, content)
	first := s.key(t, d.Digest)
	if err := s.DeleteBlob(t.Context(), repo, d.Digest); err != nil {
		t.Fatal(err)
	}
	// Pushed again before the bytes go: it must not lose the new ones.
	registrytest.PushBlob(t, s, repo, content)
	if _, err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	registrytest.WantBlob(t, s, repo, d.Digest, content)
	if key := s.key(t, d.Digest); key == first || objects(t, s.blobs) != 1 {
		t.Errorf("key %s follows %s; %d objects", key, first, objects(t, s.blobs))
	}
}

// TestCollectBesidePushes collects all the time with the shortest ages while
// images are pushed: what was acknowledged is there.
func TestCollectBesidePushes(t *testing.T) {
	s := newStack(t, hosted.Options{UnreferencedAge: time.Minute})
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := s.Collect(t.Context()); err != nil {
				done <- err
				return
			}
		}
	}()
	for i := range 20 {
		s.shift(-time.Duration(i%3) * 20 * time.Second)
		image := registrytest.PushImage(t, s, repo)
		if i%2 == 0 {
			if err := s.DeleteManifest(t.Context(), repo, image.Manifest.Digest); err != nil {
				t.Error(err)
			}
			continue
		}
		for _, d := range []oci.Descriptor{image.Config, image.Layers[0]} {
			b, err := s.Blob(t.Context(), repo, d.Digest)
			if err != nil {
				t.Fatalf("a blob of a pushed image: %v", err)
			}
			registrytest.ReadBlob(t, b, 0, d.Size)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
