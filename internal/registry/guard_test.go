package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// asked is a check that notes what it is asked and refuses what deny names.
type asked struct {
	ops  []registry.Op
	deny func(registry.Op) error
}

func (a *asked) check(_ context.Context, op registry.Op) error {
	a.ops = append(a.ops, op)
	if a.deny == nil {
		return nil
	}
	return a.deny(op)
}

func (a *asked) want(t *testing.T, what string, want ...registry.Op) {
	t.Helper()
	if !slices.Equal(a.ops, want) {
		t.Errorf("%s asks\n%+v, want\n%+v", what, a.ops, want)
	}
	a.ops = nil
}

func denied(registry.Op) error { return &registry.Error{Code: registry.Denied} }

// calls is every method of a Registry, by the action that is checked first.
func calls(t *testing.T, r registry.Registry, image registrytest.Image) map[registry.Action]func() error {
	ctx, repo, d := t.Context(), image.Repo, image.Manifest.Digest
	return map[registry.Action]func() error{
		registry.ManifestStat:     func() error { _, err := r.Resolve(ctx, repo, oci.TagRef("v1")); return err },
		registry.ManifestRead:     func() error { _, err := r.Manifest(ctx, repo, oci.TagRef("v1")); return err },
		registry.BlobRead:         func() error { _, err := r.Blob(ctx, repo, image.Config.Digest); return err },
		registry.TagsList:         func() error { return drain(r.Tags(ctx, repo, "")) },
		registry.ReferrersList:    func() error { return drain(r.Referrers(ctx, repo, d, "", "")) },
		registry.RepositoriesList: func() error { return drain(r.Repositories(ctx, "")) },
		registry.ManifestWrite:    func() error { _, err := r.PutManifest(ctx, repo, image.Manifest, "v1"); return err },
		registry.BlobMount:        func() error { _, err := r.Mount(ctx, "team/new", repo, image.Config.Digest); return err },
		registry.UploadStart:      func() error { _, err := r.StartUpload(ctx, repo, registry.UploadOptions{}); return err },
		registry.UploadResume:     func() error { _, err := r.ResumeUpload(ctx, repo, "0192f0c1-2222"); return err },
		registry.TagDelete:        func() error { return r.DeleteTag(ctx, repo, "v1") },
		registry.ManifestDelete:   func() error { return r.DeleteManifest(ctx, repo, d) },
		registry.BlobDelete:       func() error { return r.DeleteBlob(ctx, repo, image.Config.Digest) },
	}
}

func drain[T any](seq func(func(T, error) bool)) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestGuardRefusesEveryMethod(t *testing.T) {
	inner := open(t)
	image := registrytest.PushImage(t, inner, "team/app", "v1")
	a := &asked{deny: denied}
	for action, call := range calls(t, registry.Guard(inner, a.check), image) {
		a.ops = nil
		registrytest.WantCode(t, action.String(), call(), registry.Denied)
		if len(a.ops) != 1 || a.ops[0].Action != action {
			t.Errorf("%s asks %+v", action, a.ops)
		}
	}
	registrytest.WantManifest(t, inner, "team/app", oci.TagRef("v1"), image.Manifest)
	registrytest.WantList(t, "repositories", inner.Repositories(t.Context(), ""), "team/app")
}

func TestGuardAsksInOrder(t *testing.T) {
	first := &asked{deny: func(registry.Op) error { return &registry.Error{Code: registry.Unauthorized} }}
	second := &asked{deny: denied}
	r := registry.Guard(open(t), first.check, second.check)
	_, err := r.Resolve(t.Context(), "team/app", oci.TagRef("v1"))
	registrytest.WantCode(t, "resolve", err, registry.Unauthorized)
	if len(second.ops) != 0 {
		t.Error("the second check is asked after the first has refused")
	}
}

func TestGuardFiltersTags(t *testing.T) {
	inner := open(t)
	registrytest.PushImage(t, inner, "team/app", "a", "b", "c", "d")
	for _, code := range []registry.Code{registry.Denied, registry.NameUnknown, registry.Unauthorized, registry.ManifestUnknown} {
		a := &asked{deny: func(op registry.Op) error {
			if op.Ref.Tag == "b" || op.Ref.Tag == "c" {
				return &registry.Error{Code: code}
			}
			return nil
		}}
		r := registry.Guard(inner, a.check)
		registrytest.WantList(t, "tags", r.Tags(t.Context(), "team/app", ""), "a", "d")
		list := registry.Op{Action: registry.TagsList, Repo: "team/app"}
		item := func(tag string) registry.Op {
			return registry.Op{Action: registry.ManifestStat, Repo: "team/app", Ref: oci.TagRef(tag)}
		}
		a.want(t, "a list of tags", list, item("a"), item("b"), item("c"), item("d"))
	}
}

func TestGuardEndsListOnOtherErrors(t *testing.T) {
	inner := open(t)
	registrytest.PushImage(t, inner, "team/app", "a", "b", "c")
	broken := errors.New("the policy cannot be read")
	r := registry.Guard(inner, func(_ context.Context, op registry.Op) error {
		if op.Ref.Tag == "b" {
			return broken
		}
		return nil
	})
	var tags []string
	var errs []error
	for tag, err := range r.Tags(t.Context(), "team/app", "") {
		tags, errs = append(tags, tag), append(errs, err)
	}
	if !slices.Equal(tags, []string{"a", ""}) || !errors.Is(errs[1], broken) {
		t.Errorf("tags %q with errors %v, want a and then the check's error", tags, errs)
	}
}

func TestGuardFiltersRepositories(t *testing.T) {
	inner := open(t)
	for _, name := range []string{"open/a", "secret/a", "team/a"} {
		registrytest.PushImage(t, inner, name)
	}
	r := registry.Guard(inner, func(_ context.Context, op registry.Op) error {
		if strings.HasPrefix(op.Repo, "secret/") {
			return &registry.Error{Code: registry.NameUnknown}
		}
		return nil
	})
	registrytest.WantList(t, "repositories", r.Repositories(t.Context(), ""), "open/a", "team/a")
}

func TestGuardFiltersReferrers(t *testing.T) {
	inner := open(t)
	subject := registrytest.PushImage(t, inner, "team/app").Manifest.Descriptor()
	hidden := registrytest.PushReferrer(t, inner, "team/app", subject, "application/x.sbom", nil)
	seen := registrytest.PushReferrer(t, inner, "team/app", subject, "application/x.sbom", nil)
	r := registry.Guard(inner, func(_ context.Context, op registry.Op) error {
		if op.Ref.Digest == hidden.Digest {
			return &registry.Error{Code: registry.Denied}
		}
		return nil
	})
	list := registrytest.Collect(t, r.Referrers(t.Context(), "team/app", subject.Digest, "", ""))
	if len(list) != 1 || list[0].Digest != seen.Digest {
		t.Errorf("referrers are %+v, want only %s", list, seen.Digest)
	}
}

func TestGuardHidesReferrersLikeAbsentOnes(t *testing.T) {
	inner := open(t)
	subject := registrytest.PushImage(t, inner, "team/app").Manifest.Descriptor()
	registrytest.PushReferrer(t, inner, "team/app", subject, "application/x.sbom", nil)
	r := registry.Guard(inner, func(context.Context, registry.Op) error { return &registry.Error{Code: registry.NameUnknown} })
	for _, repo := range []string{"team/app", "team/none"} {
		if list := registrytest.Collect(t, r.Referrers(t.Context(), repo, subject.Digest, "", "")); len(list) != 0 {
			t.Errorf("%s shows %d referrers to who may not know it", repo, len(list))
		}
	}
}

// TestGuardPassesOnWhatTheRegistrySays: that a registry does not have a repository
// at all is no refusal, and must not read as "not signed".
func TestGuardPassesOnWhatTheRegistrySays(t *testing.T) {
	r := registry.Guard(nameless{open(t)}, allow)
	err := registrytest.ListError(t, r.Referrers(t.Context(), "team/app", oci.SHA256.FromBytes(nil), "", ""))
	registrytest.WantCode(t, "list referrers", err, registry.NameUnknown)
}

// nameless has no repositories, and says so when it is asked for referrers.
type nameless struct{ registry.Registry }

func (nameless) Referrers(_ context.Context, repo string, _ oci.Digest, _ string, _ oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return func(yield func(oci.Descriptor, error) bool) {
		yield(oci.Descriptor{}, &registry.Error{Code: registry.NameUnknown, Repo: repo})
	}
}

func TestGuardAsksForEachTagOfAPush(t *testing.T) {
	inner := open(t)
	m := registrytest.ImageDocument(t, inner, "team/app").Manifest(t)
	a := &asked{}
	registrytest.PushManifest(t, registry.Guard(inner, a.check), "team/app", m, "a", "b")
	a.want(t, "a push",
		registry.Op{Action: registry.ManifestWrite, Repo: "team/app", Size: int64(len(m.Content))},
		registry.Op{Action: registry.TagWrite, Repo: "team/app", Ref: oci.TagRef("a")},
		registry.Op{Action: registry.TagWrite, Repo: "team/app", Ref: oci.TagRef("b")})

	a.deny = func(op registry.Op) error {
		if op.Ref.Tag == "frozen" {
			return denied(op)
		}
		return nil
	}
	other := registrytest.ImageDocument(t, inner, "team/app").Manifest(t)
	_, err := registry.Guard(inner, a.check).PutManifest(t.Context(), "team/app", other, "free", "frozen")
	registrytest.WantCode(t, "push a refused tag", err, registry.Denied)
	registrytest.WantList(t, "tags", inner.Tags(t.Context(), "team/app", ""), "a", "b")
}

func TestGuardAsksForBothSidesOfAMount(t *testing.T) {
	inner := open(t)
	image := registrytest.PushImage(t, inner, "team/app")
	ref := oci.DigestRef(image.Config.Digest)
	a := &asked{}
	if _, err := registry.Guard(inner, a.check).Mount(t.Context(), "team/new", "team/app", image.Config.Digest); err != nil {
		t.Fatalf("mount: %v", err)
	}
	a.want(t, "a mount",
		registry.Op{Action: registry.BlobMount, Repo: "team/new", From: "team/app", Ref: ref},
		registry.Op{Action: registry.BlobRead, Repo: "team/app", Ref: ref})
	a = &asked{deny: func(op registry.Op) error {
		if op.Action == registry.BlobRead {
			return &registry.Error{Code: registry.NameUnknown}
		}
		return nil
	}}
	_, err := registry.Guard(inner, a.check).Mount(t.Context(), "team/other", "team/app", image.Config.Digest)
	registrytest.WantCode(t, "mount from what may not be read", err, registry.BlobUnknown)
	_, err = inner.Blob(t.Context(), "team/other", image.Config.Digest)
	registrytest.WantCode(t, "find what was not mounted", err, registry.NameUnknown)
}

// TestGuardFindsWhatMayBeMounted: a mount from any repository takes one that the
// caller may read, and none where there is none.
func TestGuardFindsWhatMayBeMounted(t *testing.T) {
	inner := open(t)
	image := registrytest.PushImage(t, inner, "team/app")
	for _, repo := range []string{"other/hidden", "public/app"} {
		if _, err := inner.Mount(t.Context(), repo, "team/app", image.Config.Digest); err != nil {
			t.Fatal(err)
		}
	}
	ref := oci.DigestRef(image.Config.Digest)
	a := &asked{}
	if _, err := registry.Guard(inner, a.check).Mount(t.Context(), "team/all", "", image.Config.Digest); err != nil {
		t.Fatalf("by who may read all: %v", err)
	}
	a.want(t, "a mount by who may read all",
		registry.Op{Action: registry.BlobMount, Repo: "team/all", Ref: ref}, registry.Op{Action: registry.BlobFind, Ref: ref})

	readable := "public/app"
	a = &asked{deny: func(op registry.Op) error {
		if op.Action == registry.BlobFind && op.Repo != readable {
			return &registry.Error{Code: registry.NameUnknown}
		}
		return nil
	}}
	guarded := registry.Guard(inner, a.check)
	if _, err := guarded.Mount(t.Context(), "new/app", "", image.Config.Digest); err != nil {
		t.Errorf("by who may read one of them: %v", err)
	}
	readable = "none"
	_, err := guarded.Mount(t.Context(), "new/other", "", image.Config.Digest)
	registrytest.WantCode(t, "by who may read none", err, registry.BlobUnknown)
	if _, err := inner.Blob(t.Context(), "new/other", image.Config.Digest); err == nil {
		t.Error("it is there all the same")
	}
}

func TestGuardAsksAgainAtTheCommit(t *testing.T) {
	inner := open(t)
	a := &asked{}
	r := registry.Guard(inner, a.check)
	content := []byte("abc")
	d := oci.SHA256.FromBytes(content)
	u, err := r.StartUpload(t.Context(), "team/app", registry.UploadOptions{})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	if err := u.Append(t.Context(), 0, bytes.NewReader(content)); err != nil {
		t.Fatalf("append: %v", err)
	}
	a.deny = denied
	_, err = u.Commit(t.Context(), 3, nil, d)
	registrytest.WantCode(t, "commit after the right has gone", err, registry.Denied)
	_, err = r.ResumeUpload(t.Context(), "team/app", u.ID())
	registrytest.WantCode(t, "resume after the right has gone", err, registry.Denied)

	a.deny = nil
	if u, err = r.ResumeUpload(t.Context(), "team/app", u.ID()); err != nil {
		t.Fatalf("resume: %v", err)
	}
	a.ops = nil
	if _, err := u.Commit(t.Context(), 3, nil, d); err != nil {
		t.Fatalf("commit: %v", err)
	}
	a.want(t, "a commit", registry.Op{Action: registry.BlobWrite, Repo: "team/app", Ref: oci.DigestRef(d), Size: 3})
}

// TestGuardAsksAtTheEndOfACommit: a right that goes while the bytes come is
// missed when they are all there.
func TestGuardAsksAtTheEndOfACommit(t *testing.T) {
	inner := open(t)
	a := &asked{}
	r := registry.Guard(inner, a.check)
	content := registrytest.Random(100_000)
	d := oci.SHA256.FromBytes(content)
	u, err := r.StartUpload(t.Context(), "team/app", registry.UploadOptions{})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	if err := u.Append(t.Context(), 0, bytes.NewReader(content[:1000])); err != nil {
		t.Fatalf("append: %v", err)
	}
	revoke := readerFunc(func([]byte) (int, error) {
		a.deny = denied
		return 0, io.EOF
	})
	_, err = u.Commit(t.Context(), 1000, io.MultiReader(bytes.NewReader(content[1000:]), revoke), d)
	registrytest.WantCode(t, "commit while the right goes", err, registry.Denied)
	_, err = inner.Blob(t.Context(), "team/app", d)
	registrytest.WantCode(t, "find what was not committed", err, registry.NameUnknown)

	a.deny, a.ops = nil, nil
	if u, err = r.ResumeUpload(t.Context(), "team/app", u.ID()); err != nil {
		t.Fatalf("resume: %v", err)
	}
	if u.Offset() != int64(len(content)) {
		t.Errorf("the session holds %d bytes, want all %d", u.Offset(), len(content))
	}
	if _, err := u.Commit(t.Context(), -1, bytes.NewReader(nil), d); err != nil {
		t.Fatalf("commit: %v", err)
	}
	write := registry.Op{Action: registry.BlobWrite, Repo: "team/app", Ref: oci.DigestRef(d), Size: int64(len(content))}
	a.want(t, "a commit of what is there", registry.Op{Action: registry.UploadResume, Repo: "team/app"}, write, write)
}

func TestGuardTellsTheSizeOfACommit(t *testing.T) {
	a := &asked{}
	r := registry.Guard(open(t), a.check)
	content := registrytest.Random(5000)
	d := oci.SHA256.FromBytes(content)
	u, err := r.StartUpload(t.Context(), "team/app", registry.UploadOptions{})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	if err := u.Append(t.Context(), 0, bytes.NewReader(content[:1000])); err != nil {
		t.Fatalf("append: %v", err)
	}
	a.ops = nil
	if _, err := u.Commit(t.Context(), 1000, bytes.NewReader(content[1000:]), d); err != nil {
		t.Fatalf("commit: %v", err)
	}
	before := registry.Op{Action: registry.BlobWrite, Repo: "team/app", Ref: oci.DigestRef(d), Size: 1000}
	after := before
	after.Size = 5000
	a.want(t, "a commit with bytes", before, after)
}

// readerFunc is a reader that is one function.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestGuardLeavesBlobsAlone(t *testing.T) {
	inner := open(t)
	d := registrytest.PushBlob(t, inner, "team/app", []byte("abc"))
	plain, err := inner.Blob(t.Context(), "team/app", d.Digest)
	if err != nil {
		t.Fatalf("find the blob: %v", err)
	}
	guarded, err := registry.Guard(inner, allow).Blob(t.Context(), "team/app", d.Digest)
	if err != nil {
		t.Fatalf("find the blob behind a guard: %v", err)
	}
	if a, b := writesTo(t, plain), writesTo(t, guarded); a != b {
		t.Errorf("io.WriterTo: %v without a guard, %v with one", a, b)
	}
}

// writesTo reports whether the blob's reader is an io.WriterTo.
func writesTo(t *testing.T, b registry.Blob) bool {
	t.Helper()
	r, err := b.Open(t.Context(), 0, b.Descriptor().Size)
	if err != nil {
		t.Fatalf("open the blob: %v", err)
	}
	defer r.Close()
	_, ok := r.(io.WriterTo)
	return ok
}
