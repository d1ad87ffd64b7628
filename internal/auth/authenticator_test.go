package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/meta"
)

func TestNobody(t *testing.T) {
	s := newServer(t)
	id, err := s.identify()
	if err != nil || id.Kind != access.Anonymous || id.Scopes != nil || id.Address != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("%+v, %v", id, err)
	}
}

// TestOpen: where nobody must log in, credentials that are sent must still be
// good.
func TestOpen(t *testing.T) {
	open, broken := true, error(nil)
	s := newServer(t, func(o *auth.Options) {
		o.Open = func(context.Context) (bool, error) { return open, broken }
	})
	s.user("alice", "wonderland")
	token := s.mint(auth.Identity{})
	s.lets("local", "Bearer "+token)
	if id, err := s.identify(); err != nil || id.Kind != access.Local {
		t.Errorf("%+v, %v", id, err)
	}
	s.lets("user:alice", basic("alice", "wonderland"))
	s.refuses(auth.ErrCredentials, "wrong", basic("alice", "x"))
	s.refuses(auth.ErrInvalidToken, "malformed", "Bearer x")
	open = false
	if id := s.lets("", "Bearer "+token); id.Scopes == nil {
		t.Error("an anonymous token is good for everything")
	}
	broken = errors.New("database is gone")
	if _, err := s.identify(); !errors.Is(err, broken) {
		t.Errorf("%v, want %v", err, broken)
	}
}

func TestPassword(t *testing.T) {
	s := newServer(t)
	alice := s.user("alice", "wonderland")
	s.user("bob", "")
	for range 2 {
		id := s.lets("user:alice", basic("alice", "wonderland"))
		if id.ID != alice.ID || id.KeyID != "" || id.Scopes != nil || !id.IssuedAt.IsZero() || !id.Address.IsValid() {
			t.Errorf("%+v", id)
		}
	}
	for _, wrong := range []string{
		basic("alice", "Wonderland"), basic("Alice", "wonderland"), basic("nobody", "wonderland"),
		basic("bob", "wonderland"), basic("alice", "wonderland "),
	} {
		s.refuses(auth.ErrCredentials, "wrong user name or password", wrong)
	}
	computed := s.hasher.Computed()
	for _, wrong := range []string{
		basic("", "wonderland"), basic("alice", ""), basic("bob", ""), basic("alice", "wonderland\x00"), basic("al\x00ice", "wonderland"),
		basic(strings.Repeat("a", 256), "wonderland"), basic("alice", strings.Repeat("x", 1<<20)), basic("", ""),
		"Basic ???", "Basic", "basic YWxpY2U=", "", "Digest x", "wonderland",
	} {
		s.refuses(auth.ErrCredentials, "", wrong)
	}
	if got := s.hasher.Computed(); got != computed {
		t.Errorf("%d hashes were computed for log-ins that cannot be right", got-computed)
	}
	if _, err := s.identify(basic("alice", "wonderland"), basic("alice", "wonderland")); !errors.Is(err, auth.ErrCredentials) {
		t.Errorf("two headers: %v", err)
	}
}

// TestSameWork: that a name is unknown shows neither in the answer nor in the
// time it takes.
func TestSameWork(t *testing.T) {
	s := newServer(t)
	s.user("alice", "wonderland")
	s.user("bob", "")
	var texts []string
	for _, name := range []string{"alice", "bob", "nobody"} {
		before := s.hasher.Computed()
		_, err := s.identify(basic(name, "swordfish"))
		if n := s.hasher.Computed() - before; n != 1 {
			t.Errorf("%s: %d hashes were computed, want 1", name, n)
		}
		texts = append(texts, err.Error())
	}
	if texts[0] != texts[1] || texts[1] != texts[2] {
		t.Errorf("they are told apart: %q", texts)
	}
}

// TestCheapTheSecondTime: one log-in costs one hash, whether right or wrong and
// however many requests come with it at once.
func TestCheapTheSecondTime(t *testing.T) {
	s := newServer(t)
	s.user("alice", "wonderland")
	before := s.hasher.Computed()
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() { s.lets("user:alice", basic("alice", "wonderland")) })
		clients.Go(func() { s.refuses(auth.ErrCredentials, "wrong", basic("alice", "x")) })
	}
	clients.Wait()
	if n := s.hasher.Computed() - before; n != 2 {
		t.Errorf("%d hashes were computed for two log-ins", n)
	}
}

// TestRevocation: what ends a credential ends it at the next request.
func TestRevocation(t *testing.T) {
	s := newServer(t)
	alice := s.user("alice", "wonderland")
	password := basic("alice", "wonderland")
	secret, key := s.key(access.Key{UserID: alice.ID})
	token := "Bearer " + s.mint(s.lets("user:alice", password))
	keyToken := "Bearer " + s.mint(s.lets("user:alice", basic("x", secret)))
	s.lets("user:alice", token)
	s.lets("user:alice", keyToken)

	s.ok(s.db.SetUser(t.Context(), meta.Change{}, "alice", meta.UserChange{Locked: new(true)}))
	s.refuses(auth.ErrCredentials, "locked", password)
	s.refuses(auth.ErrCredentials, "locked", basic("alice", secret))
	s.refuses(auth.ErrInvalidToken, "locked", token)
	s.ok(s.db.SetUser(t.Context(), meta.Change{}, "alice", meta.UserChange{Locked: new(false)}))
	s.lets("user:alice", token)

	_, err := s.db.RevokeKey(t.Context(), meta.Change{}, alice.ID, key.ID)
	s.ok(err)
	s.refuses(auth.ErrCredentials, "revoked", basic("x", secret))
	s.refuses(auth.ErrInvalidToken, "revoked", keyToken)
	s.lets("user:alice", token)

	s.clock.move(time.Second)
	s.ok(s.db.SetUser(t.Context(), meta.Change{}, "alice", meta.UserChange{Password: new(cheap("looking-glass"))}))
	s.refuses(auth.ErrCredentials, "wrong", password)
	s.refuses(auth.ErrInvalidToken, "sessions were ended", token)
	s.lets("user:alice", "Bearer "+s.mint(s.lets("user:alice", basic("alice", "looking-glass"))))
}

func TestKey(t *testing.T) {
	s := newServer(t)
	alice, acme := s.user("alice", "wonderland"), s.project("acme")
	s.user("bob", "builder")
	personal, personalKey := s.key(access.Key{UserID: alice.ID})
	robot, robotKey := s.key(access.Key{ProjectID: acme.ID, Name: "ci"})
	for _, name := range []string{"", "anything", "alice", "oidc", "token"} {
		if id := s.lets("user:alice", basic(name, personal)); id.KeyID != personalKey.ID || id.ID != alice.ID {
			t.Errorf("%+v", id)
		}
	}
	for _, header := range []string{basic("", robot), basic("ci", robot), "Bearer " + robot, "bearer " + robot} {
		if id := s.lets("robot:acme/ci", header); id.KeyID != robotKey.ID || id.ID != robotKey.ID || id.Scopes != nil {
			t.Errorf("%+v", id)
		}
	}
	for _, header := range []string{basic("bob", personal), basic("alice", robot)} {
		s.refuses(auth.ErrCredentials, "not this user's", header)
	}
	unknown, _ := auth.NewKey(auth.UserKey)
	s.refuses(auth.ErrCredentials, "unknown key", basic("x", unknown))
	s.refuses(auth.ErrCredentials, "mistyped", basic("x", unknown[:20]+"é"+unknown[21:]))
	if before := s.hasher.Computed(); before != 0 {
		t.Errorf("%d hashes of passwords were computed", before)
	}
}

func TestKeyBounds(t *testing.T) {
	s := newServer(t)
	alice := s.user("alice", "")
	expired, _ := s.key(access.Key{UserID: alice.ID, ExpiresAt: time.Now().Add(-time.Second)})
	s.refuses(auth.ErrCredentials, "expired", basic("x", expired))
	here, _ := s.key(access.Key{UserID: alice.ID, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	token := "Bearer " + s.mint(s.lets("user:alice", basic("x", here)))
	s.lets("user:alice", token)
	for _, header := range []string{basic("x", here), token} {
		if _, err := s.auth.Identify(from("198.51.100.1", header)); !errors.Is(err, auth.ErrCredentials) {
			t.Errorf("from elsewhere: %v", err)
		}
	}
}

// TestLastUsed is noted once an hour, whatever the number of requests.
func TestLastUsed(t *testing.T) {
	var mu sync.Mutex
	notes := 0
	s := newServer(t, func(o *auth.Options) {
		touch := o.TouchKeys
		o.TouchKeys = func(ctx context.Context, used map[string]time.Time) error {
			mu.Lock()
			defer mu.Unlock()
			notes++
			return touch(ctx, used)
		}
	})
	secret, key := s.key(access.Key{UserID: s.user("alice", "").ID})
	for hour := range 3 {
		for range 5 {
			s.lets("user:alice", basic("x", secret))
		}
		s.auth.Close()
		got, err := s.db.KeyByID(t.Context(), key.ID)
		s.ok(err)
		if want := s.clock.now().Add(-time.Millisecond); got.LastUsed.Before(want) {
			t.Errorf("used at %v, noted %v", s.clock.now(), got.LastUsed)
		}
		if notes != hour+1 {
			t.Errorf("noted %d times in %d hours", notes, hour+1)
		}
		s.clock.move(time.Hour)
	}
}

func TestWorkload(t *testing.T) {
	s := newServer(t)
	acme := s.project("acme")
	rule, err := s.db.CreateTrustRule(t.Context(), meta.Change{}, access.TrustRule{
		ProjectID: acme.ID, Name: "main", Issuer: "https://ci.test", Audience: service, Claims: map[string]string{"sub": "x"}, Role: access.Writer})
	s.ok(err)
	s.refuses(auth.ErrCredentials, "", basic("oidc", goodJob)) // it is turned off
	s = replica(t, s.clock, s.path, func(o *auth.Options) {
		o.Exchange = exchange(access.Principal{Kind: access.Workload, ID: rule.ID, Name: "acme/main"})
	})
	id := s.lets("workload:acme/main", basic("oidc", goodJob))
	token := "Bearer " + s.mint(id)
	s.lets("workload:acme/main", token)
	s.refuses(auth.ErrCredentials, "invalid token", basic("oidc", strings.Replace(goodJob, "aaa", "bbb", 1)))
	s.refuses(auth.ErrCredentials, "no ID token", basic("oidc", "swordfish"))
	s.ok(s.db.DeleteTrustRule(t.Context(), meta.Change{}, acme.ID, "main"))
	s.refuses(auth.ErrInvalidToken, "gone", token)
	s.refuses(auth.ErrCredentials, "gone", basic("oidc", goodJob))
}

// TestDatabaseGone: it is not the caller's fault, and nobody gets in.
func TestDatabaseGone(t *testing.T) {
	s := newServer(t)
	s.user("alice", "wonderland")
	s.lets("user:alice", basic("alice", "wonderland"))
	token := s.mint(auth.Identity{})
	s.ok(s.db.Close())
	s.clock.move(time.Hour) // the generation must be asked for again
	for _, header := range []string{basic("alice", "wonderland"), basic("alice", "x"), "Bearer " + token} {
		id, err := s.identify(header)
		var throttled *auth.ThrottledError
		if err == nil || errors.Is(err, auth.ErrCredentials) || errors.As(err, &throttled) {
			t.Errorf("%+v, %v", id, err)
		}
	}
}

// TestManagement is what those who set passwords need.
func TestManagement(t *testing.T) {
	s := newServer(t, func(o *auth.Options) { o.Throttle.PerPrincipal = 3 })
	hash, err := s.auth.Hash(t.Context(), "wonderland")
	s.ok(err)
	_, err = s.db.CreateUser(t.Context(), meta.Change{}, meta.UserSpec{Name: "alice", Password: hash})
	s.ok(err)
	for password, want := range map[string]bool{"wonderland": true, "x": false, "": false, "a\x00": false} {
		if got, err := s.auth.Verify(t.Context(), "alice", password); got != want || err != nil {
			t.Errorf("%q: %t, %v", password, got, err)
		}
	}
	var throttled *auth.ThrottledError
	for i := range 4 {
		_, err = s.auth.Verify(t.Context(), "alice", fmt.Sprint("y", i))
	}
	if !errors.As(err, &throttled) {
		t.Errorf("guessing goes on: %v", err)
	}
	if ok, err := s.auth.Verify(t.Context(), "nobody", "x"); ok || err != nil {
		t.Errorf("nobody: %t, %v", ok, err)
	}
}
