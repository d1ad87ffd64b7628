package registrytest

import (
	"bytes"
	"net/url"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

var blobCases = []testCase{
	{"blob/push and pull", func(t *testing.T, r registry.Registry) {
		for _, size := range []int{1, 1000, 3<<20 + 7} {
			content := Random(size)
			d := PushBlob(t, r, "team/app", content)
			WantBlob(t, r, "team/app", d.Digest, content)
		}
	}},
	{"blob/empty", func(t *testing.T, r registry.Registry) {
		d := PushBlob(t, r, "team/app", nil)
		WantBlob(t, r, "team/app", d.Digest, nil)
	}},
	{"blob/empty without a body", func(t *testing.T, r registry.Registry) {
		u := start(t, r, "team/app", "")
		if _, err := u.Commit(t.Context(), -1, nil, oci.SHA256.FromBytes(nil)); err != nil {
			t.Fatalf("commit nothing: %v", err)
		}
		WantBlob(t, r, "team/app", oci.SHA256.FromBytes(nil), nil)
	}},
	{"blob/sha512", func(t *testing.T, r registry.Registry) {
		content := Random(5000)
		d := oci.SHA512.FromBytes(content)
		u := start(t, r, "team/app", oci.SHA512)
		appendAt(t, u, 0, content[:3000])
		got, err := u.Commit(t.Context(), 3000, bytes.NewReader(content[3000:]), d)
		if err != nil || got.Digest != d {
			t.Fatalf("commit %s: %v, %v", d, got.Digest, err)
		}
		WantBlob(t, r, "team/app", d, content)
	}},
	{"blob/sha512 not announced", func(t *testing.T, r registry.Registry) {
		content := Random(5000)
		d := oci.SHA512.FromBytes(content)
		u := start(t, r, "team/app", "")
		if _, err := u.Commit(t.Context(), 0, bytes.NewReader(content), d); err != nil {
			t.Fatalf("commit the whole content as %s: %v", d, err)
		}
		WantBlob(t, r, "team/app", d, content)
	}},
	{"blob/sha512 not announced, in pieces", func(t *testing.T, r registry.Registry) {
		content := Random(5000)
		d := oci.SHA512.FromBytes(content)
		u := start(t, r, "team/app", "")
		appendAt(t, u, 0, content[:2000])
		_, err := u.Commit(t.Context(), 2000, bytes.NewReader(content[2000:3000]), d)
		WantCode(t, "commit too early", err, registry.DigestInvalid)
		// Its bytes are sealed by now: nothing can follow them.
		_, err = r.ResumeUpload(t.Context(), "team/app", u.ID())
		WantCode(t, "resume it", err, registry.UploadUnknown)
		u = start(t, r, "team/app", "")
		appendAt(t, u, 0, content[:3000])
		u = resume(t, r, "team/app", u.ID())
		if _, err := u.Commit(t.Context(), 3000, bytes.NewReader(content[3000:]), d); err != nil {
			t.Fatalf("commit pieces as %s: %v", d, err)
		}
		WantBlob(t, r, "team/app", d, content)
	}},
	{"blob/temporary address", func(t *testing.T, r registry.Registry) {
		d := PushBlob(t, r, "team/app", Random(100))
		b, err := r.Blob(t.Context(), "team/app", d.Digest)
		if err != nil {
			t.Fatalf("find the blob: %v", err)
		}
		address, err := b.URL(t.Context(), time.Minute)
		if err != nil {
			WantCode(t, "make a temporary address", err, registry.Unsupported)
		} else if u, err := url.Parse(address); err != nil || u.Host == "" {
			t.Errorf("the temporary address is %q", address)
		}
	}},
	{"blob/ranges", func(t *testing.T, r registry.Registry) {
		content := Random(100_000)
		d := PushBlob(t, r, "team/app", content)
		b, err := r.Blob(t.Context(), "team/app", d.Digest)
		if err != nil {
			t.Fatalf("find the blob: %v", err)
		}
		for _, span := range [][2]int64{{0, 1}, {0, 70_000}, {99_999, 1}, {12_345, 54_321}, {50_000, 50_000}} {
			if got := ReadBlob(t, b, span[0], span[1]); !bytes.Equal(got, content[span[0]:span[0]+span[1]]) {
				t.Errorf("%d bytes from %d differ", span[1], span[0])
			}
		}
	}},
	{"blob/pushed again", func(t *testing.T, r registry.Registry) {
		content := Random(100)
		for range 3 {
			d := PushBlob(t, r, "team/app", content)
			WantBlob(t, r, "team/app", d.Digest, content)
		}
	}},
	{"blob/only through a repository that links it", func(t *testing.T, r registry.Registry) {
		d := PushBlob(t, r, "team/app", Random(100))
		PushBlob(t, r, "team/other", Random(100))
		_, err := r.Blob(t.Context(), "team/other", d.Digest)
		WantCode(t, "find a blob of another repository", err, registry.BlobUnknown)
	}},
	{"blob/unknown", func(t *testing.T, r registry.Registry) {
		PushImage(t, r, "team/app")
		_, err := r.Blob(t.Context(), "team/app", oci.SHA256.FromBytes(Random(9)))
		WantCode(t, "find an unknown blob", err, registry.BlobUnknown)
		_, err = r.Blob(t.Context(), "team/none", oci.SHA256.FromBytes(Random(9)))
		WantCode(t, "find a blob in an unknown repository", err, registry.NameUnknown)
	}},
}

// start opens an upload session.
func start(t testing.TB, r registry.Registry, repo string, a oci.Algorithm) registry.Upload {
	t.Helper()
	u, err := r.StartUpload(t.Context(), repo, registry.UploadOptions{Algorithm: a})
	if err != nil {
		t.Fatalf("start an upload in %s: %v", repo, err)
	}
	if u.Offset() != 0 {
		t.Fatalf("a new session stands at %d", u.Offset())
	}
	return u
}

// resume takes up a session that must be there.
func resume(t testing.TB, r registry.Registry, repo, id string) registry.Upload {
	t.Helper()
	u, err := r.ResumeUpload(t.Context(), repo, id)
	if err != nil {
		t.Fatalf("resume an upload in %s: %v", repo, err)
	}
	return u
}

// appendAt adds content at off and checks the offset that follows.
func appendAt(t testing.TB, u registry.Upload, off int64, content []byte) {
	t.Helper()
	before := u.Offset()
	if err := u.Append(t.Context(), off, bytes.NewReader(content)); err != nil {
		t.Fatalf("append %d bytes at %d: %v", len(content), off, err)
	}
	if off < 0 {
		off = before
	}
	if want := off + int64(len(content)); u.Offset() != want {
		t.Fatalf("offset is %d after appending %d bytes at %d, want %d", u.Offset(), len(content), off, want)
	}
}
