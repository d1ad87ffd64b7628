package hosted

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

// Candidate is something that collection will remove if nothing comes to hold
// it until it is due.
type Candidate struct {
	Kind       string     `json:"kind"` // manifest, referrer, link, object, upload, project
	Repository string     `json:"repository,omitempty"`
	Digest     oci.Digest `json:"digest,omitempty"`
	Key        string     `json:"key,omitempty"` // of an object or an upload session
	Bytes      int64      `json:"bytes"`
	Why        string     `json:"why"`
	Due        time.Time  `json:"due"`
}

// candidatePage is how many rows are read at a time.
const candidatePage = 500

// Candidates lists what collection would remove, now or later, and why. It
// changes nothing. It reads page by page, while others go on.
func (r *Registry) Candidates(ctx context.Context) iter.Seq2[Candidate, error] {
	return func(yield func(Candidate, error) bool) {
		now := time.Now()
		for _, list := range [...]func(context.Context, time.Time, func(Candidate) bool) (bool, error){
			r.projectCandidates, r.uploadCandidates, r.manifestCandidates, r.linkCandidates, r.objectCandidates,
		} {
			more, err := list(ctx, now, func(c Candidate) bool { return yield(c, nil) })
			if err != nil {
				yield(Candidate{}, err)
				return
			}
			if !more {
				return
			}
		}
	}
}

// walk goes over a list page by page; it ends early, with more false, when fn asks
// for no more.
func walk[T any](ctx context.Context, page func(after T) ([]T, error), first T, fn func(T) bool) (more bool, err error) {
	for after := first; ; {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		list, err := page(after)
		if err != nil || len(list) == 0 {
			return err == nil, err
		}
		for _, item := range list {
			if !fn(item) {
				return false, nil
			}
		}
		after = list[len(list)-1]
	}
}

func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

func (r *Registry) projectCandidates(ctx context.Context, now time.Time, fn func(Candidate) bool) (bool, error) {
	return walk(ctx, func(after meta.DeletedProject) ([]meta.DeletedProject, error) {
		return r.db.DeletedProjects(ctx, after, candidatePage)
	}, meta.DeletedProject{DeletedAt: -1}, func(p meta.DeletedProject) bool {
		c := Candidate{Kind: "project", Repository: p.Name, Bytes: p.Bytes, Due: now, Why: "deleted; its removal has begun"}
		if p.DeletedAt > 0 {
			c.Due = time.UnixMilli(p.DeletedAt).Add(r.o.ProjectRetention)
			c.Why = fmt.Sprintf("deleted at %s; can be restored for %s", stamp(p.DeletedAt), meta.InDays(r.o.ProjectRetention))
		}
		return fn(c)
	})
}

func (r *Registry) uploadCandidates(ctx context.Context, _ time.Time, fn func(Candidate) bool) (bool, error) {
	return walk(ctx, func(after meta.IdleUpload) ([]meta.IdleUpload, error) {
		return r.db.IdleUploads(ctx, after.ID, candidatePage)
	}, meta.IdleUpload{}, func(u meta.IdleUpload) bool {
		return fn(Candidate{Kind: "upload", Repository: u.Repository, Key: u.ID, Bytes: u.Size,
			Due: time.UnixMilli(u.UpdatedAt).Add(r.o.UploadExpiry),
			Why: fmt.Sprintf("upload session that was last written to at %s; can be resumed for %s", stamp(u.UpdatedAt), meta.InDays(r.o.UploadExpiry))})
	})
}

func (r *Registry) manifestCandidates(ctx context.Context, now time.Time, fn func(Candidate) bool) (bool, error) {
	return walk(ctx, func(after meta.LooseManifest) ([]meta.LooseManifest, error) {
		return r.db.LooseManifests(ctx, after.RepositoryID, after.Digest, candidatePage)
	}, meta.LooseManifest{}, func(m meta.LooseManifest) bool {
		policy := r.o.Retention(m.Repository)
		keep := m.Keep(policy)
		if m.Held() || keep == 0 {
			return true
		}
		since := now
		if m.Since > 0 && !m.Deleted {
			since = time.UnixMilli(m.Since)
		}
		c := Candidate{Kind: "manifest", Repository: m.Repository, Digest: m.Digest, Bytes: m.Size, Due: since.Add(keep), Why: m.Why(policy)}
		if m.Subject != "" {
			c.Kind = "referrer"
		}
		if m.Deleted {
			c.Why += ", counted from when its project is restored"
		}
		return fn(c)
	})
}

func (r *Registry) linkCandidates(ctx context.Context, _ time.Time, fn func(Candidate) bool) (bool, error) {
	return walk(ctx, func(after meta.LooseLink) ([]meta.LooseLink, error) {
		return r.db.LooseLinks(ctx, after, candidatePage)
	}, meta.LooseLink{ReviewAt: -1}, func(l meta.LooseLink) bool {
		return l.Held || fn(Candidate{Kind: "link", Repository: l.Repository, Digest: l.Digest, Bytes: l.Size,
			Due: time.UnixMilli(max(l.SeenAt, l.ReviewAt)).Add(r.o.UnreferencedAge),
			Why: fmt.Sprintf("blob that no manifest names, last asked for at %s; such blobs are kept for %s", stamp(l.SeenAt), meta.InDays(r.o.UnreferencedAge))})
	})
}

func (r *Registry) objectCandidates(ctx context.Context, _ time.Time, fn func(Candidate) bool) (bool, error) {
	return walk(ctx, func(after meta.DeadObject) ([]meta.DeadObject, error) {
		return r.db.DeadQueue(ctx, after.At, after.Key, candidatePage)
	}, meta.DeadObject{At: -1}, func(o meta.DeadObject) bool {
		return fn(Candidate{Kind: "object", Key: o.Key, Bytes: o.Bytes, Due: time.UnixMilli(o.At).Add(r.o.DeadAfter),
			Why: fmt.Sprintf("bytes that nothing names since %s", stamp(o.At))})
	})
}
