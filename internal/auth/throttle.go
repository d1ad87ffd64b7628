package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"time"

	"github.com/berth-registry/berth/internal/access"
)

// FailureStore keeps wrong secrets of late for all replicas.
type FailureStore interface {
	// LoginFailures are the times of a bucket's failures after since.
	LoginFailures(ctx context.Context, bucket string, since time.Time) ([]time.Time, error)
	// AddLoginFailures notes failures. One that is known since a time after
	// since stays as it is.
	AddLoginFailures(ctx context.Context, failures []access.LoginFailure, since time.Time) error
}

// Throttle bounds how many distinct wrong secrets are looked at. Zero fields
// have a default.
type Throttle struct {
	Window       time.Duration // 15 minutes
	PerPrincipal int           // 10
	PerAddress   int           // 50
}

func (t *Throttle) setDefaults() {
	if t.Window == 0 {
		t.Window = 15 * time.Minute
	}
	if t.PerPrincipal == 0 {
		t.PerPrincipal = 10
	}
	if t.PerAddress == 0 {
		t.PerAddress = 50
	}
}

// attempt names the buckets that a log-in counts in, if it fails; "": none.
type attempt struct{ principal, address string }

// attemptAs is the attempt of somebody who says to be a user, who may not exist
// (no id).
func (a *Authenticator) attemptAs(ctx context.Context, name, userID string, from netip.Addr) (attempt, error) {
	at := attempt{principal: "user:" + userID, address: addressBucket(from)}
	if userID != "" {
		return at, nil
	}
	// People type passwords where names belong. Two bytes of the hash do not
	// give one away, and that strangers' names share a bucket harms nobody. But
	// who could find names that share one would learn by them who is no stranger:
	// so the hash has a key.
	key, err := a.o.Tokens.bucketKey(ctx)
	if err != nil {
		return at, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(name))
	at.principal = "name:" + hex.EncodeToString(mac.Sum(nil)[:2])
	return at, nil
}

// addressBucket is one address, or the network that one customer has in IPv6.
func addressBucket(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil { // always, for 64 bits
			return "address:" + p.String()
		}
	}
	return "address:" + a.String()
}

// allow fails with a ThrottledError where an attempt must not be looked at.
func (a *Authenticator) allow(ctx context.Context, at attempt) error {
	t := &a.o.Throttle
	if err := a.allowBucket(ctx, at.principal, t.PerPrincipal, "too many wrong secrets for this name"); err != nil {
		return err
	}
	return a.allowBucket(ctx, at.address, t.PerAddress, "too many wrong secrets from this address")
}

func (a *Authenticator) allowBucket(ctx context.Context, bucket string, limit int, reason string) error {
	if bucket == "" {
		return nil
	}
	now := a.o.Now()
	times, err := a.o.Failures.LoginFailures(ctx, bucket, now.Add(-a.o.Throttle.Window))
	if err != nil || len(times) < limit {
		return err
	}
	// When this one is forgotten there is room again.
	slices.SortFunc(times, time.Time.Compare)
	until := times[len(times)-limit].Add(a.o.Throttle.Window)
	return &ThrottledError{RetryAfter: until.Sub(now) + time.Millisecond, Reason: reason}
}

// failed notes that an attempt with a secret was wrong. What is stored of the
// secret must not help to find it: people mistype their password by one letter,
// or type that of another place. A keyed hash would not do, as its key would lie
// in the same database. So digest is either the slow hash of a password, with
// the salt of its user, which is as hard to guess from as what is stored for
// those who type theirs right; or the plain one of a secret that has too many
// bits to be guessed.
func (a *Authenticator) failed(ctx context.Context, at attempt, digest []byte) error {
	var failures []access.LoginFailure
	for _, bucket := range [...]string{at.principal, at.address} {
		if bucket == "" {
			continue
		}
		sum := sha256.Sum256(append([]byte(bucket+"\x00"), digest...))
		failures = append(failures, access.LoginFailure{Bucket: bucket, Secret: hex.EncodeToString(sum[:16])})
	}
	return a.o.Failures.AddLoginFailures(ctx, failures, a.o.Now().Add(-a.o.Throttle.Window))
}
