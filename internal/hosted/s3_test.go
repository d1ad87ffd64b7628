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
	"time"

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

// TestFrozenWhileSealing freezes a process when it is about to seal, until
// another has taken the session over and committed other bytes of the same size,
// as a client may send them that tries again. What was committed stays.
func TestFrozenWhileSealing(t *testing.T) {
	server := s3test.Start(t)
	for _, before := range []int{0, 3 << 20, 9 << 20} {
		for _, last := range []int{1000, 6 << 20} {
			t.Run(fmt.Sprint(before, " ", last), func(t *testing.T) {
				file, rec := metatest.File(t), &s3test.Recorder{}
				var ahead atomic.Int64
				replica := func(rec *s3test.Recorder) *hosted.Registry {
					db := openDB(t, meta.Options{Path: file, Shared: true, Now: func() time.Time {
						return time.Now().Add(time.Duration(ahead.Load()))
					}})
					return hosted.New(db, bucket(t, server, fmt.Sprint("frozen-", before, "-", last), rec), hosted.Options{})
				}
				frozen, other := replica(rec), replica(nil)
				common, mine, theirs := registrytest.Random(before), registrytest.Random(last), registrytest.Random(last)
				u := start(t, frozen)
				if err := u.Append(t.Context(), 0, reader(common)); err != nil {
					t.Fatal(err)
				}
				content := append(common[:before:before], theirs...)
				d, committed := oci.SHA256.FromBytes(content), false
				rec.Fault = func(_ int, op string, _ *http.Request) (*http.Response, error) {
					if (op == "PutObject" || op == "CompleteMultipartUpload") && !committed {
						committed = true
						ahead.Store(int64(time.Minute)) // the lease runs out
						commit(t, other, resume(t, other, u.ID(), int64(before)), theirs, content, d)
					}
					return nil, nil
				}
				wrong := oci.SHA256.FromBytes(append(common[:before:before], mine...))
				if _, err := u.Commit(t.Context(), -1, reader(mine), wrong); err == nil {
					t.Error("a process that was frozen commits")
				}
				if !committed {
					t.Fatal("nothing was sealed")
				}
				registrytest.WantBlob(t, other, repo, d, content)
				if _, err := other.Blob(t.Context(), repo, wrong); err == nil {
					t.Error("other bytes are served as what the frozen process got")
				}
			})
		}
	}
}

// TestSealedByTheDead: a process dies between sealing and the commit. The client
// that sends the same again is done, whatever way the bytes took; one that sends
// something else of the same size must start anew, and gets nothing wrong.
func TestSealedByTheDead(t *testing.T) {
	server := s3test.Start(t)
	for _, before := range []int{0, 3 << 20, 9 << 20} {
		for name, last := range map[string]int{"same": 0, "other": 1000, "longer": 2000} {
			t.Run(fmt.Sprint(before, " ", name), func(t *testing.T) {
				s := newStack(t, hosted.Options{})
				store := bucket(t, server, fmt.Sprint("dead-", before, name), nil)
				dead, r := hosted.New(mortal{s.db}, store, hosted.Options{}), hosted.New(s.db, store, hosted.Options{})
				first := registrytest.Random(before + 1000)
				u := start(t, r)
				if err := u.Append(t.Context(), 0, reader(first[:before])); err != nil {
					t.Fatal(err)
				}
				if _, err := resume(t, dead, u.ID(), int64(before)).Commit(t.Context(), -1, reader(first[before:]), oci.SHA256.FromBytes(first)); !errors.Is(err, errBroken) {
					t.Fatalf("commit: %v", err)
				}
				if last == 0 {
					commit(t, r, resume(t, r, u.ID(), int64(before)), first[before:], first, oci.SHA256.FromBytes(first))
					return
				}
				second := append(first[:before:before], registrytest.Random(last)...)
				_, err := resume(t, r, u.ID(), int64(before)).Commit(t.Context(), -1, reader(second[before:]), oci.SHA256.FromBytes(second))
				if !registry.IsCode(err, registry.DigestInvalid) && !registry.IsCode(err, registry.UploadUnknown) {
					t.Fatalf("commit beside sealed bytes: %v", err)
				}
				_, err = r.ResumeUpload(t.Context(), repo, u.ID())
				registrytest.WantCode(t, "resume the session", err, registry.UploadUnknown)
				commit(t, r, start(t, r), second, second, oci.SHA256.FromBytes(second))
			})
		}
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
	fault := rec.Fault
	rec.Fault = nil
	if _, err := u.Commit(t.Context(), 6<<20, nil, d.Digest); err != nil {
		t.Errorf("an upload that failed for a while: %v", err)
	}
	if u, err = r.StartUpload(t.Context(), repo, registry.UploadOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := u.Append(t.Context(), 0, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	rec.Fault = fault
	status, code = http.StatusNotFound, "NoSuchUpload"
	registrytest.WantCode(t, "write to a lost upload", u.Append(t.Context(), 6<<20, bytes.NewReader(data)), registry.UploadUnknown)
	rec.Fault = nil
	_, err = r.ResumeUpload(t.Context(), repo, u.ID())
	registrytest.WantCode(t, "resume a lost upload", err, registry.UploadUnknown)
}
