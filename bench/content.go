package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"net"
	"strings"
	"sync"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// tailSize is how many bytes at a blob's end make it unlike every other.
const tailSize = 16

// source makes blobs at almost no cost to the client, which shares the
// machine's cores with the server: all blobs are one random block over and
// over, so they need no memory of their own, and then a unique tail, so that
// a digest is the remembered hash of what comes before it plus the tail.
type source struct {
	block []byte
	seed  uint64

	mu       sync.Mutex
	next     uint64
	prefixes map[int64]hash.Cloner // by size of the blob
}

func newSource() *source {
	s := &source{block: make([]byte, 1<<20), prefixes: make(map[int64]hash.Cloner)}
	rand.Read(s.block)
	s.seed = binary.BigEndian.Uint64(s.block)
	return s
}

// blob is content to push; it is cheap to copy.
type blob struct {
	block  []byte
	tail   [tailSize]byte
	size   int64
	digest string
}

// blob makes a new one of size bytes, at least tailSize.
func (s *source) blob(size int64) blob {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := blob{block: s.block, size: size}
	binary.BigEndian.PutUint64(b.tail[:8], s.seed)
	binary.BigEndian.PutUint64(b.tail[8:], s.next)
	s.next++

	prefix, ok := s.prefixes[size]
	if !ok {
		prefix = sha256.New().(hash.Cloner)
		for _, part := range b.appendPrefix(nil) {
			prefix.Write(part)
		}
		s.prefixes[size] = prefix
	}
	h, err := prefix.Clone()
	if err != nil {
		panic(err) // sha256 of the standard library does clone
	}
	h.Write(b.tail[:])
	b.digest = "sha256:" + hex.EncodeToString(h.Sum(nil))
	return b
}

func (s *source) blobs(n int, size int64) []blob {
	all := make([]blob, n)
	for i := range all {
		all[i] = s.blob(size)
	}
	return all
}

func (b *blob) appendPrefix(to net.Buffers) net.Buffers {
	for left := b.size - tailSize; left > 0; left -= int64(len(b.block)) {
		to = append(to, b.block[:min(left, int64(len(b.block)))])
	}
	return to
}

// appendTo adds the content's parts to a vectored write; nothing is copied.
func (b *blob) appendTo(to net.Buffers) net.Buffers {
	return append(b.appendPrefix(to), b.tail[:])
}

func (b *blob) descriptor(mediaType string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, b.digest, b.size)
}

// image is a manifest over blobs, of which the first is the configuration.
type image struct {
	blobs   []blob
	content []byte
	digest  string
}

// newImage makes the manifest; name makes it unlike others over the same blobs.
func newImage(name string, blobs []blob) image {
	layers := make([]string, len(blobs)-1)
	for i := range layers {
		layers[i] = blobs[i+1].descriptor(layerType)
	}
	content := fmt.Appendf(nil,
		`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s],"annotations":{"org.opencontainers.image.title":%q}}`,
		manifestType, blobs[0].descriptor(configType), strings.Join(layers, ","), name)
	return image{blobs: blobs, content: content, digest: digestOf(content)}
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}
