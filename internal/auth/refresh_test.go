package auth_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/meta"
)

func (s *server) issue(id auth.Identity) string {
	s.Helper()
	secret, err := s.refresh.Issue(s.Context(), &id.Principal, service, "docker")
	s.ok(err)
	return secret
}

func (s *server) redeems(want, secret string) auth.Identity {
	s.Helper()
	id, err := s.refresh.Redeem(s.Context(), secret, service, id1.Address)
	if err != nil || id.String() != want || id.Scopes != nil {
		s.Errorf("%+v, %v; want %s", id, err, want)
	}
	return id
}

func (s *server) ended(why, secret string) {
	s.Helper()
	id, err := s.refresh.Redeem(s.Context(), secret, service, id1.Address)
	if !errors.Is(err, auth.ErrCredentials) || !strings.Contains(err.Error(), why) || id != (auth.Identity{}) {
		s.Errorf("%+v, %v; want a refusal because of %q", id, err, why)
	}
}

var id1 = access.Principal{Address: auth.AddressOf(from("192.0.2.1"))}

func TestRefresh(t *testing.T) {
	s := newServer(t)
	acme := s.project("acme")
	s.user("alice", "wonderland")
	robot, key := s.key(access.Key{ProjectID: acme.ID, Name: "ci"})
	one := s.issue(s.lets("user:alice", basic("alice", "wonderland")))
	two := s.issue(s.lets("robot:acme/ci", basic("x", robot)))
	for range 2 {
		s.redeems("user:alice", one)
		s.redeems("robot:acme/ci", two)
	}
	if id, err := s.refresh.Redeem(t.Context(), one, "other.test", id1.Address); !errors.Is(err, auth.ErrCredentials) {
		t.Errorf("at another service: %+v, %v", id, err)
	}
	unknown, _ := auth.NewKey('r')
	for _, wrong := range []string{"", "x", one[:len(one)-1], robot, unknown, strings.Repeat("x", 1<<20)} {
		s.ended("refresh token", wrong)
	}
	s.refuses(auth.ErrCredentials, "", basic("alice", one))
	s.refuses(auth.ErrInvalidToken, "", "Bearer "+one)

	_, err := s.db.RevokeKey(t.Context(), meta.Change{}, acme.ID, key.ID)
	s.ok(err)
	s.ended("", two)
	s.redeems("user:alice", one)
	s.clock.move(time.Hour)
	s.ended("expired", one)
}

// TestRefreshEnds with whatever the log-in ends with.
func TestRefreshEnds(t *testing.T) {
	s := newServer(t)
	alice := s.user("alice", "wonderland")
	personal, key := s.key(access.Key{UserID: alice.ID})
	byPassword := s.issue(s.lets("user:alice", basic("alice", "wonderland")))
	byKey := s.issue(s.lets("user:alice", basic("alice", personal)))

	s.ok(s.db.SetUser(t.Context(), meta.Change{}, "alice", meta.UserChange{Locked: new(true)}))
	s.ended("locked", byPassword)
	s.ended("locked", byKey)
	s.ok(s.db.SetUser(t.Context(), meta.Change{}, "alice", meta.UserChange{Locked: new(false)}))
	s.redeems("user:alice", byPassword)
	_, err := s.db.RevokeKey(t.Context(), meta.Change{}, alice.ID, key.ID)
	s.ok(err)
	s.ended("", byKey)
	s.redeems("user:alice", byPassword)

	list, err := s.db.ListRefreshTokens(t.Context(), alice.ID, "", 10)
	if err != nil || len(list) != 1 || list[0].Client != "docker" || list[0].Address != "192.0.2.1" || !list[0].LastUsed.Equal(s.clock.now()) {
		t.Fatalf("%+v, %v", list, err)
	}
	s.ok(s.db.RevokeRefreshToken(t.Context(), meta.Change{}, list[0].ID))
	s.ended("revoked", byPassword)

	again := s.issue(s.lets("user:alice", basic("alice", "wonderland")))
	s.clock.move(time.Second)
	s.ok(s.db.EndSessions(t.Context(), meta.Change{}, "alice"))
	s.ended("", again)
}

// TestRefreshTooLate: who was just let in may be out again.
func TestRefreshTooLate(t *testing.T) {
	s := newServer(t)
	s.user("alice", "wonderland")
	id := s.lets("user:alice", basic("alice", "wonderland"))
	s.ok(s.db.SetUser(t.Context(), meta.Change{}, "alice", meta.UserChange{Locked: new(true)}))
	tooLate := func(what string, id auth.Identity) {
		t.Helper()
		if secret, err := s.refresh.Issue(t.Context(), &id.Principal, service, ""); secret != "" || !errors.Is(err, auth.ErrCredentials) {
			t.Errorf("%s: %q, %v", what, secret, err)
		}
	}
	tooLate("locked", id)
	s.ok(s.db.SetUser(t.Context(), meta.Change{}, "alice", meta.UserChange{Locked: new(false)}))
	s.issue(id)
	// Another process may let in with the old password for a moment.
	s.ok(s.db.EndSessions(t.Context(), meta.Change{}, "alice"))
	tooLate("sessions were ended", id)
	s.clock.move(time.Second)
	id = s.lets("user:alice", basic("alice", "wonderland"))
	redeemed := s.redeems("user:alice", s.issue(id))
	s.issue(redeemed)
	s.clock.move(time.Second)
	s.ok(s.db.EndSessions(t.Context(), meta.Change{}, "alice"))
	tooLate("sessions of refresh tokens were ended", redeemed)
}

func TestNoRefresh(t *testing.T) {
	s := newServer(t)
	for _, p := range []access.Principal{{}, {Kind: access.Workload, ID: "r"}, {Kind: access.Local}} {
		if secret, err := s.refresh.Issue(t.Context(), &p, service, ""); secret != "" || err != nil {
			t.Errorf("%v: %q, %v", p.Kind, secret, err)
		}
	}
}
