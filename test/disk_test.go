package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestDiskFull serves from a file system of 64 MiB and fills it: what does not
// fit is refused with 507, nothing is half stored, what was there stays, and
// the service goes on as soon as there is room.
func TestDiskFull(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatalf("mount a small tmpfs (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	data, filler := filepath.Join(disk, "data"), filepath.Join(disk, "filler")
	s := mustStart(t, data)
	r := &repo{t, s.api, "full/app"}
	image := r.pushImage("v1", 1, 2)
	fill(t, filler, 8<<20)

	big := stuff{3, 32 << 20}
	path, err := s.startUpload(r.name)
	if err != nil {
		t.Fatal(err)
	}
	isFull(t, s.finishUpload(path, big.digest(), big.from(0)))
	if _, err := s.send("HEAD", "/v2/"+r.name+"/blobs/"+big.digest(), nil, nil, 404); err != nil {
		t.Fatal(err)
	}
	fill(t, filler, 0)
	stored := pushUntilFull(t, r, image)
	r.same("v1", image.Digest)
	for _, digest := range stored {
		r.same(digest, digest)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if path, err = s.startUpload(r.name); err != nil {
		t.Fatal(err)
	}
	if _, err := s.send("DELETE", path, nil, nil, 204); err != nil {
		t.Fatal(err)
	}
	r.pushImage("v2", 4)
	r.verify("v2")
	r.same("v1", image.Digest)
	if err := s.terminate(); err != nil {
		t.Fatal(err)
	}
	if out, err := check(data, "--deep"); err != nil {
		t.Fatalf("berth check: %v\n%s", err, out)
	}
}

// pushUntilFull pushes referrers of an image, each with a big annotation, until
// the disk is full, and returns the digests of those that were acknowledged.
func pushUntilFull(t *testing.T, r *repo, image descriptor) (stored []string) {
	t.Helper()
	_, content, err := r.api.manifest(r.name, image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	var manifest map[string]any
	if err := json.Unmarshal(content, &manifest); err != nil {
		t.Fatal(err)
	}
	manifest["subject"] = image
	for i := range 1000 {
		manifest["annotations"] = map[string]string{"n": fmt.Sprint(i), "filler": strings.Repeat("x", 1<<20)}
		content := asJSON(manifest)
		if _, err := r.api.pushManifest(r.name, digestOf(content), ociManifest, content); err != nil {
			isFull(t, err)
			return stored
		}
		stored = append(stored, digestOf(content))
	}
	t.Fatal("1000 MiB of manifests fit into 64 MiB")
	return nil
}

// isFull wants an error that is the answer 507 in the protocol's form.
func isFull(t *testing.T, err error) {
	t.Helper()
	var status *statusError
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if !errors.As(err, &status) || status.got != 507 || json.Unmarshal([]byte(status.body), &body) != nil || len(body.Errors) == 0 {
		t.Fatalf("want a 507 with an OCI error body: %v", err)
	}
}

// fill grows a file until its file system has no more than the given bytes left.
func fill(t *testing.T, path string, left uint64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(filepath.Dir(path), &fs); err != nil {
			t.Fatal(err)
		}
		free := fs.Bavail * uint64(fs.Bsize)
		if free <= left {
			return
		}
		if _, err := io.CopyN(f, zeros{}, int64(free-left)); err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
