package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
)

// MaxPassword bounds passwords, in bytes.
const MaxPassword = 1024

// What new hashes cost: the first recommendation of OWASP for argon2id.
const (
	hashMemory  = 19 << 10 // KiB
	hashPasses  = 2
	hashThreads = 1
	saltLength  = 16 // bytes
	hashLength  = 32 // bytes
)

// What a stored hash may cost at most.
const (
	maxMemory  = 256 << 10 // KiB
	maxPasses  = 16
	maxThreads = 16
)

// maxWaiting is how many checks may wait for each one that runs.
const maxWaiting = 32

// ErrPassword is wrapped by errors about passwords that cannot be set; their
// text is for whoever sets it.
var ErrPassword = errors.New("invalid password")

var errHash = errors.New("a stored password hash is damaged")

// Hasher hashes passwords. Half of the processors do that at most, so that
// guessing passwords does not stop the pulls. It is safe for concurrent use.
type Hasher struct {
	slots    chan struct{}
	waiting  atomic.Int64
	computed atomic.Int64
}

// NewHasher returns a Hasher; there should be one in a process.
func NewHasher() *Hasher {
	return &Hasher{slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
}

// Computed counts the hashes that were computed so far.
func (h *Hasher) Computed() int64 { return h.computed.Load() }

// Hash makes the PHC form of a password that is to be stored. It fails with
// ErrPassword, a ThrottledError, or that of ctx.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	if err := checkPassword(password); err != nil {
		return "", err
	}
	release, err := h.enter(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	p := phc{memory: hashMemory, passes: hashPasses, threads: hashThreads, salt: make([]byte, saltLength), hash: make([]byte, hashLength)}
	rand.Read(p.salt)
	p.hash = h.derive(&p, password)
	return p.String(), nil
}

func checkPassword(password string) error {
	switch {
	case password == "":
		return fmt.Errorf("%w: it must not be empty", ErrPassword)
	case len(password) > MaxPassword:
		return fmt.Errorf("%w: it must have at most %d bytes", ErrPassword, MaxPassword)
	case strings.Contains(password, "\x00"):
		return fmt.Errorf("%w: it must not hold a NUL", ErrPassword)
	case strings.HasPrefix(password, keyPrefix):
		return fmt.Errorf("%w: it must not begin as keys do, with %s", ErrPassword, keyPrefix)
	}
	return nil
}

// enter waits for a turn to hash. It fails with a ThrottledError where too many
// wait already, and with that of ctx.
func (h *Hasher) enter(ctx context.Context) (release func(), err error) {
	defer h.waiting.Add(-1)
	if h.waiting.Add(1) > int64(maxWaiting*cap(h.slots)) {
		return nil, &ThrottledError{RetryAfter: 2 * time.Second, Reason: "too many passwords to check"}
	}
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting to check the password: %w", ctx.Err())
	}
}

// compare reports whether stored, in PHC form, is of a password. The digest
// stands for the password: it is the same only for the same one of the same
// user, and costs as much to guess from as what is stored. Where there is
// nothing stored, the same work is done for nothing. The caller has entered.
func (h *Hasher) compare(stored, user, password string) (right bool, digest []byte, err error) {
	p := decoy(user)
	if stored != "" {
		if p, err = parsePHC(stored); err != nil {
			return false, nil, err
		}
	}
	digest = h.derive(&p, password)
	right = subtle.ConstantTimeCompare(digest, p.hash) == 1
	return right && stored != "", digest, nil
}

func (h *Hasher) derive(p *phc, password string) []byte {
	h.computed.Add(1)
	return argon2.IDKey([]byte(password), p.salt, p.passes, p.memory, p.threads, uint32(len(p.hash)))
}

// decoy is what a user without a password is compared with. Its salt is the
// same in every process, so that replicas count one wrong password once.
func decoy(user string) phc {
	salt := sha256.Sum256([]byte("berth: nobody's password\x00" + user))
	return phc{memory: hashMemory, passes: hashPasses, threads: hashThreads, salt: salt[:saltLength], hash: make([]byte, hashLength)}
}

// phc is a hash with what it was made from.
type phc struct {
	memory, passes uint32
	threads        uint8
	salt, hash     []byte
}

func (p *phc) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.memory, p.passes, p.threads,
		b64.EncodeToString(p.salt), b64.EncodeToString(p.hash))
}

// parsePHC reads a stored hash. Its error holds nothing of it.
func parsePHC(text string) (p phc, err error) {
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, errHash
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.passes, &p.threads); n != 3 || err != nil {
		return p, errHash
	}
	var errs [2]error
	p.salt, errs[0] = base64.RawStdEncoding.DecodeString(parts[4])
	p.hash, errs[1] = base64.RawStdEncoding.DecodeString(parts[5])
	switch {
	case errors.Join(errs[:]...) != nil,
		p.memory < 8*uint32(p.threads) || p.memory > maxMemory,
		p.passes < 1 || p.passes > maxPasses,
		p.threads < 1 || p.threads > maxThreads,
		len(p.salt) < 8 || len(p.salt) > 64,
		len(p.hash) < 16 || len(p.hash) > 64,
		p.String() != text:
		return p, errHash
	}
	return p, nil
}
