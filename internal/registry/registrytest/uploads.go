package registrytest

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

var uploadCases = []testCase{
	{"upload/in pieces", func(t *testing.T, r registry.Registry) {
		content := Random(10_000)
		u := start(t, r, "team/app", "")
		appendAt(t, u, 0, content[:1])
		appendAt(t, u, -1, content[1:4000])
		appendAt(t, u, 4000, content[4000:9000])
		commit(t, r, u, "team/app", 9000, content[9000:], content)
	}},
	{"upload/large pieces", func(t *testing.T, r registry.Registry) {
		content := Random(5<<20 + 3)
		u := start(t, r, "team/app", "")
		appendAt(t, u, 0, content[:2<<20+1])
		appendAt(t, u, 2<<20+1, content[2<<20+1:4<<20])
		commit(t, r, u, "team/app", 4<<20, content[4<<20:], content)
	}},
	{"upload/resumed by id", func(t *testing.T, r registry.Registry) {
		content := Random(3000)
		u := start(t, r, "team/app", "")
		for off := 0; off < 3000; off += 1000 {
			appendAt(t, u, int64(off), content[off:off+1000])
			u = resume(t, r, "team/app", u.ID())
			if u.Offset() != int64(off+1000) {
				t.Fatalf("a resumed session stands at %d, want %d", u.Offset(), off+1000)
			}
		}
		commit(t, r, u, "team/app", -1, nil, content)
	}},
	{"upload/resumed without bytes", func(t *testing.T, r registry.Registry) {
		u := resume(t, r, "team/app", start(t, r, "team/app", "").ID())
		if u.Offset() != 0 {
			t.Fatalf("an empty session stands at %d", u.Offset())
		}
		commit(t, r, u, "team/app", 0, []byte("x"), []byte("x"))
	}},
	{"upload/resumed after one byte", func(t *testing.T, r registry.Registry) {
		u := start(t, r, "team/app", "")
		appendAt(t, u, 0, []byte("x"))
		u = resume(t, r, "team/app", u.ID())
		if u.Offset() != 1 {
			t.Fatalf("a session of one byte stands at %d", u.Offset())
		}
		commit(t, r, u, "team/app", 1, nil, []byte("x"))
	}},
	{"upload/wrong offset", func(t *testing.T, r registry.Registry) {
		content := Random(2000)
		u := start(t, r, "team/app", "")
		appendAt(t, u, 0, content[:1000])
		for _, off := range []int64{0, 999, 1001, 1 << 40} {
			err := u.Append(t.Context(), off, bytes.NewReader(content[1000:]))
			WantCode(t, "append at a wrong offset", err, registry.RangeInvalid)
			_, err = u.Commit(t.Context(), off, bytes.NewReader(content[1000:]), oci.SHA256.FromBytes(content))
			WantCode(t, "commit at a wrong offset", err, registry.RangeInvalid)
			if u.Offset() != 1000 {
				t.Fatalf("offset is %d after a refused append at %d, want 1000", u.Offset(), off)
			}
		}
		commit(t, r, u, "team/app", 1000, content[1000:], content)
	}},
	{"upload/wrong digest", func(t *testing.T, r registry.Registry) {
		content := Random(2000)
		u := start(t, r, "team/app", "")
		appendAt(t, u, 0, content[:1500])
		_, err := u.Commit(t.Context(), 1500, bytes.NewReader(content[1500:]), oci.SHA256.FromBytes(Random(8)))
		WantCode(t, "commit with a wrong digest", err, registry.DigestInvalid)
		if u.Offset() != 2000 {
			t.Fatalf("offset is %d after a wrong digest, want all 2000 bytes", u.Offset())
		}
		u = resume(t, r, "team/app", u.ID())
		commit(t, r, u, "team/app", 2000, nil, content)
	}},
	{"upload/wrong digest, more to come", func(t *testing.T, r registry.Registry) {
		content := Random(2000)
		u := start(t, r, "team/app", "")
		_, err := u.Commit(t.Context(), 0, bytes.NewReader(content[:500]), oci.SHA256.FromBytes(content))
		WantCode(t, "commit too early", err, registry.DigestInvalid)
		commit(t, r, u, "team/app", 500, content[500:], content)
	}},
	{"upload/body breaks off", func(t *testing.T, r registry.Registry) {
		content := Random(200_000)
		broken := errors.New("the connection broke")
		for _, got := range []int{0, 2, 300, 150_000} {
			u := start(t, r, "team/app", "")
			body := io.MultiReader(bytes.NewReader(content[:got]), iotest.ErrReader(broken))
			if err := u.Append(t.Context(), 0, body); err == nil {
				t.Fatal("appending a body that breaks off succeeds")
			}
			if u.Offset() != int64(got) {
				t.Fatalf("offset is %d, want the %d bytes received", u.Offset(), got)
			}
			u = resume(t, r, "team/app", u.ID())
			commit(t, r, u, "team/app", int64(got), content[got:], content)
		}
	}},
	{"upload/final body breaks off", func(t *testing.T, r registry.Registry) {
		content := Random(150_000)
		u := start(t, r, "team/app", "")
		body := io.MultiReader(bytes.NewReader(content[:90_000]), iotest.ErrReader(errors.New("the connection broke")))
		if _, err := u.Commit(t.Context(), 0, body, oci.SHA256.FromBytes(content)); err == nil {
			t.Fatal("committing a body that breaks off succeeds")
		}
		if u.Offset() != 90_000 {
			t.Fatalf("offset is %d, want the 90000 bytes received", u.Offset())
		}
		commit(t, r, u, "team/app", 90_000, content[90_000:], content)
	}},
}

// commit ends u, which gets tail at off, and checks that repo serves content.
func commit(t testing.TB, r registry.Registry, u registry.Upload, repo string, off int64, tail, content []byte) {
	t.Helper()
	var body io.Reader
	if tail != nil {
		body = bytes.NewReader(tail)
	}
	d := oci.SHA256.FromBytes(content)
	got, err := u.Commit(t.Context(), off, body, d)
	if err != nil {
		t.Fatalf("commit %d bytes at %d: %v", len(tail), off, err)
	}
	if got.Digest != d || got.Size != int64(len(content)) {
		t.Fatalf("committed %+v, want %s of %d bytes", got, d, len(content))
	}
	WantBlob(t, r, repo, d, content)
}

var sessionCases = []testCase{
	{"session/ids", func(t *testing.T, r registry.Registry) {
		var ids []string
		for range 5 {
			id := start(t, r, "team/app", "").ID()
			if len(id) < 16 || slices.Contains(ids, id) {
				t.Fatalf("the id %q is short or was given before", id)
			}
			if i := slices.IndexFunc([]byte(id), unsafeInURL); i >= 0 {
				t.Fatalf("the id %q is not safe in a URL: byte %d", id, i)
			}
			ids = append(ids, id)
		}
	}},
	{"session/unknown", func(t *testing.T, r registry.Registry) {
		PushImage(t, r, "team/app")
		for _, id := range []string{"", "x", "..", "../../etc/passwd", "0192f0c1-2222-7333-8444-555566667777", string(make([]byte, 300)), "a\x00b", "\xff"} {
			_, err := r.ResumeUpload(t.Context(), "team/app", id)
			WantCode(t, "resume an unknown session", err, registry.UploadUnknown)
		}
	}},
	{"session/of another repository", func(t *testing.T, r registry.Registry) {
		PushImage(t, r, "team/other")
		u := start(t, r, "team/app", "")
		appendAt(t, u, 0, []byte("abc"))
		for _, repo := range []string{"team/other", "team/none"} {
			_, err := r.ResumeUpload(t.Context(), repo, u.ID())
			WantCode(t, "resume a session under "+repo, err, registry.UploadUnknown)
		}
		commit(t, r, u, "team/app", 3, nil, []byte("abc"))
	}},
	{"session/ends with its commit", func(t *testing.T, r registry.Registry) {
		u := start(t, r, "team/app", "")
		other := resume(t, r, "team/app", u.ID())
		commit(t, r, u, "team/app", 0, []byte("abc"), []byte("abc"))
		wantEnded(t, r, other)
	}},
	{"session/cancelled", func(t *testing.T, r registry.Registry) {
		u := start(t, r, "team/app", "")
		appendAt(t, u, 0, []byte("abc"))
		other := resume(t, r, "team/app", u.ID())
		if err := u.Cancel(t.Context()); err != nil {
			t.Fatalf("cancel: %v", err)
		}
		wantEnded(t, r, other)
		wantEnded(t, r, u)
	}},
	{"session/two values, one after the other", func(t *testing.T, r registry.Registry) {
		a := start(t, r, "team/app", "")
		b := resume(t, r, "team/app", a.ID())
		appendAt(t, a, 0, []byte("abc"))
		err := b.Append(t.Context(), 0, bytes.NewReader([]byte("xyz")))
		WantCode(t, "append where another value wrote", err, registry.RangeInvalid)
		if b.Offset() != 3 {
			t.Errorf("the refused value stands at %d; after its call it is 3", b.Offset())
		}
		appendAt(t, b, 3, []byte("def"))
		commit(t, r, a, "team/app", -1, []byte("g"), []byte("abcdefg"))
	}},
	{"session/two values at once", func(t *testing.T, r registry.Registry) {
		const writers = 6
		content := Random(60_000)
		id := start(t, r, "team/app", "").ID()
		errs := together(writers, func(int) error {
			u, err := r.ResumeUpload(t.Context(), "team/app", id)
			if err != nil {
				return err
			}
			return u.Append(t.Context(), 0, bytes.NewReader(content))
		})
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
				continue
			}
			WantCode(t, "append at once", err, registry.RangeInvalid)
		}
		if won != 1 {
			t.Fatalf("%d of %d writers at one offset won", won, writers)
		}
		commit(t, r, resume(t, r, "team/app", id), "team/app", int64(len(content)), nil, content)
	}},
	{"session/invisible before its commit", func(t *testing.T, r registry.Registry) {
		PushImage(t, r, "team/app")
		u := start(t, r, "team/app", "")
		appendAt(t, u, 0, []byte("abc"))
		_, err := r.Blob(t.Context(), "team/app", oci.SHA256.FromBytes([]byte("abc")))
		WantCode(t, "find the bytes of an open session", err, registry.BlobUnknown)
	}},
}

func unsafeInURL(c byte) bool {
	word := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
	return !word && c != '-' && c != '_' && c != '.' && c != '~'
}

// wantEnded checks that nothing can be done with a session any more.
func wantEnded(t *testing.T, r registry.Registry, u registry.Upload) {
	t.Helper()
	_, err := r.ResumeUpload(t.Context(), "team/app", u.ID())
	WantCode(t, "resume an ended session", err, registry.UploadUnknown)
	WantCode(t, "append to an ended session", u.Append(t.Context(), -1, bytes.NewReader([]byte("x"))), registry.UploadUnknown)
	_, err = u.Commit(t.Context(), -1, nil, oci.SHA256.FromBytes([]byte("abc")))
	WantCode(t, "commit an ended session", err, registry.UploadUnknown)
	WantCode(t, "cancel an ended session", u.Cancel(t.Context()), registry.UploadUnknown)
}
