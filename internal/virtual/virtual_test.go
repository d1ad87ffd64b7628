package virtual_test

import (
	"context"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
	"github.com/berth-registry/berth/internal/virtual"
)

func open(t testing.TB) registry.Registry {
	t.Helper()
	db, err := meta.Open(t.Context(), meta.Options{Path: metatest.File(t)})
	if err != nil {
		t.Fatalf("open a database: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return hosted.New(db, memblob.New(), hosted.Options{})
}

func join(t testing.TB, sources ...virtual.Source) *virtual.Registry {
	t.Helper()
	v, err := virtual.New("all", sources)
	if err != nil {
		t.Fatalf("join: %v", err)
	}
	return v
}

// under is a registry of which a test sees what lies under a prefix, without it.
type under struct {
	registry.Registry
	prefix string
}

func (u under) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	return u.Registry.Resolve(ctx, u.prefix+repo, ref)
}

func (u under) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	return u.Registry.Manifest(ctx, u.prefix+repo, ref)
}

func (u under) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	return u.Registry.Blob(ctx, u.prefix+repo, d)
}

func (u under) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return u.Registry.Tags(ctx, u.prefix+repo, after)
}

func (u under) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return u.Registry.Referrers(ctx, u.prefix+repo, subject, artifactType, after)
}

func (u under) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	if after != "" {
		after = u.prefix + after
	}
	return u.without(u.Registry.Repositories(ctx, after))
}

func (u under) Holders(ctx context.Context, near string, d oci.Digest) iter.Seq2[string, error] {
	return u.without(u.Registry.Holders(ctx, u.prefix+near, d))
}

func (u under) without(names iter.Seq2[string, error]) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name, err := range names {
			if !yield(strings.TrimPrefix(name, u.prefix), err) {
				return
			}
		}
	}
}

func (u under) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags ...string) (registry.PutResult, error) {
	return u.Registry.PutManifest(ctx, u.prefix+repo, m, tags...)
}

func (u under) Mount(ctx context.Context, repo, from string, d oci.Digest) (oci.Descriptor, error) {
	if from != "" {
		from = u.prefix + from
	}
	return u.Registry.Mount(ctx, u.prefix+repo, from, d)
}

func (u under) StartUpload(ctx context.Context, repo string, o registry.UploadOptions) (registry.Upload, error) {
	return u.Registry.StartUpload(ctx, u.prefix+repo, o)
}

func (u under) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	return u.Registry.ResumeUpload(ctx, u.prefix+repo, id)
}

func (u under) DeleteTag(ctx context.Context, repo, tag string) error {
	return u.Registry.DeleteTag(ctx, u.prefix+repo, tag)
}

func (u under) DeleteManifest(ctx context.Context, repo string, d oci.Digest) error {
	return u.Registry.DeleteManifest(ctx, u.prefix+repo, d)
}

func (u under) DeleteBlob(ctx context.Context, repo string, d oci.Digest) error {
	return u.Registry.DeleteBlob(ctx, u.prefix+repo, d)
}

func TestConforms(t *testing.T) {
	for what, sources := range map[string]func(t *testing.T) []virtual.Source{
		"one": func(t *testing.T) []virtual.Source {
			return []virtual.Source{{Prefix: "ours", Registry: open(t), Pushes: true}}
		},
		"first of two": func(t *testing.T) []virtual.Source {
			return []virtual.Source{{Prefix: "ours", Registry: open(t), Pushes: true}, {Prefix: "theirs/deep", Registry: open(t)}}
		},
		"last of two in one store": func(t *testing.T) []virtual.Source {
			r := open(t)
			return []virtual.Source{{Prefix: "theirs", Registry: r}, {Prefix: "ours", Registry: r, Pushes: true}}
		},
	} {
		t.Run(what, func(t *testing.T) {
			registrytest.Run(t, func(t *testing.T) registry.Registry { return under{join(t, sources(t)...), "all/"} }, registrytest.Options{})
		})
	}
}

func TestNewRefuses(t *testing.T) {
	r := open(t)
	for what, c := range map[string]struct {
		name    string
		sources []virtual.Source
	}{
		"two pushed to":  {"all", []virtual.Source{{"a", r, true}, {"b", r, true}}},
		"no sources":     {"all", nil},
		"a name in two":  {"a/b", []virtual.Source{{"a", r, true}}},
		"no name":        {"", []virtual.Source{{"a", r, true}}},
		"no prefix":      {"all", []virtual.Source{{"", r, true}}},
		"a bad prefix":   {"all", []virtual.Source{{"A", r, true}}},
		"no registry":    {"all", []virtual.Source{{"a", nil, true}}},
		"a source twice": {"all", []virtual.Source{{"a", r, true}, {"a", r, false}}},
	} {
		if v, err := virtual.New(c.name, c.sources); v != nil || err == nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// broken is a registry that fails with an error, if there is one, and notes where
// its answers come from.
type broken struct {
	registry.Registry
	mu    sync.Mutex
	err   error
	asked int
}

func (b *broken) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *broken) call(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	registry.NoteFreshness(ctx, registry.Freshness{Forward: "uri-miss", Age: time.Duration(b.asked)})
	return b.err
}

func (b *broken) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	if err := b.call(ctx); err != nil {
		return oci.Descriptor{}, err
	}
	return b.Registry.Resolve(ctx, repo, ref)
}

func (b *broken) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	if err := b.call(ctx); err != nil {
		return registry.Manifest{}, err
	}
	return b.Registry.Manifest(ctx, repo, ref)
}

func (b *broken) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	if err := b.call(ctx); err != nil {
		return nil, err
	}
	return b.Registry.Blob(ctx, repo, d)
}

func (b *broken) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return brokenList(ctx, b, b.Registry.Tags(ctx, repo, after))
}

func (b *broken) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return brokenList(ctx, b, b.Registry.Referrers(ctx, repo, subject, artifactType, after))
}

func (b *broken) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return brokenList(ctx, b, b.Registry.Repositories(ctx, after))
}

func brokenList[T any](ctx context.Context, b *broken, list iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if err := b.call(ctx); err != nil {
			var none T
			yield(none, err)
			return
		}
		list(yield)
	}
}

var down = &registry.Error{Code: registry.Unavailable, Limit: &registry.Limit{RetryAfter: time.Minute}}

// three are sources in order: ours takes pushes, and behind it come two others.
type three struct {
	*virtual.Registry
	ours, near, far *broken
}

func newThree(t *testing.T) *three {
	t.Helper()
	s := &three{ours: &broken{Registry: open(t)}, near: &broken{Registry: open(t)}, far: &broken{Registry: open(t)}}
	s.Registry = join(t, virtual.Source{Prefix: "ours", Registry: s.ours, Pushes: true},
		virtual.Source{Prefix: "near/deep", Registry: s.near}, virtual.Source{Prefix: "far", Registry: s.far})
	return s
}

func TestFirstSourceWins(t *testing.T) {
	s := newThree(t)
	ours := registrytest.PushImage(t, s.ours, "ours/app", "both", "ours").Manifest
	near := registrytest.PushImage(t, s.near, "near/deep/app", "both", "others", "near").Manifest
	far := registrytest.PushImage(t, s.far, "far/app", "both", "others", "far").Manifest
	for tag, m := range map[string]registry.Manifest{"both": ours, "ours": ours, "others": near, "near": near, "far": far} {
		registrytest.WantManifest(t, s, "all/app", oci.TagRef(tag), m)
		registrytest.WantManifest(t, s, "all/app", oci.DigestRef(m.Digest), m)
	}
	registrytest.WantNoManifest(t, s, "all/app", oci.TagRef("none"))
	for _, repo := range []string{"all/none", "all", "ours/app", "allx/app"} {
		_, err := s.Resolve(t.Context(), repo, oci.TagRef("both"))
		registrytest.WantCode(t, repo, err, registry.NameUnknown)
		registrytest.WantCode(t, "tags of "+repo, registrytest.ListError(t, s.Tags(t.Context(), repo, "")), registry.NameUnknown)
	}
	registrytest.WantList(t, "tags", s.Tags(t.Context(), "all/app", ""), "both", "far", "near", "others", "ours")
	registrytest.WantList(t, "tags after near", s.Tags(t.Context(), "all/app", "near"), "others", "ours")
	registrytest.WantList(t, "tags after all", s.Tags(t.Context(), "all/app", "z"))
}

// TestNoStrangerTakesATag: where a source fails, a tag of a later one is not
// served in its place.
func TestNoStrangerTakesATag(t *testing.T) {
	s := newThree(t)
	m := registrytest.PushImage(t, s.near, "near/deep/app", "v1").Manifest
	stranger := registrytest.PushImage(t, s.far, "far/app", "v1", "far").Manifest
	s.near.fail(down)
	for _, tag := range []string{"v1", "far"} {
		_, err := s.Manifest(t.Context(), "all/app", oci.TagRef(tag))
		registrytest.WantCode(t, "get "+tag, err, registry.Unavailable)
		if err != error(down) {
			t.Errorf("%v does not say when to come back", err)
		}
		_, err = s.Resolve(t.Context(), "all/app", oci.TagRef(tag))
		registrytest.WantCode(t, "resolve "+tag, err, registry.Unavailable)
	}
	registrytest.WantManifest(t, s, "all/app", oci.DigestRef(stranger.Digest), stranger)
	for what, ask := range map[string]func() error{
		"manifest": func() error { _, err := s.Manifest(t.Context(), "all/app", oci.DigestRef(m.Digest)); return err },
		"resolve":  func() error { _, err := s.Resolve(t.Context(), "all/app", oci.DigestRef(m.Digest)); return err },
		"blob":     func() error { _, err := s.Blob(t.Context(), "all/app", m.Digest); return err },
		"tags":     func() error { return drain(s.Tags(t.Context(), "all/app", "")) },
		"referrers": func() error {
			return drain(s.Referrers(t.Context(), "all/app", m.Digest, "", ""))
		},
		"repositories": func() error { return drain(s.Repositories(t.Context(), "")) },
	} {
		registrytest.WantCode(t, what+" that a source may have that fails", ask(), registry.Unavailable)
	}
	s.near.fail(nil)
	s.far.fail(down)
	registrytest.WantManifest(t, s, "all/app", oci.TagRef("v1"), m)
	_, err := s.Manifest(t.Context(), "all/app", oci.TagRef("v2"))
	registrytest.WantCode(t, "a tag that the last source may have", err, registry.Unavailable)
}

func drain[T any](list iter.Seq2[T, error]) (err error) {
	for _, err = range list {
	}
	return err
}

// TestAnswersTellWhereTheyComeFrom: the source that answers, not one that had
// nothing to say.
func TestAnswersTellWhereTheyComeFrom(t *testing.T) {
	own := open(t)
	other := &broken{Registry: open(t)}
	v := join(t, virtual.Source{Prefix: "other", Registry: other}, virtual.Source{Prefix: "own", Registry: own})
	registrytest.PushImage(t, own, "own/app", "own")
	registrytest.PushImage(t, other, "other/app", "other")
	for tag, noted := range map[string]bool{"own": false, "other": true} {
		ctx, told := registry.WithFreshness(t.Context())
		if _, err := v.Manifest(ctx, "all/app", oci.TagRef(tag)); err != nil {
			t.Fatal(err)
		}
		if (told() != nil) != noted {
			t.Errorf("%s: noted %+v", tag, told())
		}
	}
	other.fail(down)
	ctx, told := registry.WithFreshness(t.Context())
	if _, err := v.Manifest(ctx, "all/app", oci.TagRef("own")); err == nil || told() == nil {
		t.Errorf("an error tells %+v: %v", told(), err)
	}
}

func TestReferrersAreThoseOfAll(t *testing.T) {
	s := newThree(t)
	image := registrytest.PushImage(t, s.far, "far/app", "v1")
	subject := image.Manifest.Descriptor()
	want := map[oci.Digest]bool{}
	for _, at := range []struct {
		r    registry.Registry
		repo string
	}{{s.ours, "ours/app"}, {s.near, "near/deep/app"}, {s.far, "far/app"}, {s, "all/app"}} {
		for _, artifactType := range []string{"application/x.a", "application/x.b"} {
			m := registrytest.PushReferrer(t, at.r, at.repo, subject, artifactType, nil)
			want[m.Digest] = artifactType == "application/x.a"
		}
	}
	for d, a := range want { // one that two have
		if m, err := s.near.Manifest(t.Context(), "near/deep/app", oci.DigestRef(d)); a && err == nil {
			registrytest.PushManifest(t, under{s, "all/"}, "app", m)
		}
	}
	list := registrytest.Collect(t, s.Referrers(t.Context(), "all/app", subject.Digest, "", ""))
	for i, d := range list {
		if _, ok := want[d.Digest]; !ok || i > 0 && d.Digest <= list[i-1].Digest {
			t.Errorf("referrer %d is %+v", i, d)
		}
		rest := registrytest.Collect(t, s.Referrers(t.Context(), "all/app", subject.Digest, "", d.Digest))
		if len(rest) != len(list)-i-1 {
			t.Errorf("behind the %d. of %d come %d", i+1, len(list), len(rest))
		}
	}
	some := registrytest.Collect(t, s.Referrers(t.Context(), "all/app", subject.Digest, "application/x.a", ""))
	if len(list) != len(want) || len(some) != len(want)/2 {
		t.Errorf("%d referrers, %d of a type; want %d", len(list), len(some), len(want))
	}
}

// TestReferrersOfNoRepository: where no source shows a repository, its referrers
// are no empty list.
func TestReferrersOfNoRepository(t *testing.T) {
	s := newThree(t)
	unknown := &registry.Error{Code: registry.NameUnknown}
	s.near.fail(unknown)
	d := oci.SHA256.FromBytes(nil)
	registrytest.WantList(t, "referrers that one source does not show", digests(s.Referrers(t.Context(), "all/app", d, "", "")))
	s.ours.fail(unknown)
	s.far.fail(unknown)
	registrytest.WantCode(t, "list", registrytest.ListError(t, s.Referrers(t.Context(), "all/app", d, "", "")), registry.NameUnknown)
}

func digests(list iter.Seq2[oci.Descriptor, error]) iter.Seq2[oci.Digest, error] {
	return func(yield func(oci.Digest, error) bool) {
		for d, err := range list {
			if !yield(d.Digest, err) {
				return
			}
		}
	}
}

func TestRepositoriesAreThoseOfAll(t *testing.T) {
	s := newThree(t)
	for _, repo := range []string{"ours/app", "ours/b/c", "ours", "ours-x/app", "ours0/app", "near/app"} {
		registrytest.PushIndex(t, s.ours, repo, nil, "v1")
	}
	for _, repo := range []string{"near/deep/app", "near/deep/a", "near/deep/z", "near/deeper/no"} {
		registrytest.PushIndex(t, s.near, repo, nil, "v1")
	}
	want := []string{"all/a", "all/app", "all/b/c", "all/z"}
	for i, after := range append([]string{""}, want...) {
		registrytest.WantList(t, "repositories after "+after, s.Repositories(t.Context(), after), want[i:]...)
	}
	registrytest.WantList(t, "repositories after a name before", s.Repositories(t.Context(), "al"), want...)
	registrytest.WantList(t, "repositories after a name behind", s.Repositories(t.Context(), "bll"))
	s.far.fail(&registry.Error{Code: registry.Unsupported})
	registrytest.WantList(t, "repositories, one cannot list", s.Repositories(t.Context(), ""), want...)
}

func TestOnlyOneTakesPushes(t *testing.T) {
	s := newThree(t)
	m := registrytest.PushImage(t, s, "all/app", "v1").Manifest
	registrytest.WantManifest(t, s.ours.Registry, "ours/app", oci.TagRef("v1"), m)
	for r, repo := range map[registry.Registry]string{s.near.Registry: "near/deep/app", s.far.Registry: "far/app"} {
		_, err := r.Resolve(t.Context(), repo, oci.TagRef("v1"))
		registrytest.WantCode(t, "resolve in "+repo, err, registry.NameUnknown)
	}
	registrytest.PushImage(t, s.near, "near/deep/app", "near")
	registrytest.WantCode(t, "delete what another has", s.DeleteTag(t.Context(), "all/app", "near"), registry.ManifestUnknown)
}

func TestNobodyTakesPushes(t *testing.T) {
	r := open(t)
	v := join(t, virtual.Source{Prefix: "theirs", Registry: r})
	m := registrytest.PushImage(t, r, "theirs/app", "v1").Manifest
	for what, call := range map[string]func() error{
		"put":    func() error { _, err := v.PutManifest(t.Context(), "all/app", m, "v2"); return err },
		"start":  func() error { _, err := v.StartUpload(t.Context(), "all/app", registry.UploadOptions{}); return err },
		"mount":  func() error { _, err := v.Mount(t.Context(), "all/app", "all/app", m.Digest); return err },
		"tag":    func() error { return v.DeleteTag(t.Context(), "all/app", "v1") },
		"delete": func() error { return v.DeleteManifest(t.Context(), "all/app", m.Digest) },
		"blob":   func() error { return v.DeleteBlob(t.Context(), "all/app", m.Digest) },
	} {
		err := call()
		registrytest.WantCode(t, what, err, registry.Unsupported)
		if e, ok := err.(*registry.Error); !ok || e.Detail == nil {
			t.Errorf("%s: %v says nothing", what, err)
		}
	}
	_, err := v.ResumeUpload(t.Context(), "all/app", "x")
	registrytest.WantCode(t, "resume", err, registry.UploadUnknown)
	registrytest.WantList(t, "holders", v.Holders(t.Context(), "all/app", m.Digest))
}

// TestPushOfWhatAnotherHas: a client does not send what it sees, so it is brought.
func TestPushOfWhatAnotherHas(t *testing.T) {
	s := newThree(t)
	image := registrytest.PushImage(t, s.far, "far/app", "base")
	child := image.Manifest
	index := registrytest.PushIndex(t, s.far, "far/app", []registry.Manifest{child}, "index")
	top := registrytest.Document{MediaType: oci.MediaTypeIndex, Manifests: []oci.Descriptor{index.Descriptor()}}.Manifest(t)
	registrytest.PushManifest(t, s, "all/app", top, "top")
	for _, m := range []registry.Manifest{index, child} {
		registrytest.WantManifest(t, s.ours.Registry, "ours/app", oci.DigestRef(m.Digest), m)
	}
	for _, d := range append(image.Layers, image.Config) {
		if _, err := s.ours.Registry.Blob(t.Context(), "ours/app", d.Digest); err != nil {
			t.Errorf("blob %s was not brought: %v", d.Digest, err)
		}
	}

	other := registrytest.PushImage(t, s.near, "near/deep/app", "other")
	absent := registrytest.ImageDocument(t, open(t), "x").Manifest(t)
	absent.Digest = oci.SHA256.FromBytes(absent.Content)
	for what, c := range map[string]struct {
		fail error
		m    registry.Manifest
		code registry.Code
	}{
		"what nobody has":   {nil, absent, registry.ManifestBlobUnknown},
		"what one may have": {down, absent, registry.Unavailable},
		"a child that is nobody's": {nil, registrytest.Document{MediaType: oci.MediaTypeIndex,
			Manifests: []oci.Descriptor{absent.Descriptor()}}.Manifest(t), registry.ManifestBlobUnknown},
	} {
		s.near.fail(c.fail)
		_, err := s.PutManifest(t.Context(), "all/app", c.m, "v9")
		registrytest.WantCode(t, "push "+what, err, c.code)
	}
	s.near.fail(nil)
	_, err := s.PutManifest(t.Context(), "all/new", other.Manifest, "v1")
	registrytest.WantCode(t, "push what another repository has", err, registry.ManifestBlobUnknown)
}

// TestIndexesInIndexes are brought a few levels deep, not without end.
func TestIndexesInIndexes(t *testing.T) {
	for depth, code := range map[int]registry.Code{3: 0, 6: registry.ManifestBlobUnknown} {
		s := newThree(t)
		m := registrytest.PushIndex(t, s.far, "far/app", nil)
		for range depth - 1 {
			m = registrytest.PushIndex(t, s.far, "far/app", []registry.Manifest{m})
		}
		top := registrytest.Document{MediaType: oci.MediaTypeIndex, Manifests: []oci.Descriptor{m.Descriptor()}}.Manifest(t)
		_, err := s.PutManifest(t.Context(), "all/app", top)
		if code == 0 && err != nil || code != 0 && !registry.IsCode(err, code) {
			t.Errorf("%d indexes in each other: %v", depth, err)
		}
	}
}

// TestMountAcross: from another source of the same store, and only what that
// source shows.
func TestMountAcross(t *testing.T) {
	store := open(t)
	filtered := &broken{Registry: store}
	v := join(t, virtual.Source{Prefix: "ours", Registry: store, Pushes: true}, virtual.Source{Prefix: "hub", Registry: filtered})
	content := registrytest.Random(100)
	d := registrytest.PushBlob(t, store, "hub/base", content)
	registrytest.PushBlob(t, store, "secret/base", content)
	filtered.fail(&registry.Error{Code: registry.NameUnknown})
	_, err := v.Mount(t.Context(), "all/app", "all/base", d.Digest)
	registrytest.WantCode(t, "mount what a source does not show", err, registry.BlobUnknown)
	filtered.fail(nil)
	if _, err := v.Mount(t.Context(), "all/app", "all/base", d.Digest); err != nil {
		t.Fatalf("mount across: %v", err)
	}
	registrytest.WantBlob(t, store, "ours/app", d.Digest, content)
	_, err = v.Mount(t.Context(), "all/other", "secret/base", d.Digest)
	registrytest.WantCode(t, "mount from elsewhere", err, registry.Unsupported)

	alone := registrytest.PushBlob(t, store, "secret/base", registrytest.Random(100))
	_, err = v.Mount(t.Context(), "all/other", "", alone.Digest)
	registrytest.WantCode(t, "mount from any repository, but none of ours has it", err, registry.BlobUnknown)
	if _, err := v.Mount(t.Context(), "all/other", "", d.Digest); err != nil {
		t.Errorf("mount from any: %v", err)
	}
	registrytest.WantList(t, "holders", v.Holders(t.Context(), "all/app", d.Digest), "all/app", "all/other")
}

func TestNamesTooLong(t *testing.T) {
	r := open(t)
	v := join(t, virtual.Source{Prefix: strings.Repeat("p", 100), Registry: r, Pushes: true})
	long := "all/" + strings.Repeat("x", 200)
	_, err := v.Resolve(t.Context(), long, oci.TagRef("v1"))
	registrytest.WantCode(t, "resolve", err, registry.NameUnknown)
	_, err = v.StartUpload(t.Context(), long, registry.UploadOptions{})
	registrytest.WantCode(t, "push", err, registry.NameInvalid)

	v = join(t, virtual.Source{Prefix: "p", Registry: r})
	registrytest.PushIndex(t, r, "p/app", nil, "v1")
	registrytest.PushIndex(t, r, "p/"+strings.Repeat("x", 253), nil, "v1")
	registrytest.WantList(t, "repositories that have a name here", v.Repositories(t.Context(), ""), "all/app")
}

// walked is a registry whose repositories are those of a list.
type walked struct {
	registry.Registry
	names []string
	seen  int
}

func (w *walked) Repositories(context.Context, string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, name := range w.names {
			if w.seen++; !yield(name, nil) {
				return
			}
		}
	}
}

// TestListsEndBehindThePrefix: a source may have many more repositories.
func TestListsEndBehindThePrefix(t *testing.T) {
	w := &walked{names: []string{"p/a", "p/b", "q/a", "q/b", "q/c"}}
	registrytest.WantList(t, "repositories", join(t, virtual.Source{Prefix: "p", Registry: w}).Repositories(t.Context(), ""), "all/a", "all/b")
	if w.seen != 3 {
		t.Errorf("%d names were read, want 3", w.seen)
	}
}
