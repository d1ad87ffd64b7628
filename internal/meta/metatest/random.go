package metatest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

const (
	randomSeeds = 3
	randomSteps = 500 // of each
	randomCheck = 100 // steps between two looks at everything
)

// randomCases do whatever can be done with content and projects in an order
// that nobody would think of, always the same one.
var randomCases = []testCase{
	{"random/what is counted stays true", func(e *env) {
		for seed := range uint64(randomSeeds) {
			h := newHistory(e, seed)
			for n := range randomSteps {
				h.step()
				if n%randomCheck == 0 {
					h.check()
				}
				if e.Failed() {
					e.Fatalf("seed %d, step %d: %s", seed, n, strings.Join(h.done[max(0, len(h.done)-20):], "; "))
				}
			}
			h.end()
		}
	}},
}

// history is a walk through all that a registry does, with the blob store that
// goes with it.
type history struct {
	*env
	*rand.Rand
	stored    map[string]bool // objects that have bytes
	sessions  []meta.Upload
	manifests []meta.PutManifest
	limits    access.Plan // what the default plan allows now
	done      []string
}

func newHistory(e *env, seed uint64) *history {
	h := &history{env: e, Rand: rand.New(rand.NewPCG(seed, 1)), stored: map[string]bool{}}
	e.allowed(meta.PlanChange{Storage: &h.limits.Storage, Repositories: &h.limits.Repositories}) // no limit
	for i := range 8 {
		m := image("", fmt.Sprint("image", i), digest(h.blob()))
		m.Parsed.Blobs = uniqueDescriptors(append(m.Parsed.Blobs, descriptors([]oci.Digest{digest(h.blob()), digest(h.blob())})...))
		foreign := descriptors([]oci.Digest{digest("foreign")})
		if i%3 == 0 && !slices.ContainsFunc(m.Parsed.Blobs, func(d oci.Descriptor) bool { return d.Digest == foreign[0].Digest }) {
			m.Parsed.Foreign = foreign
		}
		h.manifests = append(h.manifests, m)
	}
	for i := range 4 {
		m := of(h.manifests[i].Digest, image("", fmt.Sprint("referrer", i), digest(h.blob())))
		h.manifests = append(h.manifests, m)
	}
	for i := range 4 {
		children := []oci.Digest{h.manifests[h.IntN(len(h.manifests))].Digest, h.manifests[i].Digest}
		m := index("", fmt.Sprint("index", i), children...)
		m.Parsed.Manifests = uniqueDescriptors(m.Parsed.Manifests)
		h.manifests = append(h.manifests, m)
	}
	return h
}

func uniqueDescriptors(list []oci.Descriptor) []oci.Descriptor {
	slices.SortFunc(list, func(a, b oci.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return slices.CompactFunc(list, func(a, b oci.Descriptor) bool { return a.Digest == b.Digest })
}

func (h *history) pick(list ...string) string { return list[h.IntN(len(list))] }
func (h *history) name() string               { return h.pick("red", "green", "blue") }
func (h *history) repo() string               { return h.name() + h.pick("", "/x", "/x/y") }

// blob is the content of one; it may be empty.
func (h *history) blob() string {
	if h.IntN(10) == 0 {
		return "foreign"
	}
	return strings.Repeat(h.pick("p", "q"), h.IntN(6))
}

// step does one thing; those that come more often stand more often.
func (h *history) step() {
	steps := []func(){
		h.begin, h.begin, h.begin, h.finish, h.finish, h.finish, h.leave, h.mount, h.mount,
		h.put, h.put, h.put, h.put, h.put, h.put, h.untag, h.deleteManifest, h.deleteBlob, h.deleteBlob,
		h.damage, h.collect, h.wait, h.rename, h.deleteProject, h.restore, h.restore, h.restore, h.limit,
	}
	steps[h.IntN(len(steps))]()
}

// did notes what was done; only errors that can happen may have.
func (h *history) did(err error, what string, args ...any) {
	h.Helper()
	what = fmt.Sprintf(what, args...)
	h.done = append(h.done, fmt.Sprintf("%s: %v", what, err))
	var missing *meta.MissingError
	var held *meta.ReferencedError
	var quota *meta.QuotaError
	var deleted *access.DeletedError
	switch {
	case err == nil, errors.As(err, &missing), errors.As(err, &held), errors.As(err, &quota), errors.As(err, &deleted),
		errors.Is(err, meta.ErrNotFound), errors.Is(err, meta.ErrNoRepository), errors.Is(err, meta.ErrLeased):
	case errors.Is(err, meta.ErrExists) && strings.HasPrefix(what, "rename"):
	default:
		h.Errorf("%s: %v", what, err)
	}
}

func (h *history) begin() {
	u := h.lease(h.repo(), 0)
	h.stored[u.ID] = true
	h.sessions = append(h.sessions, u)
	h.did(nil, "begin in %s", u.Repository)
}

// session takes one out of those that are open.
func (h *history) session() (u meta.Upload, ok bool) {
	if len(h.sessions) == 0 {
		return u, false
	}
	i := h.IntN(len(h.sessions))
	u = h.sessions[i]
	h.sessions = slices.Delete(h.sessions, i, i+1)
	return u, true
}

func (h *history) finish() {
	u, ok := h.session()
	if !ok {
		return
	}
	content := h.blob()
	u.Size = int64(len(content))
	h.growing(u.Repository, digest(content), func() error {
		_, err := h.db.CommitBlob(h.Context(), u, digest(content))
		h.did(err, "commit %q in %s", content, u.Repository)
		return err
	})
	h.release(u)
}

// leave ends a session, or just goes away.
func (h *history) leave() {
	u, ok := h.session()
	if !ok {
		return
	}
	if h.IntN(2) == 0 {
		h.did(h.db.CancelUpload(h.Context(), u), "cancel in %s", u.Repository)
	}
	h.release(u)
}

func (h *history) mount() {
	to, from, d := h.repo(), h.pick("", h.repo(), h.repo()), digest(h.blob())
	if h.IntN(5) == 0 {
		from = to
	}
	h.growing(to, d, func() error {
		_, err := h.db.Mount(h.Context(), to, from, d)
		h.did(err, "mount from %q into %s", from, to)
		return err
	})
}

func (h *history) put() {
	m := h.manifests[h.IntN(len(h.manifests))]
	m.Repository, m.AllowMissing = h.repo(), h.IntN(4) == 0
	if h.IntN(2) == 0 {
		m.Tags = []string{h.pick("v1", "v2", "v3")}
	}
	h.growing(m.Repository, "", func() error {
		err := h.db.PutManifest(h.Context(), m)
		h.did(err, "put %s into %s, sparse %t", m.Content, m.Repository, m.AllowMissing)
		return err
	})
}

func (h *history) untag() {
	repo := h.repo()
	h.did(h.db.DeleteTag(h.Context(), repo, h.pick("v1", "v2", "v3")), "untag in %s", repo)
}

func (h *history) deleteManifest() {
	repo, m := h.repo(), h.manifests[h.IntN(len(h.manifests))]
	h.did(h.db.DeleteManifest(h.Context(), repo, m.Digest), "delete %s in %s", m.Content, repo)
}

func (h *history) deleteBlob() {
	repo, content := h.repo(), h.blob()
	h.did(h.db.DeleteBlob(h.Context(), repo, digest(content)), "delete blob %q in %s", content, repo)
}

func (h *history) damage() {
	blobs, err := h.db.CheckBlobs(h.Context(), "", 100)
	if h.ok(err); len(blobs) > 0 && h.IntN(3) == 0 {
		h.did(h.db.MarkDamaged(h.Context(), blobs[h.IntN(len(blobs))]), "damage")
	}
}

func (h *history) wait() {
	h.clock.move(time.Duration(h.IntN(20)) * time.Hour)
	h.did(nil, "wait")
}

// collect does what a collection does, in small pieces.
func (h *history) collect() {
	now, n := h.clock.now(), 1+h.IntN(10)
	_, _, err := h.db.PurgeProjects(h.Context(), now.Add(-3*day), n)
	h.did(err, "purge %d rows", n)
	_, err = h.db.ExpireUploads(h.Context(), now.Add(-2*day), n)
	h.did(err, "expire %d sessions", n)
	_, err = h.db.CollectManifests(h.Context(), func(string) meta.Retention { return meta.Retention{Untagged: 2 * day, Orphans: day} }, now, n)
	h.did(err, "collect %d manifests", n)
	_, _, err = h.db.CollectLinks(h.Context(), now.Add(-day), n)
	h.did(err, "collect %d links", n)
	dead, err := h.db.DeadObjects(h.Context(), now, n)
	h.ok(err)
	for _, o := range dead {
		if !h.stored[o.Key] {
			h.Errorf("%s is dead and has no bytes", o.Key)
		}
		delete(h.stored, o.Key)
		h.ok(h.db.ForgetDead(h.Context(), o.Key))
	}
}

func (h *history) rename() {
	p, err := h.db.Project(h.Context(), h.name())
	if err == nil {
		name := h.name()
		h.did(h.db.RenameProject(h.Context(), meta.Change{}, p.ID, name), "rename %s to %s", p.Name, name)
	}
}

func (h *history) deleteProject() {
	p, err := h.db.Project(h.Context(), h.name())
	if err == nil {
		_, err = h.db.DeleteProject(h.Context(), meta.Change{}, p.ID)
		h.did(err, "delete project %s", p.Name)
	}
}

func (h *history) restore() {
	p, err := h.db.Project(h.Context(), h.name())
	if err == nil {
		h.did(h.db.RestoreProject(h.Context(), meta.Change{}, p.ID), "restore project %s", p.Name)
	}
}

func (h *history) limit() {
	h.limits.Storage, h.limits.Repositories = int64(h.IntN(3)*50), int64(h.IntN(3)*3)
	h.allowed(meta.PlanChange{Storage: &h.limits.Storage, Repositories: &h.limits.Repositories})
	h.did(nil, "allow %d bytes and %d repositories", h.limits.Storage, h.limits.Repositories)
}

// growing runs a write that a quota may refuse, and checks that it is refused
// when, and only when, it must be. d is a blob that comes, or "".
func (h *history) growing(repo string, d oci.Digest, write func() error) {
	h.Helper()
	name := access.ProjectOf(repo)
	before, _ := h.db.Project(h.Context(), name) // one that is not there uses nothing
	near, err := h.db.Holders(h.Context(), repo, d, 1)
	h.ok(err)
	err = write()
	after, _ := h.db.Project(h.Context(), name)
	for _, of := range []struct {
		what                 meta.Quota
		limit, before, after int64
	}{
		{meta.Storage, h.limits.Storage, before.Storage, after.Storage},
		{meta.Repositories, h.limits.Repositories, before.Repositories, after.Repositories},
	} {
		if of.after > of.before && of.limit > 0 && of.after > of.limit {
			h.Errorf("%s of %s: from %d to %d, %d are allowed", of.what, name, of.before, of.after, of.limit)
		}
		var quota *meta.QuotaError
		if !errors.As(err, &quota) || quota.Quota != of.what {
			continue
		}
		if *quota != (meta.QuotaError{Quota: of.what, Limit: of.limit, Used: of.before, Asked: quota.Asked}) || quota.Used+quota.Asked <= quota.Limit {
			h.Errorf("refused with %+v, %s uses %+v", quota, name, before)
		}
		if of.what == meta.Storage && len(near) > 0 && access.ProjectOf(near[0]) == name {
			h.Errorf("%s has the blob in %s and is refused: %v", name, near[0], err)
		}
	}
}

// check looks at everything.
func (h *history) check() {
	h.Helper()
	h.wantAgreement()
	findings, err := h.db.CheckDatabase(h.Context())
	if h.ok(err); len(findings) > 0 {
		h.Errorf("the database is damaged: %v", findings)
	}
	for key := range h.stored {
		_, _, err := h.db.KeyOwner(h.Context(), key)
		if err != nil {
			h.Errorf("the bytes of %s are nobody's: %v", key, err)
		}
	}
	blobs, err := h.db.CheckBlobs(h.Context(), "", 1000)
	h.ok(err)
	for _, b := range blobs {
		if !h.stored[b.Key] {
			h.Errorf("a blob has no bytes: %+v", b)
		}
		if repos, err := h.db.LinkedBy(h.Context(), b.Digest, 1); err != nil || len(repos) == 0 {
			h.Errorf("nobody links a blob: %+v, %v", b, err)
		}
	}
}

func (h *history) exists(project string) bool {
	_, err := h.db.Project(h.Context(), project)
	return err == nil
}

// end deletes all projects, after which nothing may be left.
func (h *history) end() {
	h.check()
	projects := []string{"red", "green", "blue"}
	for _, name := range projects {
		if p, err := h.db.Project(h.Context(), name); err == nil && p.DeletedAt.IsZero() {
			_, err := h.db.DeleteProject(h.Context(), meta.Change{}, p.ID)
			h.ok(err)
		}
	}
	for _, u := range h.sessions {
		h.release(u)
	}
	h.clock.move(30 * day)
	for range 1000 {
		h.collect()
		if len(h.stored) == 0 && !slices.ContainsFunc(projects, h.exists) {
			break
		}
	}
	h.check()
	totals, err := h.db.CheckTotals(h.Context())
	h.ok(err)
	_, left := h.db.CheckUsage(h.Context(), "")
	if totals != (meta.Totals{}) || len(h.stored) > 0 || !errors.Is(left, meta.ErrNotFound) {
		h.Errorf("left are %+v, objects %v, projects %v", totals, h.stored, left)
	}
}
