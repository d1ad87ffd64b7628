// Package seal keeps secrets that Berth must be able to read again, such as the
// password of another registry, from whoever reads its database or a copy of it.
package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"unicode/utf8"
)

const (
	version   = 1
	keyLength = 32
	idLength  = 4
	header    = 1 + idLength // version, id of the key
)

// MinKey is the least length of a key, before or after it is decoded.
const MinKey = keyLength

// Errors of Open.
var (
	ErrKey       = errors.New("sealed with a key that is not configured")
	ErrMalformed = errors.New("not a sealed secret of this version")
	ErrTampered  = errors.New("the sealed secret was changed, or is that of another name")
)

// Sealer seals with one key and opens what it or an earlier key sealed. All its
// methods may be called at once.
type Sealer struct{ keys []key }

// key is what a key from a file becomes.
type key struct {
	id   [idLength]byte // tells which key opens a secret
	aead cipher.AEAD    // puts a random nonce in front of what it seals
}

// Keys reads a key file: lines of text, each a key as 64 hexadecimal digits, as
// base64 or as it is, the newest first; else all bytes are one key.
func Keys(content []byte) ([][]byte, error) {
	var keys [][]byte
	if !text(content) {
		keys = [][]byte{content}
	} else {
		for line := range bytes.Lines(content) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				keys = append(keys, decode(line))
			}
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the key file is empty: write a key with `openssl rand -base64 32`")
	}
	for i, k := range keys {
		if len(k) < MinKey {
			return nil, fmt.Errorf("key %d has %d bytes, and needs at least %d: make one with `openssl rand -base64 32`", i+1, len(k), MinKey)
		}
	}
	return keys, nil
}

// text reports whether content is made to be read.
func text(content []byte) bool {
	return utf8.Valid(content) && !bytes.ContainsFunc(content, func(c rune) bool {
		return c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7f
	})
}

// decode reads a key of a line. What is neither of the two forms stands for itself.
func decode(line []byte) []byte {
	if raw, err := hex.DecodeString(string(line)); err == nil && len(raw) == keyLength {
		return raw
	}
	plain := bytes.TrimRight(line, "=")
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if raw, err := encoding.DecodeString(string(plain)); err == nil && len(raw) >= MinKey {
			return raw
		}
	}
	return line
}

// New returns a Sealer: the first key seals, all open.
func New(keys ...[]byte) (*Sealer, error) {
	if len(keys) == 0 {
		return nil, errors.New("no key to seal secrets with")
	}
	s := &Sealer{}
	for i, secret := range keys {
		if len(secret) < MinKey {
			return nil, fmt.Errorf("key %d to seal secrets with has %d bytes, and needs at least %d", i+1, len(secret), MinKey)
		}
		k, err := derive(secret)
		if err != nil {
			return nil, err
		}
		s.keys = append(s.keys, k)
	}
	return s, nil
}

func derive(secret []byte) (k key, err error) {
	const purpose = "berth secrets 1"
	id, err := hkdf.Key(sha256.New, secret, nil, purpose+" id", idLength)
	if err != nil {
		return k, err
	}
	raw, err := hkdf.Key(sha256.New, secret, nil, purpose+" key", keyLength)
	if err != nil {
		return k, err
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return k, err
	}
	copy(k.id[:], id)
	k.aead, err = cipher.NewGCMWithRandomNonce(block)
	return k, err
}

// Seal returns plain so that it can be read with the key and for name alone.
func (s *Sealer) Seal(name string, plain []byte) []byte {
	k := s.keys[0]
	front := append([]byte{version}, k.id[:]...)
	return k.aead.Seal(front, nil, plain, additional(front, name))
}

// Open returns what was sealed for name.
func (s *Sealer) Open(name string, sealed []byte) ([]byte, error) {
	if len(sealed) < header || sealed[0] != version {
		return nil, ErrMalformed
	}
	front, known := sealed[:header], false
	for _, k := range s.keys {
		if !bytes.Equal(k.id[:], front[1:]) {
			continue
		}
		known = true
		if plain, err := k.aead.Open(nil, nil, sealed[header:], additional(front, name)); err == nil {
			return plain, nil
		}
	}
	if !known {
		return nil, ErrKey
	}
	return nil, ErrTampered
}

// Stale reports whether another key than the first sealed this: seal it anew, and
// the other key can go.
func (s *Sealer) Stale(sealed []byte) bool {
	return len(sealed) < header || sealed[0] != version || !bytes.Equal(sealed[1:header], s.keys[0].id[:])
}

// additional is what a secret is bound to besides its key.
func additional(front []byte, name string) []byte {
	return append(bytes.Clone(front), name...)
}
