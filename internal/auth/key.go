package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"math/big"
	"strings"
)

// KeyKind is whose key it is. It stands in the key, so that a person and a
// secret scanner see what they have found.
type KeyKind byte

// The kinds of keys.
const (
	UserKey    KeyKind = 'u'
	ProjectKey KeyKind = 'p'

	refreshKey KeyKind = 'r' // a refresh token has the same form, and is no key
)

// A key is berth_K_ with the letter of its kind, random base62 digits, and the
// checksum of all that in base62.
const (
	keyPrefix   = "berth_"
	keyHead     = len(keyPrefix) + len("u_")
	keyRandom   = 32 // bytes
	keyDigits   = 43 // of the random number
	keyChecksum = 6  // digits
	keyLength   = keyHead + keyDigits + keyChecksum

	base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// Errors of ParseKey, for errors.Is.
var (
	ErrNoKey = errors.New("not a key")
	// ErrMistypedKey: the checksum is wrong. Such a key never existed, so it was
	// neither revoked nor of another server.
	ErrMistypedKey = errors.New("mistyped key: its checksum is wrong")
)

// NewKey makes a key. Only the hash may be stored: the hex SHA-256 of the
// secret, which has too many bits to be guessed.
func NewKey(kind KeyKind) (secret, hash string) {
	var random [keyRandom]byte
	rand.Read(random[:]) // never fails
	body := keyPrefix + string(kind) + "_" + digits(new(big.Int).SetBytes(random[:]), keyDigits)
	secret = body + checksum(body)
	return secret, hashOf(secret)
}

// ParseKey checks the form of a key and gives its kind and hash. It fails with
// ErrMistypedKey or ErrNoKey.
func ParseKey(secret string) (kind KeyKind, hash string, err error) {
	kind, hash, err = parseSecret(secret)
	if err == nil && kind != UserKey && kind != ProjectKey {
		return 0, "", ErrNoKey
	}
	return kind, hash, err
}

// LooksLikeKey reports whether whoever typed secret meant a key, perhaps with a
// mistake. It is then too long to be a password that anybody could guess.
func LooksLikeKey(secret string) bool {
	return looksLike(secret, UserKey) || looksLike(secret, ProjectKey)
}

func looksLike(secret string, kind KeyKind) bool {
	return len(secret) >= keyHead+keyDigits/2 && strings.HasPrefix(secret, keyPrefix) &&
		secret[len(keyPrefix)] == byte(kind) && secret[len(keyPrefix)+1] == '_'
}

func parseSecret(secret string) (kind KeyKind, hash string, err error) {
	if len(secret) < keyHead || !strings.HasPrefix(secret, keyPrefix) || secret[keyHead-1] != '_' {
		return 0, "", ErrNoKey
	}
	body := secret[:max(keyHead, len(secret)-keyChecksum)]
	if len(secret) != keyLength || secret[len(body):] != checksum(body) || !inBase62(secret[keyHead:]) {
		return 0, "", ErrMistypedKey
	}
	return KeyKind(secret[len(keyPrefix)]), hashOf(secret), nil
}

func inBase62(s string) bool {
	for i := range len(s) {
		if strings.IndexByte(base62, s[i]) < 0 {
			return false
		}
	}
	return true
}

// checksum is the CRC-32 of the text before it.
func checksum(body string) string {
	return digits(big.NewInt(int64(crc32.ChecksumIEEE([]byte(body)))), keyChecksum)
}

// digits writes n in base62 with so many digits.
func digits(n *big.Int, count int) string {
	text := make([]byte, count)
	base, digit := big.NewInt(int64(len(base62))), new(big.Int)
	for i := count - 1; i >= 0; i-- {
		n.DivMod(n, base, digit)
		text[i] = base62[digit.Int64()]
	}
	return string(text)
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
