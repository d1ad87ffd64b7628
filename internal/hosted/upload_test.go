package hosted_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/fsblob"
	"github.com/berth-registry/berth/internal/blob/s3blob/s3test"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

var errBroken = errors.New("it broke")

func start(t *testing.T, r registry.Registry) registry.Upload {
	t.Helper()
	u, err := r.StartUpload(t.Context(), repo, registry.UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// resume takes up a session, which must stand at off.
func resume(t *testing.T, r registry.Registry, id string, off int64) registry.Upload {
	t.Helper()
	u, err := r.ResumeUpload(t.Context(), repo, id)
	if err != nil {
		t.Fatal(err)
	}
	if u.Offset() != off {
		t.Fatalf("the session stands at %d, want %d", u.Offset(), off)
	}
	return u
}

func commit(t *testing.T, r registry.Registry, u registry.Upload, tail, content []byte, d oci.Digest) {
	t.Helper()
	if _, err := u.Commit(t.Context(), -1, reader(tail), d); err != nil {
		t.Fatalf("commit: %v", err)
	}
	registrytest.WantBlob(t, r, repo, d, content)
}

// replicas are two registries over one database and one folder.
func replicas(t *testing.T) (a, b *hosted.Registry) {
	t.Helper()
	path, folder := metatest.File(t), t.TempDir()
	replica := func() *hosted.Registry {
		files, err := fsblob.New(folder)
		if err != nil {
			t.Fatal(err)
		}
		return hosted.New(openDB(t, meta.Options{Path: path, Shared: true}), files, hosted.Options{})
	}
	return replica(), replica()
}

func TestReplicaResumes(t *testing.T) {
	a, b := replicas(t)
	content := registrytest.Random(90_000)
	u := start(t, a)
	if err := u.Append(t.Context(), 0, reader(content[:40_000])); err != nil {
		t.Fatal(err)
	}
	v := resume(t, b, u.ID(), 40_000)
	if err := v.Append(t.Context(), 40_000, reader(content[40_000:70_000])); err != nil {
		t.Fatal(err)
	}
	commit(t, a, resume(t, a, u.ID(), 70_000), content[70_000:], content, oci.SHA256.FromBytes(content))
	registrytest.WantBlob(t, b, repo, oci.SHA256.FromBytes(content), content)
}

// TestReplicasAtOnce: while one writes, the other is refused and told where the
// session stands.
func TestReplicasAtOnce(t *testing.T) {
	a, b := replicas(t)
	content := registrytest.Random(50_000)
	u := start(t, a)
	body, send := io.Pipe()
	done := make(chan error)
	go func() { done <- u.Append(t.Context(), 0, body) }()
	if _, err := send.Write(content[:1]); err != nil { // it is being read now
		t.Fatal(err)
	}
	v := resume(t, b, u.ID(), 0)
	for _, err := range []error{
		v.Append(t.Context(), 0, reader(content)),
		v.Append(t.Context(), -1, reader(content)),
		v.Cancel(t.Context()),
	} {
		registrytest.WantCode(t, "use a session that another replica writes", err, registry.RangeInvalid)
	}
	_, err := v.Commit(t.Context(), -1, nil, oci.SHA256.FromBytes(nil))
	registrytest.WantCode(t, "commit a session that another replica writes", err, registry.RangeInvalid)
	if v.ID() != u.ID() {
		t.Errorf("the refused session is called %q", v.ID())
	}
	send.Write(content[1:])
	send.Close()
	if err := <-done; err != nil {
		t.Fatalf("append: %v", err)
	}
	commit(t, b, resume(t, b, u.ID(), 50_000), nil, content, oci.SHA256.FromBytes(content))
}

// TestCrashAfterSeal: the bytes are sealed, but no row says so.
func TestCrashAfterSeal(t *testing.T) {
	s := newStack(t, hosted.Options{})
	crash := errBroken
	s.blobs.AfterSeal = func(string, blob.State) error { return crash }
	content := registrytest.Random(50_000)
	d := oci.SHA256.FromBytes(content)
	u := start(t, s)
	if err := u.Append(t.Context(), 0, reader(content[:20_000])); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Commit(t.Context(), 20_000, reader(content[20_000:]), d); !errors.Is(err, errBroken) {
		t.Fatalf("commit: %v", err)
	}
	if _, err := s.Blob(t.Context(), repo, d); err == nil {
		t.Fatal("a blob is served whose commit failed")
	}
	crash = nil
	commit(t, s, resume(t, s, u.ID(), 50_000), nil, content, d)
}

// TestDatabaseFailsAfterSeal: the process dies before the row is written, so
// that the session stands where it was last saved.
func TestDatabaseFailsAfterSeal(t *testing.T) {
	s := newStack(t, hosted.Options{})
	dying := hosted.New(mortal{s.db}, s.blobs, hosted.Options{})
	content := registrytest.Random(50_000)
	d := oci.SHA256.FromBytes(content)
	u := start(t, s)
	if err := u.Append(t.Context(), 0, reader(content[:20_000])); err != nil {
		t.Fatal(err)
	}
	if _, err := resume(t, dying, u.ID(), 20_000).Commit(t.Context(), -1, reader(content[20_000:]), d); !errors.Is(err, errBroken) {
		t.Fatalf("commit: %v", err)
	}
	commit(t, s, resume(t, s, u.ID(), 20_000), content[20_000:], content, d)
}

// TestSealedTooLate: a writer seals when its session was cancelled meanwhile, and
// all of it freed. Its bytes do not stay.
func TestSealedTooLate(t *testing.T) {
	s := newStack(t, hosted.Options{})
	content := registrytest.Random(50_000)
	u := start(t, s)
	s.blobs.AfterSeal = func(key string, _ blob.State) error {
		row, err := s.db.LeaseUpload(t.Context(), repo, key, time.Minute)
		if !errors.Is(err, meta.ErrLeased) {
			t.Errorf("the session is not its writer's: %v", err)
		}
		return errors.Join(s.db.CancelUpload(t.Context(), row), s.db.ForgetDead(t.Context(), key))
	}
	_, err := u.Commit(t.Context(), 0, reader(content), oci.SHA256.FromBytes(content))
	registrytest.WantCode(t, "commit a session that was cancelled", err, registry.RangeInvalid)
	if _, err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for o, err := range s.blobs.List(t.Context(), "") {
		t.Errorf("left: %+v, %v", o, err)
	}
}

// mortal is a database whose process dies when it is to store anything.
type mortal struct{ hosted.Metadata }

func (mortal) CommitBlob(context.Context, meta.Upload, oci.Digest) (bool, error) {
	return false, errBroken
}
func (mortal) SaveUpload(context.Context, meta.Upload) error { return errBroken }

func TestClientGoneBeforeCommit(t *testing.T) {
	s := newStack(t, hosted.Options{})
	content := registrytest.Random(50_000)
	d := oci.SHA256.FromBytes(content)
	ctx, cancel := context.WithCancel(t.Context())
	s.blobs.AfterSeal = func(string, blob.State) error { cancel(); return nil }
	u := start(t, s)
	if _, err := u.Commit(ctx, 0, reader(content), d); !errors.Is(err, context.Canceled) {
		t.Fatalf("commit for a client that has gone: %v", err)
	}
	commit(t, s, resume(t, s, u.ID(), 50_000), nil, content, d)
}

func TestStoreFull(t *testing.T) {
	s := newStack(t, hosted.Options{})
	content := registrytest.Random(900_000)
	d := oci.SHA256.FromBytes(content)
	u := start(t, s)
	if err := u.Append(t.Context(), 0, reader(content[:100_000])); err != nil {
		t.Fatal(err)
	}
	s.blobs.Room(300_000)
	registrytest.WantCode(t, "append to a full store", u.Append(t.Context(), 100_000, reader(content[100_000:])), registry.InsufficientStorage)
	u = resume(t, s, u.ID(), 100_000)
	_, err := u.Commit(t.Context(), 100_000, reader(content[100_000:]), d)
	registrytest.WantCode(t, "commit to a full store", err, registry.InsufficientStorage)
	s.blobs.Unlimited()
	commit(t, s, resume(t, s, u.ID(), 100_000), content[100_000:], content, d)
}

func TestStoreFailsAtTheStart(t *testing.T) {
	s := newStack(t, hosted.Options{})
	s.blobs.Fail("Create", 1, blob.ErrFull)
	_, err := s.StartUpload(t.Context(), repo, registry.UploadOptions{})
	registrytest.WantCode(t, "start in a full store", err, registry.InsufficientStorage)
}

// TestAlgorithmOfTheCommit: a session that began as sha256 ends as sha512.
func TestAlgorithmOfTheCommit(t *testing.T) {
	content := registrytest.Random(50_000)
	d := oci.SHA512.FromBytes(content)
	t.Run("at once", func(t *testing.T) {
		s := newStack(t, hosted.Options{})
		commit(t, s, start(t, s), content, content, d)
		if n := s.blobs.Calls("Open"); n != 1 { // by WantBlob
			t.Errorf("the bytes were read back %d times", n-1)
		}
	})
	t.Run("with bytes before", func(t *testing.T) {
		s := newStack(t, hosted.Options{})
		u := start(t, s)
		if err := u.Append(t.Context(), 0, reader(content[:20_000])); err != nil {
			t.Fatal(err)
		}
		commit(t, s, u, content[20_000:], content, d)
	})
	t.Run("broken off", func(t *testing.T) {
		s := newStack(t, hosted.Options{})
		u := start(t, s)
		body := io.MultiReader(reader(content[:30_000]), iotest.ErrReader(errBroken))
		if _, err := u.Commit(t.Context(), 0, body, d); !errors.Is(err, errBroken) {
			t.Fatalf("commit a body that breaks off: %v", err)
		}
		commit(t, s, resume(t, s, u.ID(), 30_000), content[30_000:], content, d)
	})
	t.Run("and back", func(t *testing.T) {
		s := newStack(t, hosted.Options{})
		u := start(t, s)
		_, err := u.Commit(t.Context(), 0, reader(content), oci.SHA512.FromBytes(nil))
		registrytest.WantCode(t, "commit with a wrong sha512", err, registry.DigestInvalid)
		commit(t, s, resume(t, s, u.ID(), 50_000), nil, content, oci.SHA256.FromBytes(content))
	})
}

// TestWrongDigestOfSealedBytes: nothing can be added to bytes that had to be
// sealed before their digest was known. If it is another than the client says,
// the session ends and leaves nothing, whatever store has the bytes.
func TestWrongDigestOfSealedBytes(t *testing.T) {
	server := s3test.Start(t)
	folder, err := fsblob.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, store := range map[string]blob.Store{"folder": folder, "S3": bucket(t, server, "wrong-digest", nil)} {
		for _, size := range []int{0, 1000, 400_000, 6 << 20, 14 << 20} { // of the last request
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				s := newStack(t, hosted.Options{})
				r := hosted.New(s.db, store, hosted.Options{})
				before, rest := registrytest.Random(300_000), registrytest.Random(size)
				u := start(t, r)
				if err := u.Append(t.Context(), 0, reader(before)); err != nil {
					t.Fatal(err)
				}
				_, err := u.Commit(t.Context(), -1, reader(rest), oci.SHA512.FromBytes([]byte("else")))
				registrytest.WantCode(t, "commit with a wrong sha512", err, registry.DigestInvalid)
				if !strings.Contains(err.Error(), "start anew") {
					t.Errorf("the client is not told what to do: %v", err)
				}
				_, err = r.ResumeUpload(t.Context(), repo, u.ID())
				registrytest.WantCode(t, "resume the session", err, registry.UploadUnknown)
				registrytest.WantCode(t, "append to the session", u.Append(t.Context(), -1, reader(before)), registry.UploadUnknown)
				if _, err := r.Collect(t.Context()); err != nil { // what has failed at first, or waits
					t.Fatal(err)
				}
				if n := objects(t, store); n != 0 {
					t.Errorf("%d objects are left", n)
				}
				all := append(before, rest...)
				commit(t, r, start(t, r), all, all, oci.SHA512.FromBytes(all))
				if err := r.DeleteBlob(t.Context(), repo, oci.SHA512.FromBytes(all)); err != nil {
					t.Fatal(err)
				}
				if _, err := r.Collect(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func TestRehashFails(t *testing.T) {
	s := newStack(t, hosted.Options{})
	content := registrytest.Random(5000)
	u := start(t, s)
	if err := u.Append(t.Context(), 0, reader(content)); err != nil {
		t.Fatal(err)
	}
	s.blobs.Fail("Open", 1, errBroken)
	if _, err := u.Commit(t.Context(), -1, nil, oci.SHA512.FromBytes(content)); !errors.Is(err, errBroken) {
		t.Errorf("commit when the bytes cannot be read back: %v", err)
	}
	commit(t, s, resume(t, s, u.ID(), 5000), nil, content, oci.SHA512.FromBytes(content))
}

func TestNothingIsLeftBehind(t *testing.T) {
	s := newStack(t, hosted.Options{})
	content := registrytest.Random(5000)
	for range 3 {
		registrytest.PushBlob(t, s, repo, content)
	}
	u := start(t, s)
	if err := u.Append(t.Context(), 0, reader(content)); err != nil {
		t.Fatal(err)
	}
	if err := u.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := objects(t, s.blobs); n != 1 {
		t.Errorf("%d objects for one blob", n)
	}
}

func TestClosedDatabase(t *testing.T) {
	s := newStack(t, hosted.Options{})
	u := start(t, s)
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := s.StartUpload(t.Context(), repo, registry.UploadOptions{})
	registrytest.WantCode(t, "start an upload while shutting down", err, registry.Unavailable)
	if err := u.Append(t.Context(), 0, reader([]byte("x"))); err == nil {
		t.Error("appending succeeds on a closed database")
	}
}

// TestForgottenSession: the row of a session goes while its bytes come, as when a
// database crashes that has not made it durable. The bytes go too.
func TestForgottenSession(t *testing.T) {
	for name, write := range map[string]func(u registry.Upload, body io.Reader, d oci.Digest) error{
		"append": func(u registry.Upload, body io.Reader, _ oci.Digest) error { return u.Append(t.Context(), 0, body) },
		"commit": func(u registry.Upload, body io.Reader, d oci.Digest) error {
			_, err := u.Commit(t.Context(), 0, body, d)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, hosted.Options{})
			u, content := start(t, s), registrytest.Random(500)
			gone := readerFunc(func([]byte) (int, error) {
				s.exec(t, `DELETE FROM uploads WHERE id = ?`, u.ID())
				return 0, io.EOF
			})
			err := write(u, io.MultiReader(reader(content), gone), oci.SHA256.FromBytes(content))
			registrytest.WantCode(t, "write to a session that is forgotten", err, registry.RangeInvalid)
			if !exists(t, s.file(t, u.ID())) {
				t.Fatal("nothing was written")
			}
			wantCollected(t, s, hosted.Collected{Objects: 1})
			if n := objects(t, s.blobs); n != 0 {
				t.Errorf("%d objects are left that no row names", n)
			}
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// crashing is a database that crashes at a commit, and has forgotten the session
// when it is back.
type crashing struct {
	*meta.DB
	forget func()
	down   atomic.Int64 // calls that still fail
}

func (m *crashing) CommitBlob(context.Context, meta.Upload, oci.Digest) (bool, error) {
	m.forget()
	m.down.Store(2)
	return false, meta.ErrUnavailable
}

func (m *crashing) SaveUpload(context.Context, meta.Upload) error { return meta.ErrUnavailable }

func (m *crashing) ReleaseUpload(ctx context.Context, id string, version int64) error {
	if m.down.Add(-1) >= 0 {
		return meta.ErrUnavailable
	}
	return m.DB.ReleaseUpload(ctx, id, version)
}

// TestForgottenWhileDown: the same, where the database is away for longer than the
// request.
func TestForgottenWhileDown(t *testing.T) {
	s := newStack(t, hosted.Options{})
	var u registry.Upload
	db := &crashing{DB: s.db, forget: func() { s.exec(t, `DELETE FROM uploads WHERE id = ?`, u.ID()) }}
	u = start(t, hosted.New(db, s.blobs, hosted.Options{}))
	content := registrytest.Random(500)
	_, err := u.Commit(t.Context(), 0, reader(content), oci.SHA256.FromBytes(content))
	registrytest.WantCode(t, "commit while the database crashes", err, registry.Unavailable)
	for end := time.Now().Add(10 * time.Second); objects(t, s.blobs) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("an object is left that no row names")
		}
		if _, err := s.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
