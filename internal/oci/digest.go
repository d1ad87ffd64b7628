// Package oci holds the nouns of the OCI specifications: digests, repository
// names, references, descriptors and manifests. It parses and validates; it
// performs no input or output and depends on the standard library alone.
package oci

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"
)

// Algorithm names a digest algorithm of the image-spec's registry.
type Algorithm string

// The algorithms that Berth computes. SHA256 is the canonical one: it is used
// wherever a client names none.
const (
	SHA256 Algorithm = "sha256"
	SHA512 Algorithm = "sha512"
)

// ErrDigest is wrapped by every error about a malformed or unsupported digest.
var ErrDigest = errors.New("invalid digest")

// Hash is a running digest whose state can be stored and taken up again, so
// that an upload may go on after a restart without its bytes being re-read.
type Hash interface {
	hash.Hash
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
}

// New starts a hash. It panics for an unsupported algorithm: values of type
// Algorithm come from ParseAlgorithm or the constants.
func (a Algorithm) New() Hash {
	switch a {
	case SHA256:
		return sha256.New().(Hash)
	case SHA512:
		return sha512.New().(Hash)
	}
	panic("oci: unsupported algorithm " + string(a))
}

// Digest of content.
func (a Algorithm) FromBytes(content []byte) Digest {
	h := a.New()
	h.Write(content)
	return a.FromHash(h)
}

// FromHash is the digest of everything written to h, which a.New returned.
func (a Algorithm) FromHash(h Hash) Digest {
	return Digest(string(a) + ":" + hex.EncodeToString(h.Sum(nil)))
}

func (a Algorithm) hexLen() int {
	switch a {
	case SHA256:
		return sha256.Size * 2
	case SHA512:
		return sha512.Size * 2
	}
	return 0
}

// ParseAlgorithm accepts the name of a supported algorithm.
func ParseAlgorithm(s string) (Algorithm, error) {
	a := Algorithm(s)
	if a.hexLen() == 0 {
		return "", fmt.Errorf("%w: algorithm %q is not supported; use sha256 or sha512", ErrDigest, clip(s))
	}
	return a, nil
}

// Digest is a validated content digest, "algorithm:lower-case hex".
type Digest string

// ParseDigest validates s. Its errors wrap ErrDigest and are fit for clients.
func ParseDigest(s string) (Digest, error) {
	name, encoded, ok := strings.Cut(s, ":")
	if !ok {
		return "", fmt.Errorf("%w: %q has no algorithm; write sha256:<64 hex digits>", ErrDigest, clip(s))
	}
	a, err := ParseAlgorithm(name)
	if err != nil {
		return "", err
	}
	if len(encoded) != a.hexLen() {
		return "", fmt.Errorf("%w: %s wants %d hex digits, got %d", ErrDigest, a, a.hexLen(), len(encoded))
	}
	for i := range len(encoded) {
		if c := encoded[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", fmt.Errorf("%w: %q is not lower-case hex", ErrDigest, clip(s))
		}
	}
	return Digest(s), nil
}

// Algorithm of a valid digest.
func (d Digest) Algorithm() Algorithm {
	name, _, _ := strings.Cut(string(d), ":")
	return Algorithm(name)
}

// Hex part of a valid digest.
func (d Digest) Hex() string {
	_, encoded, _ := strings.Cut(string(d), ":")
	return encoded
}

// Verify reports whether content has this digest.
func (d Digest) Verify(content []byte) bool {
	return d.Algorithm().FromBytes(content) == d
}

// ReferrersTag is the tag under which clients of registries without a
// referrers API keep the index of a subject's referrers (distribution-spec,
// "Referrers Tag Schema").
func (d Digest) ReferrersTag() string {
	// Both parts are short of the schema's truncation limits except sha512 hex.
	return string(d.Algorithm()) + "-" + d.Hex()[:min(64, len(d.Hex()))]
}

func (d Digest) String() string { return string(d) }

// clip bounds what a message repeats of untrusted input.
func clip(s string) string {
	const most = 160
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
