package registrytest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

var manifestCases = []testCase{
	{"manifest/by tag and digest", func(t *testing.T, r registry.Registry) {
		m := PushImage(t, r, "team/app", "v1").Manifest
		WantManifest(t, r, "team/app", oci.TagRef("v1"), m)
		WantManifest(t, r, "team/app", oci.DigestRef(m.Digest), m)
	}},
	{"manifest/exact bytes of every kind", func(t *testing.T, r registry.Registry) {
		image := PushImage(t, r, "team/app")
		for _, mediaType := range []string{oci.MediaTypeImage, oci.MediaTypeDockerImage, oci.MediaTypeIndex, oci.MediaTypeDockerList} {
			doc := Document{MediaType: mediaType, Config: &image.Config, Layers: image.Layers}
			if oci.IsIndex(mediaType) {
				doc = Document{MediaType: mediaType, Manifests: []oci.Descriptor{image.Manifest.Descriptor()}}
			}
			m := doc.Manifest(t)
			m.Content = append([]byte(" \n\t"), append(m.Content, "\n\n \t\r\n"...)...)
			m = PushManifest(t, r, "team/app", m, "v1")
			WantManifest(t, r, "team/app", oci.TagRef("v1"), m)
			WantManifest(t, r, "team/app", oci.DigestRef(m.Digest), m)
		}
	}},
	{"manifest/media type from the body or the header", func(t *testing.T, r registry.Registry) {
		doc := ImageDocument(t, r, "team/app")
		m := doc.Manifest(t)
		m.MediaType = ""
		m = PushManifest(t, r, "team/app", m, "body")
		m.MediaType = oci.MediaTypeImage
		WantManifest(t, r, "team/app", oci.TagRef("body"), m)

		doc = ImageDocument(t, r, "team/app")
		doc.MediaType = ""
		m = doc.Manifest(t)
		m.MediaType = oci.MediaTypeImage + "; charset=utf-8"
		m = PushManifest(t, r, "team/app", m, "header")
		m.MediaType = oci.MediaTypeImage
		WantManifest(t, r, "team/app", oci.TagRef("header"), m)
	}},
	{"manifest/sha512", func(t *testing.T, r registry.Registry) {
		doc := ImageDocument(t, r, "team/app")
		m := doc.Manifest(t)
		m.Digest = oci.SHA512.FromBytes(m.Content)
		m = PushManifest(t, r, "team/app", m, "v1")
		WantManifest(t, r, "team/app", oci.TagRef("v1"), m)
		WantManifest(t, r, "team/app", oci.DigestRef(m.Digest), m)
		index := PushIndex(t, r, "team/app", []registry.Manifest{m}, "all")
		WantManifest(t, r, "team/app", oci.TagRef("all"), index)
	}},
	{"manifest/several tags", func(t *testing.T, r registry.Registry) {
		m := PushImage(t, r, "team/app", "1", "1.2", "1.2.3", "latest", "1").Manifest
		for _, tag := range []string{"1", "1.2", "1.2.3", "latest"} {
			WantManifest(t, r, "team/app", oci.TagRef(tag), m)
		}
		WantList(t, "tags", r.Tags(t.Context(), "team/app", ""), "1", "1.2", "1.2.3", "latest")
	}},
	{"manifest/no tag", func(t *testing.T, r registry.Registry) {
		m := PushImage(t, r, "team/app").Manifest
		WantManifest(t, r, "team/app", oci.DigestRef(m.Digest), m)
		WantList(t, "tags", r.Tags(t.Context(), "team/app", ""))
	}},
	{"manifest/a tag moves", func(t *testing.T, r registry.Registry) {
		old := PushImage(t, r, "team/app", "v1", "old").Manifest
		m := PushImage(t, r, "team/app", "v1").Manifest
		WantManifest(t, r, "team/app", oci.TagRef("v1"), m)
		WantManifest(t, r, "team/app", oci.TagRef("old"), old)
		WantManifest(t, r, "team/app", oci.DigestRef(old.Digest), old)
	}},
	{"manifest/pushed again", func(t *testing.T, r registry.Registry) {
		m := PushImage(t, r, "team/app", "v1").Manifest
		PushManifest(t, r, "team/app", m, "v1")
		PushManifest(t, r, "team/app", m, "v2")
		PushManifest(t, r, "team/app", m)
		WantManifest(t, r, "team/app", oci.TagRef("v2"), m)
		WantList(t, "tags", r.Tags(t.Context(), "team/app", ""), "v1", "v2")
	}},
	{"manifest/four mebibytes", func(t *testing.T, r registry.Registry) {
		doc := ImageDocument(t, r, "team/app")
		doc.Annotations = map[string]string{"org.example.padding": strings.Repeat("x", 4<<20)}
		m := PushManifest(t, r, "team/app", doc.Manifest(t), "v1")
		WantManifest(t, r, "team/app", oci.TagRef("v1"), m)
	}},
	{"manifest/foreign layers", func(t *testing.T, r registry.Registry) {
		doc := ImageDocument(t, r, "team/app")
		foreign := Describe("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Random(70))
		foreign.URLs = []string{"https://example.com/layer"}
		doc.MediaType = oci.MediaTypeDockerImage
		doc.Layers = append(doc.Layers, foreign)
		m := PushManifest(t, r, "team/app", doc.Manifest(t), "v1")
		WantManifest(t, r, "team/app", oci.TagRef("v1"), m)
	}},
	{"manifest/empty index", func(t *testing.T, r registry.Registry) {
		m := PushIndex(t, r, "team/app", nil, "v1")
		WantManifest(t, r, "team/app", oci.TagRef("v1"), m)
	}},
	{"manifest/unknown", func(t *testing.T, r registry.Registry) {
		PushImage(t, r, "team/app", "v1")
		absent := oci.SHA256.FromBytes(Random(9))
		WantNoManifest(t, r, "team/app", oci.TagRef("v2"))
		WantNoManifest(t, r, "team/app", oci.TagRef("V1"))
		WantNoManifest(t, r, "team/app", oci.DigestRef(absent))
		for _, ref := range []oci.Ref{oci.TagRef("v1"), oci.DigestRef(absent)} {
			_, err := r.Resolve(t.Context(), "team/none", ref)
			WantCode(t, "resolve in an unknown repository", err, registry.NameUnknown)
			_, err = r.Manifest(t.Context(), "team/none", ref)
			WantCode(t, "get from an unknown repository", err, registry.NameUnknown)
		}
	}},
	{"manifest/only in its repository", func(t *testing.T, r registry.Registry) {
		m := PushImage(t, r, "team/app", "v1").Manifest
		PushImage(t, r, "team/other")
		WantNoManifest(t, r, "team/other", oci.DigestRef(m.Digest))
	}},
}

var refusedManifestCases = []testCase{
	{"manifest/missing blobs are named", func(t *testing.T, r registry.Registry) {
		doc := ImageDocument(t, r, "team/app")
		elsewhere := PushBlob(t, r, "team/other", Random(50))
		absent := Describe(LayerType, Random(50))
		doc.Layers = append(doc.Layers, elsewhere, absent)
		wantMissing(t, r, doc, elsewhere.Digest, absent.Digest)
	}},
	{"manifest/missing children are named", func(t *testing.T, r registry.Registry) {
		here := PushImage(t, r, "team/app").Manifest
		elsewhere := PushImage(t, r, "team/other").Manifest
		absent := Describe(oci.MediaTypeImage, Random(50))
		doc := Document{MediaType: oci.MediaTypeIndex,
			Manifests: []oci.Descriptor{here.Descriptor(), elsewhere.Descriptor(), absent}}
		wantMissing(t, r, doc, elsewhere.Digest, absent.Digest)
	}},
	{"manifest/wrong digest", func(t *testing.T, r registry.Registry) {
		m := ImageDocument(t, r, "team/app").Manifest(t)
		m.Digest = oci.SHA256.FromBytes(Random(9))
		_, err := r.PutManifest(t.Context(), "team/app", m, "v1")
		WantCode(t, "put under a wrong digest", err, registry.DigestInvalid)
	}},
	{"manifest/invalid", func(t *testing.T, r registry.Registry) {
		good := ImageDocument(t, r, "team/app").Manifest(t)
		list := Document{MediaType: oci.MediaTypeIndex, Manifests: []oci.Descriptor{}}.Manifest(t)
		for what, m := range map[string]registry.Manifest{
			"not JSON":           {MediaType: oci.MediaTypeImage, Content: []byte("{")},
			"nothing":            {MediaType: oci.MediaTypeImage},
			"no object":          {MediaType: oci.MediaTypeImage, Content: []byte("[]")},
			"another media type": {MediaType: oci.MediaTypeIndex, Content: good.Content},
			"an unknown type":    {MediaType: "text/plain", Content: bytes.ReplaceAll(good.Content, []byte(oci.MediaTypeImage), []byte("text/plain"))},
			"a repeated key":     {MediaType: oci.MediaTypeIndex, Content: bytes.Replace(list.Content, []byte("{"), []byte(`{"manifests": [],`), 1)},
		} {
			_, err := r.PutManifest(t.Context(), "team/app", m, "v1")
			WantCode(t, "put "+what, err, registry.ManifestInvalid)
		}
		_, err := r.Resolve(t.Context(), "team/app", oci.TagRef("v1"))
		WantCode(t, "find what was refused", err, registry.ManifestUnknown)
	}},
	{"manifest/too large", func(t *testing.T, r registry.Registry) {
		m := ImageDocument(t, r, "team/app").Manifest(t)
		m.Content = append(m.Content, bytes.Repeat([]byte(" "), oci.MaxManifest)...)
		_, err := r.PutManifest(t.Context(), "team/app", m, "v1")
		WantCode(t, "put a manifest over the limit", err, registry.ManifestTooLarge)
	}},
}

// wantMissing pushes doc to team/app, which must fail and name the digests.
func wantMissing(t *testing.T, r registry.Registry, doc Document, want ...oci.Digest) {
	t.Helper()
	PushImage(t, r, "team/app", "v1")
	m := doc.Manifest(t)
	_, err := r.PutManifest(t.Context(), "team/app", m, "v1", "v2")
	WantCode(t, "put a manifest with missing content", err, registry.ManifestBlobUnknown)
	got := Missing(err)
	if len(got) != len(want) {
		t.Errorf("missing are %v, want %v", got, want)
	}
	for _, d := range want {
		if !got[d] {
			t.Errorf("the error does not name %s: %v", d, err)
		}
	}
	WantNoManifest(t, r, "team/app", oci.DigestRef(oci.SHA256.FromBytes(m.Content)))
	WantList(t, "tags", r.Tags(t.Context(), "team/app", ""), "v1")
}

var sparseCases = []testCase{
	{"sparse/image", func(t *testing.T, r registry.Registry) {
		doc := ImageDocument(t, r, "team/app")
		layer := Random(60)
		doc.Layers = append(doc.Layers, Describe(LayerType, layer))
		m := PushManifest(t, r, "team/app", doc.Manifest(t), "v1")
		WantManifest(t, r, "team/app", oci.TagRef("v1"), m)
		d := PushBlob(t, r, "team/app", layer)
		WantCode(t, "delete a blob that came late", r.DeleteBlob(t.Context(), "team/app", d.Digest), registry.Referenced)
	}},
	{"sparse/index", func(t *testing.T, r registry.Registry) {
		child := ImageDocument(t, r, "team/app").Manifest(t)
		child.Digest = oci.SHA256.FromBytes(child.Content)
		index := PushIndex(t, r, "team/app", []registry.Manifest{child}, "all")
		WantManifest(t, r, "team/app", oci.TagRef("all"), index)
		PushManifest(t, r, "team/app", child)
		err := r.DeleteManifest(t.Context(), "team/app", child.Digest)
		WantCode(t, "delete a child that came late", err, registry.Referenced)
		for _, d := range []oci.Digest{index.Digest, child.Digest} {
			if err := r.DeleteManifest(t.Context(), "team/app", d); err != nil {
				t.Errorf("delete %s: %v", d, err)
			}
		}
	}},
	{"sparse/gone with its manifest", func(t *testing.T, r registry.Registry) {
		doc := ImageDocument(t, r, "team/app")
		layer := Random(60)
		doc.Layers = append(doc.Layers, Describe(LayerType, layer))
		m := PushManifest(t, r, "team/app", doc.Manifest(t))
		if err := r.DeleteManifest(t.Context(), "team/app", m.Digest); err != nil {
			t.Fatalf("delete a sparse manifest: %v", err)
		}
		d := PushBlob(t, r, "team/app", layer)
		if err := r.DeleteBlob(t.Context(), "team/app", d.Digest); err != nil {
			t.Errorf("delete a blob whose holder is gone: %v", err)
		}
	}},
}

// Missing reads the digests that a ManifestBlobUnknown error names.
func Missing(err error) map[oci.Digest]bool {
	missing := map[oci.Digest]bool{}
	if e, ok := asError(err); ok {
		digests, ok := e.Detail.([]oci.Digest)
		if !ok {
			digests = []oci.Digest{oci.Digest(fmt.Sprintf("detail is %T", e.Detail))}
		}
		for _, d := range digests {
			missing[d] = true
		}
	}
	return missing
}
