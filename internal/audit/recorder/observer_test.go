package recorder_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/audit/recorder"
	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// refused is a refusal that tells the trail more than the client.
type refused struct{ reason string }

func (r *refused) Error() string       { return r.reason }
func (r *refused) AuditReason() string { return r.reason }

// status makes codes recognisable.
func status(c registry.Code) int { return 1000 + int(c) }

// observed is a registry with an image, its recorder, and the answer that a
// check gives to everything.
type observed struct {
	registry.Registry
	store    *store
	recorder *recorder.Recorder
	image    registrytest.Image
	answer   error
}

func newObserved(t testing.TB) *observed {
	t.Helper()
	s := newStore(t)
	o := &observed{store: s, recorder: recorder.New(s, recorder.Options{Status: status})}
	// A database of its own, as what its transactions record is not the matter.
	inner := hosted.New(newStore(t).DB, memblob.New(), hosted.Options{})
	o.image = registrytest.PushImage(t, inner, "acme/app", "v1")
	check := func(context.Context, registry.Op) error { return o.answer }
	o.Registry = registry.Observe(registry.Guard(inner, check), o.recorder.Observer())
	return o
}

var alice = &audit.Caller{Owner: "user:1", Identity: "user:alice", Key: "key-1", Request: "r1", Address: "192.0.2.1", Agent: "docker/27"}

func as(t testing.TB, c *audit.Caller) context.Context { return audit.WithCaller(t.Context(), c) }

// events ends the recorder and returns what it wrote, without ids and times.
func (o *observed) events(t *testing.T) []audit.Event {
	t.Helper()
	closeIt(t, o.recorder)
	trail := o.store.trail(t)
	for i := range trail {
		if age := time.Since(trail[i].Time); trail[i].ID == "" || age < 0 || age > time.Minute {
			t.Errorf("event %q of %v", trail[i].ID, trail[i].Time)
		}
		trail[i].ID, trail[i].Time = "", time.Time{}
	}
	return trail
}

func TestPullsAreRecorded(t *testing.T) {
	o := newObserved(t)
	ctx := as(t, alice)
	d := o.image.Manifest.Digest
	for _, ref := range []oci.Ref{oci.TagRef("v1"), oci.DigestRef(d)} {
		if _, err := o.Manifest(ctx, "acme/app", ref); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Manifest(as(t, &audit.Caller{Address: "192.0.2.2"}), "acme/app", oci.TagRef("v1")); err != nil {
		t.Fatal(err)
	}
	size := int64(len(o.image.Manifest.Content))
	byTag := audit.Event{Request: "r1", Identity: "user:alice", Key: "key-1", Address: "192.0.2.1", Agent: "docker/27",
		Action: "manifest.read", Project: "acme", Repository: "acme/app", Reference: "v1", Digest: string(d), Bytes: size, Status: 200}
	byDigest := byTag
	byDigest.Reference = ""
	anonymous := audit.Event{Address: "192.0.2.2", Action: "manifest.read", Project: "acme", Repository: "acme/app", Reference: "v1", Digest: string(d), Bytes: size, Status: 200}
	if got := o.events(t); !slices.Equal(got, []audit.Event{byTag, byDigest, anonymous}) {
		t.Errorf("the trail is %+v", got)
	}
}

// TestNoiseIsNotRecorded: nothing but pulls of manifests and refusals.
func TestNoiseIsNotRecorded(t *testing.T) {
	o := newObserved(t)
	ctx := as(t, alice)
	o.Manifest(ctx, "acme/app", oci.TagRef("absent"))
	o.Manifest(t.Context(), "acme/app", oci.TagRef("v1")) // by nobody: the registry itself
	o.Resolve(ctx, "acme/app", oci.TagRef("v1"))
	o.Blob(ctx, "acme/app", o.image.Layers[0].Digest)
	o.DeleteTag(ctx, "acme/app", "absent")
	o.PutManifest(ctx, "acme/app", o.image.Manifest, "v2") // its transaction does
	o.DeleteTag(ctx, "acme/app", "v2")
	for _, list := range []func(func(string, error) bool){o.Tags(ctx, "acme/app", ""), o.Repositories(ctx, "")} {
		for range list {
		}
	}
	o.answer = errors.New("the database is gone")
	o.Manifest(ctx, "acme/app", oci.TagRef("v1"))
	// Every pull of an anonymous client begins with being asked to log in.
	o.answer = &registry.Error{Code: registry.Unauthorized, Err: &refused{"anonymous"}}
	o.Manifest(as(t, &audit.Caller{Address: "192.0.2.2"}), "acme/app", oci.TagRef("v1"))
	if got := o.events(t); len(got) != 0 {
		t.Errorf("the trail is %+v", got)
	}
}

func TestRefusalsAreRecorded(t *testing.T) {
	for _, c := range []struct {
		answer error
		code   registry.Code
		reason string
	}{
		{&registry.Error{Code: registry.Denied}, registry.Denied, "access denied"},
		{&registry.Error{Code: registry.Denied, Err: &refused{"needs the role writer"}}, registry.Denied, "needs the role writer"},
		{&registry.Error{Code: registry.NameUnknown, Err: &refused{"the project is private"}}, registry.NameUnknown, "the project is private"},
		{&registry.Error{Code: registry.Unauthorized, Err: &refused{"the key is revoked"}}, registry.Unauthorized, "the key is revoked"},
		{&registry.Error{Code: registry.Unauthorized}, registry.Unauthorized, "authentication required"},
		{&registry.Error{Code: registry.TooManyRequests, Detail: "secret"}, registry.TooManyRequests, "too many requests"},
		{&registry.Error{Code: registry.InsufficientStorage}, registry.InsufficientStorage, "insufficient storage"},
		{&registry.Error{Code: registry.BlobTooLarge, Err: &refused{"the plan allows 1 GiB"}}, registry.BlobTooLarge, "the plan allows 1 GiB"},
	} {
		o := newObserved(t)
		o.answer = c.answer
		if err := o.DeleteTag(as(t, alice), "acme/app", "v1"); registry.CodeOf(err) != c.code {
			t.Fatalf("delete: %v", err)
		}
		want := audit.Event{Request: "r1", Identity: "user:alice", Key: "key-1", Address: "192.0.2.1", Agent: "docker/27",
			Action: "tag.delete", Project: "acme", Repository: "acme/app", Reference: "v1", Status: status(c.code), Reason: c.reason}
		if got := o.events(t); !slices.Equal(got, []audit.Event{want}) {
			t.Errorf("the trail is %+v, want %+v", got, want)
		}
	}
}

// TestEveryRefusedActionIsRecorded: whatever the operation is.
func TestEveryRefusedActionIsRecorded(t *testing.T) {
	o := newObserved(t)
	o.answer = &registry.Error{Code: registry.Denied}
	ctx, d := as(t, alice), o.image.Manifest.Digest
	o.Manifest(ctx, "acme/app", oci.TagRef("v1"))
	o.Resolve(ctx, "acme/app", oci.TagRef("v1"))
	o.Blob(ctx, "acme/app", d)
	o.PutManifest(ctx, "acme/app", o.image.Manifest, "v2")
	o.Mount(ctx, "acme/app", "acme/other", d)
	o.StartUpload(ctx, "acme/app", registry.UploadOptions{})
	o.ResumeUpload(ctx, "acme/app", "x")
	o.DeleteManifest(ctx, "acme/app", d)
	o.DeleteBlob(ctx, "acme/app", d)
	for range o.Tags(ctx, "acme/app", "") {
	}
	for range o.Referrers(ctx, "acme/app", d, "", "") {
	}
	for range o.Repositories(ctx, "") {
	}
	var got []string
	for _, e := range o.events(t) {
		got = append(got, e.Action)
	}
	want := []string{"manifest.read", "manifest.stat", "blob.stat", "manifest.write", "blob.mount", "upload.start",
		"upload.resume", "manifest.delete", "blob.delete", "tags.list", "referrers.list", "repositories.list"}
	if !slices.Equal(got, want) {
		t.Errorf("recorded are %q, want %q", got, want)
	}
}

// TestRepeatedLimits: who does not wait when told to does not fill the trail.
func TestRepeatedLimits(t *testing.T) {
	s := newStore(t)
	r := recorder.New(s, recorder.Options{})
	at := time.Now()
	for i := range 1000 {
		e := audit.Event{Time: at.Add(time.Duration(i) * 100 * time.Millisecond), Action: "manifest.read", Repository: "acme/app", Status: 429}
		e.Identity = []string{"user:alice", "user:bob"}[i%2]
		r.Record(e)
		e.Status = 403
		r.Record(e)
	}
	closeIt(t, r)
	count := map[int]int{}
	for _, e := range s.trail(t) {
		count[e.Status]++
	}
	if count[429] != 4 || count[403] != 1000 || r.Dropped() != 0 {
		t.Errorf("in 100 seconds two callers leave %v, %d dropped", count, r.Dropped())
	}
}

// BenchmarkObserver measures what the trail costs each operation: one that is
// not recorded, and one that is.
func BenchmarkObserver(b *testing.B) {
	for name, action := range map[string]registry.Action{"other": registry.BlobRead, "pull": registry.ManifestRead} {
		b.Run(name, func(b *testing.B) {
			r := recorder.New(newStore(b), recorder.Options{})
			defer r.Close(b.Context())
			observer, ctx := r.Observer(), as(b, alice)
			op := registry.Op{Action: action, Repo: "acme/app", Ref: oci.TagRef("v1")}
			b.ReportAllocs()
			for b.Loop() {
				observer(ctx, op)(1000, nil)
			}
		})
	}
}
