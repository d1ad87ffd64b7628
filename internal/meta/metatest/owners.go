package metatest

import (
	"context"
	"reflect"
	"strings"

	"github.com/google/uuid"

	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

// by is the case's context with a caller.
func (e *env) by(owner string) context.Context {
	return audit.WithCaller(e.Context(), &audit.Caller{
		Owner: owner, Identity: "user:name-of-" + owner, Key: "key", Request: "request", Address: "10.0.0.1", Agent: "agent"})
}

// ownerCases: an upload session is its owner's alone.
var ownerCases = []testCase{
	{"owner/of a session", func(e *env) {
		contexts := map[string]context.Context{"nobody": e.Context(), "anonymous": e.by(""), "a": e.by("user:a"), "b": e.by("user:b"), "robot": e.by("robot:a")}
		same := func(a, b string) bool {
			nobody := func(s string) bool { return s == "nobody" || s == "anonymous" }
			return a == b || nobody(a) && nobody(b)
		}
		for owner, ctx := range contexts {
			u := meta.Upload{ID: uuid.NewString(), Repository: repo, Algorithm: oci.SHA256, Size: 3, Hash: []byte("hash"), State: []byte("state")}
			e.ok(e.db.CreateUpload(ctx, u))
			for other, ctx := range contexts {
				_, err := e.db.Upload(ctx, repo, u.ID)
				_, leased := e.db.LeaseUpload(ctx, repo, u.ID, 0)
				if same(owner, other) {
					e.ok(err)
					e.ok(leased)
					e.ok(e.db.ReleaseUpload(ctx, u.ID, u.Version))
					continue
				}
				e.wantErr(other+" reads a session of "+owner, err, meta.ErrNotFound)
				e.wantErr(other+" leases a session of "+owner, leased, meta.ErrNotFound)
			}
		}
	}},
	{"owner/goes on unharmed", func(e *env) {
		ctx := e.by("user:a")
		u := meta.Upload{ID: uuid.NewString(), Repository: repo, Algorithm: oci.SHA256, Size: 3, Hash: []byte("hash"), State: []byte("state")}
		e.ok(e.db.CreateUpload(ctx, u))
		u, err := e.db.LeaseUpload(ctx, repo, u.ID, ttl)
		e.ok(err)
		_, err = e.db.LeaseUpload(e.by("user:b"), repo, u.ID, ttl)
		e.wantErr("lease another's session", err, meta.ErrNotFound)
		_, err = e.db.LeaseUpload(ctx, other, u.ID, ttl)
		e.wantErr("lease another repository's session", err, meta.ErrNotFound)
		_, err = e.db.LeaseUpload(ctx, repo, u.ID, ttl)
		e.wantErr("lease a leased session", err, meta.ErrLeased)
		u.Size = 4
		e.ok(e.db.SaveUpload(ctx, u))
		if got, err := e.db.Upload(ctx, repo, u.ID); err != nil || !reflect.DeepEqual(got, u) {
			e.Errorf("the session is %+v, %v; want %+v", got, err, u)
		}
		_, err = e.db.CommitBlob(ctx, u, digest("abcd"))
		e.ok(err)
		e.hasBlob(repo, digest("abcd"))
	}},
	{"owner/does not matter to expiry", func(e *env) {
		e.ok(e.db.CreateUpload(e.by("user:a"), meta.Upload{ID: "s", Repository: repo, Algorithm: oci.SHA256, Hash: []byte{}}))
		e.clock.move(ttl)
		e.wantExpired(e.clock.now(), 1)
	}},
}

// recordCases: writes that a caller is named for leave a line in the trail, in
// their own transaction.
var recordCases = []testCase{
	{"record/manifests, tags and deletes", func(e *env) {
		d, _ := e.push(repo, "abc")
		ctx := e.by("user:a")
		m := image(repo, "m", d)
		m.Tags = []string{"v1", "v2"}
		e.ok(e.db.PutManifest(ctx, m))
		e.ok(e.db.DeleteTag(ctx, repo, "v1"))
		e.ok(e.db.DeleteManifest(ctx, repo, m.Digest))
		e.ok(e.db.DeleteBlob(ctx, repo, d))
		all := audit.Event{Request: "request", Identity: "user:name-of-user:a", Key: "key", Address: "10.0.0.1", Agent: "agent",
			Project: "team", Repository: repo, Status: 202}
		want := []audit.Event{all, all, all, all}
		want[0].Action, want[0].Reference, want[0].Digest, want[0].Bytes, want[0].Status = "manifest.write", "v1,v2", m.Digest.String(), 1, 201
		want[1].Action, want[1].Reference, want[1].Digest = "tag.delete", "v1", m.Digest.String()
		want[2].Action, want[2].Digest, want[2].Bytes = "manifest.delete", m.Digest.String(), 1
		want[3].Action, want[3].Digest = "blob.delete", d.String()
		got, _, err := e.db.ListAudit(e.Context(), meta.AuditFilter{}, "", 100)
		e.ok(err)
		if len(got) != len(want) {
			e.Fatalf("the trail has %+v", got)
		}
		for i := range got {
			got[i].ID, want[i].Time = "", e.clock.now().UTC()
			if got[i] != want[i] {
				e.Errorf("the trail has %+v, want %+v", got[i], want[i])
			}
		}
	}},
	{"record/nothing of what was refused", func(e *env) {
		d, _ := e.push(repo, "abc")
		ctx := e.by("user:a")
		if err := e.db.PutManifest(ctx, image(repo, "x", digest("absent"))); err == nil {
			e.Error("a manifest without its blob is stored")
		}
		e.wantErr("delete a tag", e.db.DeleteTag(ctx, repo, "v1"), meta.ErrNotFound)
		e.wantErr("delete a manifest", e.db.DeleteManifest(ctx, repo, digest("x")), meta.ErrNotFound)
		e.put(image(repo, "m", d))
		e.wantHeld("delete a blob", e.db.DeleteBlob(ctx, repo, d), digest("m"))
		if got := e.recorded(); len(got) != 0 {
			e.Errorf("the trail has %v", got)
		}
	}},
	{"record/many tags", func(e *env) {
		m := image(repo, "m")
		for range 40 {
			m.Tags = append(m.Tags, strings.Repeat("t", 120)+string(rune('a'+len(m.Tags)%26)))
		}
		e.ok(e.db.PutManifest(e.by("user:a"), m))
		if got := e.recorded(); len(got) != 1 {
			e.Errorf("the trail has %v", got)
		}
	}},
}
