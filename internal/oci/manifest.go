package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Media types of the manifests that Berth stores.
const (
	MediaTypeImage       = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeIndex       = "application/vnd.oci.image.index.v1+json"
	MediaTypeDockerImage = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList  = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// nonDistributable layers live elsewhere (their descriptors carry URLs), so a
// manifest may name them without their bytes ever being pushed.
var nonDistributable = map[string]bool{
	"application/vnd.oci.image.layer.nondistributable.v1.tar":      true,
	"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": true,
	"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": true,
	"application/vnd.docker.image.rootfs.foreign.diff.tar":         true,
	"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":    true,
}

// Bounds on what a manifest may ask of a parser and of a transaction.
const (
	MaxManifest    = 8 << 20 // bytes; the distribution-spec asks for at least 4 MiB
	MaxReferences  = 10_000  // config, layers and children together
	MaxMediaType   = 255     // bytes
	maxNesting     = 64
	maxAnnotations = 10_000
	// maxValues counts objects, arrays and their elements: two bytes of "[0,0,"
	// would become a Descriptor in memory. It leaves a reference twenty.
	maxValues = 20 * MaxReferences
)

// ErrManifest is wrapped by every error of ParseManifest.
var ErrManifest = errors.New("invalid manifest")

// Descriptor points at content (image-spec, "Content Descriptors").
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       Digest            `json:"digest"`
	Size         int64             `json:"size"`
	URLs         []string          `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Data         []byte            `json:"data,omitempty"`
	Platform     json.RawMessage   `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

// Index is an image index, also the answer to a listing of referrers.
type Index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []Descriptor `json:"manifests"`
}

// Manifest is what a registry needs to know of a manifest's content.
type Manifest struct {
	MediaType string
	// ArtifactType as the referrers API reports it: that of the manifest or,
	// for an image without one, the media type of its config.
	ArtifactType string
	Annotations  map[string]string
	Subject      *Descriptor  // may be absent from the registry
	Blobs        []Descriptor // config and layers that must be present, without repeats
	Foreign      []Descriptor // non-distributable layers, without repeats
	Manifests    []Descriptor // children of an index, without repeats
}

// IsIndex reports whether mediaType is an OCI index or a Docker manifest list.
func IsIndex(mediaType string) bool {
	return mediaType == MediaTypeIndex || mediaType == MediaTypeDockerList
}

func isImage(mediaType string) bool {
	return mediaType == MediaTypeImage || mediaType == MediaTypeDockerImage
}

// document is the union of the manifest forms as they stand on the wire.
type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *Descriptor       `json:"config"`
	Layers        *[]Descriptor     `json:"layers"`
	Manifests     *[]Descriptor     `json:"manifests"`
	Subject       *Descriptor       `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
}

// ParseManifest validates content that was sent with the given Content-Type.
// Parameters of the Content-Type are ignored; when it is empty the body's own
// mediaType decides. The content is judged strictly, for what two parsers read
// differently can be signed as one thing and run as another: no repeated keys,
// no keys that differ from a known one in case only, no mix of image and index.
// Errors wrap ErrManifest (or ErrDigest) and are fit for clients.
func ParseManifest(contentType string, content []byte) (*Manifest, error) {
	if err := checkJSON(content); err != nil {
		return nil, err
	}
	var doc document
	if err := json.Unmarshal(content, &doc); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrManifest, jsonError(err))
	}
	mediaType, err := agreeMediaType(contentType, doc.MediaType)
	if err != nil {
		return nil, err
	}
	if doc.SchemaVersion != 2 {
		return nil, fmt.Errorf("%w: schemaVersion is %d; 2 is required", ErrManifest, doc.SchemaVersion)
	}
	m := &Manifest{MediaType: mediaType, ArtifactType: doc.ArtifactType, Annotations: doc.Annotations, Subject: doc.Subject}
	if IsIndex(mediaType) {
		err = m.fillIndex(&doc)
	} else {
		err = m.fillImage(&doc)
	}
	if err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	m.dropRepeats()
	return m, nil
}

// agreeMediaType settles on one media type from the header and the body.
func agreeMediaType(header, body string) (string, error) {
	mediaType := body
	if header != "" {
		parsed, _, err := mime.ParseMediaType(header)
		if err != nil {
			return "", fmt.Errorf("%w: malformed Content-Type %q", ErrManifest, clip(header))
		}
		mediaType = parsed
	}
	if mediaType == "" {
		return "", fmt.Errorf("%w: neither a Content-Type header nor a mediaType field says what this is", ErrManifest)
	}
	if body != "" && body != mediaType {
		return "", fmt.Errorf("%w: mediaType %q differs from Content-Type %q", ErrManifest, clip(body), clip(mediaType))
	}
	if !isImage(mediaType) && !IsIndex(mediaType) {
		return "", fmt.Errorf("%w: media type %q is not supported; push an OCI image or index, or a Docker v2 manifest or list", ErrManifest, clip(mediaType))
	}
	return mediaType, nil
}

func (m *Manifest) fillImage(doc *document) error {
	if doc.Manifests != nil {
		return fmt.Errorf("%w: an image manifest must not have a manifests field", ErrManifest)
	}
	if doc.Config == nil {
		return fmt.Errorf("%w: an image manifest needs a config descriptor", ErrManifest)
	}
	if m.ArtifactType == "" {
		m.ArtifactType = doc.Config.MediaType
	}
	m.Blobs = []Descriptor{*doc.Config}
	if doc.Layers != nil {
		for _, d := range *doc.Layers {
			if nonDistributable[d.MediaType] {
				m.Foreign = append(m.Foreign, d)
			} else {
				m.Blobs = append(m.Blobs, d)
			}
		}
	}
	return nil
}

func (m *Manifest) fillIndex(doc *document) error {
	if doc.Config != nil || doc.Layers != nil {
		return fmt.Errorf("%w: an index must not have config or layers", ErrManifest)
	}
	if doc.Manifests == nil {
		return fmt.Errorf("%w: an index needs a manifests field", ErrManifest)
	}
	m.Manifests = *doc.Manifests
	return nil
}

// check validates every descriptor, repeats too, and the bounds over all.
func (m *Manifest) check() error {
	if n := len(m.Blobs) + len(m.Foreign) + len(m.Manifests); n > MaxReferences {
		return fmt.Errorf("%w: %d references; at most %d are allowed", ErrManifest, n, MaxReferences)
	}
	if strings.ContainsFunc(m.ArtifactType, unicode.IsControl) {
		return fmt.Errorf("%w: artifactType %q has control characters", ErrManifest, m.ArtifactType)
	}
	if len(m.Annotations) > maxAnnotations || len(m.ArtifactType) > MaxMediaType {
		return fmt.Errorf("%w: too many annotations or an artifactType over %d bytes", ErrManifest, MaxMediaType)
	}
	for _, list := range [][]Descriptor{m.Blobs, m.Foreign, m.Manifests} {
		for i := range list {
			if err := list[i].check(); err != nil {
				return err
			}
		}
	}
	if m.Subject != nil {
		return m.Subject.check()
	}
	return nil
}

func (d *Descriptor) check() error {
	if _, err := ParseDigest(string(d.Digest)); err != nil {
		return fmt.Errorf("%w: descriptor: %w", ErrManifest, err)
	}
	if d.Size < 0 {
		return fmt.Errorf("%w: descriptor %s has size %d", ErrManifest, d.Digest, d.Size)
	}
	if len(d.MediaType) > MaxMediaType {
		return fmt.Errorf("%w: descriptor %s has a mediaType over %d bytes", ErrManifest, d.Digest, MaxMediaType)
	}
	return nil
}

// dropRepeats leaves one descriptor of each digest. A layer that is named as
// foreign and as another kind too must be present.
func (m *Manifest) dropRepeats() {
	seen := make(map[Digest]bool, len(m.Blobs)+len(m.Foreign))
	m.Blobs = unique(m.Blobs, seen)
	m.Foreign = unique(m.Foreign, seen)
	m.Manifests = unique(m.Manifests, map[Digest]bool{})
}

// unique keeps the first descriptor of each digest that is not in seen.
func unique(list []Descriptor, seen map[Digest]bool) []Descriptor {
	kept := list[:0]
	for _, d := range list {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			kept = append(kept, d)
		}
	}
	return kept
}

func jsonError(err error) string {
	var typed *json.UnmarshalTypeError
	if errors.As(err, &typed) {
		return fmt.Sprintf("field %s wants a %s, got a %s", typed.Field, typed.Type, clip(typed.Value))
	}
	return err.Error()
}

// checkJSON rejects what encoding/json would let pass: content after the
// value, invalid UTF-8, repeated keys, deep nesting, and keys that only
// case folding would match.
func checkJSON(content []byte) error {
	if !utf8.Valid(content) {
		return fmt.Errorf("%w: not valid UTF-8", ErrManifest)
	}
	if !json.Valid(content) {
		return fmt.Errorf("%w: not valid JSON", ErrManifest)
	}
	if trimmed := bytes.TrimLeft(content, " \t\r\n"); trimmed[0] != '{' {
		return fmt.Errorf("%w: not a JSON object", ErrManifest)
	}
	return (&keyWalk{rest: content}).run()
}
