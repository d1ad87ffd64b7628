package registrytest

import (
	"testing"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

var mountCases = []testCase{
	{"mount/from", func(t *testing.T, r registry.Registry) { wantMounted(t, r, "team/app") }},
	{"mount/any", func(t *testing.T, r registry.Registry) { wantMounted(t, r, "") }},
	{"mount/into itself", func(t *testing.T, r registry.Registry) {
		content := Random(100)
		d := PushBlob(t, r, "team/app", content)
		if _, err := r.Mount(t.Context(), "team/app", "team/app", d.Digest); err != nil {
			t.Fatalf("mount a blob where it is: %v", err)
		}
		WantBlob(t, r, "team/app", d.Digest, content)
	}},
	{"mount/unknown", func(t *testing.T, r registry.Registry) {
		d := PushBlob(t, r, "team/app", Random(100))
		PushBlob(t, r, "team/other", Random(100))
		absent := oci.SHA256.FromBytes(Random(9))
		for _, c := range []struct {
			from   string
			digest oci.Digest
		}{{"team/app", absent}, {"", absent}, {"team/none", d.Digest}, {"team/other", d.Digest}} {
			_, err := r.Mount(t.Context(), "team/new", c.from, c.digest)
			WantCode(t, "mount an unknown blob from "+c.from, err, registry.BlobUnknown, registry.Unsupported)
		}
		_, err := r.Blob(t.Context(), "team/new", d.Digest)
		WantCode(t, "find what was not mounted", err, registry.BlobUnknown, registry.NameUnknown)
	}},
}

// wantMounted mounts a blob of team/app, which must outlive it there.
func wantMounted(t *testing.T, r registry.Registry, from string) {
	t.Helper()
	content := Random(100)
	want := PushBlob(t, r, "team/app", content)
	got, err := r.Mount(t.Context(), "team/new", from, want.Digest)
	if err != nil {
		t.Fatalf("mount from %q: %v", from, err)
	}
	if got.Digest != want.Digest || got.Size != want.Size {
		t.Errorf("mounted %+v, want %+v", got, want)
	}
	if err := r.DeleteBlob(t.Context(), "team/app", want.Digest); err != nil {
		t.Fatalf("delete the blob at its origin: %v", err)
	}
	WantBlob(t, r, "team/new", want.Digest, content)
}
