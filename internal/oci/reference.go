package oci

import (
	"errors"
	"fmt"
)

// Limits of names, in bytes. MaxRepository leaves clients room for a host in
// front of the name (distribution-spec, "Pulling manifests").
const (
	MaxRepository = 255
	MaxTag        = 128
)

// Errors about malformed names, for errors.Is.
var (
	ErrRepository = errors.New("invalid repository name")
	ErrTag        = errors.New("invalid tag")
)

// CheckRepository validates a repository name against the grammar of the
// distribution-spec: lower-case path components of letters and digits, joined
// inside by ".", "_", "__" or dashes.
func CheckRepository(name string) error {
	if name == "" || len(name) > MaxRepository {
		return fmt.Errorf("%w: %q has %d bytes; 1 to %d are allowed", ErrRepository, clip(name), len(name), MaxRepository)
	}
	for i := 0; i < len(name); {
		n := alnums(name[i:])
		if n == 0 {
			return fmt.Errorf("%w: %q; components are lower-case letters and digits, separated by '/', '.', '_', '__' or '-'", ErrRepository, clip(name))
		}
		if i += n; i == len(name) {
			return nil
		}
		i += separator(name[i:])
	}
	return fmt.Errorf("%w: %q ends in a separator", ErrRepository, clip(name))
}

// alnums counts the leading bytes of s in [a-z0-9].
func alnums(s string) int {
	n := 0
	for n < len(s) && (s[n] >= 'a' && s[n] <= 'z' || s[n] >= '0' && s[n] <= '9') {
		n++
	}
	return n
}

// separator measures the one separator that s may begin with; 0 for none.
func separator(s string) int {
	switch {
	case s[0] == '/' || s[0] == '.':
		return 1
	case s[0] == '_' && len(s) > 1 && s[1] == '_':
		return 2
	case s[0] == '_':
		return 1
	}
	n := 0
	for n < len(s) && s[n] == '-' {
		n++
	}
	return n
}

// CheckTag validates a tag: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func CheckTag(tag string) error {
	if tag == "" || len(tag) > MaxTag {
		return fmt.Errorf("%w: %q has %d bytes; 1 to %d are allowed", ErrTag, clip(tag), len(tag), MaxTag)
	}
	for i := range len(tag) {
		c := tag[i]
		word := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
		if !word && (i == 0 || c != '.' && c != '-') {
			return fmt.Errorf("%w: %q; letters, digits, '_', and after the first byte '.' and '-'", ErrTag, clip(tag))
		}
	}
	return nil
}

// Ref names a manifest inside a repository: by tag or by digest, never both.
// The zero Ref names nothing.
type Ref struct {
	Tag    string
	Digest Digest
}

// ParseRef reads "tag" or "algorithm:hex". A colon decides, as no tag has one.
func ParseRef(s string) (Ref, error) {
	for i := range len(s) {
		if s[i] == ':' {
			d, err := ParseDigest(s)
			return Ref{Digest: d}, err
		}
	}
	if err := CheckTag(s); err != nil {
		return Ref{}, err
	}
	return Ref{Tag: s}, nil
}

// TagRef and DigestRef name a manifest whose tag or digest is known to be valid.
func TagRef(tag string) Ref  { return Ref{Tag: tag} }
func DigestRef(d Digest) Ref { return Ref{Digest: d} }
func (r Ref) IsDigest() bool { return r.Digest != "" }
func (r Ref) IsZero() bool   { return r == Ref{} }
func (r Ref) String() string {
	if r.IsDigest() {
		return string(r.Digest)
	}
	return r.Tag
}
