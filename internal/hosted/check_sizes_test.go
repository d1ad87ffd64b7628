package hosted_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/s3blob/s3test"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// look checks existence and sizes, and the bytes of a share of the blobs.
func look(t *testing.T, db hosted.CheckedMetadata, blobs blob.Store, share float64, repair bool) (findings []hosted.Finding) {
	t.Helper()
	c := &hosted.Checker{DB: db, Blobs: blobs, Share: share, Repair: repair, Report: func(f hosted.Finding) { findings = append(findings, f) }}
	if err := c.Run(t.Context()); err != nil {
		t.Fatalf("check: %v", err)
	}
	return findings
}

// TestCheckReadsNothing: existence and sizes are seen without opening a blob.
func TestCheckReadsNothing(t *testing.T) {
	s := newStack(t, hosted.Options{})
	for range 3 {
		registrytest.PushImage(t, s, repo)
	}
	registrytest.PushBlob(t, s, repo, nil)
	d := registrytest.PushBlob(t, s, repo, registrytest.Random(100)).Digest
	before := s.blobs.Calls("Open")
	if f := look(t, s.db, s.blobs, 0, true); len(f) != 0 || s.blobs.Calls("Open") != before {
		t.Errorf("found %+v, with %d blobs opened", f, s.blobs.Calls("Open")-before)
	}
	path := s.file(t, s.key(t, d))
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		problem string
		damage  func() error
	}{
		{"", func() error { return damages["flipped byte"].do(path) }},
		{"70 bytes are stored, not 100", func() error { return os.Truncate(path, 70) }},
		{"has 150 bytes, its blob 100", func() error { return os.Truncate(path, 150) }},
		{"bytes are missing", func() error { return os.Remove(path) }},
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.damage(); err != nil {
			t.Fatal(err)
		}
		f := look(t, s.db, s.blobs, 0, false)
		if c.problem == "" && len(f) == 0 {
			continue
		}
		if len(f) != 1 || f[0].Digest != d || !strings.Contains(f[0].Problem, c.problem) {
			t.Errorf("found %+v, want %q", f, c.problem)
		}
	}
}

// TestCheckSample reads a share of the blobs, not the same ones each time.
func TestCheckSample(t *testing.T) {
	s := newStack(t, hosted.Options{})
	for range 60 {
		d := registrytest.PushBlob(t, s, repo, registrytest.Random(100)).Digest
		if err := damages["flipped byte"].do(s.file(t, s.key(t, d))); err != nil {
			t.Fatal(err)
		}
	}
	found := func() (digests []string) {
		for _, f := range look(t, s.db, s.blobs, .5, false) {
			digests = append(digests, f.Digest.String())
		}
		return digests
	}
	one, two := found(), found()
	if len(one) < 5 || len(one) > 55 || slices.Equal(one, two) {
		t.Errorf("%d and %d of 60 were read, the same: %v", len(one), len(two), slices.Equal(one, two))
	}
}

// TestCheckOnS3 holds rows on a PostgreSQL server against objects in a bucket.
func TestCheckOnS3(t *testing.T) {
	rec := &s3test.Recorder{}
	blobs := bucket(t, s3test.Start(t), "check", rec)
	db := openDB(t, meta.Options{Postgres: metatest.URL(t)})
	r := hosted.New(db, blobs, hosted.Options{})
	registrytest.PushImage(t, r, repo, "v1")
	registrytest.PushBlob(t, r, repo, nil)
	short := registrytest.PushBlob(t, r, repo, registrytest.Random(100)).Digest
	gone := registrytest.PushBlob(t, r, repo, registrytest.Random(200)).Digest
	// Sessions with nothing in the bucket yet, with a spilled tail, and with parts.
	var sessions []string
	for _, sizes := range [][]int{{1000}, {3 << 20, 1000}, {12 << 20, 1 << 20}} {
		u, err := r.StartUpload(t.Context(), repo, registry.UploadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range sizes {
			if err := u.Append(t.Context(), -1, io.LimitReader(rand{}, int64(n))); err != nil {
				t.Fatal(err)
			}
		}
		sessions = append(sessions, u.ID())
	}
	reads := rec.Requests("GetObject")
	if f := look(t, db, blobs, 0, true); len(f) != 0 || rec.Requests("GetObject") != reads {
		t.Fatalf("found %+v, with %d objects read", f, rec.Requests("GetObject")-reads)
	}
	if f := look(t, db, blobs, 1, true); len(f) != 0 {
		t.Fatalf("found %+v", f)
	}
	keys := map[string]string{}
	page, err := db.CheckKeys(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range page {
		keys[k.Digest.String()] = k.Key
	}
	if err := blobs.Delete(t.Context(), keys[short.String()], keys[gone.String()]); err != nil {
		t.Fatal(err)
	}
	st, err := blobs.Append(t.Context(), keys[short.String()], blob.State{}, bytes.NewReader(make([]byte, 70)))
	if err != nil {
		t.Fatal(err)
	}
	if err := blobs.Seal(t.Context(), keys[short.String()], st); err != nil {
		t.Fatal(err)
	}
	uploads, err := db.CheckUploads(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range uploads {
		if u.ID != sessions[0] {
			if err := blobs.Abort(t.Context(), u.ID, blob.State{Size: u.Size, Opaque: u.State}); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := []string{
		fmt.Sprintf("%s its bytes are missing", gone), fmt.Sprintf("%s 70 bytes are stored, not 100", short),
		fmt.Sprintf(" upload session %s has lost some of its %d bytes", sessions[1], 3<<20+1000),
		fmt.Sprintf(" upload session %s has lost some of its %d bytes", sessions[2], 13<<20),
	}
	slices.Sort(want)
	for _, repair := range []bool{false, true} {
		var got []string
		for _, f := range look(t, db, blobs, 0, repair) {
			got = append(got, fmt.Sprint(f.Digest, " ", f.Problem))
			if (f.Repaired != "") != repair {
				t.Errorf("%+v", f)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("found %q, want %q", got, want)
		}
	}
}

// rand is an endless source of bytes that are not all the same.
type rand struct{}

func (rand) Read(p []byte) (int, error) { return copy(p, registrytest.Random(len(p))), nil }

// TestCheckLooksAgain: what comes and goes between the two listings is not
// reported.
func TestCheckLooksAgain(t *testing.T) {
	s := newStack(t, hosted.Options{})
	registrytest.PushImage(t, s, repo)
	d := registrytest.PushBlob(t, s, repo, registrytest.Random(100)).Digest
	key := s.key(t, d)
	db := &between{CheckedMetadata: s.db, then: func() {
		if err := s.DeleteBlob(t.Context(), repo, d); err != nil {
			t.Error(err)
		}
		if err := s.blobs.Delete(t.Context(), key); err != nil {
			t.Error(err)
		}
		registrytest.PushImage(t, s, "team/new")
	}}
	if f := look(t, db, s.blobs, 0, true); len(f) != 0 || db.then != nil {
		t.Errorf("found %+v", f)
	}
}

// between is a database in which something happens after a page of keys is read.
type between struct {
	hosted.CheckedMetadata
	then func()
}

func (b *between) CheckKeys(ctx context.Context, after string, n int) ([]meta.CheckedKey, error) {
	page, err := b.CheckedMetadata.CheckKeys(ctx, after, n)
	if b.then != nil {
		then := b.then
		b.then = nil
		then()
	}
	return page, err
}
