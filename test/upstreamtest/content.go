package upstreamtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
)

// Media types of what is made here.
const (
	ImageManifest = "application/vnd.oci.image.manifest.v1+json"
	ImageIndex    = "application/vnd.oci.image.index.v1+json"
	ImageConfig   = "application/vnd.oci.image.config.v1+json"
	ImageLayer    = "application/vnd.oci.image.layer.v1.tar"
	EmptyJSON     = "application/vnd.oci.empty.v1+json"
)

// Descriptor of content.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
}

// Platform of an image in an index.
type Platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// manifest is an image manifest or an index.
type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        *Descriptor       `json:"config,omitempty"`
	Layers        []Descriptor      `json:"layers,omitempty"`
	Manifests     []Descriptor      `json:"manifests,omitzero"`
	Subject       *Descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// Image is one that lies in a repository.
type Image struct {
	Descriptor
	Content []byte
	Blobs   []Descriptor // config and layers
}

type repository struct {
	blobs     map[string][]byte
	manifests map[string]stored
	order     []string // digests of manifests, as they came
	tags      map[string]string
}

type stored struct {
	mediaType string
	content   []byte
}

// Digest of content.
func Digest(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

// Bytes are n that a seed determines.
func Bytes(seed uint64, n int64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	content, _ := io.ReadAll(io.LimitReader(rand.NewChaCha8(key), n)) // it returns no errors
	return content
}

// FallbackTag is the tag under which a registry without the referrers API keeps
// the index of those of a subject.
func FallbackTag(subject string) string { return strings.Replace(subject, ":", "-", 1) }

func (u *Registry) repo(name string) *repository {
	r := u.repos[name]
	if r == nil {
		r = &repository{blobs: map[string][]byte{}, manifests: map[string]stored{}, tags: map[string]string{}}
		u.repos[name] = r
	}
	return r
}

// AddBlob puts a blob into a repository.
func (u *Registry) AddBlob(repo, mediaType string, content []byte) Descriptor {
	u.mu.Lock()
	defer u.mu.Unlock()
	d := Descriptor{MediaType: mediaType, Digest: Digest(content), Size: int64(len(content))}
	u.repo(repo).blobs[d.Digest] = content
	return d
}

// AddManifest puts a manifest into a repository, with tags.
func (u *Registry) AddManifest(repo, mediaType string, content []byte, tags ...string) Image {
	u.mu.Lock()
	defer u.mu.Unlock()
	r, digest := u.repo(repo), Digest(content)
	if _, ok := r.manifests[digest]; !ok {
		r.order = append(r.order, digest)
	}
	r.manifests[digest] = stored{mediaType, content}
	for _, tag := range tags {
		r.tags[tag] = digest
	}
	return Image{Descriptor: Descriptor{MediaType: mediaType, Digest: digest, Size: int64(len(content))}, Content: content}
}

// AddImage makes an image of one config and layers of these sizes, all by a seed.
func (u *Registry) AddImage(repo, tag string, seed uint64, layers ...int64) Image {
	var content [][]byte
	for i, size := range layers {
		content = append(content, Bytes(seed<<8|uint64(i), size))
	}
	return u.AddImageOf(repo, tag, seed, content...)
}

// AddImageOf makes an image of these layers.
func (u *Registry) AddImageOf(repo, tag string, seed uint64, layers ...[]byte) Image {
	m := manifest{SchemaVersion: 2, MediaType: ImageManifest}
	var diffIDs []string
	for _, content := range layers {
		m.Layers = append(m.Layers, u.AddBlob(repo, ImageLayer, content))
		diffIDs = append(diffIDs, Digest(content)) // layers are not compressed
	}
	config := u.AddBlob(repo, ImageConfig, encode(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Labels": map[string]string{"seed": fmt.Sprint(seed)}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	}))
	m.Config = &config
	return u.add(repo, m, tagged(tag)...)
}

// AddIndex makes an index of images, for one platform each.
func (u *Registry) AddIndex(repo, tag string, images ...Image) Image {
	m := manifest{SchemaVersion: 2, MediaType: ImageIndex, Manifests: []Descriptor{}}
	for i, image := range images {
		d := image.Descriptor
		d.Platform = &Platform{OS: "linux", Architecture: []string{"amd64", "arm64", "s390x", "ppc64le", "riscv64"}[i%5]}
		m.Manifests = append(m.Manifests, d)
	}
	return u.add(repo, m, tagged(tag)...)
}

// AddReferrer makes an artifact with a subject, which need not be there.
func (u *Registry) AddReferrer(repo string, subject Descriptor, artifactType string, annotations map[string]string) Image {
	content, m := Referrer(subject, artifactType, annotations)
	u.AddBlob(repo, EmptyJSON, []byte("{}"))
	image := u.AddManifest(repo, ImageManifest, content)
	image.Blobs, image.ArtifactType, image.Annotations = []Descriptor{*m.Config}, artifactType, annotations
	return image
}

// Referrer is a manifest of an artifact with a subject. Its one blob is "{}".
func Referrer(subject Descriptor, artifactType string, annotations map[string]string) ([]byte, manifest) {
	empty := Descriptor{MediaType: EmptyJSON, Digest: Digest([]byte("{}")), Size: 2}
	m := manifest{SchemaVersion: 2, MediaType: ImageManifest, ArtifactType: artifactType, Config: &empty, Layers: []Descriptor{empty},
		Subject: &Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}, Annotations: annotations}
	return encode(m), m
}

// AddFallback puts an index of referrers under the tag for them, as a client
// does: with nothing but media type, digest and size of each if bare.
func (u *Registry) AddFallback(repo, subject string, bare bool, referrers ...Image) Image {
	m := manifest{SchemaVersion: 2, MediaType: ImageIndex, Manifests: []Descriptor{}}
	for _, r := range referrers {
		d := r.Descriptor
		if bare {
			d.ArtifactType, d.Annotations = "", nil
		}
		m.Manifests = append(m.Manifests, d)
	}
	return u.add(repo, m, FallbackTag(subject))
}

// Tag moves a tag.
func (u *Registry) Tag(repo, tag, digest string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.repo(repo).tags[tag] = digest
}

// Untag takes a tag away; its manifest stays.
func (u *Registry) Untag(repo, tag string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.repo(repo).tags, tag)
}

// Remove takes a manifest away, with its tags.
func (u *Registry) Remove(repo, digest string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := u.repo(repo)
	delete(r.manifests, digest)
	for tag, d := range r.tags {
		if d == digest {
			delete(r.tags, tag)
		}
	}
}

func (u *Registry) add(repo string, m manifest, tags ...string) Image {
	image := u.AddManifest(repo, m.MediaType, encode(m), tags...)
	image.Blobs = append(image.Blobs, m.Layers...)
	if m.Config != nil {
		image.Blobs = append(image.Blobs, *m.Config)
	}
	return image
}

func tagged(tag string) []string {
	if tag == "" {
		return nil
	}
	return []string{tag}
}

func encode(v any) []byte {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		panic(err) // only literals of this package come here
	}
	return bytes.TrimSpace(b.Bytes())
}
