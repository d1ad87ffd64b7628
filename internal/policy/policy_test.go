package policy_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/policy"
	"github.com/berth-registry/berth/internal/registry"
)

// rightsOf a role, for wantRights.
var rightsOf = map[access.Role][]registry.Action{
	access.Reader: {pull}, access.Writer: {pull, push},
	access.Maintainer: {pull, push, remove}, access.Owner: {pull, push, remove},
}

func TestRoles(t *testing.T) {
	w := newWorld(t, policy.Options{})
	acme := w.project("acme", "")
	w.project("other", "")
	for role, rights := range rightsOf {
		user := w.member("u-"+role.String(), acme, "", role)
		w.wantRights("a "+role.String(), user, "acme/app", rights...)
		w.wantRights("a "+role.String(), user, "acme", rights...)
		w.wantRights("a "+role.String()+" elsewhere", user, "other/app")

		robot := w.key(access.Key{ProjectID: acme, Name: "r-" + role.String(), Role: role})
		w.wantRights("a robot as "+role.String(), robot, "acme/app", rights...)
		w.wantRights("a robot elsewhere", robot, "other/app")

		job := w.rule(access.TrustRule{ProjectID: acme, Name: role.String(), Role: role})
		w.wantRights("a job as "+role.String(), job, "acme/app", rights...)
		w.wantRights("a job elsewhere", job, "other/app")

		part := w.member("p-"+role.String(), acme, "acme/team", role)
		w.wantRights("a prefix as "+role.String(), part, "acme/team", rights...)
		w.wantRights("a prefix as "+role.String(), part, "acme/team/app", rights...)
		w.wantRights("outside of a prefix", part, "acme/teams")
		w.wantRights("outside of a prefix", part, "acme")
	}
	w.wantRights("a stranger", w.user("stranger"), "acme/app")
	w.wantRights("nobody", anonymous, "acme/app")
	w.wantRights("a stranger", w.user("other"), "none/app")
	w.wantRights("nobody", anonymous, "none/app")
}

func TestOrganizationsAndGroups(t *testing.T) {
	w := newWorld(t, policy.Options{})
	corp, err := w.db.CreateOrganization(w.Context(), none, meta.Organization{Name: "corp"})
	w.ok(err)
	p, err := w.db.CreateProject(w.Context(), none, meta.ProjectSpec{Name: "acme", OrganizationID: corp.ID, Visibility: access.Private})
	w.ok(err)
	w.project("other", "")
	alice := w.member("alice", p.ID, "", access.Reader)
	_, err = w.db.CreateGroup(w.Context(), none, meta.Group{Name: "devs"})
	w.ok(err)
	_, err = w.db.PutMember(w.Context(), none, meta.Member{Group: "devs", ProjectID: p.ID, Role: access.Writer})
	w.ok(err)
	w.wantRights("before the group", alice, "acme/app", pull)
	w.ok(w.db.AddGroupUser(w.Context(), none, "devs", "alice"))
	w.wantRights("in the group", alice, "acme/app", pull, push)
	_, err = w.db.PutMember(w.Context(), none, meta.Member{User: "alice", OrganizationID: corp.ID, Role: access.Maintainer})
	w.ok(err)
	w.wantRights("in the organization", alice, "acme/app", pull, push, remove)
	w.wantRights("in another organization", alice, "other/app")
	w.ok(w.db.SetGroup(w.Context(), none, "devs", meta.GroupChange{Admin: new(true)}))
	w.wantRights("in a group of admins", alice, "other/app", pull, push, remove)
}

func TestEverybodysMasters(t *testing.T) {
	w := newWorld(t, policy.Options{})
	w.project("acme", "")
	root, err := w.db.User(w.Context(), "root")
	w.ok(err)
	admin := auth.Identity{Principal: access.Principal{Kind: access.User, ID: root.ID}}
	for what, id := range map[string]auth.Identity{"admin": admin, "local": local} {
		w.wantRights(what, id, "acme/app", pull, push, remove)
		w.wantRights(what, id, "none/app", pull, push, remove)
		w.may(what, id, registry.BlobFind, "")
		w.may(what, id, registry.RepositoriesList, "")
	}
	capped := w.key(access.Key{UserID: root.ID, Name: "capped", Role: access.Writer})
	w.wantRights("an admin's key", capped, "acme/app", pull, push)
	narrow := w.key(access.Key{UserID: root.ID, Name: "narrow", Prefixes: []string{"acme/app"}})
	w.wantRights("an admin's key", narrow, "acme/app", pull, push, remove)
	w.wantRights("an admin's key outside of its prefix", narrow, "acme/other")
	w.mayNot("an admin's key that is narrow", narrow, registry.BlobFind, "", registry.NameUnknown)
	w.mayNot("an admin's token", token(admin, scope("acme/app", "*")), registry.BlobFind, "", registry.NameUnknown)
	w.mayNot("a user", w.member("alice", w.project("x", ""), "", access.Owner), registry.BlobFind, "", registry.NameUnknown)
	w.mayNot("nobody", anonymous, registry.BlobFind, "", registry.Unauthorized)
}

func TestNarrowedKeys(t *testing.T) {
	w := newWorld(t, policy.Options{Newcomers: access.Open})
	acme := w.project("acme", "")
	alice := w.member("alice", acme, "", access.Owner)
	reader := w.key(access.Key{UserID: alice.ID, Name: "reader", Role: access.Reader})
	w.wantRights("a reader's key", reader, "acme/app", pull)
	narrow := w.key(access.Key{UserID: alice.ID, Name: "narrow", Prefixes: []string{"acme/app", "acme/lib"}})
	w.wantRights("a narrow key", narrow, "acme/app/x", pull, push, remove)
	w.wantRights("a narrow key", narrow, "acme/lib", pull, push, remove)
	w.wantRights("a narrow key outside", narrow, "acme/apps")
	robot := w.key(access.Key{ProjectID: acme, Name: "robot", Role: access.Writer, Prefixes: []string{"acme/app"}})
	job := w.rule(access.TrustRule{ProjectID: acme, Name: "job", Role: access.Writer, Prefixes: []string{"acme/app"}})
	for what, id := range map[string]auth.Identity{"a narrow robot": robot, "a narrow job": job} {
		w.wantRights(what, id, "acme/app", pull, push)
		w.wantRights(what, id, "acme/other")
		w.show(acme, access.Internal)
		w.wantRights(what+", internal", id, "acme/other")
		w.show(acme, access.Public)
		w.wantRights(what+", public", id, "acme/other", pull)
		w.show(acme, access.Private)
		w.wantRights(what+", where everybody may push", id, "new/app", pull)
	}
	w.wantRights("a reader's key where everybody may push", reader, "new/app", pull)
	low := w.rule(access.TrustRule{ProjectID: acme, Name: "low", Role: access.Reader})
	w.wantRights("a reading job where everybody may push", low, "new/app", pull)

	office := w.key(access.Key{UserID: alice.ID, Name: "office", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	office.Address = netip.MustParseAddr("192.0.2.7")
	w.wantRights("a key at its address", office, "acme/app", pull, push, remove)
	office.Address = netip.MustParseAddr("198.51.100.7")
	w.mayNot("a key at another address", office, pull, "acme/app", registry.Unauthorized)
}

func TestVisibility(t *testing.T) {
	w := newWorld(t, policy.Options{})
	acme, other := w.project("acme", ""), w.project("other", "")
	signedIn := map[string]auth.Identity{
		"a user":  w.user("alice"),
		"a robot": w.key(access.Key{ProjectID: other, Name: "robot", Role: access.Reader}),
		"a job":   w.rule(access.TrustRule{ProjectID: other, Name: "job", Role: access.Reader}),
	}
	for v, want := range map[access.Visibility][2][]registry.Action{
		access.Private: {nil, nil}, access.Internal: {{pull}, nil}, access.Public: {{pull}, {pull}},
	} {
		w.show(acme, v)
		for what, id := range signedIn {
			w.wantRights(fmt.Sprint(what, ", ", v), id, "acme/app", want[0]...)
		}
		w.wantRights(fmt.Sprint("nobody, ", v), anonymous, "acme/app", want[1]...)
	}
}

func TestNewcomers(t *testing.T) {
	for _, server := range []access.Newcomers{"", access.Closed, access.Open, access.Claim} {
		w := newWorld(t, policy.Options{Newcomers: server})
		robot := w.key(access.Key{ProjectID: w.project("other", ""), Name: "robot", Role: access.Writer})
		for _, own := range []access.Newcomers{"", access.Closed, access.Open, access.Claim} {
			name := "p" + string(own)
			claimed := false
			w.ok(w.db.SetProject(w.Context(), none, w.project(name, access.Open), meta.ProjectChange{Newcomers: &own, Claimed: &claimed}))
			welcome := own != access.Closed
			if own == "" {
				welcome = server == access.Open || server == access.Claim
			}
			var want []registry.Action
			if welcome {
				want = []registry.Action{pull, push}
			}
			what := fmt.Sprintf("server %q, project %q", server, own)
			w.wantRights(what+": nobody", anonymous, name+"/app", want...)
			w.wantRights(what+": a robot", robot, name+"/app", want...)
			w.wantRights(what+": a user", w.user("alice"+string(own)), name+"/app", append(want, claimedNow(welcome, server, own)...)...)
		}
	}
}

// TestReserved: what is not this registry's alone is nobody's to claim, whether its
// project is there or not, and open to who has a role.
func TestReserved(t *testing.T) {
	reserved := func(project string) bool { return project == "docker.io" || project == "shown" }
	for _, server := range []access.Newcomers{access.Open, access.Claim} {
		w := newWorld(t, policy.Options{Newcomers: server, Reserved: reserved})
		alice := w.user("alice")
		w.wantRights("before the project, nobody", anonymous, "docker.io/app")
		w.wantRights("before the project, a user", alice, "docker.io/app")
		w.wantRights("another", anonymous, "docker.example/app", pull, push)
		id, claimed := w.project("docker.io", ""), false
		w.ok(w.db.SetProject(w.Context(), none, id, meta.ProjectChange{Claimed: &claimed}))
		for _, own := range []access.Newcomers{"", access.Claim} {
			w.ok(w.db.SetProject(w.Context(), none, id, meta.ProjectChange{Newcomers: &own, Claimed: &claimed}))
			w.wantRights("unclaimed, nobody", anonymous, "docker.io/app")
			w.wantRights("unclaimed, a user", alice, "docker.io/app")
		}
		w.wantRights("a member", w.member("bob", id, "", access.Writer), "docker.io/app", pull, push)
		w.project("shown", access.Open)
		w.wantRights("one that is said to be open", anonymous, "shown/app", pull, push)
	}
}

// claimedNow is what a user who pushes has besides: who pushes first owns the
// project, and may delete from then on.
func claimedNow(welcome bool, server, own access.Newcomers) []registry.Action {
	if welcome && (own == access.Claim || own == "" && server == access.Claim) {
		return []registry.Action{remove}
	}
	return nil
}

func TestClaim(t *testing.T) {
	w := newWorld(t, policy.Options{Newcomers: access.Claim})
	alice, bob := w.user("alice"), w.user("bob")
	w.wantRights("before the project", anonymous, "acme/app", pull, push)
	w.may("a read claims nothing", alice, pull, "acme/app")
	w.mayNot("a deletion claims nothing", alice, remove, "acme/app", registry.Denied)
	w.mayNot("a token that may only pull claims nothing", token(alice, scope("acme/app", "pull")), push, "acme/app", registry.Unauthorized)
	if _, err := w.db.Project(w.Context(), "acme"); !errors.Is(err, meta.ErrNotFound) {
		t.Fatalf("the project is there before anybody pushed: %v", err)
	}
	w.may("the first push", token(alice, scope("acme/app", "push")), registry.BlobMount, "acme/app")
	w.wantRights("the owner", alice, "acme/other", pull, push, remove)
	w.wantRights("who comes later", bob, "acme/app")
	w.wantRights("nobody", anonymous, "acme/app")
	for _, a := range []registry.Action{registry.ManifestWrite, registry.TagWrite, registry.BlobWrite, registry.UploadResume, registry.UploadAppend} {
		name := fmt.Sprint("claimed-by-", uint8(a), "/app")
		w.may("first", alice, a, name)
		w.wantRights("then", bob, name)
	}
}

// TestClaimRace: of many who push first one owns the project; the others have
// no right to push any more, and no push of the winner fails.
func TestClaimRace(t *testing.T) {
	w := newWorld(t, policy.Options{Newcomers: access.Claim})
	var ids []auth.Identity
	for i := range 16 {
		if i%2 == 0 {
			ids = append(ids, w.user(fmt.Sprint("user", i/2)))
		} else {
			ids = append(ids, ids[i-1]) // each pushes two layers at a time
		}
	}
	for round := range 20 {
		repo := fmt.Sprintf("race%d/app", round)
		errs := make([]error, len(ids))
		begin, done := make(chan struct{}), make(chan int)
		for i := range ids {
			go func() {
				<-begin
				errs[i] = w.ask(ids[i], push, repo)
				done <- i
			}()
		}
		close(begin)
		for range ids {
			<-done
		}
		winners := map[string]bool{}
		for i, err := range errs {
			switch {
			case err == nil:
				winners[ids[i].ID] = true
			case !registry.IsCode(err, registry.Denied):
				t.Errorf("user %d: %v", i/2, err)
			}
		}
		for i, err := range errs {
			if winners[ids[i].ID] && err != nil {
				t.Errorf("a push of the winner: %v", err)
			}
		}
		if len(winners) != 1 {
			t.Errorf("%d users have pushed to %s", len(winners), repo)
		}
	}
}

func TestClaimThatFails(t *testing.T) {
	w := newWorld(t, policy.Options{})
	alice := w.user("alice")
	broken := errors.New("the database is down")
	w.Policy = policy.New(w.dir, claimer{broken}, policy.Options{Newcomers: access.Claim})
	if err := w.ask(alice, push, "acme/app"); !errors.Is(err, broken) || registry.CodeOf(err) != registry.Internal {
		t.Errorf("a claim that fails: %v", err)
	}
	w.Policy = policy.New(w.dir, claimer{}, policy.Options{Newcomers: access.Claim})
	w.mayNot("a claim that nobody wins", alice, push, "acme/app", registry.Denied)
	w.Policy = policy.New(w.dir, claimer{access.ErrNotFound}, policy.Options{Newcomers: access.Claim})
	w.mayNot("a claim by who is just gone", alice, push, "acme/app", registry.Denied)
}

func TestDeletedProject(t *testing.T) {
	w := newWorld(t, policy.Options{Newcomers: access.Open})
	acme := w.project("acme", "")
	w.show(acme, access.Public)
	owner := w.member("owner", acme, "", access.Owner)
	robot := w.key(access.Key{ProjectID: acme, Name: "robot", Role: access.Owner})
	_, err := w.db.DeleteProject(w.Context(), none, acme)
	w.ok(err)
	w.wantRights("nobody", anonymous, "acme/app")
	w.wantRights("the owner", owner, "acme/app")
	w.wantRights("everybody's master", local, "acme/app")
	w.wantRights("a stranger", w.user("alice"), "acme/app")
	w.mayNot("its robot", robot, pull, "acme/app", registry.Unauthorized)
	var e *registry.Error
	if err := w.ask(owner, push, "acme/app"); !errors.As(err, &e) || e.Detail == nil {
		t.Errorf("the owner is not told why: %v", err)
	}
	if err := w.ask(w.user("bob"), push, "acme/app"); !errors.As(err, &e) || e.Detail != nil {
		t.Errorf("a stranger is told that there was something: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	w := newWorld(t, policy.Options{ReadOnly: true, Newcomers: access.Claim})
	acme := w.project("acme", "")
	alice := w.member("alice", acme, "", access.Owner)
	for _, id := range []auth.Identity{alice, local} {
		w.may("a read", id, pull, "acme/app")
		for _, a := range []registry.Action{push, remove, registry.UploadResume} {
			w.mayNot("a change", id, a, "acme/app", registry.Unsupported)
		}
	}
	w.mayNot("a change without a right", w.user("bob"), push, "acme/app", registry.Denied)
	w.mayNot("a change by nobody", anonymous, push, "acme/app", registry.Unauthorized)
	w.mayNot("a claim", alice, push, "new/app", registry.Unsupported)
	if _, err := w.db.Project(t.Context(), "new"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("a project was claimed: %v", err)
	}
	w.wantAllowed(alice, scope("acme/app", "pull", "push"), "pull", "push")
}

// TestEveryActionNeedsARight asks for each action, so that one that is added
// cannot be forgotten.
func TestEveryActionNeedsARight(t *testing.T) {
	w := newWorld(t, policy.Options{})
	acme := w.project("acme", "")
	for role, rights := range rightsOf {
		id := w.member(role.String(), acme, "", role)
		for a := registry.Action(0); a < registry.Actions; a++ {
			want := a.Reads() || a.Writes() && len(rights) > 1 || a.Deletes() && len(rights) > 2
			if got := w.ask(id, a, "acme/app") == nil; got != want {
				t.Errorf("a %s may %s: %v", role, a, got)
			}
			if w.ask(anonymous, a, "acme/app") == nil {
				t.Errorf("nobody may %s", a)
			}
			if a != registry.RepositoriesList && w.ask(id, a, "") == nil {
				t.Errorf("a %s may %s everywhere", role, a)
			}
		}
	}
}

func TestLiveness(t *testing.T) {
	w := newWorld(t, policy.Options{})
	acme := w.project("acme", "")
	w.show(acme, access.Public)
	alice := w.member("alice", acme, "", access.Owner)
	gone := w.member("gone", acme, "", access.Owner)
	k := access.Key{UserID: alice.ID, Name: "short", ExpiresAt: time.Now().Add(50 * time.Millisecond)}
	short := w.key(k)
	revoked := w.key(access.Key{ProjectID: acme, Name: "revoked", Role: access.Reader})
	rule := w.rule(access.TrustRule{ProjectID: acme, Name: "rule", Role: access.Reader})
	ended := token(alice, scope("acme/app", "pull"))
	ended.IssuedAt = time.Now().Add(-time.Minute)
	everyone := map[string]auth.Identity{
		"a deleted user": gone, "an expired key": short, "a revoked key": revoked, "a job without its rule": rule, "an ended session": ended,
	}
	for what, id := range everyone {
		w.may(what+", before", id, pull, "acme/app")
	}
	w.ok(w.db.DeleteUser(w.Context(), none, "gone"))
	_, err := w.db.RevokeKey(w.Context(), none, acme, "revoked")
	w.ok(err)
	w.ok(w.db.DeleteTrustRule(w.Context(), none, acme, "rule"))
	w.ok(w.db.EndSessions(w.Context(), none, "alice"))
	time.Sleep(time.Until(k.ExpiresAt))
	for what, id := range everyone {
		for _, a := range []registry.Action{pull, push, remove} {
			want := auth.ErrCredentials
			if id.Scopes != nil {
				want = auth.ErrInvalidToken
			}
			if err := w.mayNot(what, id, a, "acme/app", registry.Unauthorized); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		}
		if _, err := w.Allow(w.Context(), id, scope("acme/app", "pull")); !registry.IsCode(err, registry.Unauthorized) {
			t.Errorf("%s asks for a token: %v", what, err)
		}
	}
	w.may("who has none of that", anonymous, pull, "acme/app")
	w.ok(w.db.SetUser(w.Context(), none, "alice", meta.UserChange{Locked: new(true)}))
	w.mayNot("a locked user", alice, pull, "acme/app", registry.Unauthorized)
}

func TestMountsAreReadAndWritten(t *testing.T) {
	w := newWorld(t, policy.Options{})
	alice := w.member("alice", w.project("acme", ""), "acme/app", access.Writer)
	op := registry.Op{Action: registry.BlobMount, Repo: "acme/app", From: "acme/secret", Ref: oci.DigestRef(oci.SHA256.FromBytes(nil))}
	w.ok(w.For(alice)(w.Context(), op))
	w.mayNot("the other side", alice, registry.BlobRead, "acme/secret", registry.NameUnknown)
}
