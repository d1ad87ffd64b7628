package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

func (r *recorder) want(t *testing.T, a registry.Action, n int64, code registry.Code, failed bool) {
	t.Helper()
	e := r.last(t, a)
	if e.calls != 1 || e.n != n || (e.err != nil) != failed || failed && registry.CodeOf(e.err) != code {
		t.Errorf("%s: done called %d times with %d bytes and %v; want once with %d bytes", a, e.calls, e.n, e.err, n)
	}
}

func TestObserveTellsOfEveryMethod(t *testing.T) {
	inner := open(t)
	image := registrytest.PushImage(t, inner, "team/app", "v1")
	var rec recorder
	refused := registry.Guard(inner, func(_ context.Context, op registry.Op) error { return denied(op) })
	for action, call := range calls(t, registry.Observe(refused, rec.observe), image) {
		if err := call(); err == nil {
			t.Fatalf("%s is not refused", action)
		}
		if action == registry.BlobRead {
			action = registry.BlobStat
		}
		rec.want(t, action, 0, registry.Denied, true)
	}
}

func TestObserveCountsManifests(t *testing.T) {
	var rec recorder
	r := registry.Observe(open(t), rec.observe)
	m := registrytest.PushImage(t, r, "team/app", "v1").Manifest
	rec.want(t, registry.ManifestWrite, int64(len(m.Content)), 0, false)
	registrytest.WantManifest(t, r, "team/app", oci.TagRef("v1"), m)
	rec.want(t, registry.ManifestStat, 0, 0, false)
	rec.want(t, registry.ManifestRead, int64(len(m.Content)), 0, false)
	if found := rec.last(t, registry.ManifestRead).op.Found; found == nil || *found != m.Digest {
		t.Errorf("the tag stood for %v, want %s", found, m.Digest)
	}
}

func TestObserveCountsUploads(t *testing.T) {
	var rec recorder
	r := registry.Observe(open(t), rec.observe)
	u, err := r.StartUpload(t.Context(), "team/app", registry.UploadOptions{})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	rec.want(t, registry.UploadStart, 0, 0, false)
	broken := errors.New("the connection broke")
	body := io.MultiReader(bytes.NewReader([]byte("abc")), iotest.ErrReader(broken))
	if err := u.Append(t.Context(), 0, body); err == nil {
		t.Fatal("a broken body is accepted")
	}
	rec.want(t, registry.UploadAppend, 3, registry.CodeOf(rec.last(t, registry.UploadAppend).err), true)
	if err := u.Append(t.Context(), 3, bytes.NewReader([]byte("de"))); err != nil {
		t.Fatalf("append: %v", err)
	}
	rec.want(t, registry.UploadAppend, 2, 0, false)
	_, err = u.Commit(t.Context(), 5, bytes.NewReader([]byte("f")), oci.SHA256.FromBytes([]byte("other")))
	registrytest.WantCode(t, "commit with a wrong digest", err, registry.DigestInvalid)
	rec.want(t, registry.BlobWrite, 1, registry.DigestInvalid, true)
	if _, err := u.Commit(t.Context(), 6, nil, oci.SHA256.FromBytes([]byte("abcdef"))); err != nil {
		t.Fatalf("commit: %v", err)
	}
	rec.want(t, registry.BlobWrite, 0, 0, false)
	if err := u.Cancel(t.Context()); err == nil {
		t.Fatal("an ended session is cancelled")
	}
	rec.want(t, registry.UploadCancel, 0, registry.UploadUnknown, true)
}

func TestObserveCountsReadsUntilClosed(t *testing.T) {
	var rec recorder
	inner := open(t)
	r := registry.Observe(inner, rec.observe)
	d := registrytest.PushBlob(t, inner, "team/app", registrytest.Random(10_000))
	b, err := r.Blob(t.Context(), "team/app", d.Digest)
	if err != nil {
		t.Fatalf("find the blob: %v", err)
	}
	rec.want(t, registry.BlobStat, 0, 0, false)
	rc, err := b.Open(t.Context(), 1000, 5000)
	if err != nil {
		t.Fatalf("open the blob: %v", err)
	}
	if _, err := io.ReadFull(rc, make([]byte, 300)); err != nil {
		t.Fatalf("read: %v", err)
	}
	if e := rec.last(t, registry.BlobRead); e.calls != 0 || e.op.Size != 5000 {
		t.Errorf("before the close: %+v", e)
	}
	rc.Close()
	rc.Close()
	rec.want(t, registry.BlobRead, 300, 0, false)
}

func TestObserveKeepsWriterTo(t *testing.T) {
	var rec recorder
	inner := open(t)
	content := registrytest.Random(10_000)
	d := registrytest.PushBlob(t, inner, "team/app", content)
	for name, reader := range map[string]func([]byte) io.ReadCloser{
		"with":    func(p []byte) io.ReadCloser { return writerToCloser{bytes.NewReader(p)} },
		"without": func(p []byte) io.ReadCloser { return readerCloser{bytes.NewReader(p)} },
	} {
		b, err := registry.Observe(reading{inner, reader}, rec.observe).Blob(t.Context(), "team/app", d.Digest)
		if err != nil {
			t.Fatalf("find the blob: %v", err)
		}
		if got := writesTo(t, b); got != (name == "with") {
			t.Errorf("%s io.WriterTo inside: %v outside", name, got)
		}
		rc, err := b.Open(t.Context(), 0, d.Size)
		if err != nil {
			t.Fatalf("open the blob: %v", err)
		}
		var sink bytes.Buffer
		if _, err := io.Copy(&sink, rc); err != nil || !bytes.Equal(sink.Bytes(), content) {
			t.Errorf("copy: %d bytes, %v", sink.Len(), err)
		}
		rc.Close()
		rec.want(t, registry.BlobRead, 10_000, 0, false)
	}
}

// reading is a real registry whose blobs are read through a certain reader.
type reading struct {
	registry.Registry
	reader func([]byte) io.ReadCloser
}

func (r reading) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	b, err := r.Registry.Blob(ctx, repo, d)
	return readingBlob{b, r.reader}, err
}

type readingBlob struct {
	registry.Blob
	reader func([]byte) io.ReadCloser
}

func (b readingBlob) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	rc, err := b.Blob.Open(ctx, off, n)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	content, err := io.ReadAll(rc)
	return b.reader(content), err
}

// writerToCloser is a reader with a WriteTo, as a file is.
type writerToCloser struct{ *bytes.Reader }

func (writerToCloser) Close() error { return nil }

// readerCloser is a reader that can do nothing else.
type readerCloser struct{ io.Reader }

func (readerCloser) Close() error { return nil }

func TestObserveTellsOfListsOnce(t *testing.T) {
	var rec recorder
	r := registry.Observe(open(t), rec.observe)
	registrytest.PushImage(t, r, "team/app", "a", "b", "c")
	tags := r.Tags(t.Context(), "team/app", "")
	for range tags {
		break
	}
	rec.want(t, registry.TagsList, 0, 0, false)
	registrytest.WantList(t, "tags", tags, "a", "b", "c")
	rec.want(t, registry.TagsList, 0, 0, false)
	registrytest.ListError(t, r.Tags(t.Context(), "team/none", ""))
	rec.want(t, registry.TagsList, 0, registry.NameUnknown, true)
}

func TestObserveTellsOfPanics(t *testing.T) {
	var rec recorder
	r := registry.Observe(open(t), rec.observe)
	registrytest.PushImage(t, r, "team/app", "a")
	func() {
		defer func() { _ = recover() }()
		for range r.Tags(t.Context(), "team/app", "") {
			panic("in the loop")
		}
	}()
	rec.want(t, registry.TagsList, 0, registry.Internal, true)
}

func TestObserversNest(t *testing.T) {
	var order []string
	observer := func(name string) registry.Observer {
		return func(_ context.Context, op registry.Op) func(int64, error) {
			order = append(order, fmt.Sprintf("%s begins", name))
			return func(int64, error) { order = append(order, fmt.Sprintf("%s ends", name)) }
		}
	}
	r := registry.Observe(open(t), observer("first"), observer("second"))
	if err := r.DeleteTag(t.Context(), "team/none", "v1"); err == nil {
		t.Fatal("an absent tag is deleted")
	}
	if want := []string{"first begins", "second begins", "second ends", "first ends"}; !slices.Equal(order, want) {
		t.Errorf("%q, want %q", order, want)
	}
}
