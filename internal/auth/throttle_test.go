package auth_test

import (
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/meta"
)

func TestThrottleByPrincipal(t *testing.T) {
	s := newServer(t)
	alice := s.user("alice", "wonderland")
	s.user("bob", "builder")
	secret, _ := s.key(access.Key{UserID: alice.ID})
	for i := range 10 {
		for range 3 { // helm and containerd try a wrong one twice
			s.refuses(auth.ErrCredentials, "wrong", basic("alice", fmt.Sprint("wrong", i)))
		}
		s.clock.move(time.Second)
	}
	computed := s.hasher.Computed()
	e := s.throttles(basic("alice", "wrong10"))
	if e.RetryAfter <= 0 || e.RetryAfter > 15*time.Minute || e.User != "alice" {
		t.Errorf("%+v", e)
	}
	s.throttles(basic("alice", "wonderland"))
	if n := s.hasher.Computed() - computed; n != 0 {
		t.Errorf("%d hashes were computed behind a throttle", n)
	}
	s.lets("user:alice", basic("alice", secret))
	s.lets("user:bob", basic("bob", "builder"))

	s.clock.move(e.RetryAfter)
	s.refuses(auth.ErrCredentials, "wrong", basic("alice", "wrong10"))
	e = s.throttles(basic("alice", "wonderland"))
	s.clock.move(e.RetryAfter)
	s.lets("user:alice", basic("alice", "wonderland"))
	for i := range 10 {
		_, err := s.identify(basic("alice", fmt.Sprint("again", i)))
		if err == nil {
			t.Fatal("a wrong password is right")
		}
	}
	s.throttles(basic("alice", "again10"))
	s.lets("user:alice", basic("alice", "wonderland")) // remembered
}

// TestThrottleUnknown: a name that is nobody's is throttled as one that is.
func TestThrottleUnknown(t *testing.T) {
	s := newServer(t, func(o *auth.Options) { o.Throttle.PerPrincipal = 2 })
	for i := range 2 {
		s.refuses(auth.ErrCredentials, "wrong", basic("nobody", fmt.Sprint("wrong", i)))
	}
	if e := s.throttles(basic("nobody", "wrong2")); e.User != "" {
		t.Errorf("a name that is no user's is told: %+v", e)
	}
}

// TestThrottleTellsNoNames: nobody can find names that are throttled together,
// by which to tell one that is a user's from one that is not.
func TestThrottleTellsNoNames(t *testing.T) {
	s := newServer(t, func(o *auth.Options) { o.Throttle.PerPrincipal = 2 })
	for i := range 2 {
		s.refuses(auth.ErrCredentials, "wrong", basic("nobody", fmt.Sprint("wrong", i)))
	}
	bucket := func(name string) string {
		sum := sha256.Sum256([]byte(name))
		return string(sum[:2])
	}
	tried, throttled := 0, 0
	for i := 0; tried < 2; i++ {
		name := fmt.Sprint("stranger", i)
		if bucket(name) != bucket("nobody") {
			continue
		}
		tried++
		if _, err := s.identify(basic(name, "wrong")); !errors.Is(err, auth.ErrCredentials) {
			throttled++
		}
	}
	if throttled == tried { // by chance one time in four thousand million
		t.Error("names of one hash are throttled together")
	}
}

func TestThrottleByAddress(t *testing.T) {
	s := newServer(t, func(o *auth.Options) { o.Throttle = auth.Throttle{Window: time.Minute, PerPrincipal: 2, PerAddress: 4} })
	s.user("alice", "wonderland")
	for i := range 4 {
		_, err := s.auth.Identify(from("[2001:db8::1]", basic(fmt.Sprint("user", i), "wrong")))
		if !errors.Is(err, auth.ErrCredentials) {
			t.Fatal(err)
		}
	}
	var throttled *auth.ThrottledError
	if _, err := s.auth.Identify(from("[2001:db8::2]", basic("alice", "wonderland"))); !errors.As(err, &throttled) || throttled.RetryAfter > time.Minute+time.Second {
		t.Errorf("the same network: %v", err)
	}
	if _, err := s.auth.Identify(from("[2001:db8:0:1::1]", basic("alice", "wonderland"))); err != nil {
		t.Errorf("another network: %v", err)
	}
}

// TestThrottleKeys: wrong keys count, good ones always pass.
func TestThrottleKeys(t *testing.T) {
	s := newServer(t)
	acme := s.project("acme")
	secret, key := s.key(access.Key{ProjectID: acme.ID})
	for range 10 {
		wrong, _ := auth.NewKey(auth.ProjectKey)
		s.refuses(auth.ErrCredentials, "unknown", basic("ci", wrong))
	}
	wrong, _ := auth.NewKey(auth.ProjectKey)
	s.throttles(basic("ci", wrong))
	s.lets("robot:acme/"+key.Name, basic("ci", secret))
	_, err := s.db.RevokeKey(t.Context(), meta.Change{}, acme.ID, key.ID)
	s.ok(err)
	for range 20 { // a job that was not told
		s.refuses(auth.ErrCredentials, "revoked", basic("x", secret))
	}
}

// TestPingsNeverCount: nor do tokens, however wrong.
func TestPingsNeverCount(t *testing.T) {
	s := newServer(t)
	for i := range 100 {
		if _, err := s.identify(); err != nil {
			t.Fatal(err)
		}
		s.refuses(auth.ErrInvalidToken, "", fmt.Sprint("Bearer x", i))
	}
	if n := s.failures(); n != 0 {
		t.Errorf("%d failures were noted", n)
	}
}

// failures counts the rows of all buckets.
func (s *server) failures() (n int) {
	s.Helper()
	db, err := sql.Open("sqlite", "file:"+s.path)
	s.ok(err)
	defer db.Close()
	s.ok(db.QueryRow(`SELECT count(*) FROM login_failures`).Scan(&n))
	return n
}

// TestReplicasAgree: one wrong password is one, on however many servers it was
// tried, and wherever its user exists.
func TestReplicasAgree(t *testing.T) {
	one := newServer(t)
	one.user("alice", "wonderland")
	two := replica(t, one.clock, one.path)
	for _, name := range []string{"alice", "nobody"} {
		before := one.failures()
		one.refuses(auth.ErrCredentials, "wrong", basic(name, "x"))
		two.refuses(auth.ErrCredentials, "wrong", basic(name, "x"))
		if n := one.failures() - before; n != 2 { // a name and an address
			t.Errorf("%s: %d rows", name, n)
		}
	}
	for i := range 9 {
		two.refuses(auth.ErrCredentials, "wrong", basic("alice", fmt.Sprint("wrong", i)))
	}
	one.throttles(basic("alice", "wonderland"))
}

// TestOldFailuresGo: nothing is kept of those who have not come back.
func TestOldFailuresGo(t *testing.T) {
	s := newServer(t)
	for i := range 20 {
		wrong, _ := auth.NewKey(auth.UserKey)
		s.auth.Identify(from(fmt.Sprint("192.0.2.", i), basic(fmt.Sprint("user", i), wrong)))
	}
	if n := s.failures(); n < 30 {
		t.Fatalf("%d rows", n)
	}
	s.clock.move(16 * time.Minute)
	s.refuses(auth.ErrCredentials, "wrong", basic("alice", "x"))
	if n := s.failures(); n != 2 {
		t.Errorf("%d rows are left", n)
	}
}
