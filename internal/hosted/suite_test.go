package hosted_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/blobtest"
	"github.com/berth-registry/berth/internal/blob/fsblob"
	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

const repo = "team/app"

// stack is a hosted registry over a folder, with all that it stands on.
type stack struct {
	*hosted.Registry
	path   string // of the database
	folder string // of the objects
	db     *meta.DB
	blobs  *blobtest.Faulty
	ahead  atomic.Int64 // how far the database's clock is ahead, in ns
}

func newStack(t *testing.T, o hosted.Options) *stack {
	t.Helper()
	return newStackOn(t, o, meta.Options{Path: metatest.File(t)})
}

// eachEngine runs a test with the rows in a file and on a PostgreSQL server.
func eachEngine(t *testing.T, run func(t *testing.T, open func(o hosted.Options) *stack)) {
	t.Run("sqlite", func(t *testing.T) {
		run(t, func(o hosted.Options) *stack { return newStack(t, o) })
	})
	t.Run("postgres", func(t *testing.T) {
		run(t, func(o hosted.Options) *stack { return newStackOn(t, o, meta.Options{Postgres: metatest.URL(t)}) })
	})
}

func newStackOn(t *testing.T, o hosted.Options, rows meta.Options) *stack {
	t.Helper()
	s := &stack{path: rows.Path, folder: t.TempDir()}
	rows.Now = func() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }
	s.db = openDB(t, rows)
	files, err := fsblob.New(s.folder)
	if err != nil {
		t.Fatal(err)
	}
	s.blobs = &blobtest.Faulty{Store: files}
	s.Registry = hosted.New(s.db, s.blobs, o)
	return s
}

// shift sets the clock of the rows; what is written in the past is old now.
func (s *stack) shift(d time.Duration) { s.ahead.Store(int64(d)) }

// file is the path of an object.
func (s *stack) file(t *testing.T, key string) string {
	t.Helper()
	matches, err := filepath.Glob(filepath.Join(s.folder, "*", key))
	if err != nil || len(matches) != 1 {
		t.Fatalf("files of object %s: %v, %v", key, matches, err)
	}
	return matches[0]
}

// key finds the key of a blob that repo serves.
func (s *stack) key(t *testing.T, d oci.Digest) string {
	t.Helper()
	b, err := s.db.Blob(t.Context(), repo, d)
	if err != nil {
		t.Fatalf("find %s: %v", d, err)
	}
	return b.Key
}

// objects counts what the blob store holds.
func objects(t *testing.T, s blob.Store) (n int) {
	t.Helper()
	for _, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func openDB(t *testing.T, o meta.Options) *meta.DB {
	t.Helper()
	db, err := meta.Open(t.Context(), o)
	if err != nil {
		t.Fatalf("open a database: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func reader(content []byte) io.Reader { return bytes.NewReader(content) }

func allow(context.Context, registry.Op) error { return nil }

func ignore(context.Context, registry.Op) func(int64, error) { return func(int64, error) {} }

func TestConforms(t *testing.T) {
	stores := map[string]func(t *testing.T) blob.Store{
		"memblob": func(*testing.T) blob.Store { return memblob.New() },
		"fsblob": func(t *testing.T) blob.Store {
			s, err := fsblob.New(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	}
	wraps := map[string]func(registry.Registry) registry.Registry{
		"bare":     func(r registry.Registry) registry.Registry { return r },
		"guarded":  func(r registry.Registry) registry.Registry { return registry.Guard(r, allow) },
		"observed": func(r registry.Registry) registry.Registry { return registry.Observe(r, ignore) },
	}
	for storeName, store := range stores {
		for wrapName, wrap := range wraps {
			open := func(o hosted.Options, shared bool) func(t *testing.T) registry.Registry {
				return func(t *testing.T) registry.Registry {
					db := openDB(t, meta.Options{Path: metatest.File(t), Shared: shared})
					return wrap(hosted.New(db, store(t), o))
				}
			}
			t.Run(storeName+"/"+wrapName, func(t *testing.T) {
				sparse := hosted.Options{Sparse: func(name string) bool { return name == repo }}
				registrytest.Run(t, open(hosted.Options{}, wrapName == "bare"), registrytest.Options{Sparse: open(sparse, false)})
			})
		}
	}
}

// TestBlobSurvivesFailingTouch: pulls go on when the rows cannot be written.
func TestBlobSurvivesFailingTouch(t *testing.T) {
	s := newStack(t, hosted.Options{})
	s.shift(-2 * time.Hour)
	content := registrytest.Random(100)
	d := registrytest.PushBlob(t, s, repo, content)
	for err, want := range map[error]registry.Code{meta.ErrFull: registry.Internal, meta.ErrNotFound: registry.BlobUnknown} {
		r := hosted.New(touchless{s.db, err}, s.blobs, hosted.Options{})
		_, got := r.Blob(t.Context(), repo, d.Digest)
		if want == registry.Internal && got != nil || want != registry.Internal && !registry.IsCode(got, want) {
			t.Errorf("find a blob when touching it fails with %v: %v", err, got)
		}
	}
}

// touchless fails to note that a blob was seen.
type touchless struct {
	hosted.Metadata
	err error
}

func (m touchless) TouchBlob(context.Context, string, oci.Digest) error { return m.err }

func TestBlobWhoseBytesAreGone(t *testing.T) {
	s := newStack(t, hosted.Options{})
	d := registrytest.PushBlob(t, s, repo, registrytest.Random(100))
	b, err := s.Blob(t.Context(), repo, d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.file(t, s.key(t, d.Digest))); err != nil {
		t.Fatal(err)
	}
	_, err = b.Open(t.Context(), 0, d.Size)
	registrytest.WantCode(t, "open a blob without its bytes", err, registry.BlobUnknown)
}
