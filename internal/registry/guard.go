package registry

import (
	"context"
	"io"
	"iter"

	"github.com/berth-registry/berth/internal/oci"
)

// Guard puts checks in front of r. Each method asks all of them, in order,
// before it forwards; the first refusal is the answer.
//
// Lists are asked for as a whole and then item by item, before any paging:
// tags and referrers as a ManifestStat, repositories as RepositoriesList with
// the name. A refused item (Denied, Unauthorized, NameUnknown, ManifestUnknown)
// is left out; any other error of a check ends the list.
//
// A blob that is found can be opened, so Blob is checked as BlobRead. Mount is
// a BlobMount into repo and a BlobRead of from; where reading is refused the
// blob is unknown. A mount from any repository is a BlobFind of all at once or,
// where that is refused, of one holder after the other. PutManifest is a ManifestWrite and a TagWrite for each tag.
//
// An upload session cannot outlive its right: it is checked when it starts,
// when it is resumed and when it commits. A commit that brings bytes is asked
// for twice as the same BlobWrite: with the bytes that are there before any are
// read, and with all of them when the last one is, however long that took. A
// refusal then leaves them in the session. Append asks nothing more: what it
// adds becomes content with a commit only, and the next request asks anyway.
func Guard(r Registry, checks ...Check) Registry {
	if len(checks) == 0 {
		return r
	}
	return &guard{inner: r, checks: checks}
}

// guard does not embed Registry: a new method must be thought about.
type guard struct {
	inner  Registry
	checks []Check
}

func (g *guard) check(ctx context.Context, op Op) error {
	for _, check := range g.checks {
		if err := check(ctx, op); err != nil {
			return err
		}
	}
	return nil
}

func (g *guard) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	if err := g.check(ctx, Op{Action: ManifestStat, Repo: repo, Ref: ref}); err != nil {
		return oci.Descriptor{}, err
	}
	return g.inner.Resolve(ctx, repo, ref)
}

func (g *guard) Manifest(ctx context.Context, repo string, ref oci.Ref) (Manifest, error) {
	if err := g.check(ctx, Op{Action: ManifestRead, Repo: repo, Ref: ref}); err != nil {
		return Manifest{}, err
	}
	return g.inner.Manifest(ctx, repo, ref)
}

func (g *guard) Blob(ctx context.Context, repo string, d oci.Digest) (Blob, error) {
	if err := g.check(ctx, Op{Action: BlobRead, Repo: repo, Ref: oci.DigestRef(d)}); err != nil {
		return nil, err
	}
	return g.inner.Blob(ctx, repo, d)
}

func (g *guard) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return filtered(ctx, g, Op{Action: TagsList, Repo: repo},
		func() iter.Seq2[string, error] { return g.inner.Tags(ctx, repo, after) },
		func(tag string) Op { return Op{Action: ManifestStat, Repo: repo, Ref: oci.TagRef(tag)} })
}

// Referrers of a repository that the caller may not know of are none, as those
// of one that does not exist. What the registry itself says is passed on.
func (g *guard) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return func(yield func(oci.Descriptor, error) bool) {
		err := g.check(ctx, Op{Action: ReferrersList, Repo: repo, Ref: oci.DigestRef(subject)})
		if IsCode(err, NameUnknown) {
			return
		}
		if err != nil {
			yield(oci.Descriptor{}, err)
			return
		}
		permitted(ctx, g, g.inner.Referrers(ctx, repo, subject, artifactType, after),
			func(d oci.Descriptor) Op { return Op{Action: ManifestStat, Repo: repo, Ref: oci.DigestRef(d.Digest)} })(yield)
	}
}

func (g *guard) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return filtered(ctx, g, Op{Action: RepositoriesList},
		func() iter.Seq2[string, error] { return g.inner.Repositories(ctx, after) },
		func(name string) Op { return Op{Action: RepositoriesList, Repo: name} })
}

// filtered asks for the list when it is walked and then for each item.
func filtered[T any](ctx context.Context, g *guard, list Op, open func() iter.Seq2[T, error], item func(T) Op) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if err := g.check(ctx, list); err != nil {
			var zero T
			yield(zero, err)
			return
		}
		permitted(ctx, g, open(), item)(yield)
	}
}

// permitted asks for each item of a list.
func permitted[T any](ctx context.Context, g *guard, list iter.Seq2[T, error], item func(T) Op) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for v, err := range list {
			if err == nil {
				err = g.check(ctx, item(v))
				if refusal(err) {
					continue
				}
			}
			if err != nil {
				var zero T
				yield(zero, err)
				return
			}
			if !yield(v, nil) {
				return
			}
		}
	}
}

// refusal reports whether a check's error says that the caller may not see
// something, as opposed to the check itself having failed.
func refusal(err error) bool {
	if err == nil {
		return false
	}
	switch CodeOf(err) {
	case Denied, Unauthorized, NameUnknown, ManifestUnknown:
		return true
	}
	return false
}

func (g *guard) PutManifest(ctx context.Context, repo string, m Manifest, tags ...string) (PutResult, error) {
	op := Op{Action: ManifestWrite, Repo: repo, Ref: oci.DigestRef(m.Digest), Size: int64(len(m.Content))}
	if err := g.check(ctx, op); err != nil {
		return PutResult{}, err
	}
	for _, tag := range tags {
		op := Op{Action: TagWrite, Repo: repo, Ref: oci.TagRef(tag)}
		if err := g.check(ctx, op); err != nil {
			return PutResult{}, err
		}
	}
	return g.inner.PutManifest(ctx, repo, m, tags...)
}

func (g *guard) Mount(ctx context.Context, repo, from string, d oci.Digest) (oci.Descriptor, error) {
	ref := oci.DigestRef(d)
	if err := g.check(ctx, Op{Action: BlobMount, Repo: repo, From: from, Ref: ref}); err != nil {
		return oci.Descriptor{}, err
	}
	if from == "" {
		return g.mountFromAny(ctx, repo, d)
	}
	err := g.check(ctx, Op{Action: BlobRead, Repo: from, Ref: ref})
	if refusal(err) {
		return oci.Descriptor{}, &Error{Code: BlobUnknown, Repo: repo, Err: err}
	}
	if err != nil {
		return oci.Descriptor{}, err
	}
	return g.inner.Mount(ctx, repo, from, d)
}

// mountFromAny mounts from the first repository found that may be read.
func (g *guard) mountFromAny(ctx context.Context, repo string, d oci.Digest) (oci.Descriptor, error) {
	switch err := g.check(ctx, Op{Action: BlobFind, Ref: oci.DigestRef(d)}); {
	case err == nil:
		return g.inner.Mount(ctx, repo, "", d)
	case !refusal(err):
		return oci.Descriptor{}, err
	}
	for from, err := range g.Holders(ctx, repo, d) {
		if err != nil {
			return oci.Descriptor{}, err
		}
		return g.inner.Mount(ctx, repo, from, d)
	}
	return oci.Descriptor{}, &Error{Code: BlobUnknown, Repo: repo}
}

// Holders leaves out the repositories that may not be read.
func (g *guard) Holders(ctx context.Context, near string, d oci.Digest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for repo, err := range g.inner.Holders(ctx, near, d) {
			if err == nil {
				err = g.check(ctx, Op{Action: BlobFind, Repo: repo, Ref: oci.DigestRef(d)})
			}
			if refusal(err) {
				continue
			}
			if !yield(repo, err) || err != nil {
				return
			}
		}
	}
}

func (g *guard) StartUpload(ctx context.Context, repo string, o UploadOptions) (Upload, error) {
	if err := g.check(ctx, Op{Action: UploadStart, Repo: repo}); err != nil {
		return nil, err
	}
	return g.upload(repo)(g.inner.StartUpload(ctx, repo, o))
}

func (g *guard) ResumeUpload(ctx context.Context, repo, id string) (Upload, error) {
	if err := g.check(ctx, Op{Action: UploadResume, Repo: repo}); err != nil {
		return nil, err
	}
	return g.upload(repo)(g.inner.ResumeUpload(ctx, repo, id))
}

// upload wraps the outcome of opening a session.
func (g *guard) upload(repo string) func(Upload, error) (Upload, error) {
	return func(u Upload, err error) (Upload, error) {
		if err != nil {
			return nil, err
		}
		return &guardedUpload{inner: u, guard: g, repo: repo}, nil
	}
}

func (g *guard) DeleteTag(ctx context.Context, repo, tag string) error {
	if err := g.check(ctx, Op{Action: TagDelete, Repo: repo, Ref: oci.TagRef(tag)}); err != nil {
		return err
	}
	return g.inner.DeleteTag(ctx, repo, tag)
}

func (g *guard) DeleteManifest(ctx context.Context, repo string, d oci.Digest) error {
	if err := g.check(ctx, Op{Action: ManifestDelete, Repo: repo, Ref: oci.DigestRef(d)}); err != nil {
		return err
	}
	return g.inner.DeleteManifest(ctx, repo, d)
}

func (g *guard) DeleteBlob(ctx context.Context, repo string, d oci.Digest) error {
	if err := g.check(ctx, Op{Action: BlobDelete, Repo: repo, Ref: oci.DigestRef(d)}); err != nil {
		return err
	}
	return g.inner.DeleteBlob(ctx, repo, d)
}

// guardedUpload checks again at the commit, where bytes become a blob.
type guardedUpload struct {
	inner Upload
	guard *guard
	repo  string
}

func (u *guardedUpload) ID() string    { return u.inner.ID() }
func (u *guardedUpload) Offset() int64 { return u.inner.Offset() }

func (u *guardedUpload) Append(ctx context.Context, off int64, r io.Reader) error {
	return u.inner.Append(ctx, off, r)
}

func (u *guardedUpload) Commit(ctx context.Context, off int64, r io.Reader, d oci.Digest) (oci.Descriptor, error) {
	op := Op{Action: BlobWrite, Repo: u.repo, Ref: oci.DigestRef(d), Size: u.inner.Offset()}
	if err := u.guard.check(ctx, op); err != nil {
		return oci.Descriptor{}, err
	}
	if r != nil {
		r = &lastCheck{inner: r, check: func(n int64) error {
			op.Size += n
			return u.guard.check(ctx, op)
		}}
	}
	return u.inner.Commit(ctx, off, r, d)
}

// lastCheck ends a body with the outcome of a check, which learns its length.
// It asks once.
type lastCheck struct {
	inner io.Reader
	n     int64
	check func(n int64) error
	end   error // nil: not reached
}

func (r *lastCheck) Read(p []byte) (int, error) {
	if r.end != nil {
		return 0, r.end
	}
	n, err := r.inner.Read(p)
	r.n += int64(n)
	if err != io.EOF {
		return n, err
	}
	if r.end = r.check(r.n); r.end == nil {
		r.end = io.EOF
	}
	return n, r.end
}

// Cancel needs no right of its own: it gives back what the session took.
func (u *guardedUpload) Cancel(ctx context.Context) error { return u.inner.Cancel(ctx) }
