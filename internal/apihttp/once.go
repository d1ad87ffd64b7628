package apihttp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"

	"github.com/berth-registry/berth/internal/manage"
	"github.com/berth-registry/berth/internal/meta"
)

// onceHeader names a request, so that it is done once however often it is sent.
const onceHeader = "Idempotency-Key"

// Bounds of its value, in characters.
var (
	minOnce = 8
	maxOnce = 128
)

// once keeps the answer to a request. What the database holds of the client's
// key is a hash; the answer, which may hold a secret, is encrypted with a key
// that only the client's gives.
type once struct {
	id, request string
	aead        cipher.AEAD
}

var _ manage.Once = (*once)(nil)

// prepareOnce recognises a request that is named.
func prepareOnce(x *exchange, r *http.Request, content []byte) refusal {
	values := r.Header.Values(onceHeader)
	if r.Method != http.MethodPost || len(values) == 0 {
		return refusal{}
	}
	if len(values) > 1 || !printable(values[0]) {
		return refusal{status: http.StatusUnprocessableEntity,
			detail: fmt.Sprintf("%s must be one value of %d to %d printable characters", onceHeader, minOnce, maxOnce)}
	}
	o, err := newOnce(x.caller.Owner(), values[0], r, content)
	if err != nil {
		x.err = err
		return refusal{status: http.StatusInternalServerError, detail: internal}
	}
	x.caller.Once = o
	return refusal{}
}

func printable(s string) bool {
	if len(s) < minOnce || len(s) > maxOnce {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// newOnce is for a request of owner under the client's key.
func newOnce(owner, key string, r *http.Request, content []byte) (*once, error) {
	derive := func(purpose string) ([]byte, error) {
		return hkdf.Key(sha256.New, []byte(key), []byte(owner), "berth idempotency "+purpose, sha256.Size)
	}
	secret, err := derive("answer")
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	// A request may hold a password, of which nobody must be able to guess from
	// the database: it is hashed with a key that is not there.
	if secret, err = derive("request"); err != nil {
		return nil, err
	}
	return &once{
		id:      digest(sha256.New(), owner, key),
		request: digest(hmac.New(sha256.New, secret), r.Method, r.URL.Path, r.URL.RawQuery, string(content)),
		aead:    aead,
	}, nil
}

// digest hashes parts such that no others make the same.
func digest(h hash.Hash, parts ...string) string {
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Seal implements manage.Once.
func (o *once) Seal(answer []byte) (*meta.Once, error) {
	return &meta.Once{ID: o.id, Request: o.request, Answer: o.aead.Seal(nil, nil, answer, []byte(o.id))}, nil
}

// Open implements manage.Once.
func (o *once) Open(sealed []byte) ([]byte, error) {
	return o.aead.Open(nil, nil, sealed, []byte(o.id))
}
