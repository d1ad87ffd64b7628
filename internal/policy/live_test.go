package policy_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/policy"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// change is something that takes rights away, and back.
type change struct {
	name       string
	take, give func(w *world)
}

// changes to what the user alice may do in the project acme.
func changes(acme string) []change {
	set := func(c meta.UserChange) func(w *world) {
		return func(w *world) { w.ok(w.db.SetUser(w.Context(), none, "alice", c)) }
	}
	show := func(v access.Visibility) func(w *world) { return func(w *world) { w.show(acme, v) } }
	member := meta.Member{User: "alice", ProjectID: acme, Role: access.Writer}
	return []change{
		{"role removed", func(w *world) { w.ok(w.db.RemoveMember(w.Context(), none, member)) }, func(w *world) {
			_, err := w.db.PutMember(w.Context(), none, member)
			w.ok(err)
		}},
		{"user locked", set(meta.UserChange{Locked: new(true)}), set(meta.UserChange{Locked: new(false)})},
		{"key revoked", func(w *world) {
			u, err := w.db.User(w.Context(), "alice")
			w.ok(err)
			_, err = w.db.RevokeKey(w.Context(), none, u.ID, "laptop")
			w.ok(err)
		}, nil},
		{"visibility changed", show(access.Private), show(access.Internal)},
	}
}

// TestChangesBite: what is taken away is gone with the next request, whatever
// the credential was worth when it was given.
func TestChangesBite(t *testing.T) {
	w := newWorld(t, policy.Options{})
	acme := w.project("acme", "")
	w.show(acme, access.Internal)
	alice := w.member("alice", acme, "", access.Writer)
	byKey := w.key(access.Key{UserID: alice.ID, Name: "laptop"})
	stranger := w.user("stranger")
	issued := time.Now()
	for _, c := range changes(acme) {
		id, a, repo := alice, push, "acme/app"
		switch c.name {
		case "key revoked":
			id = byKey
		case "visibility changed":
			id, a = stranger, pull
		}
		tok := token(id, scope(repo, "pull", "push"))
		tok.IssuedAt = issued.Add(time.Hour)
		check := w.For(tok) // of a request that runs all the time
		w.may(c.name+", before", tok, a, repo)
		c.take(w)
		if err := check(t.Context(), registry.Op{Action: a, Repo: repo}); err == nil {
			t.Errorf("%s: a check that was made before still allows", c.name)
		}
		if w.ask(id, a, repo) == nil || w.ask(tok, a, repo) == nil {
			t.Errorf("%s: the next request is allowed", c.name)
		}
		if c.give != nil {
			c.give(w)
			w.may(c.name+", given back", tok, a, repo)
		}
	}
}

// hosted is a registry of this world as an identity sees it.
func (w *world) hosted() func(auth.Identity) registry.Registry {
	r := hosted.New(w.db, memblob.New(), hosted.Options{})
	return func(id auth.Identity) registry.Registry { return registry.Guard(r, w.For(id)) }
}

// TestRunningUpload: a session does not outlive its right, neither between two
// requests nor while the last one brings its bytes, and loses none of them.
func TestRunningUpload(t *testing.T) {
	w := newWorld(t, policy.Options{})
	acme := w.project("acme", "")
	alice := w.member("alice", acme, "", access.Writer)
	open := w.hosted()
	content := registrytest.Random(300_000)
	d := oci.SHA256.FromBytes(content)
	up, err := open(alice).StartUpload(t.Context(), "acme/app", registry.UploadOptions{})
	w.ok(err)
	w.ok(up.Append(t.Context(), 0, bytes.NewReader(content[:1000])))
	role := changes(acme)[0]

	role.take(w)
	_, err = open(alice).ResumeUpload(t.Context(), "acme/app", up.ID())
	registrytest.WantCode(t, "resume after the role has gone", err, registry.Denied)
	_, err = up.Commit(t.Context(), -1, bytes.NewReader(content[1000:]), d)
	registrytest.WantCode(t, "commit after the role has gone", err, registry.Denied)

	role.give(w)
	up, err = open(alice).ResumeUpload(t.Context(), "acme/app", up.ID())
	w.ok(err)
	body := io.MultiReader(bytes.NewReader(content[1000:200_000]), atEnd(func() { role.take(w) }), bytes.NewReader(content[200_000:]))
	_, err = up.Commit(t.Context(), 1000, body, d)
	registrytest.WantCode(t, "commit while the role goes", err, registry.Denied)

	role.give(w)
	r := open(alice)
	_, err = r.Blob(t.Context(), "acme/app", d)
	registrytest.WantCode(t, "find what was not committed", err, registry.NameUnknown)
	up, err = r.ResumeUpload(t.Context(), "acme/app", up.ID())
	w.ok(err)
	if up.Offset() != int64(len(content)) {
		t.Errorf("the session holds %d bytes, want %d", up.Offset(), len(content))
	}
	_, err = up.Commit(t.Context(), -1, nil, d)
	w.ok(err)
	registrytest.WantBlob(t, r, "acme/app", d, content)
}

// atEnd is an empty reader that does something when it is read.
type atEnd func()

func (f atEnd) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// TestOtherReplica: what is changed through one server bites on another one
// within a second.
func TestOtherReplica(t *testing.T) {
	first := newWorld(t, policy.Options{})
	acme := first.project("acme", "")
	first.show(acme, access.Internal)
	alice := first.member("alice", acme, "", access.Writer)
	byKey := first.key(access.Key{UserID: alice.ID, Name: "laptop"})
	stranger := first.user("stranger")
	first.open(policy.Options{}, true)
	second := &world{TB: t, path: first.path}
	second.open(policy.Options{}, true)
	for _, c := range changes(acme) {
		id, a := alice, push
		switch c.name {
		case "key revoked":
			id = byKey
		case "visibility changed":
			id, a = stranger, pull
		}
		second.may(c.name+", before", id, a, "acme/app")
		c.take(first)
		taken := time.Now()
		if first.ask(id, a, "acme/app") == nil {
			t.Errorf("%s: it does not bite where it was changed", c.name)
		}
		for second.ask(id, a, "acme/app") == nil {
			if time.Since(taken) > time.Second {
				t.Fatalf("%s: it does not bite on another server after a second", c.name)
			}
			time.Sleep(time.Millisecond)
		}
		if c.give == nil {
			continue
		}
		c.give(first)
		given := time.Now()
		for second.ask(id, a, "acme/app") != nil {
			if time.Since(given) > time.Second {
				t.Fatalf("%s: it is not given back on another server after a second", c.name)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// TestClaimOnTwoReplicas: two servers let one user have a project.
func TestClaimOnTwoReplicas(t *testing.T) {
	o := policy.Options{Newcomers: access.Claim}
	first := newWorld(t, o)
	users := []auth.Identity{first.user("alice"), first.user("bob")}
	first.open(o, true)
	second := &world{TB: t, path: first.path}
	second.open(o, true)
	for _, repo := range []string{"a/app", "b/app", "c/app", "d/app", "e/app"} {
		errs := make(chan error)
		for i, w := range []*world{first, second} {
			go func() { errs <- w.ask(users[i], push, repo) }()
		}
		a, b := <-errs, <-errs
		if (a == nil) == (b == nil) {
			t.Errorf("%s: %v and %v; want one to win", repo, a, b)
		}
		for _, err := range []error{a, b} {
			if err != nil && !registry.IsCode(err, registry.Denied) {
				t.Errorf("%s: %v", repo, err)
			}
		}
	}
}

// TestClaimIsKnownEverywhere: the layers of one push may come in at several
// servers, of which one claims the project.
func TestClaimIsKnownEverywhere(t *testing.T) {
	o := policy.Options{Newcomers: access.Claim}
	first := newWorld(t, o)
	alice, bob := first.user("alice"), first.user("bob")
	first.open(o, true)
	second := &world{TB: t, path: first.path}
	second.open(o, true)
	for _, name := range []string{"a", "b", "c"} {
		second.may("a server that has seen her", alice, pull, name+"1/app")
		first.may("the first layer", alice, push, name+"/app")
		second.may("the second layer", alice, push, name+"/app")
		second.mayNot("somebody else", bob, push, name+"/app", registry.Denied)
	}
}
