package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/berth-registry/berth/internal/access"
)

// SigningKeyStore keeps the keys that sign tokens; *meta.DB is one.
type SigningKeyStore interface {
	// Generation is raised with every change of the keys, among others.
	Generation(ctx context.Context) (int64, error)
	// SigningKeys lists all keys, the newest first.
	SigningKeys(ctx context.Context) ([]access.SigningKey, error)
	// RotateSigningKey retires all keys and adds a new one, unless one that was
	// made after a time still signs.
	RotateSigningKey(ctx context.Context, key access.SigningKey, unlessAfter time.Time) (bool, error)
	// DeleteSigningKeys deletes keys that were retired before a time.
	DeleteSigningKeys(ctx context.Context, before time.Time) error
}

const (
	// settle is how long a new key waits before it signs, so that every replica
	// knows it by then; the one before goes on for so long.
	settle = 5 * time.Second
	// lookEvery bounds how often a forged token makes us look for its key.
	lookEvery = time.Second
)

// keySet is what the store held at one time.
type keySet struct {
	generation int64
	list       []*signingKey // the newest first
	byID       map[string]*signingKey
	ttl        time.Duration // of tokens
}

type signingKey struct {
	id               string
	public           *ecdsa.PublicKey
	signer           jose.Signer
	bucket           []byte // keys the names of buckets
	created, retired time.Time
}

// signing is the newest key that all replicas know; where there is none such,
// the newest of all. nil: there is none.
func (s *keySet) signing(now time.Time) *signingKey {
	var newest *signingKey
	for _, k := range s.list {
		if !k.retired.IsZero() && now.Sub(k.retired) >= settle {
			continue
		}
		if now.Sub(k.created) >= settle {
			return k
		}
		if newest == nil && k.retired.IsZero() {
			newest = k
		}
	}
	return newest
}

// verifying is the key of that id; nil if no token can be good that it signed.
func (s *keySet) verifying(id string, now time.Time) *signingKey {
	k := s.byID[id]
	if k == nil || !k.retired.IsZero() && now.Sub(k.retired) > s.ttl+keepRetired {
		return nil
	}
	return k
}

// keepRetired is how much longer than its tokens a retired key is kept.
const keepRetired = settle + maxSkew

// current is the set of keys as the newest change has it.
func (t *Tokens) current(ctx context.Context) (*keySet, error) {
	generation, err := t.o.Store.Generation(ctx)
	if err != nil {
		return nil, err
	}
	if s := t.keys.Load(); s != nil && s.generation == generation {
		return s, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.keys.Load(); s != nil && s.generation >= generation {
		return s, nil
	}
	return t.load(ctx, generation)
}

// look loads the keys again, but not more often than once a second.
func (t *Tokens) look(ctx context.Context) (*keySet, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.keys.Load()
	now := t.o.Now()
	if age := now.Sub(t.looked); s != nil && age >= 0 && age < lookEvery {
		return s, nil
	}
	t.looked = now
	generation, err := t.o.Store.Generation(ctx)
	if err != nil {
		return nil, err
	}
	return t.load(ctx, generation)
}

// reload reads the keys, whatever is known of them.
func (t *Tokens) reload(ctx context.Context) (*keySet, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	generation, err := t.o.Store.Generation(ctx)
	if err != nil {
		return nil, err
	}
	return t.load(ctx, generation)
}

// load reads the keys; t.mu is held. The generation was asked for before.
func (t *Tokens) load(ctx context.Context, generation int64) (*keySet, error) {
	rows, err := t.o.Store.SigningKeys(ctx)
	if err != nil {
		return nil, err
	}
	s := &keySet{generation: generation, byID: map[string]*signingKey{}, ttl: t.o.TTL}
	before := t.keys.Load()
	for _, row := range rows {
		if row.Algorithm != string(algorithm) {
			continue // of another version of the registry
		}
		k, err := before.reuse(row)
		if err != nil {
			return nil, err
		}
		s.list = append(s.list, k)
		s.byID[k.id] = k
	}
	t.keys.Store(s)
	return s, nil
}

// reuse makes the key of a row, from what is known of it already.
func (s *keySet) reuse(row access.SigningKey) (*signingKey, error) {
	if s == nil || s.byID[row.ID] == nil {
		return newSigningKey(row)
	}
	k := *s.byID[row.ID]
	k.retired = row.RetiredAt
	return &k, nil
}

func newSigningKey(row access.SigningKey) (*signingKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(row.Private)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("signing key %s is damaged", row.ID) // no more of it
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: key, KeyID: row.ID}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", row.ID, err)
	}
	bucket, err := hkdf.Key(sha256.New, row.Private, nil, "berth buckets of names", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", row.ID, err)
	}
	return &signingKey{
		id: row.ID, public: &key.PublicKey, signer: signer, bucket: bucket, created: row.CreatedAt, retired: row.RetiredAt,
	}, nil
}

// bucketKey keys the names of buckets that nobody outside shall compute. All
// replicas have the same, until the signing key is replaced.
func (t *Tokens) bucketKey(ctx context.Context) ([]byte, error) {
	keys, err := t.current(ctx)
	if err != nil {
		return nil, err
	}
	newest := keys.newest()
	if newest == nil {
		return nil, errors.New("there is no signing key to name buckets with")
	}
	return newest.bucket, nil
}

// NewSigningKey makes a key, as the store keeps it.
func NewSigningKey() (access.SigningKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return access.SigningKey{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return access.SigningKey{}, err
	}
	var id [16]byte
	rand.Read(id[:])
	return access.SigningKey{ID: hex.EncodeToString(id[:]), Algorithm: string(algorithm), Private: private}, nil
}

// Maintain replaces the signing key when it is old enough and deletes those
// that nothing needs any more. It is to be called every few minutes, by every
// replica.
func (t *Tokens) Maintain(ctx context.Context) error {
	keys, err := t.current(ctx)
	if err != nil {
		return err
	}
	now := t.o.Now()
	due := now.Add(-t.o.Rotation)
	if newest := keys.newest(); newest == nil || !newest.created.After(due) {
		key, err := NewSigningKey()
		if err != nil {
			return err
		}
		if _, err := t.o.Store.RotateSigningKey(ctx, key, due); err != nil {
			return err
		}
		// The key may be another replica's, of which the generation does not tell yet.
		if keys, err = t.reload(ctx); err != nil {
			return err
		}
	}
	if keys.newest() == nil {
		return errors.New("there is no key to sign tokens with, and none could be made")
	}
	return t.deleteOld(ctx, keys, now)
}

// newest is the newest key that was not retired, nil for none.
func (s *keySet) newest() *signingKey {
	for _, k := range s.list {
		if k.retired.IsZero() {
			return k
		}
	}
	return nil
}

func (t *Tokens) deleteOld(ctx context.Context, keys *keySet, now time.Time) error {
	for _, k := range keys.list {
		if keys.verifying(k.id, now) == nil {
			return t.o.Store.DeleteSigningKeys(ctx, now.Add(-t.o.TTL-keepRetired))
		}
	}
	return nil
}
