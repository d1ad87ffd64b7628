package hosted_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/berth-registry/berth/internal/blob/s3blob"
	"github.com/berth-registry/berth/internal/blob/s3blob/s3test"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// bucket opens a store in a part of a server's bucket.
func bucket(t *testing.T, server *s3test.Server, prefix string, client *s3test.Recorder) *s3blob.Store {
	t.Helper()
	cfg := server.Config()
	if client != nil {
		cfg.HTTPClient = client
	}
	s, err := s3blob.New(t.Context(), s3blob.Options{
		Bucket: s3test.Bucket, Prefix: prefix, Endpoint: server.URL(), PathStyle: true, Config: &cfg, Attempts: 2, Scratch: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestConformsOnS3 holds a registry whose bytes are in a bucket to all that one
// is held to whose bytes are in a folder.
func TestConformsOnS3(t *testing.T) {
	server := s3test.Start(t)
	var prefix atomic.Int64
	open := func(o hosted.Options, shared bool) func(t *testing.T) registry.Registry {
		return func(t *testing.T) registry.Registry {
			db := openDB(t, meta.Options{Path: metatest.File(t), Shared: shared})
			return hosted.New(db, bucket(t, server, fmt.Sprint(prefix.Add(1)), nil), o)
		}
	}
	sparse := hosted.Options{Sparse: func(name string) bool { return name == repo }}
	registrytest.Run(t, open(hosted.Options{}, true), registrytest.Options{Sparse: open(sparse, false)})
}

// TestPushOnS3 sends a large blob in pieces that break off and go on elsewhere,
// with sha256, with sha512 announced, and with sha512 that nobody announced, for
// which the bytes are read back.
func TestPushOnS3(t *testing.T) {
	server := s3test.Start(t)
	data := registrytest.Random(20 << 20)
	for name, c := range map[string]struct {
		announced, used oci.Algorithm
		read            int64
	}{
		"sha256": {oci.SHA256, oci.SHA256, 0}, "sha512": {oci.SHA512, oci.SHA512, 0}, "unannounced": {oci.SHA256, oci.SHA512, int64(len(data))},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &s3test.Recorder{}
			db := openDB(t, meta.Options{Path: metatest.File(t)})
			replica := func() *hosted.Registry { return hosted.New(db, bucket(t, server, name, rec), hosted.Options{}) }
			r := replica()
			u, err := r.StartUpload(t.Context(), repo, registry.UploadOptions{Algorithm: c.announced})
			if err != nil {
				t.Fatal(err)
			}
			gone := errors.New("client has gone")
			err = u.Append(t.Context(), 0, io.MultiReader(bytes.NewReader(data[:9<<20]), iotest.ErrReader(gone)))
			if !errors.Is(err, gone) {
				t.Fatalf("Append: %v", err)
			}
			again, err := replica().ResumeUpload(t.Context(), repo, u.ID())
			if err != nil || again.Offset() != 9<<20 {
				t.Fatalf("resumed at %v, %v", again, err)
			}
			digest := c.used.FromBytes(data)
			if _, err := again.Commit(t.Context(), 9<<20, bytes.NewReader(data[9<<20:]), digest); err != nil {
				t.Fatal(err)
			}
			out, in, copies := rec.Traffic()
			if out != int64(len(data)) || in != c.read || copies != 0 {
				t.Errorf("%d bytes out, %d in, %d copies", out, in, copies)
			}
			registrytest.WantBlob(t, r, repo, digest, data)
		})
	}
}

// TestS3Unavailable: clients are told to come back, and to start anew where an
// upload is lost.
func TestS3Unavailable(t *testing.T) {
	server := s3test.Start(t)
	rec := &s3test.Recorder{}
	r := hosted.New(openDB(t, meta.Options{Path: metatest.File(t)}), bucket(t, server, "unavailable", rec), hosted.Options{})
	data := registrytest.Random(6 << 20)
	d := registrytest.PushBlob(t, r, repo, data)
	u, err := r.StartUpload(t.Context(), repo, registry.UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Append(t.Context(), 0, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	status, code := http.StatusServiceUnavailable, "SlowDown"
	rec.Fault = func(_ int, _ string, r *http.Request) (*http.Response, error) {
		return s3test.Answer(r, status, code), nil
	}
	registrytest.WantCode(t, "write to an overloaded service", u.Append(t.Context(), 6<<20, bytes.NewReader(data)), registry.Unavailable)
	b, err := r.Blob(t.Context(), repo, d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Open(t.Context(), 0, 1)
	registrytest.WantCode(t, "read from an overloaded service", err, registry.Unavailable)
	status, code = http.StatusNotFound, "NoSuchUpload"
	registrytest.WantCode(t, "write to a lost upload", u.Append(t.Context(), 6<<20, bytes.NewReader(data)), registry.UploadUnknown)
	rec.Fault = nil
	if _, err := u.Commit(t.Context(), 6<<20, nil, d.Digest); err != nil {
		t.Errorf("an upload that failed for a while: %v", err)
	}
}
