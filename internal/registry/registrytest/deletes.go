package registrytest

import (
	"testing"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

var deleteCases = []testCase{
	{"delete/tag", func(t *testing.T, r registry.Registry) {
		m := PushImage(t, r, "team/app", "v1", "v2").Manifest
		deleted(t, "a tag", r.DeleteTag(t.Context(), "team/app", "v1"))
		WantNoManifest(t, r, "team/app", oci.TagRef("v1"))
		WantManifest(t, r, "team/app", oci.TagRef("v2"), m)
		deleted(t, "the last tag", r.DeleteTag(t.Context(), "team/app", "v2"))
		WantManifest(t, r, "team/app", oci.DigestRef(m.Digest), m)
		WantList(t, "tags", r.Tags(t.Context(), "team/app", ""))
	}},
	{"delete/manifest with its tags", func(t *testing.T, r registry.Registry) {
		image := PushImage(t, r, "team/app", "v1", "v2")
		other := PushImage(t, r, "team/app", "v3").Manifest
		deleted(t, "a manifest", r.DeleteManifest(t.Context(), "team/app", image.Manifest.Digest))
		for _, ref := range []oci.Ref{oci.TagRef("v1"), oci.TagRef("v2"), oci.DigestRef(image.Manifest.Digest)} {
			WantNoManifest(t, r, "team/app", ref)
		}
		WantList(t, "tags", r.Tags(t.Context(), "team/app", ""), "v3")
		WantManifest(t, r, "team/app", oci.TagRef("v3"), other)
		PushManifest(t, r, "team/app", image.Manifest, "v1")
		WantManifest(t, r, "team/app", oci.TagRef("v1"), image.Manifest)
	}},
	{"delete/manifest held by indexes", func(t *testing.T, r registry.Registry) {
		child := PushImage(t, r, "team/app", "child").Manifest
		inner := PushIndex(t, r, "team/app", []registry.Manifest{child}, "inner")
		second := PushIndex(t, r, "team/app", []registry.Manifest{child, inner}, "outer")
		refuse := func(what string, d oci.Digest) {
			t.Helper()
			WantCode(t, "delete "+what, r.DeleteManifest(t.Context(), "team/app", d), registry.Referenced)
		}
		refuse("a child of two", child.Digest)
		refuse("an index in an index", inner.Digest)
		WantManifest(t, r, "team/app", oci.TagRef("child"), child)
		deleted(t, "the outer index", r.DeleteManifest(t.Context(), "team/app", second.Digest))
		refuse("a child of one", child.Digest)
		deleted(t, "the inner index", r.DeleteManifest(t.Context(), "team/app", inner.Digest))
		deleted(t, "the child", r.DeleteManifest(t.Context(), "team/app", child.Digest))
	}},
	{"delete/blob held by manifests", func(t *testing.T, r registry.Registry) {
		image := PushImage(t, r, "team/app")
		doc := Document{MediaType: oci.MediaTypeImage, Config: &image.Config, Layers: image.Layers, Annotations: map[string]string{"a": "b"}}
		second := PushManifest(t, r, "team/app", doc.Manifest(t), "second")
		held := []oci.Digest{image.Config.Digest, image.Layers[0].Digest}
		for _, holder := range []oci.Digest{image.Manifest.Digest, second.Digest} {
			for _, d := range held {
				WantCode(t, "delete a held blob", r.DeleteBlob(t.Context(), "team/app", d), registry.Referenced)
			}
			deleted(t, "a holder", r.DeleteManifest(t.Context(), "team/app", holder))
		}
		for _, d := range held {
			deleted(t, "a blob without holders", r.DeleteBlob(t.Context(), "team/app", d))
			_, err := r.Blob(t.Context(), "team/app", d)
			WantCode(t, "find a deleted blob", err, registry.BlobUnknown)
		}
	}},
	{"delete/blob of one repository", func(t *testing.T, r registry.Registry) {
		content := Random(100)
		d := PushBlob(t, r, "team/app", content)
		PushBlob(t, r, "team/other", content)
		deleted(t, "a blob", r.DeleteBlob(t.Context(), "team/app", d.Digest))
		WantBlob(t, r, "team/other", d.Digest, content)
		PushBlob(t, r, "team/app", content)
		WantBlob(t, r, "team/app", d.Digest, content)
	}},
	{"delete/blob that was pushed alone", func(t *testing.T, r registry.Registry) {
		content := Random(100)
		d := PushBlob(t, r, "team/app", content)
		deleted(t, "a blob", r.DeleteBlob(t.Context(), "team/app", d.Digest))
		PushBlob(t, r, "team/app", content)
		WantBlob(t, r, "team/app", d.Digest, content)
	}},
	{"delete/absent", func(t *testing.T, r registry.Registry) {
		PushImage(t, r, "team/app", "v1")
		absent := oci.SHA256.FromBytes(Random(9))
		WantCode(t, "delete an absent tag", r.DeleteTag(t.Context(), "team/app", "v2"), registry.ManifestUnknown)
		WantCode(t, "delete an absent manifest", r.DeleteManifest(t.Context(), "team/app", absent), registry.ManifestUnknown)
		WantCode(t, "delete an absent blob", r.DeleteBlob(t.Context(), "team/app", absent), registry.BlobUnknown)
		WantCode(t, "delete a tag of no repository", r.DeleteTag(t.Context(), "team/none", "v1"), registry.NameUnknown)
		WantCode(t, "delete a manifest of no repository", r.DeleteManifest(t.Context(), "team/none", absent), registry.NameUnknown)
		WantCode(t, "delete a blob of no repository", r.DeleteBlob(t.Context(), "team/none", absent), registry.NameUnknown)
	}},
	{"delete/twice", func(t *testing.T, r registry.Registry) {
		PushImage(t, r, "team/app", "keep")
		m := PushImage(t, r, "team/app", "v1").Manifest
		deleted(t, "a manifest", r.DeleteManifest(t.Context(), "team/app", m.Digest))
		WantCode(t, "delete a tag that went with its manifest", r.DeleteTag(t.Context(), "team/app", "v1"), registry.ManifestUnknown)
		WantCode(t, "delete a manifest twice", r.DeleteManifest(t.Context(), "team/app", m.Digest), registry.ManifestUnknown)
	}},
}

func deleted(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("delete %s: %v", what, err)
	}
}
