package registrytest

import (
	"errors"
	"io"
	"iter"
	"slices"
	"testing"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// WantCode fails t unless err has one of the codes.
func WantCode(t testing.TB, what string, err error, codes ...registry.Code) {
	t.Helper()
	if err == nil || !slices.Contains(codes, registry.CodeOf(err)) {
		t.Errorf("%s: %v, want the code %v", what, err, codes)
	}
}

// ReadBlob reads n bytes of a blob from off.
func ReadBlob(t testing.TB, b registry.Blob, off, n int64) []byte {
	t.Helper()
	r, err := b.Open(t.Context(), off, n)
	if err != nil {
		t.Fatalf("open %s at %d+%d: %v", b.Descriptor().Digest, off, n, err)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read %s at %d+%d: %v", b.Descriptor().Digest, off, n, err)
	}
	if err := r.Close(); err != nil {
		t.Fatalf("close %s: %v", b.Descriptor().Digest, err)
	}
	return content
}

// WantBlob fails t unless repo serves content under the digest d.
func WantBlob(t testing.TB, r registry.Registry, repo string, d oci.Digest, content []byte) {
	t.Helper()
	b, err := r.Blob(t.Context(), repo, d)
	if err != nil {
		t.Fatalf("find %s in %s: %v", d, repo, err)
	}
	if got := b.Descriptor(); got.Digest != d || got.Size != int64(len(content)) {
		t.Fatalf("descriptor of %s is %+v, want %d bytes", d, got, len(content))
	}
	if got := ReadBlob(t, b, 0, int64(len(content))); string(got) != string(content) {
		t.Fatalf("%s: %d bytes differ from what was pushed", d, len(got))
	}
}

// WantManifest fails t unless ref finds m, by Resolve and by Manifest.
func WantManifest(t testing.TB, r registry.Registry, repo string, ref oci.Ref, m registry.Manifest) {
	t.Helper()
	d, err := r.Resolve(t.Context(), repo, ref)
	if err != nil {
		t.Fatalf("resolve %s in %s: %v", ref, repo, err)
	}
	if d.Digest != m.Digest || d.MediaType != m.MediaType || d.Size != int64(len(m.Content)) {
		t.Fatalf("%s resolves to %+v, want %+v", ref, d, m.Descriptor())
	}
	got, err := r.Manifest(t.Context(), repo, ref)
	if err != nil {
		t.Fatalf("get %s of %s: %v", ref, repo, err)
	}
	if got.Digest != m.Digest || got.MediaType != m.MediaType || string(got.Content) != string(m.Content) {
		t.Fatalf("%s is %s (%s):\n%s\nwant %s (%s):\n%s", ref, got.Digest, got.MediaType, got.Content, m.Digest, m.MediaType, m.Content)
	}
}

// WantNoManifest fails t unless ref names nothing in a repository that exists.
func WantNoManifest(t testing.TB, r registry.Registry, repo string, ref oci.Ref) {
	t.Helper()
	_, err := r.Resolve(t.Context(), repo, ref)
	WantCode(t, "resolve "+ref.String(), err, registry.ManifestUnknown)
	_, err = r.Manifest(t.Context(), repo, ref)
	WantCode(t, "get "+ref.String(), err, registry.ManifestUnknown)
}

// Collect walks a list to its end.
func Collect[T any](t testing.TB, seq iter.Seq2[T, error]) []T {
	t.Helper()
	all := []T{}
	for v, err := range seq {
		if err != nil {
			t.Fatalf("list, after %d items: %v", len(all), err)
		}
		all = append(all, v)
	}
	return all
}

// ListError is the error that ends a list; items before it fail t.
func ListError[T any](t testing.TB, seq iter.Seq2[T, error]) error {
	t.Helper()
	for v, err := range seq {
		if err != nil {
			return err
		}
		t.Errorf("list yields %v, want an error first", v)
	}
	return nil
}

// WantList fails t unless seq yields just want.
func WantList[T comparable](t testing.TB, what string, seq iter.Seq2[T, error], want ...T) {
	t.Helper()
	if got := Collect(t, seq); !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func asError(err error) (*registry.Error, bool) {
	var e *registry.Error
	ok := errors.As(err, &e)
	return e, ok
}
