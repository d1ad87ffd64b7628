package metatest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

// wantUsed checks what the project "team" is said to use, and that it does.
func (e *env) wantUsed(storage, repositories int64) {
	e.Helper()
	p, err := e.db.Project(e.Context(), "team")
	if e.ok(err); p.Storage != storage || p.Repositories != repositories {
		e.Errorf("the project uses %d bytes and %d repositories, want %d and %d", p.Storage, p.Repositories, storage, repositories)
	}
	e.wantAgreement()
}

// wantAgreement checks that no project is miscounted.
func (e *env) wantAgreement() {
	e.Helper()
	for c, err := e.db.CheckUsage(e.Context(), ""); !errors.Is(err, meta.ErrNotFound); c, err = e.db.CheckUsage(e.Context(), c.ProjectID) {
		if e.ok(err); !c.Agrees() {
			e.Errorf("miscounted: %+v", c)
		}
	}
}

// allowed sets what the default plan allows.
func (e *env) allowed(c meta.PlanChange) {
	e.Helper()
	e.ok(e.db.SetPlan(e.Context(), meta.Change{}, access.DefaultPlan, c))
}

func (e *env) wantQuota(what string, err error, want meta.QuotaError) {
	e.Helper()
	var got *meta.QuotaError
	if !errors.As(err, &got) || *got != want {
		e.Errorf("%s: %v, want %+v", what, err, want)
	}
}

// overQuota commits a blob that must exceed a quota; the session stays.
func (e *env) overQuota(repo, name string, want meta.QuotaError) {
	e.Helper()
	u := e.lease(repo, int64(len(name)))
	_, err := e.db.CommitBlob(e.Context(), u, digest(name))
	e.wantQuota("commit "+name, err, want)
	e.release(u)
	_, err = e.db.Upload(e.Context(), repo, u.ID)
	e.ok(err)
}

var usageCases = []testCase{
	{"usage/blobs count once in a project", func(e *env) {
		d, _ := e.push(repo, "abc")
		e.wantUsed(3, 1)
		e.push(repo, "abc")
		e.push(other, "abc")
		_, err := e.db.Mount(e.Context(), "team/third", repo, d)
		e.ok(err)
		e.wantUsed(3, 3)
		e.push("elsewhere/app", "abc")
		e.push(other, "defgh")
		e.wantUsed(8, 3)
		e.ok(e.db.DeleteBlob(e.Context(), repo, d))
		e.ok(e.db.DeleteBlob(e.Context(), other, d))
		e.wantUsed(8, 3)
		e.ok(e.db.DeleteBlob(e.Context(), "team/third", d))
		e.wantUsed(5, 3)
		e.push(repo, "abc")
		e.wantUsed(8, 3)
	}},
	{"usage/manifests count in each repository", func(e *env) {
		d, _ := e.push(repo, "abc")
		m := e.put(image(repo, "manifest", d), "v1")
		e.put(image(repo, "manifest", d), "v2")
		e.wantUsed(3+8, 1)
		e.put(sparse(image(other, "manifest", d)))
		e.wantUsed(3+8+8, 2)
		e.ok(e.db.DeleteTag(e.Context(), repo, "v1"))
		e.wantUsed(3+8+8, 2)
		e.ok(e.db.DeleteManifest(e.Context(), repo, m))
		e.wantUsed(3+8, 2)
	}},
	{"usage/what is collected is given back", func(e *env) {
		d, _ := e.push(repo, "abc")
		_, err := e.db.Mount(e.Context(), other, repo, d)
		e.ok(err)
		e.put(image(other, "m", d))
		e.push(repo, "defgh")
		e.clock.move(day)
		e.wantCollected(2, 3)
		e.wantUsed(3+1, 2)
	}},
	{"usage/of a damaged blob", func(e *env) {
		d, old := e.push(repo, "abc")
		e.damage(d, old)
		e.push(other, "abc")
		e.wantUsed(3, 2)
		e.ok(e.db.DeleteBlob(e.Context(), repo, d))
		e.ok(e.db.DeleteBlob(e.Context(), other, d))
		e.wantUsed(0, 2)
	}},
	{"usage/of a blob whose row gave a wrong size", func(e *env) {
		e.push("elsewhere/app", "abc")
		d, _ := e.push(repo, "abc")
		e.damage(d, e.hasBlob(repo, d).Key)
		_, err := e.db.CommitBlob(e.Context(), e.lease(other, 5), d)
		e.ok(err)
		e.wantUsed(5, 2)
		e.ok(e.db.DeleteBlob(e.Context(), repo, d))
		e.ok(e.db.DeleteBlob(e.Context(), other, d))
		e.wantUsed(0, 2)
	}},
	{"usage/of nothing that was refused", func(e *env) {
		e.push(repo, "abc")
		e.wantMissing(image(repo, "m", digest("absent")), digest("absent"))
		e.wantMissing(image(other, "m", digest("absent")), digest("absent"))
		e.wantUsed(3, 1)
	}},
	{"usage/a project is made by the first write", func(e *env) {
		before := e.accessGeneration()
		e.lease("app", 1)
		if _, err := e.db.Project(e.Context(), "app"); !errors.Is(err, meta.ErrNotFound) || e.accessGeneration() != before {
			e.Errorf("a session makes a project: %v", err)
		}
		e.push("app", "a")
		e.push("app/b/c", "a")
		p, err := e.db.Project(e.Context(), "app")
		if e.ok(err); p.Claimed || p.Visibility != access.Private || p.Newcomers != "" || p.Organization != "default" || p.Repositories != 2 {
			e.Errorf("made as %+v", p)
		}
		after := e.accessGeneration()
		if after <= before {
			e.Errorf("the generation went from %d to %d", before, after)
		}
		e.push("app", "b")
		e.push("app/d", "b")
		e.put(image("app", "m"), "v1")
		if got := e.accessGeneration(); got != after {
			e.Errorf("writes to a project that is there raise the generation from %d to %d", after, got)
		}
	}},
	{"usage/of a project made on purpose", func(e *env) {
		_, err := e.db.CreateProject(e.Context(), meta.Change{}, meta.ProjectSpec{Name: "team", Visibility: access.Public})
		e.ok(err)
		e.push(repo, "abc")
		e.wantUsed(3, 1)
	}},
	{"usage/repaired", func(e *env) {
		d, _ := e.push(repo, "abc")
		e.push(other, "abc")
		e.put(image(repo, "m", d))
		c, err := e.db.CheckUsage(e.Context(), "")
		e.ok(err)
		e.ok(e.db.RepairUsage(e.Context(), c.ProjectID))
		e.wantUsed(4, 2)
		e.ok(e.db.RepairUsage(e.Context(), "none"))
	}},
}

var quotaCases = []testCase{
	{"quota/storage", func(e *env) {
		e.allowed(meta.PlanChange{Storage: new(int64(10))})
		d, _ := e.push(repo, "abcdef")
		e.push(repo, "ghi")
		e.overQuota(repo, "jk", meta.QuotaError{Quota: meta.Storage, Limit: 10, Used: 9, Asked: 2})
		e.overQuota(other, "jk", meta.QuotaError{Quota: meta.Storage, Limit: 10, Used: 9, Asked: 2})
		e.wantUsed(9, 1)
		err := e.db.PutManifest(e.Context(), image(repo, "mm", d))
		e.wantQuota("put a manifest", err, meta.QuotaError{Quota: meta.Storage, Limit: 10, Used: 9, Asked: 2})
		e.noManifest(repo, oci.DigestRef(digest("mm")), meta.ErrNotFound)
		e.push("elsewhere/app", "xyz")
		_, err = e.db.Mount(e.Context(), repo, "elsewhere/app", digest("xyz"))
		e.wantQuota("mount", err, meta.QuotaError{Quota: meta.Storage, Limit: 10, Used: 9, Asked: 3})
		e.push(other, "abcdef") // which the project has
		e.put(image(repo, "m", d))
		e.wantUsed(10, 2)
		e.push(repo, "")
		e.put(image(repo, "m", d), "v1")
		e.ok(e.db.DeleteManifest(e.Context(), repo, digest("m")))
		e.push(repo, "z")
		e.wantUsed(10, 2)
	}},
	{"quota/repositories", func(e *env) {
		e.allowed(meta.PlanChange{Repositories: new(int64(2))})
		e.push(repo, "a")
		e.put(image(other, "m"))
		e.overQuota("team/third", "a", meta.QuotaError{Quota: meta.Repositories, Limit: 2, Used: 2, Asked: 1})
		err := e.db.PutManifest(e.Context(), image("team/third", "m"))
		e.wantQuota("put into a new repository", err, meta.QuotaError{Quota: meta.Repositories, Limit: 2, Used: 2, Asked: 1})
		_, err = e.db.Tags(e.Context(), "team/third", "", 1)
		e.wantErr("list what was refused", err, meta.ErrNoRepository)
		e.push("elsewhere/app", "a")
		e.push(repo, "b")
		e.wantUsed(3, 2)
	}},
	{"quota/sizes", func(e *env) {
		e.allowed(meta.PlanChange{MaxBlob: new(int64(3)), MaxManifest: new(int64(4))})
		d, _ := e.push(repo, "abc")
		e.overQuota(repo, "abcd", meta.QuotaError{Quota: meta.BlobSize, Limit: 3, Asked: 4})
		e.put(image(repo, "mmmm", d))
		err := e.db.PutManifest(e.Context(), image(repo, "mmmmm"))
		e.wantQuota("put a large manifest", err, meta.QuotaError{Quota: meta.ManifestSize, Limit: 4, Asked: 5})
		e.wantUsed(7, 1)
		for name, want := range map[string]int64{repo: 3, "new/app": 3} {
			u := e.lease(name, 0)
			if got, err := e.db.Upload(e.Context(), name, u.ID); err != nil || got.MaxBlob != want || u.MaxBlob != want {
				e.Errorf("a session in %s may have %d bytes (%d when leased), want %d: %v", name, got.MaxBlob, u.MaxBlob, want, err)
			}
		}
	}},
	{"quota/lowered below the use", func(e *env) {
		d, _ := e.push(repo, "abcdef")
		e.push(other, "x")
		m := e.put(image(repo, "manifest", d), "v1")
		e.allowed(meta.PlanChange{MaxBlob: new(int64(3)), MaxManifest: new(int64(3)), Storage: new(int64(5)), Repositories: new(int64(1))})
		e.put(image(repo, "manifest", d), "v2")
		e.push(repo, "abcdef")
		_, err := e.db.Mount(e.Context(), other, repo, d)
		e.ok(err)
		e.overQuota(repo, "y", meta.QuotaError{Quota: meta.Storage, Limit: 5, Used: 15, Asked: 1})
		e.overQuota("team/third", "abcdef", meta.QuotaError{Quota: meta.Repositories, Limit: 1, Used: 2, Asked: 1})
		e.ok(e.db.DeleteManifest(e.Context(), repo, m))
		e.overQuota(repo, "y", meta.QuotaError{Quota: meta.Storage, Limit: 5, Used: 7, Asked: 1})
		e.ok(e.db.DeleteBlob(e.Context(), repo, d))
		e.ok(e.db.DeleteBlob(e.Context(), other, d))
		e.push(repo, "y")
		e.wantUsed(2, 2)
	}},
	{"quota/of the project's plan before the organization's", func(e *env) {
		for name, storage := range map[string]int64{"small": 3, "large": 0} {
			_, err := e.db.CreatePlan(e.Context(), meta.Change{}, access.Plan{Name: name, Storage: storage})
			e.ok(err)
		}
		e.allowed(meta.PlanChange{Storage: new(int64(4))})
		o, err := e.db.CreateOrganization(e.Context(), meta.Change{}, meta.Organization{Name: "org", Plan: "small"})
		e.ok(err)
		p, err := e.db.CreateProject(e.Context(), meta.Change{}, meta.ProjectSpec{Name: "team", Visibility: access.Private})
		e.ok(err)
		content := func(limit int64, exceed bool) {
			e.Helper()
			u := e.lease(repo, 5)
			_, err := e.db.CommitBlob(e.Context(), u, digest("content"))
			if exceed {
				e.wantQuota("commit", err, meta.QuotaError{Quota: meta.Storage, Limit: limit, Asked: 5})
			} else {
				e.ok(err)
			}
			e.release(u)
		}
		content(4, true)
		e.ok(e.db.SetProject(e.Context(), meta.Change{}, p.ID, meta.ProjectChange{OrganizationID: &o.ID}))
		content(3, true)
		e.ok(e.db.SetProject(e.Context(), meta.Change{}, p.ID, meta.ProjectChange{Plan: new("large")}))
		content(0, false)
	}},
	{"quota/never exceeded by those who race", func(e *env) {
		e.allowed(meta.PlanChange{Storage: new(int64(40)), Repositories: new(int64(7))})
		name := func(i int) string { return strings.Repeat(string(rune('a'+i)), 3) }
		uploads := make([]meta.Upload, 20)
		for i := range uploads {
			uploads[i] = e.lease(fmt.Sprint("team/app", i%10), 3)
		}
		done := 0
		for i, err := range together(40, func(i int) error {
			if i >= 20 {
				return e.db.PutManifest(e.Context(), image(fmt.Sprint("team/app", i%10), fmt.Sprint("m", i)))
			}
			_, err := e.db.CommitBlob(e.Context(), uploads[i], digest(name(i)))
			return err
		}) {
			var quota *meta.QuotaError
			switch {
			case err == nil && i < 20, err == nil:
				done++
			case !errors.As(err, &quota):
				e.Errorf("write %d: %v", i, err)
			}
		}
		p, err := e.db.Project(e.Context(), "team")
		if e.ok(err); p.Storage > 40 || p.Storage < 30 || p.Repositories != 7 || done == 0 {
			e.Errorf("%d writes have passed, the project uses %d bytes and %d repositories", done, p.Storage, p.Repositories)
		}
		e.wantAgreement()
	}},
	{"quota/pushes and deletes that race are counted", func(e *env) {
		for range 10 {
			d, _ := e.push(repo, "abc")
			u := e.lease(other, 3)
			for _, err := range together(4, func(i int) (err error) {
				switch i {
				case 0:
					_, err = e.db.CommitBlob(e.Context(), u, d)
				case 1:
					err = e.db.DeleteBlob(e.Context(), repo, d)
				case 2:
					_, err = e.db.Mount(e.Context(), "team/third", "", d)
				case 3:
					err = e.db.PutManifest(e.Context(), sparse(image(other, "m", d)))
				}
				if errors.Is(err, meta.ErrNotFound) {
					return nil
				}
				return err
			}) {
				e.ok(err)
			}
			e.wantAgreement()
			e.ok(e.db.DeleteManifest(e.Context(), other, digest("m")))
		}
	}},
}
