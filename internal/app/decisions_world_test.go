package app

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/config"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

const decisionHost = "registry.localhost"

// realm is a whole server with everybody who may come to it, and a project for
// every state that one may be in.
type realm struct {
	*testing.T
	*site
	newcomers access.Newcomers
	library   registrytest.Image // everybody may pull it
	secret    registrytest.Image // administrators may
	corp      string             // id of the organization of all projects below
	users     map[string]meta.User
	askers    []asker // whatever the project
	places    []*place
}

// place is a project in one state, with a repository.
type place struct {
	state      string // absent, unclaimed, claimed, deleted
	visibility access.Visibility
	name, id   string // of the project
	repo       string
	image      registrytest.Image // tagged v1, with a referrer
	spare      registrytest.Image // tagged old, to be deleted
	blob       oci.Descriptor     // that nothing holds
	elsewhere  oci.Descriptor     // a blob of its own in a repository that is private to others
	session    string             // somebody's upload
	askers     []asker            // of this project alone
}

// asker is somebody with a credential.
type asker struct {
	name   string
	header string // Authorization
	owner  string // of upload sessions
	key    string // its id, of a user's
	// again is the same subject by a token that was asked for everything: it
	// must get the same answers. "" for noChange.
	again string
	// role that a user has in the project as a whole; it is restored where
	// claiming has changed it.
	user string
	role access.Role
}

func newRealm(t *testing.T, settings map[string]string) *realm {
	t.Helper()
	flags := map[string]string{"data": t.TempDir(), "listen": "127.0.0.1:0", "url": "https://" + decisionHost}
	for k, v := range settings {
		flags[k] = v
	}
	c, err := config.Load(config.Sources{Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	st, err := openStore(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.close)
	s, err := newSite(t.Context(), c, st, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.closeWithin(time.Minute) })
	return &realm{T: t, site: s, newcomers: access.Newcomers(c.Projects.Newcomers), users: map[string]meta.User{}}
}

func (w *realm) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *realm) db() *meta.DB { return w.store.db }

// noChange is a change that nobody made.
var noChange meta.Change

// build makes places and, where people is set, who comes to them.
func (w *realm) build(people bool) {
	w.Helper()
	org, err := w.db().CreateOrganization(w.Context(), noChange, meta.Organization{Name: "corp"})
	w.ok(err)
	w.corp = org.ID
	w.library = registrytest.PushImage(w, w.store.registry, w.project("library", access.Public, true)+"/base")
	w.secret = registrytest.PushImage(w, w.store.registry, w.project("secret", access.Private, true)+"/base")
	w.places = append(w.places, &place{state: "absent", name: "absent", repo: "absent/app", image: w.library, spare: w.library, blob: w.library.Config})
	for _, state := range []string{"unclaimed", "claimed", "deleted"} {
		for _, v := range []access.Visibility{access.Private, access.Internal, access.Public} {
			w.places = append(w.places, w.place(state, v))
		}
	}
	for _, at := range w.places {
		at.elsewhere = registrytest.PushBlob(w, w.store.registry, w.secret.Repo, []byte("hidden from "+at.repo))
	}
	if people {
		w.people()
	}
	for _, at := range w.places {
		if at.state == "unclaimed" {
			w.ok(w.db().SetProject(w.Context(), noChange, at.id, meta.ProjectChange{Claimed: new(false)}))
		}
	}
}

// project makes a project and returns its name.
func (w *realm) project(name string, v access.Visibility, claimed bool) string {
	w.Helper()
	p, err := w.db().CreateProject(w.Context(), noChange, meta.ProjectSpec{Name: name, Visibility: v})
	w.ok(err)
	w.ok(w.db().SetProject(w.Context(), noChange, p.ID, meta.ProjectChange{Claimed: &claimed}))
	return name
}

func (w *realm) place(state string, v access.Visibility) *place {
	w.Helper()
	at := &place{state: state, visibility: v, name: state + "-" + string(v)}
	at.repo = at.name + "/app"
	p, err := w.db().CreateProject(w.Context(), noChange, meta.ProjectSpec{Name: at.name, OrganizationID: w.corp, Visibility: v})
	w.ok(err)
	at.id = p.ID
	at.image = registrytest.PushImage(w, w.store.registry, at.repo, "v1")
	registrytest.PushReferrer(w, w.store.registry, at.repo, at.image.Manifest.Descriptor(), "application/x.sbom", nil)
	at.spare = registrytest.PushImage(w, w.store.registry, at.repo, "old")
	at.blob = registrytest.PushBlob(w, w.store.registry, at.repo, []byte("nothing holds this"))
	return at
}

// people makes everybody.
func (w *realm) people() {
	w.Helper()
	w.user("root", "") // the first one is an administrator
	w.group()
	var inside, outside []string
	for _, at := range w.places {
		inside, outside = append(inside, at.repo), append(outside, at.name+"/other")
	}
	w.anybody()
	roles := map[string]access.Role{"no role": access.None, "reader": access.Reader, "writer": access.Writer, "maintainer": access.Maintainer, "owner": access.Owner}
	for _, name := range []string{"no role", "reader", "writer", "maintainer", "owner"} {
		w.member("user, "+name, name, roles[name])
	}
	w.byPassword("user by password, writer", "typist", access.Writer)
	w.member("user, writer in organization", "clerk", access.None)
	_, err := w.db().PutMember(w.Context(), noChange, meta.Member{User: "clerk", OrganizationID: w.corp, Role: access.Writer})
	w.ok(err)
	w.member("user, writer by group", "peer", access.None)
	w.ok(w.db().AddGroupUser(w.Context(), noChange, "devs", "peer"))
	w.prefixed("user, writer of the prefix", "within", inside)
	w.prefixed("user, writer of another prefix", "beside", outside)
	admin := w.userKey("administrator", "root", access.Key{})
	byToken := asker{name: "administrator, token", header: admin.again, owner: admin.owner, user: "root"}
	w.askers = append(w.askers, admin, byToken)

	const owner = "owner"
	w.owned("key of the owner, reader", access.Key{Role: access.Reader})
	w.owned("key of the owner, this prefix", access.Key{Prefixes: inside})
	w.owned("key of the owner, another prefix", access.Key{Prefixes: outside})
	w.owned("key of the owner, this address", access.Key{Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	w.owned("key of the owner, another address", access.Key{Addresses: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	w.owned("key of the owner, expired", access.Key{ExpiresAt: time.Now().Add(-time.Hour)})
	revoked := w.owned("key of the owner, revoked", access.Key{Name: "revoked"})
	_, err = w.db().RevokeKey(w.Context(), noChange, w.users[owner].ID, "revoked")
	w.ok(err)
	w.askers = append(w.askers, asker{name: "token of a key that was revoked", header: revoked.again, owner: revoked.owner})
	w.lapsed()
	for _, at := range w.places {
		if at.state != "absent" {
			w.robots(at)
		}
	}
	w.strangers()
}

// anybody adds who needs no account.
func (w *realm) anybody() {
	w.askers = append(w.askers,
		asker{name: "anonymous"},
		asker{name: "anonymous, token", header: w.token(access.Principal{}, w.everything())},
		asker{name: "anonymous, token for nothing", header: w.token(access.Principal{}, nil)})
}

func (w *realm) group() {
	w.Helper()
	_, err := w.db().CreateGroup(w.Context(), noChange, meta.Group{Name: "devs"})
	w.ok(err)
	for _, at := range w.places {
		if at.state != "absent" {
			_, err := w.db().PutMember(w.Context(), noChange, meta.Member{Group: "devs", ProjectID: at.id, Role: access.Writer})
			w.ok(err)
		}
	}
}

func (w *realm) user(name, password string) {
	w.Helper()
	hash := ""
	if password != "" {
		var err error
		hash, err = w.callers.Hash(w.Context(), password)
		w.ok(err)
	}
	u, err := w.db().CreateUser(w.Context(), noChange, meta.UserSpec{Name: name, Password: hash})
	w.ok(err)
	w.users[name] = u
}

// grant gives a user a role in every project.
func (w *realm) grant(user string, role access.Role) {
	w.Helper()
	for _, at := range w.places {
		if at.state == "absent" || role == access.None {
			continue
		}
		_, err := w.db().PutMember(w.Context(), noChange, meta.Member{User: user, ProjectID: at.id, Role: role})
		w.ok(err)
	}
}

// member adds a user with a role in every project.
func (w *realm) member(name, user string, role access.Role) {
	w.Helper()
	w.user(user, "")
	w.grant(user, role)
	a := w.userKey(name, user, access.Key{})
	a.role = role
	w.askers = append(w.askers, a)
}

func (w *realm) byPassword(name, user string, role access.Role) {
	w.Helper()
	const password = "correct horse battery"
	w.user(user, password)
	w.grant(user, role)
	p := w.principal(user, "")
	w.askers = append(w.askers, asker{name: name, header: basicLogin(user, password), owner: p.Owner(),
		again: w.token(p, w.everything()), user: user, role: role})
}

func (w *realm) prefixed(name, user string, prefixes []string) {
	w.Helper()
	w.member(name, user, access.None)
	for i, at := range w.places {
		if at.state != "absent" {
			_, err := w.db().PutMember(w.Context(), noChange, meta.Member{User: user, ProjectID: at.id, Prefix: prefixes[i], Role: access.Writer})
			w.ok(err)
		}
	}
}

// owned adds a key of the user who owns every project.
func (w *realm) owned(name string, k access.Key) asker {
	w.Helper()
	a := w.userKey(name, "owner", k)
	a.role = access.Owner
	w.askers = append(w.askers, a)
	return a
}

// userKey is a user by a key.
func (w *realm) userKey(name, user string, k access.Key) asker {
	w.Helper()
	k.UserID = w.users[user].ID
	if k.Name == "" {
		k.Name = name
	}
	secret, hash := auth.NewKey(auth.UserKey)
	k, err := w.db().CreateKey(w.Context(), noChange, k, hash)
	w.ok(err)
	p := w.principal(user, k.ID)
	return asker{name: name, header: basicLogin("", secret), owner: p.Owner(), key: k.ID, again: w.token(p, w.everything()), user: user}
}

// lapsed adds users who lost what they had, and tokens that are worth less than
// their users.
func (w *realm) lapsed() {
	w.Helper()
	w.member("user, writer, locked", "locked", access.Writer)
	w.ok(w.db().SetUser(w.Context(), noChange, "locked", meta.UserChange{Locked: new(true)}))
	w.user("demoted", "")
	w.user("ended", "")
	w.grant("ended", access.Writer)
	demoted, writer, ended := w.principal("demoted", ""), w.principal("writer", ""), w.principal("ended", "")
	w.grant("demoted", access.Owner)
	w.askers = append(w.askers,
		asker{name: "token of a role that was removed", header: w.token(demoted, w.everything()), owner: demoted.Owner(), user: "demoted"},
		asker{name: "token of a session that was ended", header: w.token(ended, w.everything()), owner: ended.Owner(), user: "ended", role: access.Writer},
		asker{name: "token of the writer, for nothing", header: w.token(writer, nil), owner: writer.Owner(), user: "writer", role: access.Writer},
		asker{name: "token of the writer, to pull", header: w.token(writer, w.everything("pull")), owner: writer.Owner(), user: "writer", role: access.Writer},
		asker{name: "token of no role, for nothing", header: w.token(w.principal("no role", ""), nil), owner: w.owner("no role"), user: "no role"})
	for _, at := range w.places {
		if at.state != "absent" {
			w.ok(w.db().RemoveMember(w.Context(), noChange, meta.Member{User: "demoted", ProjectID: at.id}))
		}
	}
	time.Sleep(2 * time.Millisecond) // sessions end by the millisecond
	w.ok(w.db().EndSessions(w.Context(), noChange, "ended"))
}

// robots adds a project's own keys and trust rules.
func (w *realm) robots(at *place) {
	w.Helper()
	for _, role := range []access.Role{access.Reader, access.Writer, access.Maintainer, access.Owner} {
		at.askers = append(at.askers, w.robot("robot, "+role.String(), access.Key{ProjectID: at.id, Role: role}))
	}
	at.askers = append(at.askers,
		w.robot("robot, writer of another prefix", access.Key{ProjectID: at.id, Role: access.Writer, Prefixes: []string{at.name + "/other"}}),
		w.job("job, reader", access.TrustRule{ProjectID: at.id, Role: access.Reader}),
		w.job("job, writer", access.TrustRule{ProjectID: at.id, Role: access.Writer}))
}

func (w *realm) robot(name string, k access.Key) asker {
	w.Helper()
	k.Name = name
	secret, hash := auth.NewKey(auth.ProjectKey)
	k, err := w.db().CreateKey(w.Context(), noChange, k, hash)
	w.ok(err)
	p := access.Principal{Kind: access.Robot, ID: k.ID, KeyID: k.ID}
	return asker{name: name, header: basicLogin(name+"@"+k.ProjectID, secret), owner: p.Owner(), again: w.token(p, w.everything())}
}

func (w *realm) job(name string, r access.TrustRule) asker {
	w.Helper()
	r.Name, r.Issuer, r.Audience = name, "https://issuer.example", decisionHost
	r, err := w.db().CreateTrustRule(w.Context(), noChange, r)
	w.ok(err)
	p := access.Principal{Kind: access.Workload, ID: r.ID, Name: name}
	return asker{name: name, header: w.token(p, w.everything()), owner: p.Owner()}
}

// strangers adds who belongs to another project.
func (w *realm) strangers() {
	w.Helper()
	library, err := w.db().Project(w.Context(), "library")
	w.ok(err)
	w.askers = append(w.askers,
		w.robot("robot of another project, writer", access.Key{ProjectID: library.ID, Role: access.Writer}),
		w.job("job of another project, writer", access.TrustRule{ProjectID: library.ID, Role: access.Writer}))
}

func (w *realm) principal(user, key string) access.Principal {
	return access.Principal{Kind: access.User, ID: w.users[user].ID, Name: user, KeyID: key}
}

func (w *realm) owner(user string) string {
	p := w.principal(user, "")
	return p.Owner()
}

// everything is all that a token can be asked for, or the actions on all that
// there is.
func (w *realm) everything(actions ...string) []auth.Scope {
	list := []auth.Scope{{Type: "registry", Name: "catalog", Actions: []string{"*"}}}
	if len(actions) == 0 {
		actions = []string{"*"}
	}
	repos := []string{w.library.Repo, w.secret.Repo}
	for _, at := range w.places {
		repos = append(repos, at.repo)
	}
	for _, repo := range repos {
		list = append(list, auth.Scope{Type: "repository", Name: repo, Actions: actions})
	}
	return list
}

// token is the Authorization of a token that was asked for scopes.
func (w *realm) token(p access.Principal, scopes []auth.Scope) string {
	w.Helper()
	service, _ := w.tokens.Service("")
	token, _, err := w.tokens.Mint(w.Context(), p, service, scopes)
	w.ok(err)
	return "Bearer " + token
}

func basicLogin(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// enter deletes what is to be deleted.
func (w *realm) enter(at *place) {
	w.Helper()
	if at.state == "deleted" {
		_, err := w.db().DeleteProject(w.Context(), noChange, at.id)
		w.ok(err)
	}
}

// restore puts a place back into its state after somebody has changed it.
func (w *realm) restore(at *place, a *asker, deleted bool) {
	w.Helper()
	p, err := w.db().Project(w.Context(), at.name)
	switch {
	case errors.Is(err, meta.ErrNotFound) && at.state == "absent":
		return
	case err != nil:
		w.Fatal(err)
	case at.state == "absent":
		w.purge(p.ID)
		return
	}
	if deleted {
		registrytest.PushManifest(w, w.store.registry, at.repo, at.spare.Manifest, "old")
		registrytest.PushBlob(w, w.store.registry, at.repo, []byte("nothing holds this"))
	}
	// What was mounted here would be found here by who comes next.
	for _, d := range []oci.Digest{w.secret.Config.Digest, w.library.Config.Digest, at.elsewhere.Digest} {
		if err := w.store.registry.DeleteBlob(w.Context(), at.repo, d); err != nil && !registry.IsCode(err, registry.BlobUnknown) {
			w.Fatal(err)
		}
	}
	if p.Claimed == (at.state == "claimed") {
		return
	}
	m := meta.Member{User: a.user, ProjectID: at.id, Role: a.role}
	if a.role == access.None {
		w.ok(w.db().RemoveMember(w.Context(), noChange, m))
	} else {
		_, err := w.db().PutMember(w.Context(), noChange, m)
		w.ok(err)
	}
	w.ok(w.db().SetProject(w.Context(), noChange, at.id, meta.ProjectChange{Claimed: new(false)}))
}

// purge removes a project as if it had never been.
func (w *realm) purge(id string) {
	w.Helper()
	_, err := w.db().DeleteProject(w.Context(), noChange, id)
	w.ok(err)
	for purged := 0; purged == 0; {
		purged, _, err = w.db().PurgeProjects(w.Context(), time.Now().Add(time.Hour), 1000)
		w.ok(err)
	}
}

// session begins an upload session for the asker, whatever the asker may do. Of
// a project that is not there one cannot be had.
func (w *realm) session(at *place, a *asker) string {
	ctx := audit.WithCaller(context.WithoutCancel(w.Context()), &audit.Caller{Owner: a.owner})
	u, err := w.store.registry.StartUpload(ctx, at.repo, registryUpload)
	if err != nil {
		return "0192f0c1-0000-7000-8000-000000000000"
	}
	return u.ID()
}

func (at *place) String() string {
	if at.visibility == "" {
		return at.state
	}
	return fmt.Sprint(at.state, ", ", at.visibility)
}
