package metatest

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

// projectID finds a project by name.
func (e *env) projectID(name string) string {
	e.Helper()
	p, err := e.db.Project(e.Context(), name)
	e.ok(err)
	return p.ID
}

// team fills the project "team" and returns its id.
func (e *env) team() string {
	e.Helper()
	d, _ := e.push(repo, "abc")
	m := e.put(image(repo, "m", d), "v1", "v2")
	e.put(index(repo, "index", m), "all")
	e.push("team", "top")
	e.put(sparse(image("team/deep/er", "s", digest("absent"))), "v1")
	e.push("teamwork/app", "abc")
	return e.projectID("team")
}

var teamCounts = meta.Counts{Repositories: 3, Tags: 4, Manifests: 3, Bytes: 3 + 1 + 5 + 3 + 1}

func (e *env) names() []string {
	e.Helper()
	list, err := e.db.Repositories(e.Context(), "", 1000)
	e.ok(err)
	return list
}

func (e *env) wantNames(want ...string) {
	e.Helper()
	if got := e.names(); !slices.Equal(got, want) {
		e.Errorf("repositories %v, want %v", got, want)
	}
}

// unseen checks that no verb finds anything of the project "team".
func (e *env) unseen() {
	e.Helper()
	ctx, d := e.Context(), digest("abc")
	for _, name := range []string{repo, "team", "team/deep/er"} {
		e.noManifest(name, oci.TagRef("v1"), meta.ErrNoRepository)
		e.noManifest(name, oci.DigestRef(digest("m")), meta.ErrNoRepository)
		_, err := e.db.Blob(ctx, name, d)
		e.wantErr("find a blob in "+name, err, meta.ErrNoRepository)
		_, err = e.db.Tags(ctx, name, "", 10)
		e.wantErr("list tags of "+name, err, meta.ErrNoRepository)
		list, err := e.db.Referrers(ctx, name, d, "", "", 10)
		if e.ok(err); len(list) != 0 {
			e.Errorf("%s has referrers %v", name, list)
		}
		e.wantErr("touch", e.db.TouchBlob(ctx, name, d), meta.ErrNotFound)
		e.wantErr("put", e.db.PutManifest(ctx, image(name, "new")), meta.ErrNoRepository)
		e.wantErr("delete a tag", e.db.DeleteTag(ctx, name, "v1"), meta.ErrNoRepository)
		e.wantErr("delete a manifest", e.db.DeleteManifest(ctx, name, digest("m")), meta.ErrNoRepository)
		e.wantErr("delete a blob", e.db.DeleteBlob(ctx, name, d), meta.ErrNoRepository)
		_, err = e.db.Mount(ctx, "mine/app", name, digest("top"))
		e.wantErr("mount from "+name, err, meta.ErrNotFound)
		_, err = e.db.Mount(ctx, name, "teamwork/app", d)
		e.wantErr("mount into "+name, err, meta.ErrNoRepository)
	}
	_, err := e.db.Mount(ctx, "mine/app", "", digest("top"))
	e.wantErr("mount from anywhere", err, meta.ErrNotFound)
	e.wantErr("put into a new repository", e.db.PutManifest(ctx, image("team/new", "new")), meta.ErrNoRepository)
	e.wantNames("teamwork/app")
}

// whole checks that everything of the project is there under its name.
func (e *env) whole(name string) {
	e.Helper()
	e.wantManifest(name+"/app", oci.TagRef("v1"), "m")
	e.wantManifest(name+"/app", oci.TagRef("all"), "index")
	e.wantManifest(name+"/deep/er", oci.TagRef("v1"), "s")
	e.hasBlob(name+"/app", digest("abc"))
	e.hasBlob(name, digest("top"))
	n, err := e.db.CountProject(e.Context(), e.projectID(name))
	if e.ok(err); n != teamCounts {
		e.Errorf("the project has %+v, want %+v", n, teamCounts)
	}
	e.wantAgreement()
}

// purge purges in batches of n rows until nothing is left to do.
func (e *env) purge(before time.Time, n int) (purged int) {
	e.Helper()
	for {
		gone, rows, err := e.db.PurgeProjects(e.Context(), before, n)
		e.ok(err)
		if purged += gone; rows < n {
			return purged
		}
		if rows > n {
			e.Fatalf("a batch of %d has %d rows", n, rows)
		}
		findings, err := e.db.CheckDatabase(e.Context())
		if e.ok(err); len(findings) != 0 {
			e.Fatalf("in the midst of a purge: %v", findings)
		}
	}
}

// change is one whose event is told from others.
func change(action string) meta.Change {
	return meta.Change{Event: audit.Event{Action: action, Project: "team", Status: 200}}
}

// recorded lists the actions in the trail of the project "team".
func (e *env) recorded() (actions []string) {
	e.Helper()
	events, _, err := e.db.ListAudit(e.Context(), meta.AuditFilter{Project: "team"}, "", 1000)
	e.ok(err)
	for _, event := range events {
		actions = append(actions, event.Action)
	}
	return actions
}

var renameCases = []testCase{
	{"rename/everything moves", func(e *env) {
		id := e.team()
		u, bystander := e.lease(repo, 3), e.lease("teamwork/app", 3)
		before := e.accessGeneration()
		e.ok(e.db.RenameProject(e.Context(), change("project.rename"), id, "crew"))
		if e.accessGeneration() <= before {
			e.Error("a renaming does not raise the generation")
		}
		e.whole("crew")
		e.wantNames("crew", "crew/app", "crew/deep/er", "teamwork/app")
		if p := e.findProject("crew"); !p.NamedAt.Equal(e.clock.now()) {
			e.Errorf("named at %v, want %v", p.NamedAt, e.clock.now())
		}
		_, err := e.db.Blob(e.Context(), repo, digest("abc"))
		e.wantErr("find under the old name", err, meta.ErrNoRepository)
		_, err = e.db.Upload(e.Context(), repo, u.ID)
		e.wantErr("find the session under the old name", err, meta.ErrNotFound)
		_, err = e.db.Upload(e.Context(), "crew/app", u.ID)
		e.ok(err)
		_, err = e.db.Upload(e.Context(), "teamwork/app", bystander.ID)
		e.ok(err)
		if got := e.recorded(); !slices.Equal(got, []string{"project.rename"}) {
			e.Errorf("the trail has %v", got)
		}
		// The one that was being committed meanwhile goes where its session went.
		_, err = e.db.CommitBlob(e.Context(), u, digest("new"))
		e.ok(err)
		e.hasBlob("crew/app", digest("new"))
		_, err = e.db.Project(e.Context(), "team")
		e.wantErr("find the old project", err, meta.ErrNotFound)
		e.push(repo, "x") // the old name is free
		if e.projectID("team") == id {
			e.Error("the old name leads to the renamed project")
		}
		e.wantAgreement()
	}},
	{"rename/limits move along", func(e *env) {
		id := e.team()
		user := e.claimant("alice")
		member := meta.Member{User: "alice", ProjectID: id, Prefix: "team/app", Role: access.Writer}
		_, err := e.db.PutMember(e.Context(), meta.Change{}, member)
		e.ok(err)
		robot, err := e.db.CreateKey(e.Context(), meta.Change{}, access.Key{ProjectID: id, Name: "ci", Role: access.Writer,
			Prefixes: []string{"team", "team/app"}, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, "h1")
		e.ok(err)
		own, err := e.db.CreateKey(e.Context(), meta.Change{}, access.Key{UserID: user, Name: "laptop",
			Prefixes: []string{"teamwork", "team/deep", "other/team"}}, "h2")
		e.ok(err)
		rule, err := e.db.CreateTrustRule(e.Context(), meta.Change{}, access.TrustRule{ProjectID: id, Name: "gh", Issuer: "https://i",
			Audience: "a", Claims: map[string]string{"ref": "x"}, Role: access.Writer, Prefixes: []string{"team/app"}})
		e.ok(err)
		e.ok(e.db.RenameProject(e.Context(), meta.Change{}, id, "crew"))
		s, err := e.db.UserAccess(e.Context(), user)
		if e.ok(err); len(s.Grants) != 1 || s.Grants[0].Prefix != "crew/app" {
			e.Errorf("grants are %+v", s.Grants)
		}
		for id, want := range map[string][]string{robot.ID: {"crew", "crew/app"}, own.ID: {"teamwork", "crew/deep", "other/team"}} {
			if k, err := e.db.KeyByID(e.Context(), id); err != nil || !slices.Equal(k.Prefixes, want) {
				e.Errorf("the key %s is good for %v, want %v: %v", k.Name, k.Prefixes, want, err)
			}
		}
		if r, err := e.db.TrustRuleByID(e.Context(), rule.ID); err != nil || !slices.Equal(r.Prefixes, []string{"crew/app"}) {
			e.Errorf("the trust rule is good for %v: %v", r.Prefixes, err)
		}
	}},
	{"rename/refused", func(e *env) {
		id := e.team()
		e.push("gone/app", "a")
		_, err := e.db.DeleteProject(e.Context(), meta.Change{}, e.projectID("gone"))
		e.ok(err)
		e.push("team/"+strings.Repeat("x", 200), "long")
		for name, want := range map[string]error{"teamwork": meta.ErrExists, "gone": meta.ErrExists, "a/b": oci.ErrRepository,
			"": oci.ErrRepository, "~x": oci.ErrRepository, "Crew": oci.ErrRepository, strings.Repeat("x", 100): oci.ErrRepository} {
			e.wantErr("rename to "+name, e.db.RenameProject(e.Context(), change("no"), id, name), want)
		}
		e.wantErr("rename nothing", e.db.RenameProject(e.Context(), change("no"), "none", "crew"), meta.ErrNotFound)
		e.wantErr("rename what is deleted", e.db.RenameProject(e.Context(), change("no"), e.projectID("gone"), "crew"), meta.ErrNotFound)
		e.wantManifest(repo, oci.TagRef("v1"), "m")
		if got := e.recorded(); len(got) != 0 {
			e.Errorf("the trail has %v", got)
		}
		e.ok(e.db.RenameProject(e.Context(), change("same"), id, "team"))
		e.wantManifest(repo, oci.TagRef("v1"), "m")
	}},
	{"rename/there and back", func(e *env) {
		id := e.team()
		for _, name := range []string{"t", "tea", "teamx", "team"} {
			e.ok(e.db.RenameProject(e.Context(), meta.Change{}, id, name))
			e.whole(name)
		}
	}},
	{"rename/beside pushes", func(e *env) {
		id := e.team()
		for _, err := range together(20, func(i int) error {
			if i == 10 {
				return e.db.RenameProject(e.Context(), meta.Change{}, id, "crew")
			}
			return e.db.PutManifest(e.Context(), image(repo, fmt.Sprint("m", i)))
		}) {
			e.ok(err)
		}
		e.wantAgreement()
	}},
}

var projectDeleteCases = []testCase{
	{"project delete/hides and gives back", func(e *env) {
		id := e.team()
		u, ended := e.lease(repo, 3), e.lease("team", 3)
		e.release(u)
		for range 2 {
			before := e.accessGeneration()
			n, err := e.db.DeleteProject(e.Context(), change("project.delete"), id)
			if e.ok(err); n != teamCounts {
				e.Errorf("deleted %+v, want %+v", n, teamCounts)
			}
			if e.accessGeneration() <= before {
				e.Error("a deletion does not raise the generation")
			}
			e.unseen()
			if p, err := e.db.ProjectAccess(e.Context(), "team"); err != nil || !p.Deleted {
				e.Errorf("the project is %+v, %v", p, err)
			}
			_, err = e.db.Upload(e.Context(), repo, u.ID)
			e.wantErr("find a session", err, meta.ErrNotFound)
			_, err = e.db.CommitBlob(e.Context(), ended, digest("late"))
			e.wantErr("commit what was being received", err, meta.ErrNoRepository)
			_, err = e.db.DeleteProject(e.Context(), change("no"), id)
			e.wantErr("delete twice", err, meta.ErrNotFound)
			_, err = e.db.CreateProject(e.Context(), meta.Change{}, meta.ProjectSpec{Name: "team", Visibility: access.Private})
			e.wantErr("take its name", err, meta.ErrExists)
			if n, err := e.db.CountProject(e.Context(), id); err != nil || n != teamCounts {
				e.Errorf("hidden are %+v, %v", n, err)
			}
			e.ok(e.db.RestoreProject(e.Context(), change("project.restore"), id))
			e.whole("team")
			_, err = e.db.Upload(e.Context(), repo, u.ID)
			e.ok(err)
		}
		_, err := e.db.CommitBlob(e.Context(), ended, digest("late"))
		e.ok(err)
		e.wantErr("restore what is there", e.db.RestoreProject(e.Context(), change("no"), id), meta.ErrNotFound)
		e.wantErr("restore nothing", e.db.RestoreProject(e.Context(), change("no"), "none"), meta.ErrNotFound)
		_, err = e.db.DeleteProject(e.Context(), change("no"), "none")
		e.wantErr("delete nothing", err, meta.ErrNotFound)
		_, err = e.db.CountProject(e.Context(), "none")
		e.wantErr("count nothing", err, meta.ErrNotFound)
		if got, want := e.recorded(), []string{"project.delete", "project.restore", "project.delete", "project.restore"}; !slices.Equal(got, want) {
			e.Errorf("the trail has %v, want %v", got, want)
		}
	}},
	{"project delete/collection goes on", func(e *env) {
		id := e.team()
		e.ok(e.db.DeleteManifest(e.Context(), "team/deep/er", digest("s")))
		_, err := e.db.DeleteProject(e.Context(), meta.Change{}, id)
		e.ok(err)
		e.clock.move(day)
		e.wantCollected(2, 3) // "top" and the bystander's blob
		e.ok(e.db.RestoreProject(e.Context(), meta.Change{}, id))
		e.hasBlob(repo, digest("abc"))
		e.noBlob("team", digest("top"))
		e.wantAgreement()
	}},
	{"project delete/checks show its names", func(e *env) {
		id := e.team()
		u := e.lease(repo, 1)
		_, err := e.db.DeleteProject(e.Context(), meta.Change{}, id)
		e.ok(err)
		if got, err := e.db.LinkedBy(e.Context(), digest("top"), 10); err != nil || !slices.Equal(got, []string{"team"}) {
			e.Errorf("linked by %v, %v", got, err)
		}
		manifests, err := e.db.CheckManifests(e.Context(), "", "", 10)
		if e.ok(err); len(manifests) != 3 || strings.HasPrefix(manifests[0].Repository, "~") {
			e.Errorf("manifests %+v", manifests)
		}
		sessions, err := e.db.CheckUploads(e.Context(), "", 10)
		if e.ok(err); len(sessions) != 1 || sessions[0].Repository != repo {
			e.Errorf("sessions %+v", sessions)
		}
		if v, err := e.db.UploadVersion(e.Context(), u.ID); err != nil || v != u.Version {
			e.Errorf("version %d, %v; want %d", v, err, u.Version)
		}
	}},
	{"project delete/beside pushes", func(e *env) {
		id := e.team()
		for i, err := range together(20, func(i int) error {
			if i == 10 {
				_, err := e.db.DeleteProject(e.Context(), meta.Change{}, id)
				return err
			}
			return e.db.PutManifest(e.Context(), image(fmt.Sprint("team/app", i), "m"))
		}) {
			if err != nil && (i == 10 || err.Error() != meta.ErrNoRepository.Error()) {
				e.Errorf("write %d: %v", i, err)
			}
		}
		e.wantNames("teamwork/app")
		e.wantAgreement()
	}},
}

var purgeCases = []testCase{
	{"purge/in time", func(e *env) {
		id := e.team()
		_, err := e.db.DeleteProject(e.Context(), meta.Change{}, id)
		e.ok(err)
		deleted := e.clock.now()
		e.clock.move(time.Second)
		if n := e.purge(deleted, 100); n != 0 {
			e.Errorf("%d projects are purged too early", n)
		}
		e.ok(e.db.RestoreProject(e.Context(), meta.Change{}, id))
		if n := e.purge(e.clock.now(), 100); n != 0 {
			e.Errorf("%d projects are purged that are not deleted", n)
		}
		e.whole("team")
	}},
	{"purge/takes everything", func(e *env) {
		for _, n := range []int{1, 2, 3, 7, 1000} {
			wantPurged(e, n)
		}
	}},
	{"purge/cannot be undone halfway", func(e *env) {
		id := e.team()
		_, err := e.db.DeleteProject(e.Context(), meta.Change{}, id)
		e.ok(err)
		e.clock.move(time.Second)
		_, rows, err := e.db.PurgeProjects(e.Context(), e.clock.now(), 2)
		if e.ok(err); rows != 2 {
			e.Errorf("%d rows are purged, want 2", rows)
		}
		e.wantErr("restore", e.db.RestoreProject(e.Context(), meta.Change{}, id), meta.ErrNotFound)
		e.wantAgreement()
		// It is finished whatever the retention is by then.
		if n := e.purge(e.clock.now().Add(-day), 2); n != 1 {
			e.Errorf("%d projects are purged, want 1", n)
		}
	}},
	{"purge/several", func(e *env) {
		for i := range 5 {
			name := fmt.Sprint("p", i)
			e.push(name+"/app", "shared")
			_, err := e.db.DeleteProject(e.Context(), meta.Change{}, e.projectID(name))
			e.ok(err)
		}
		e.clock.move(time.Second)
		if n := e.purge(e.clock.now(), 100); n != 5 {
			e.Errorf("%d projects are purged, want 5", n)
		}
		if n := len(e.dead()); n != 5 {
			e.Errorf("%d dead objects, want 5", n)
		}
	}},
	{"purge/leaves what is being written to", func(e *env) {
		id := e.team()
		u := e.lease(repo, 3)
		_, err := e.db.DeleteProject(e.Context(), meta.Change{}, id)
		e.ok(err)
		e.clock.move(time.Second)
		if n := e.purge(e.clock.now(), 5); n != 1 {
			e.Errorf("%d projects are purged, want 1", n)
		}
		e.push(repo, "again")
		e.ok(e.db.SaveUpload(e.Context(), u))
		_, err = e.db.CommitBlob(e.Context(), u, digest("late"))
		e.wantErr("commit into a project that was purged", err, meta.ErrNoRepository)
		e.noBlob(repo, digest("late"))
		e.release(u)
		e.clock.move(day)
		e.wantExpired(e.clock.now(), 1)
	}},
}

// wantPurged fills, deletes and purges "team" and checks that others' content
// stays and that the name is as new.
func wantPurged(e *env, batch int) {
	e.Helper()
	id := e.team()
	e.ok(e.db.ForgetDead(e.Context(), e.dead()...))
	user, err := e.db.CreateUser(e.Context(), meta.Change{}, meta.UserSpec{Name: fmt.Sprint("alice", batch)})
	e.ok(err)
	_, err = e.db.PutMember(e.Context(), meta.Change{}, meta.Member{User: user.Name, ProjectID: id, Role: access.Writer})
	e.ok(err)
	key, err := e.db.CreateKey(e.Context(), meta.Change{}, access.Key{ProjectID: id, Name: "ci", Role: access.Writer}, fmt.Sprint("hash", batch))
	e.ok(err)
	own, err := e.db.CreateKey(e.Context(), meta.Change{}, access.Key{UserID: user.ID, Name: "own"}, fmt.Sprint("own", batch))
	e.ok(err)
	rule, err := e.db.CreateTrustRule(e.Context(), meta.Change{}, access.TrustRule{ProjectID: id, Name: "gh", Issuer: "https://i", Audience: "a", Role: access.Writer})
	e.ok(err)
	for _, k := range []access.Key{key, own} {
		e.ok(e.db.CreateRefreshToken(e.Context(), access.RefreshToken{KeyID: k.ID, UserID: k.UserID, ExpiresAt: e.clock.now().Add(day)}, "refresh "+k.ID))
	}
	session := e.lease(repo, 3)
	e.release(session)
	top := e.hasBlob("team", digest("top")).Key
	_, err = e.db.DeleteProject(e.Context(), meta.Change{}, id)
	e.ok(err)
	e.clock.move(time.Second)
	before := e.accessGeneration()
	if n := e.purge(e.clock.now(), batch); n != 1 {
		e.Errorf("%d projects are purged, want 1", n)
	}
	if got := e.accessGeneration(); got != before+1 {
		e.Errorf("a purge raises the generation %d times, want once, at its end", got-before)
	}
	_, err = e.db.ProjectAccess(e.Context(), "team")
	e.wantErr("find the project", err, meta.ErrNotFound)
	_, err = e.db.KeyByID(e.Context(), key.ID)
	e.wantErr("find its key", err, meta.ErrNotFound)
	_, err = e.db.TrustRuleByID(e.Context(), rule.ID)
	e.wantErr("find its trust rule", err, meta.ErrNotFound)
	_, err = e.db.RefreshTokenByHash(e.Context(), "refresh "+key.ID)
	e.wantErr("find its key's refresh token", err, meta.ErrNotFound)
	_, err = e.db.RefreshTokenByHash(e.Context(), "refresh "+own.ID)
	e.ok(err)
	_, err = e.db.KeyByID(e.Context(), own.ID)
	e.ok(err)
	if s, err := e.db.UserAccess(e.Context(), user.ID); err != nil || len(s.Grants) != 0 {
		e.Errorf("grants are %+v, %v", s.Grants, err)
	}
	e.hasBlob("teamwork/app", digest("abc"))
	e.wantDead(top, session.ID)
	objects, err := e.db.DeadObjects(e.Context(), e.clock.now(), 10)
	e.ok(err)
	for _, o := range objects {
		if want := (meta.DeadObject{Key: session.ID, Unsealed: true, Size: 3, State: []byte("state"), Bytes: 3, At: o.At}); o.Key == session.ID && !reflect.DeepEqual(o, want) {
			e.Errorf("the session died as %+v, want %+v", o, want)
		}
	}
	e.wantNames("teamwork/app")
	e.wantAgreement()
	if again := e.team(); again == id {
		e.Error("the project has come back")
	}
	e.whole("team")
	_, err = e.db.DeleteProject(e.Context(), meta.Change{}, e.projectID("team"))
	e.ok(err)
	e.clock.move(time.Second)
	e.purge(e.clock.now(), 1000)
}
