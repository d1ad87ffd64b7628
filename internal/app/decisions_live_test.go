package app

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

// send asks the server and checks the status.
func (w *realm) send(method, path, body, header string, want int) answer {
	w.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if strings.Contains(path, "/manifests/") {
		r.Header.Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	}
	a := w.ask(r, header)
	if a.Code != want {
		w.Errorf("%s %s: %d %s, want %d", method, path, a.Code, a.Body, want)
	}
	return a
}

// TestFirstPushClaims: what anybody has pushed belongs to the first user who
// pushes to it.
func TestFirstPushClaims(t *testing.T) {
	w := newRealm(t, map[string]string{"auth.mode": "required", "projects.newcomers": "claim"})
	w.user("root", "")
	w.user("alice", "")
	w.user("bob", "")
	alice, bob := w.userKey("laptop", "alice", access.Key{}), w.userKey("laptop", "bob", access.Key{})
	const manifest, uploads = "/v2/new/app/manifests/v1", "/v2/new/app/blobs/uploads/"
	w.send(http.MethodPut, manifest, newManifest, "", 201)
	w.send(http.MethodGet, manifest, "", "", 200)
	w.send(http.MethodPut, manifest, newManifest, "", 201)
	w.send(http.MethodGet, manifest, "", alice.header, 200)
	w.send(http.MethodPost, uploads, "", bob.header, 202)
	w.send(http.MethodGet, manifest, "", "", 401)
	w.send(http.MethodPut, manifest, newManifest, "", 401)
	w.send(http.MethodGet, manifest, "", alice.header, 404)
	w.send(http.MethodPost, uploads, "", alice.header, 403)
	w.send(http.MethodDelete, manifest, "", bob.header, 202)

	events, _, err := w.db().ListAudit(t.Context(), meta.AuditFilter{Action: "project.claim"}, "", 10)
	w.ok(err)
	if len(events) != 1 || events[0].Identity != "user:bob" || events[0].Project != "new" || events[0].Address != "192.0.2.1" {
		t.Errorf("the trail has %+v", events)
	}
}

// TestOneOfManyClaims: of users who push first at the same time one has the
// project.
func TestOneOfManyClaims(t *testing.T) {
	w := newRealm(t, map[string]string{"auth.mode": "required", "projects.newcomers": "claim"})
	w.user("root", "")
	var askers []asker
	for i := range 16 {
		name := fmt.Sprint("user", i)
		w.user(name, "")
		askers = append(askers, w.userKey(name, name, access.Key{}))
	}
	statuses := make([]int, len(askers))
	var all sync.WaitGroup
	for i := range askers {
		all.Go(func() {
			r := httptest.NewRequest(http.MethodPost, "/v2/race/app/blobs/uploads/", nil)
			statuses[i] = w.ask(r, askers[i].header).Code
		})
	}
	all.Wait()
	won := 0
	for i, status := range statuses {
		switch status {
		case http.StatusAccepted:
			won++
			w.send(http.MethodPut, "/v2/race/app/manifests/v1", newManifest, askers[i].header, 201)
		case http.StatusForbidden:
		default:
			t.Errorf("user %d gets %d", i, status)
		}
	}
	if won != 1 {
		t.Errorf("%d users have the project", won)
	}
}

// TestChangesBiteOnTheNextRequest: neither a token nor a running upload outlives
// the right it stands on; what was received is there when the right comes back.
func TestChangesBiteOnTheNextRequest(t *testing.T) {
	w := newRealm(t, map[string]string{"auth.mode": "required"})
	w.user("root", "")
	w.user("alice", "")
	w.user("stranger", "")
	p, err := w.db().CreateProject(t.Context(), noChange, meta.ProjectSpec{Name: "acme", Visibility: access.Internal})
	w.ok(err)
	member := meta.Member{User: "alice", ProjectID: p.ID, Role: access.Writer}
	grant := func() {
		_, err := w.db().PutMember(t.Context(), noChange, member)
		w.ok(err)
	}
	grant()
	alice, stranger := w.userKey("laptop", "alice", access.Key{Name: "laptop"}), w.userKey("other", "stranger", access.Key{})
	const manifest = "/v2/acme/app/manifests/v1"
	w.places = []*place{{repo: "acme/app"}}
	token := w.token(w.principal("alice", alice.key), w.everything())
	w.send(http.MethodPut, manifest, newManifest, token, 201)
	session := w.send(http.MethodPost, "/v2/acme/app/blobs/uploads/", "", token, 202).Header().Get("Location")
	w.send(http.MethodPatch, session, "abc", token, 202)

	lock := func(locked bool) func() {
		return func() { w.ok(w.db().SetUser(t.Context(), noChange, "alice", meta.UserChange{Locked: &locked})) }
	}
	for i, c := range []struct {
		take, give func()
		want       int
	}{
		{func() { w.ok(w.db().RemoveMember(t.Context(), noChange, member)) }, grant, 403},
		{lock(true), lock(false), 401},
	} {
		c.take()
		for _, header := range []string{token, alice.header} {
			w.send(http.MethodPatch, session, "x", header, c.want)
			w.send(http.MethodGet, session, "", header, c.want)
			w.send(http.MethodPut, manifest, newManifest, header, c.want)
		}
		c.give()
		got := w.send(http.MethodPatch, session, "abc", token, 202).Header().Get("Upload-Offset")
		if want := fmt.Sprint(3 * (i + 2)); got != want {
			t.Errorf("the session stands at %s, want %s", got, want)
		}
	}
	_, err = w.db().RevokeKey(t.Context(), noChange, w.users["alice"].ID, "laptop")
	w.ok(err)
	for _, header := range []string{token, alice.header} {
		w.send(http.MethodPatch, session, "x", header, 401)
		w.send(http.MethodGet, manifest, "", header, 401)
	}
	w.send(http.MethodGet, manifest, "", stranger.header, 200)
	w.ok(w.db().SetProject(t.Context(), noChange, p.ID, meta.ProjectChange{Visibility: new(access.Private)}))
	w.send(http.MethodGet, manifest, "", stranger.header, 404)
}
