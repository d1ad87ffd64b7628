package soak

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"strings"
)

// content is a blob's bytes, which can be made again from a seed: nothing that
// was pushed has to be kept to know what must come back.
type content struct {
	seed   uint64
	size   int64
	digest string
}

// newContent makes the content of a seed. Those of one seed and size are equal,
// whoever makes them.
func newContent(seed uint64, size int64) content {
	c := content{seed: seed, size: size}
	algorithm := "sha256"
	if seed%16 == 0 {
		algorithm = "sha512"
	}
	h := hashOf(algorithm)
	io.Copy(h, c.from(0))
	c.digest = digestOf(algorithm, h)
	return c
}

// from reads the content from an offset to its end.
func (c content) from(offset int64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], c.seed)
	src := rand.NewChaCha8(key)
	io.CopyN(io.Discard, src, offset)
	return io.LimitReader(src, c.size-offset)
}

// part is the n bytes from an offset.
func (c content) part(offset, n int64) []byte {
	b, _ := io.ReadAll(io.LimitReader(c.from(offset), n)) // the generator returns no errors
	return b
}

func hashOf(algorithm string) hash.Hash {
	if algorithm == "sha512" {
		return sha512.New()
	}
	return sha256.New()
}

func digestOf(algorithm string, h hash.Hash) string {
	return fmt.Sprintf("%s:%x", algorithm, h.Sum(nil))
}

// checker hashes bytes as the digest wants them hashed.
type checker struct {
	algorithm string
	hash      hash.Hash
	n         int64
}

func newChecker(digest string) *checker {
	algorithm, _, _ := strings.Cut(digest, ":")
	return &checker{algorithm: algorithm, hash: hashOf(algorithm)}
}

func (c *checker) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.hash.Write(p)
}

func (c *checker) digest() string { return digestOf(c.algorithm, c.hash) }

// Media types.
const (
	imageType  = "application/vnd.oci.image.manifest.v1+json"
	indexType  = "application/vnd.oci.image.index.v1+json"
	configType = "application/vnd.oci.image.config.v1+json"
	layerType  = "application/vnd.oci.image.layer.v1.tar"
	emptyType  = "application/vnd.oci.empty.v1+json"
)

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

// document is a manifest or an index.
type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        *descriptor       `json:"config,omitempty"`
	Layers        []descriptor      `json:"layers,omitempty"`
	Manifests     []descriptor      `json:"manifests,omitempty"`
	Subject       *descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// newManifest makes a manifest that no other has the digest of.
func newManifest(d document, id string) *manifest {
	d.SchemaVersion = 2
	d.Annotations = map[string]string{"org.example.soak": id}
	text, err := json.Marshal(d)
	if err != nil {
		panic(err) // strings and numbers only
	}
	m := &manifest{mediaType: d.MediaType, content: text}
	h := sha256.New()
	h.Write(text)
	m.digest = digestOf("sha256", h)
	if d.Config != nil {
		m.blobs = append(m.blobs, d.Config.Digest)
	}
	for _, l := range d.Layers {
		m.blobs = append(m.blobs, l.Digest)
	}
	for _, child := range d.Manifests {
		m.children = append(m.children, child.Digest)
	}
	if d.Subject != nil {
		m.subject = d.Subject.Digest
	}
	return m
}

func (m *manifest) descriptor() descriptor {
	return descriptor{m.mediaType, m.digest, int64(len(m.content))}
}
