package hosted_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// monthly keeps manifests for 30 days, and those without their subject for 7.
func monthly(string) hosted.Retention {
	return hosted.Retention{Untagged: 30 * 24 * time.Hour, Orphans: 7 * 24 * time.Hour}
}

// candidates are what would go, without when.
func candidates(t *testing.T, r *hosted.Registry) (list []hosted.Candidate) {
	t.Helper()
	for c, err := range r.Candidates(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

func TestCollectManifests(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func(hosted.Options) *stack) {
		var told hosted.Collected
		s := open(hosted.Options{Retention: monthly, Policy: "monthly", OnCollect: func(c hosted.Collected) {
			told.Manifests += c.Manifests
			told.Referrers += c.Referrers
			told.Bytes += c.Bytes
		}})
		s.shift(-31 * 24 * time.Hour)
		loose := registrytest.PushImage(t, s, repo)
		kept := registrytest.PushImage(t, s, repo, "v1")
		signature := registrytest.PushReferrer(t, s, repo, kept.Manifest.Descriptor(), "application/x.sig", nil)
		orphan := registrytest.PushReferrer(t, s, repo, oci.Descriptor{MediaType: oci.MediaTypeImage, Digest: oci.SHA256.FromBytes([]byte("x")), Size: 1}, "application/x.sig", nil)
		s.shift(0)
		young := registrytest.PushImage(t, s, repo)
		wantCollected(t, s, hosted.Collected{Manifests: 1, Referrers: 1, Links: 4, Objects: 4, Bytes: 880})
		for name, m := range map[string]registry.Manifest{"loose": loose.Manifest, "orphan": orphan} {
			_, err := s.Manifest(t.Context(), repo, oci.DigestRef(m.Digest))
			if !registry.IsCode(err, registry.ManifestUnknown) {
				t.Errorf("get %s: %v", name, err)
			}
		}
		for name, m := range map[string]registry.Manifest{"kept": kept.Manifest, "signature": signature, "young": young.Manifest} {
			if _, err := s.Resolve(t.Context(), repo, oci.DigestRef(m.Digest)); err != nil {
				t.Errorf("find %s: %v", name, err)
			}
		}
		// What is held is not among them.
		got := candidates(t, s.Registry)
		kinds := map[string]int{}
		for _, c := range got {
			kinds[c.Kind]++
			if c.Due.Before(time.Now()) || c.Why == "" || c.Repository != repo || c.Bytes == 0 {
				t.Errorf("candidate %+v", c)
			}
		}
		if len(got) != 1 || kinds["manifest"] != 1 {
			t.Errorf("candidates are %v", kinds)
		}
		if told.Manifests != 1 || told.Referrers != 1 || told.Bytes != 880 {
			t.Errorf("told of %+v", told)
		}
		wantCollected(t, s, hosted.Collected{})
	})
}

// TestCandidates: of each kind one, with when and why; held ones are none.
func TestCandidates(t *testing.T) {
	s := newStack(t, hosted.Options{Retention: monthly, DeadAfter: time.Hour})
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s.shift(time.Until(at))
	registrytest.PushImage(t, s, "kept/app", "v1")
	m := registrytest.PushManifest(t, s, repo, registrytest.Document{MediaType: oci.MediaTypeIndex, Manifests: []oci.Descriptor{}}.Manifest(t))
	subject := oci.Descriptor{MediaType: oci.MediaTypeImage, Digest: oci.SHA256.FromBytes([]byte("x")), Size: 1}
	r := registrytest.PushManifest(t, s, repo, registrytest.Document{MediaType: oci.MediaTypeIndex, Manifests: []oci.Descriptor{}, Subject: &subject}.Manifest(t))
	link := registrytest.PushBlob(t, s, repo, registrytest.Random(10))
	dead := registrytest.PushBlob(t, s, repo, registrytest.Random(20))
	key := s.key(t, dead.Digest)
	if err := s.DeleteBlob(t.Context(), repo, dead.Digest); err != nil {
		t.Fatal(err)
	}
	u := start(t, s)
	registrytest.PushBlob(t, s, "gone/app", registrytest.Random(30))
	p, err := s.db.Project(t.Context(), "gone")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.DeleteProject(t.Context(), meta.Change{}, p.ID); err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	want := map[string]time.Duration{
		"project gone   30 deleted at 2026-03-01T12:00:0xZ; can be restored for 7d":                                                                                               7 * day,
		"upload team/app  " + u.ID() + " 0 upload session that was last written to at 2026-03-01T12:00:0xZ; can be resumed for 7d":                                                7 * day,
		fmt.Sprint("manifest team/app ", m.Digest, "  ", len(m.Content), " without a tag, since 2026-03-01T12:00:0xZ; such manifests are kept for 30d"):                           30 * day,
		fmt.Sprint("referrer team/app ", r.Digest, "  ", len(r.Content), " without a tag, and its subject is absent, since 2026-03-01T12:00:0xZ; such manifests are kept for 7d"): 7 * day,
		fmt.Sprint("link team/app ", link.Digest, "  10 blob that no manifest names, last asked for at 2026-03-01T12:00:0xZ; such blobs are kept for 1d"):                         day,
		"object   " + key + " 20 bytes that nothing names since 2026-03-01T12:00:0xZ":                                                                                             time.Hour,
	}
	for _, c := range candidates(t, s.Registry) {
		if strings.HasPrefix(c.Repository, "gone/") && c.Kind == "link" {
			continue // with its project
		}
		why := c.Why
		if i := strings.Index(why, "T12:00:0"); i >= 0 {
			why = why[:i] + "T12:00:0xZ" + why[i+len("T12:00:0xZ"):]
		}
		line := fmt.Sprintf("%s %s %s %s %d %s", c.Kind, c.Repository, c.Digest, c.Key, c.Bytes, why)
		after, ok := want[line]
		if !ok {
			if c.Repository != "kept/app" {
				t.Errorf("unexpected: %s", line)
			}
			continue
		}
		delete(want, line)
		if due := c.Due.Sub(at.Add(after)); due < 0 || due > 10*time.Second {
			t.Errorf("%s: due at %v", line, c.Due)
		}
	}
	for line := range want {
		t.Errorf("missing: %s", line)
	}
	for range s.Candidates(t.Context()) {
		break // whoever has seen enough
	}
}

// asked counts the notes that a manifest was asked for.
type asked struct {
	hosted.Metadata
	n int
}

func (m *asked) TouchManifest(ctx context.Context, repo string, d oci.Digest) error {
	m.n++
	return m.Metadata.TouchManifest(ctx, repo, d)
}

// TestPullsKeep: a manifest that is pulled by its digest again and again stays;
// pulls of what has a tag, and pulls soon after another, write nothing.
func TestPullsKeep(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func(hosted.Options) *stack) {
		s := open(hosted.Options{})
		rows := &asked{Metadata: s.db}
		r := hosted.New(rows, s.blobs, hosted.Options{Retention: monthly, UnreferencedAge: 1000 * time.Hour})
		s.shift(-31 * 24 * time.Hour)
		pinned, other := registrytest.PushImage(t, r, repo).Manifest, registrytest.PushImage(t, r, repo).Manifest
		tagged := registrytest.PushImage(t, r, repo, "v1").Manifest
		s.shift(0)
		for _, ref := range []oci.Ref{oci.TagRef("v1"), oci.DigestRef(tagged.Digest)} {
			if _, err := r.Manifest(t.Context(), repo, ref); err != nil {
				t.Fatal(err)
			}
		}
		if rows.n != 0 {
			t.Errorf("pulls of what has a tag write %d times", rows.n)
		}
		for range 3 {
			if _, err := r.Resolve(t.Context(), repo, oci.DigestRef(pinned.Digest)); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Manifest(t.Context(), repo, oci.DigestRef(pinned.Digest)); err != nil {
				t.Fatal(err)
			}
		}
		if rows.n != 1 {
			t.Errorf("pulls by digest write %d times, want once", rows.n)
		}
		got, err := r.Collect(t.Context())
		if err != nil || got.Manifests != 1 {
			t.Errorf("collected %+v, %v", got, err)
		}
		if _, err := r.Resolve(t.Context(), repo, oci.DigestRef(pinned.Digest)); err != nil {
			t.Errorf("what was pulled: %v", err)
		}
		_, err = r.Resolve(t.Context(), repo, oci.DigestRef(other.Digest))
		registrytest.WantCode(t, "find what was not", err, registry.ManifestUnknown)
	})
}

// late finds a manifest, and lets something happen before its caller goes on.
type late struct {
	hosted.Metadata
	then func()
}

func (m *late) Resolve(ctx context.Context, repo string, ref oci.Ref) (meta.Manifest, error) {
	found, err := m.Metadata.Resolve(ctx, repo, ref)
	m.then()
	return found, err
}

// TestCollectedWhileAsked: a client is not told of a manifest that is collected
// between the look and the answer.
func TestCollectedWhileAsked(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func(hosted.Options) *stack) {
		s := open(hosted.Options{Retention: monthly})
		s.shift(-31 * 24 * time.Hour)
		m := registrytest.PushImage(t, s, repo).Manifest
		s.shift(0)
		r := hosted.New(&late{s.db, func() {
			if got, err := s.Collect(t.Context()); err != nil || got.Manifests != 1 {
				t.Errorf("collected %+v, %v", got, err)
			}
		}}, s.blobs, hosted.Options{Retention: monthly})
		_, err := r.Resolve(t.Context(), repo, oci.DigestRef(m.Digest))
		registrytest.WantCode(t, "find what is collected meanwhile", err, registry.ManifestUnknown)
	})
}

// TestDeadAfter: bytes outlive the URLs that clients were sent to.
func TestDeadAfter(t *testing.T) {
	s := newStack(t, hosted.Options{DeadAfter: time.Hour})
	d := registrytest.PushBlob(t, s, repo, registrytest.Random(100))
	file := s.file(t, s.key(t, d.Digest))
	s.shift(-59 * time.Minute)
	if err := s.DeleteBlob(t.Context(), repo, d.Digest); err != nil {
		t.Fatal(err)
	}
	wantCollected(t, s, hosted.Collected{})
	if !exists(t, file) {
		t.Error("the bytes are gone while a URL of them may be good")
	}
	r := hosted.New(s.db, s.blobs, hosted.Options{DeadAfter: 58 * time.Minute})
	if got, err := r.Collect(t.Context()); err != nil || got != (hosted.Collected{Objects: 1, Bytes: 100}) {
		t.Errorf("collected %+v, %v", got, err)
	}
}

// sweepable is a store in which something is to be swept.
type sweepable struct {
	blob.Store
	before []time.Time
	live   map[string]bool // what it was told, by key
	err    error
}

func (s *sweepable) Sweep(_ context.Context, before time.Time, live func(string) (bool, error)) (int, error) {
	s.before = append(s.before, before)
	for key := range s.live {
		is, err := live(key)
		if err != nil {
			return 0, err
		}
		s.live[key] = is
	}
	return 3, s.err
}

// TestSweep: what crashes left is swept once an hour, in all processes together,
// but not what a session still writes.
func TestSweep(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func(hosted.Options) *stack) {
		s := open(hosted.Options{})
		writing, ended := start(t, s), start(t, s)
		s.blobs.Fail("Abort", 1, errBroken)
		if err := ended.Cancel(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.blobs.Fail("Abort", 1, blob.ErrUnavailable) // so that it stays dead
		stored := s.key(t, registrytest.PushBlob(t, s, repo, registrytest.Random(10)).Digest)
		store := &sweepable{Store: s.blobs, live: map[string]bool{writing.ID(): false, ended.ID(): false, stored: true, "unknown": true}, err: errBroken}
		r := hosted.New(s.db, store, hosted.Options{SweepAge: time.Minute})
		got, err := r.Collect(t.Context())
		if got.Swept != 3 || !errors.Is(err, errBroken) {
			t.Errorf("collected %+v, %v", got, err)
		}
		if !store.live[writing.ID()] || !store.live[ended.ID()] || store.live[stored] || store.live["unknown"] {
			t.Errorf("being written are %v", store.live)
		}
		if age := time.Since(store.before[0]); age < time.Minute || age > 2*time.Minute {
			t.Errorf("swept is what is %v old", age)
		}
		if got, err := hosted.New(s.db, store, hosted.Options{}).Collect(t.Context()); err != nil || got.Swept != 0 || len(store.before) != 1 {
			t.Errorf("again at once: %+v, %v", got, err)
		}
		s.shift(time.Hour)
		if got, err := r.Collect(t.Context()); got.Swept != 3 || len(store.before) != 2 {
			t.Errorf("after an hour: %+v, %v", got, err)
		}
	})
}

// TestCollectRate: a bound on the rate is kept, and does not outlast its caller.
func TestCollectRate(t *testing.T) {
	s := newStack(t, hosted.Options{Rate: 1})
	s.shift(-25 * time.Hour)
	for range 60 {
		registrytest.PushBlob(t, s, repo, registrytest.Random(10))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	got, err := s.Collect(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || got.Links == 0 || got.Links == 60 {
		t.Errorf("collected %+v, %v", got, err)
	}
}

// TestCollectWithoutAStore: where the blob store does not answer, it is asked
// once, and objects wait for a minute.
func TestCollectWithoutAStore(t *testing.T) {
	s := newStack(t, hosted.Options{})
	for range 5 {
		d := registrytest.PushBlob(t, s, repo, registrytest.Random(10))
		if err := s.DeleteBlob(t.Context(), repo, d.Digest); err != nil {
			t.Fatal(err)
		}
	}
	before := s.blobs.Calls("Delete")
	s.blobs.Fail("Delete", 1, fmt.Errorf("%w: connection refused", blob.ErrUnavailable))
	if got, err := s.Collect(t.Context()); !errors.Is(err, blob.ErrUnavailable) || got != (hosted.Collected{}) {
		t.Errorf("collected %+v, %v", got, err)
	}
	if n := s.blobs.Calls("Delete") - before; n != 1 {
		t.Errorf("the store was asked %d times", n)
	}
	wantCollected(t, s, hosted.Collected{})
	r := hosted.New(s.db, s.blobs, hosted.Options{DeadAfter: -2 * time.Minute})
	if got, err := r.Collect(t.Context()); err != nil || got.Objects != 5 {
		t.Errorf("collected %+v, %v", got, err)
	}
}

var errCrashed = errors.New("the process has crashed")

// crash ends a process at one of its steps: before it, or after it, so that
// nobody learns how it went. All later steps fail.
type crash struct {
	hosted.Metadata
	blob.Store
	at, n int
	after bool
}

func (c *crash) step(do func() error) error {
	c.n++
	if c.n > c.at || c.n == c.at && !c.after {
		return errCrashed
	}
	if err := do(); err != nil {
		return err
	}
	if c.n == c.at {
		return errCrashed
	}
	return nil
}

func (c *crash) PurgeProjects(ctx context.Context, before time.Time, n int) (a, b int, err error) {
	err = c.step(func() error { a, b, err = c.Metadata.PurgeProjects(ctx, before, n); return err })
	return a, b, err
}

func (c *crash) ExpireUploads(ctx context.Context, before time.Time, n int) (a int, err error) {
	err = c.step(func() error { a, err = c.Metadata.ExpireUploads(ctx, before, n); return err })
	return a, err
}

func (c *crash) PlanManifests(ctx context.Context, policy string, n int) (a int, err error) {
	err = c.step(func() error { a, err = c.Metadata.PlanManifests(ctx, policy, n); return err })
	return a, err
}

func (c *crash) CollectManifests(ctx context.Context, policy func(string) meta.Retention, now time.Time, n int) (a meta.Reviewed, err error) {
	err = c.step(func() error { a, err = c.Metadata.CollectManifests(ctx, policy, now, n); return err })
	return a, err
}

func (c *crash) CollectLinks(ctx context.Context, before time.Time, n int) (a, b int, err error) {
	err = c.step(func() error { a, b, err = c.Metadata.CollectLinks(ctx, before, n); return err })
	return a, b, err
}

func (c *crash) DeadObjects(ctx context.Context, before time.Time, n int) (a []meta.DeadObject, err error) {
	err = c.step(func() error { a, err = c.Metadata.DeadObjects(ctx, before, n); return err })
	return a, err
}

func (c *crash) ForgetDead(ctx context.Context, keys ...string) error {
	return c.step(func() error { return c.Metadata.ForgetDead(ctx, keys...) })
}

func (c *crash) DeferDead(ctx context.Context, by time.Duration, keys ...string) error {
	return c.step(func() error { return c.Metadata.DeferDead(ctx, by, keys...) })
}

func (c *crash) Delete(ctx context.Context, keys ...string) error {
	return c.step(func() error { return c.Store.Delete(ctx, keys...) })
}

func (c *crash) Abort(ctx context.Context, key string, s blob.State) error {
	return c.step(func() error { return c.Store.Abort(ctx, key, s) })
}

// TestCrashAtEachStep crashes collection before and after each of its steps:
// what is held is whole, and the next collection finishes the work.
func TestCrashAtEachStep(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func(hosted.Options) *stack) {
		for _, after := range []bool{false, true} {
			for at, steps := 1, 1; at <= steps; at++ {
				s := open(hosted.Options{})
				kept := s.fill(t)
				c := &crash{Metadata: s.db, Store: s.blobs, at: at, after: after}
				o := hosted.Options{Retention: monthly, Policy: "p"}
				_, err := hosted.New(c, c, o).Collect(t.Context())
				steps = c.n
				if at <= steps && !errors.Is(err, errCrashed) {
					t.Fatalf("step %d of %d: %v", at, steps, err)
				}
				s.wantWhole(t, kept)
				// DeferDead has put off what the crash was in the way of.
				o.DeadAfter = -2 * time.Hour
				if _, err := hosted.New(s.db, s.blobs, o).Collect(t.Context()); err != nil {
					t.Fatalf("after a crash at step %d: %v", at, err)
				}
				s.wantWhole(t, kept)
				if n := objects(t, s.blobs); n != 2 {
					t.Errorf("after a crash at step %d (after it: %t) %d objects are left, want 2", at, after, n)
				}
			}
		}
	})
}

// fill stores an image that stays and one of each that goes.
func (s *stack) fill(t *testing.T) (kept registrytest.Image) {
	t.Helper()
	s.shift(-40 * 24 * time.Hour)
	kept = registrytest.PushImage(t, s, repo, "v1")
	loose := registrytest.PushImage(t, s, repo)
	registrytest.PushReferrer(t, s, repo, oci.Descriptor{MediaType: oci.MediaTypeImage, Digest: oci.SHA256.FromBytes([]byte("x")), Size: 1}, "application/x.sig", nil)
	registrytest.PushIndex(t, s, repo, []registry.Manifest{loose.Manifest})
	registrytest.PushBlob(t, s, repo, registrytest.Random(10))
	u := start(t, s)
	if err := u.Append(t.Context(), 0, reader(registrytest.Random(50))); err != nil {
		t.Fatal(err)
	}
	registrytest.PushImage(t, s, "gone/app", "v1")
	p, err := s.db.Project(t.Context(), "gone")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.DeleteProject(t.Context(), meta.Change{}, p.ID); err != nil {
		t.Fatal(err)
	}
	// The child of the index that goes has its own time.
	if err := s.DeleteManifest(t.Context(), repo, s.indexOf(t, loose.Manifest)); err != nil {
		t.Fatal(err)
	}
	s.shift(-2 * time.Hour)
	return kept
}

// indexOf is the digest of the index that PushIndex makes of a manifest.
func (s *stack) indexOf(t *testing.T, m registry.Manifest) oci.Digest {
	t.Helper()
	doc := registrytest.Document{MediaType: oci.MediaTypeIndex, Manifests: []oci.Descriptor{m.Descriptor()}}
	return oci.SHA256.FromBytes(doc.Manifest(t).Content)
}

// wantWhole checks that an image is there with its bytes, and that each object
// has a row and each row its object.
func (s *stack) wantWhole(t *testing.T, image registrytest.Image) {
	t.Helper()
	if _, err := s.Manifest(t.Context(), image.Repo, oci.TagRef("v1")); err != nil {
		t.Errorf("the image that stays: %v", err)
	}
	for _, d := range append(slices.Clone(image.Layers), image.Config) {
		b, err := s.Blob(t.Context(), image.Repo, d.Digest)
		if err != nil {
			t.Errorf("a blob that stays: %v", err)
			continue
		}
		if content := registrytest.ReadBlob(t, b, 0, d.Size); !d.Digest.Verify(content) {
			t.Error("a blob that stays has other bytes")
		}
	}
	s.wantHealthy(t)
	s.wantOwned(t)
}

// wantOwned checks that a row names each object.
func (s *stack) wantOwned(t *testing.T) {
	t.Helper()
	for o, err := range s.blobs.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.db.KeyOwner(t.Context(), o.Key); err != nil {
			t.Errorf("object %s is nobody's: %v", o.Key, err)
		}
	}
}

// TestCollectEverythingAtOnce has clients push, tag, index, mount and delete the
// same few things while two collections run with hardly any grace. At the end
// every image that was acknowledged and not deleted is there, with its bytes, and
// nothing else.
func TestCollectEverythingAtOnce(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func(hosted.Options) *stack) {
		soon := func(string) hosted.Retention {
			return hosted.Retention{Untagged: 3 * time.Millisecond, Orphans: time.Millisecond}
		}
		o := hosted.Options{Retention: soon, UnreferencedAge: 4 * time.Millisecond}
		s := open(o)
		end := time.Now().Add(3 * time.Second)
		if testing.Short() {
			end = time.Now().Add(time.Second)
		}
		replicas := []*hosted.Registry{s.Registry, hosted.New(s.db, s.blobs, o)}
		var collecting, pushing sync.WaitGroup
		stop := make(chan struct{})
		for _, r := range replicas {
			collecting.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := r.Collect(t.Context()); err != nil {
						t.Errorf("collect: %v", err)
						return
					}
				}
			})
		}
		clients := make([]*churner, 6)
		for i := range clients {
			clients[i] = &churner{T: t, r: replicas[i%2], repo: fmt.Sprintf("team%d/app%d", i%2, i), tags: map[string]registry.Manifest{}}
			pushing.Go(func() {
				for n := i; time.Now().Before(end) && !t.Failed(); n++ {
					clients[i].do(n)
				}
			})
		}
		pushing.Wait()
		close(stop)
		collecting.Wait()
		done := 0
		for _, c := range clients {
			c.check()
			done += c.pushed
		}
		if done == 0 {
			t.Error("nothing could be pushed")
		}
		s.wantHealthy(t)
		s.wantOwned(t)
		// Without tags nothing is held.
		for _, c := range clients {
			for tag := range c.tags {
				if err := s.DeleteTag(t.Context(), c.repo, tag); err != nil {
					t.Errorf("delete a tag: %v", err)
				}
			}
		}
		for range 50 {
			time.Sleep(5 * time.Millisecond)
			if _, err := s.Collect(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := objects(t, s.blobs); n != 0 {
			t.Errorf("%d objects are left of nothing, after %d pushes: %+v", n, done, candidates(t, s.Registry))
		}
	})
}

// churner is a client that knows what it was told.
type churner struct {
	*testing.T
	r      *hosted.Registry
	repo   string
	tags   map[string]registry.Manifest // what they name
	pushed int
}

// may takes errors that collection with hardly any grace may cause: what was
// pushed a moment ago is gone, and the client has to begin again.
func (c *churner) may(err error) bool {
	if err != nil && !registry.IsCode(err, registry.ManifestBlobUnknown) && !registry.IsCode(err, registry.BlobUnknown) &&
		!registry.IsCode(err, registry.ManifestUnknown) && !registry.IsCode(err, registry.NameUnknown) && !registry.IsCode(err, registry.Referenced) {
		c.Errorf("%s: %v", c.repo, err)
	}
	return err == nil
}

func (c *churner) blob(n int) (oci.Descriptor, bool) {
	content := fmt.Appendf(nil, "layer %d", n%4)
	d := registrytest.Describe(registrytest.LayerType, content)
	if n%3 == 0 { // as clients do
		if _, err := c.r.Blob(c.Context(), c.repo, d.Digest); err == nil {
			return d, true
		}
		if _, err := c.r.Mount(c.Context(), c.repo, "", d.Digest); err == nil {
			return d, true
		}
	}
	u, err := c.r.StartUpload(c.Context(), c.repo, registry.UploadOptions{})
	if !c.may(err) {
		return d, false
	}
	_, err = u.Commit(c.Context(), 0, reader(content), d.Digest)
	return d, c.may(err)
}

func (c *churner) image(n int) (registry.Manifest, bool) {
	config, ok := c.blob(n)
	layer, also := c.blob(n + 1)
	config.MediaType = registrytest.ConfigType
	doc := registrytest.Document{MediaType: oci.MediaTypeImage, Config: &config, Layers: []oci.Descriptor{layer}}
	m := doc.Manifest(c)
	m.Digest = oci.SHA256.FromBytes(m.Content)
	return m, ok && also
}

func (c *churner) put(m registry.Manifest, tags ...string) bool {
	_, err := c.r.PutManifest(c.Context(), c.repo, m, tags...)
	if !c.may(err) {
		return false
	}
	c.pushed++
	for _, tag := range tags {
		c.tags[tag] = m
	}
	return true
}

// do does one of the things that clients do.
func (c *churner) do(n int) {
	tag := fmt.Sprint("v", n%5)
	switch n % 7 {
	case 0, 1:
		if m, ok := c.image(n); ok {
			c.put(m, tag)
		}
	case 2: // by digest, then the tag
		if m, ok := c.image(n); ok && c.put(m) {
			c.put(m, tag)
		}
	case 3: // an index of what was pushed by digest
		m, ok := c.image(n)
		if !ok || !c.put(m) {
			return
		}
		doc := registrytest.Document{MediaType: oci.MediaTypeIndex, Manifests: []oci.Descriptor{m.Descriptor()}}
		i := doc.Manifest(c)
		i.Digest = oci.SHA256.FromBytes(i.Content)
		c.put(i, tag)
	case 4: // a referrer, of what is there or not
		subject := oci.Descriptor{MediaType: oci.MediaTypeImage, Digest: c.tags[tag].Digest, Size: 1}
		if subject.Digest == "" {
			subject.Digest = oci.SHA256.FromBytes([]byte("x"))
		}
		layer, ok := c.blob(n)
		if !ok {
			return
		}
		doc := registrytest.Document{MediaType: oci.MediaTypeImage, Config: &layer, Layers: []oci.Descriptor{layer}, Subject: &subject, ArtifactType: "a/b"}
		c.put(doc.Manifest(c))
	case 5:
		if _, ok := c.tags[tag]; ok && c.may(c.r.DeleteTag(c.Context(), c.repo, tag)) {
			delete(c.tags, tag)
		}
	case 6:
		m, ok := c.tags[tag]
		if !ok {
			return
		}
		if c.may(c.r.DeleteManifest(c.Context(), c.repo, m.Digest)) {
			for name, named := range c.tags {
				if named.Digest == m.Digest {
					delete(c.tags, name)
				}
			}
		}
	}
}

// check looks for all that the client was told it has.
func (c *churner) check() {
	for tag, m := range c.tags {
		got, err := c.r.Manifest(c.Context(), c.repo, oci.TagRef(tag))
		if err != nil || got.Digest != m.Digest {
			c.Errorf("%s:%s is %s, %v; want %s", c.repo, tag, got.Digest, err, m.Digest)
			continue
		}
		c.walk(m)
	}
}

func (c *churner) walk(m registry.Manifest) {
	parsed, err := oci.ParseManifest(m.MediaType, m.Content)
	if err != nil {
		c.Fatal(err)
	}
	for _, d := range parsed.Manifests {
		child, err := c.r.Manifest(c.Context(), c.repo, oci.DigestRef(d.Digest))
		if err != nil {
			c.Errorf("a child in %s: %v", c.repo, err)
			continue
		}
		c.walk(child)
	}
	for _, d := range parsed.Blobs {
		b, err := c.r.Blob(c.Context(), c.repo, d.Digest)
		if err != nil {
			c.Errorf("a blob in %s: %v", c.repo, err)
			continue
		}
		if content := registrytest.ReadBlob(c, b, 0, b.Descriptor().Size); !d.Digest.Verify(content) {
			c.Errorf("a blob in %s has other bytes", c.repo)
		}
	}
}
