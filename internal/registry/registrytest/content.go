package registrytest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"testing"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// Media types of what the builders make.
const (
	ConfigType = "application/vnd.oci.image.config.v1+json"
	LayerType  = "application/vnd.oci.image.layer.v1.tar"
)

// Document is a manifest to be written as JSON; empty fields are left out.
type Document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        *oci.Descriptor   `json:"config,omitempty"`
	Layers        []oci.Descriptor  `json:"layers,omitempty"`
	Manifests     []oci.Descriptor  `json:"manifests,omitzero"`
	Subject       *oci.Descriptor   `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// Manifest is the document as PutManifest takes it, without a digest.
func (d Document) Manifest(t testing.TB) registry.Manifest {
	t.Helper()
	d.SchemaVersion = 2
	content, err := json.MarshalIndent(d, "", "   ")
	if err != nil {
		t.Fatalf("write a manifest: %v", err)
	}
	return registry.Manifest{MediaType: d.MediaType, Content: content}
}

// Image is what PushImage stored.
type Image struct {
	Repo     string
	Manifest registry.Manifest // with its digest
	Config   oci.Descriptor
	Layers   []oci.Descriptor
}

// Random is n bytes that no earlier content equals.
func Random(n int) []byte {
	content := make([]byte, n)
	rand.Read(content)
	return content
}

// Describe content as a descriptor with a sha256 digest.
func Describe(mediaType string, content []byte) oci.Descriptor {
	return oci.Descriptor{MediaType: mediaType, Digest: oci.SHA256.FromBytes(content), Size: int64(len(content))}
}

// PushBlob uploads content under its sha256 digest.
func PushBlob(t testing.TB, r registry.Registry, repo string, content []byte) oci.Descriptor {
	t.Helper()
	u, err := r.StartUpload(t.Context(), repo, registry.UploadOptions{})
	if err != nil {
		t.Fatalf("start an upload in %s: %v", repo, err)
	}
	want := Describe("", content)
	d, err := u.Commit(t.Context(), 0, bytes.NewReader(content), want.Digest)
	if err != nil {
		t.Fatalf("commit a blob of %d bytes to %s: %v", len(content), repo, err)
	}
	if d.Digest != want.Digest || d.Size != want.Size {
		t.Fatalf("committed %s of %d bytes, want %s of %d", d.Digest, d.Size, want.Digest, want.Size)
	}
	return d
}

// PushManifest stores m with the tags and checks the answer.
func PushManifest(t testing.TB, r registry.Registry, repo string, m registry.Manifest, tags ...string) registry.Manifest {
	t.Helper()
	put, err := r.PutManifest(t.Context(), repo, m, tags...)
	if err != nil {
		t.Fatalf("put a manifest to %s %v: %v", repo, tags, err)
	}
	if m.Digest == "" {
		m.Digest = oci.SHA256.FromBytes(m.Content)
	}
	if got := put.Descriptor; got.Digest != m.Digest || got.Size != int64(len(m.Content)) {
		t.Fatalf("put %s of %d bytes, want %s of %d", got.Digest, got.Size, m.Digest, len(m.Content))
	}
	return m
}

// ImageDocument uploads a config and a layer that no earlier image has and
// returns an image manifest that holds them.
func ImageDocument(t testing.TB, r registry.Registry, repo string) Document {
	t.Helper()
	config := PushBlob(t, r, repo, Random(40))
	config.MediaType = ConfigType
	layer := PushBlob(t, r, repo, Random(400))
	layer.MediaType = LayerType
	return Document{MediaType: oci.MediaTypeImage, Config: &config, Layers: []oci.Descriptor{layer}}
}

// PushImage pushes an image that differs from every other one.
func PushImage(t testing.TB, r registry.Registry, repo string, tags ...string) Image {
	t.Helper()
	doc := ImageDocument(t, r, repo)
	m := PushManifest(t, r, repo, doc.Manifest(t), tags...)
	return Image{Repo: repo, Manifest: m, Config: *doc.Config, Layers: doc.Layers}
}

// PushIndex pushes an index of the given manifests of repo.
func PushIndex(t testing.TB, r registry.Registry, repo string, children []registry.Manifest, tags ...string) registry.Manifest {
	t.Helper()
	doc := Document{MediaType: oci.MediaTypeIndex, Manifests: []oci.Descriptor{}}
	for _, child := range children {
		doc.Manifests = append(doc.Manifests, child.Descriptor())
	}
	return PushManifest(t, r, repo, doc.Manifest(t), tags...)
}

// PushReferrer pushes an artifact whose subject is the given descriptor.
func PushReferrer(t testing.TB, r registry.Registry, repo string, subject oci.Descriptor, artifactType string, annotations map[string]string) registry.Manifest {
	t.Helper()
	doc := ImageDocument(t, r, repo)
	doc.Subject, doc.ArtifactType, doc.Annotations = &subject, artifactType, annotations
	return PushManifest(t, r, repo, doc.Manifest(t))
}
