package metatest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

// monthly keeps manifests for 30 days, and those without their subject for 7.
func monthly(string) meta.Retention { return meta.Retention{Untagged: 30 * day, Orphans: 7 * day} }

// forEver keeps manifests, also those without their subject.
func forEver(string) meta.Retention { return meta.Retention{} }

// reviewed collects manifests by a policy until nothing is due.
func (e *env) reviewed(policy func(string) meta.Retention) (removed []oci.Digest) {
	e.Helper()
	before := e.manifests()
	for range 1000 {
		got, err := e.db.CollectManifests(e.Context(), policy, e.clock.now(), 7)
		if e.ok(err); got.Seen == 0 {
			for _, d := range before {
				if !slices.Contains(e.manifests(), d) {
					removed = append(removed, d)
				}
			}
			return removed
		}
	}
	e.Fatal("the same manifests are due again and again")
	return nil
}

func (e *env) manifests() (all []oci.Digest) {
	e.Helper()
	list, err := e.db.CheckManifests(e.Context(), "", "", 1000)
	e.ok(err)
	for _, m := range list {
		all = append(all, m.Digest)
	}
	return all
}

// wantReviewed collects by monthly, and checks that just these go.
func (e *env) wantReviewed(want ...oci.Digest) {
	e.Helper()
	got := e.reviewed(monthly)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		e.Errorf("%d manifests are collected: %v; want %d: %v", len(got), got, len(want), want)
	}
	e.wantAgreement()
}

// of makes p a referrer.
func of(subject oci.Digest, p meta.PutManifest) meta.PutManifest {
	p.Parsed.Subject = &oci.Descriptor{Digest: subject, Size: 1}
	return p
}

// loose lists the digests whose look is planned, or that are kept for now.
func (e *env) loose() []meta.LooseManifest {
	e.Helper()
	list, err := e.db.LooseManifests(e.Context(), "", "", 1000)
	e.ok(err)
	return list
}

var reviewCases = []testCase{
	{"reviews/never tagged", func(e *env) {
		blob, key := e.push(repo, "a")
		m := e.put(image(repo, "m", blob))
		e.put(image(repo, "tagged", blob), "v1")
		e.clock.move(30*day - time.Millisecond)
		e.wantReviewed()
		e.clock.move(time.Millisecond)
		e.wantReviewed(m)
		if list := e.loose(); len(list) != 0 {
			e.Errorf("left are %+v", list)
		}
		e.ok(e.db.DeleteManifest(e.Context(), repo, digest("tagged")))
		e.clock.move(day)
		e.wantCollected(1, 1)
		e.wantDead(key)
	}},
	{"reviews/a tag moves", func(e *env) {
		old := e.put(image(repo, "old"), "v1", "v2")
		e.clock.move(100 * day)
		e.put(image(repo, "new"), "v1")
		e.clock.move(100 * day)
		e.wantReviewed() // it has v2
		e.put(image(repo, "new"), "v2")
		e.clock.move(30*day - time.Millisecond)
		e.wantReviewed()
		e.put(image(repo, "new"), "v2") // where it is already
		e.clock.move(time.Millisecond)
		e.wantReviewed(old)
	}},
	{"reviews/a tag is deleted", func(e *env) {
		m := e.put(image(repo, "m"), "v1")
		e.clock.move(100 * day)
		e.ok(e.db.DeleteTag(e.Context(), repo, "v1"))
		e.wantReviewed()
		e.clock.move(29 * day)
		e.put(image(repo, "m"), "v2")
		e.clock.move(100 * day)
		e.wantReviewed() // tagged again
		e.ok(e.db.DeleteTag(e.Context(), repo, "v2"))
		e.clock.move(30 * day)
		e.wantReviewed(m)
	}},
	{"reviews/an index holds", func(e *env) {
		child, lone := e.put(image(repo, "child")), e.put(image(repo, "lone"))
		i := e.put(index(repo, "i", child), "v1")
		e.clock.move(100 * day)
		e.wantReviewed(lone)
		e.ok(e.db.DeleteTag(e.Context(), repo, "v1"))
		e.clock.move(30 * day)
		e.wantReviewed(i)
		e.clock.move(30*day - time.Millisecond)
		e.wantReviewed()
		e.clock.move(time.Millisecond)
		e.wantReviewed(child)
	}},
	{"reviews/an index is deleted", func(e *env) {
		child := e.put(image(repo, "child"))
		i, j := e.put(index(repo, "i", child), "v1"), e.put(index(repo, "j", child), "v2")
		e.clock.move(100 * day)
		e.wantReviewed()
		e.ok(e.db.DeleteManifest(e.Context(), repo, i))
		e.clock.move(100 * day)
		e.wantReviewed() // the other one holds it
		e.ok(e.db.DeleteManifest(e.Context(), repo, j))
		e.clock.move(30 * day)
		e.wantReviewed(child)
	}},
	{"reviews/a child comes after its index", func(e *env) {
		e.put(sparse(index(repo, "i", digest("child"))), "v1")
		e.put(image(repo, "child"))
		e.clock.move(100 * day)
		e.wantReviewed()
	}},
	{"reviews/a subject holds", func(e *env) {
		subject := e.put(image(repo, "subject"), "v1")
		signature := e.put(of(subject, image(repo, "signature")))
		deeper := e.put(of(signature, image(repo, "deeper")))
		e.clock.move(100 * day)
		e.wantReviewed()
		e.ok(e.db.DeleteManifest(e.Context(), repo, subject))
		e.clock.move(7*day - time.Millisecond)
		e.wantReviewed()
		e.clock.move(time.Millisecond)
		e.wantReviewed(signature)
		e.clock.move(7 * day)
		e.wantReviewed(deeper)
	}},
	{"reviews/a subject that is collected", func(e *env) {
		subject := e.put(image(repo, "subject"))
		signature := e.put(of(subject, image(repo, "signature")))
		tagged := e.put(of(subject, image(repo, "other")), "sig")
		e.clock.move(30 * day)
		e.wantReviewed(subject)
		e.clock.move(7 * day)
		e.wantReviewed(signature)
		e.ok(e.db.DeleteTag(e.Context(), repo, "sig"))
		e.clock.move(7 * day)
		e.wantReviewed(tagged)
	}},
	{"reviews/a subject that comes late", func(e *env) {
		e.put(of(digest("subject"), image(repo, "signature")))
		lost := e.put(of(digest("nowhere"), image(repo, "lost")))
		e.clock.move(6 * day)
		e.put(image(repo, "subject"), "v1")
		e.clock.move(100 * day)
		e.wantReviewed(lost)
	}},
	{"reviews/many referrers", func(e *env) {
		subject := e.put(image(repo, "subject"), "v1")
		var all []oci.Digest
		for i := range 250 {
			all = append(all, e.put(of(subject, image(repo, fmt.Sprint("signature", i)))))
		}
		e.wantReviewed()
		if list := e.loose(); len(list) != 0 {
			e.Errorf("%d looks are planned at what its subject holds", len(list))
		}
		e.ok(e.db.DeleteManifest(e.Context(), repo, subject))
		e.wantReviewed()
		e.clock.move(7 * day)
		e.wantReviewed(all...)
		if list := e.loose(); len(list) != 0 {
			e.Errorf("left are %+v", list)
		}
	}},
	{"reviews/asked for by digest", func(e *env) {
		m := e.put(image(repo, "m"))
		e.reviewed(monthly)
		for range 3 {
			e.clock.move(29 * day)
			e.ok(e.db.TouchManifest(e.Context(), repo, m))
			e.wantReviewed()
			got, err := e.db.Manifest(e.Context(), repo, oci.DigestRef(m))
			if e.ok(err); got.LooseSince != e.clock.now().UnixMilli() {
				e.Errorf("since %d, want %d", got.LooseSince, e.clock.now().UnixMilli())
			}
		}
		e.clock.move(30 * day)
		e.wantReviewed(m)
		e.wantErr("touch what is gone", e.db.TouchManifest(e.Context(), repo, m), meta.ErrNotFound)
		held := e.put(image(repo, "held"), "v1")
		e.ok(e.db.TouchManifest(e.Context(), repo, held))
		for _, ref := range []oci.Ref{oci.DigestRef(held), oci.TagRef("v1")} {
			got, err := e.db.Resolve(e.Context(), repo, ref)
			if e.ok(err); got.LooseSince >= 0 {
				e.Errorf("%s is held, and loose since %d", ref, got.LooseSince)
			}
		}
	}},
	{"reviews/put again", func(e *env) {
		m := e.put(image(repo, "m"))
		e.reviewed(monthly)
		e.clock.move(29 * day)
		e.put(image(repo, "m"))
		e.clock.move(29 * day)
		e.wantReviewed()
		e.clock.move(day)
		e.wantReviewed(m)
	}},
	{"reviews/for ever, until the policy changes", func(e *env) {
		plan := func(name string) (sum int) {
			for {
				n, err := e.db.PlanManifests(e.Context(), name, 2)
				if e.ok(err); n < 2 {
					return sum + n
				}
				sum += n
			}
		}
		if n := plan("forever"); n != 0 {
			e.Errorf("%d are planned of none", n)
		}
		var want []oci.Digest
		for i := range 5 {
			want = append(want, e.put(image(repo, fmt.Sprint(i))))
		}
		if got := e.reviewed(forEver); len(got) != 0 {
			e.Errorf("collected %v", got)
		}
		e.clock.move(100 * day)
		if n := plan("forever"); n != 0 {
			e.Errorf("%d are planned although nothing changed", n)
		}
		e.wantReviewed() // nothing is looked at
		if n := plan("monthly"); n != 5 {
			e.Errorf("%d are planned, want 5", n)
		}
		if n := plan("monthly"); n != 0 {
			e.Errorf("%d are planned twice", n)
		}
		e.wantReviewed(want...)
	}},
	{"reviews/a change of policy goes on where it stopped", func(e *env) {
		for i := range 5 {
			e.put(image(repo, fmt.Sprint(i)))
		}
		for _, want := range []int{2, 2, 1, 0, 0} {
			n, err := e.db.PlanManifests(e.Context(), "a", 2)
			if e.ok(err); n != want {
				e.Errorf("%d are planned, want %d", n, want)
			}
		}
		n, err := e.db.PlanManifests(e.Context(), "b", 3)
		if e.ok(err); n != 3 {
			e.Errorf("%d are planned, want 3", n)
		}
		n, err = e.db.PlanManifests(e.Context(), "c", 10)
		if e.ok(err); n != 5 {
			e.Errorf("%d are planned, want all", n)
		}
	}},
	{"reviews/policies go by name", func(e *env) {
		policy := func(repo string) meta.Retention {
			if strings.HasPrefix(repo, "crew/") {
				return meta.Retention{Untagged: day}
			}
			return meta.Retention{}
		}
		m := e.put(image("team/app", "m"))
		e.put(image("crew/app", "m"))
		_, err := e.db.PlanManifests(e.Context(), "p", 100)
		e.ok(err)
		e.clock.move(2 * day)
		e.reviewed(policy)
		if list := e.manifests(); len(list) != 1 {
			e.Errorf("%d manifests are left, want that of team", len(list))
		}
		p, err := e.db.Project(e.Context(), "crew")
		e.ok(err)
		e.ok(e.db.RenameProject(e.Context(), meta.Change{}, p.ID, "gone"))
		p, err = e.db.Project(e.Context(), "team")
		e.ok(err)
		e.ok(e.db.RenameProject(e.Context(), meta.Change{}, p.ID, "crew"))
		e.reviewed(policy)
		if n, err := e.db.PlanManifests(e.Context(), "p", 100); err != nil || n != 1 {
			e.Errorf("%d are planned after a project was renamed, %v; want 1", n, err)
		}
		if got := e.reviewed(policy); !slices.Equal(got, []oci.Digest{m}) {
			e.Errorf("collected %v", got)
		}
	}},
	{"reviews/a deleted project", func(e *env) {
		m := e.put(image(repo, "m"))
		p, err := e.db.Project(e.Context(), "team")
		e.ok(err)
		e.clock.move(20 * day)
		_, err = e.db.DeleteProject(e.Context(), meta.Change{}, p.ID)
		e.ok(err)
		e.clock.move(20 * day)
		e.wantReviewed()
		e.ok(e.db.RestoreProject(e.Context(), meta.Change{}, p.ID))
		e.clock.move(29 * day)
		e.wantReviewed() // its time has begun anew
		e.clock.move(day)
		e.wantReviewed(m)
	}},
	{"reviews/leaves a trail", func(e *env) {
		m := e.put(image(repo, "m"))
		since := e.clock.now().UTC().Format(time.RFC3339)
		e.clock.move(30 * day)
		e.wantReviewed(m)
		list, _, err := e.db.ListAudit(e.Context(), meta.AuditFilter{Action: "manifest.collect"}, "", 10)
		if e.ok(err); len(list) != 1 {
			e.Fatalf("%d events, want 1", len(list))
		}
		got := list[0]
		if got.Identity != "system:collection" || got.Repository != repo || got.Digest != m.String() || got.Bytes != 1 ||
			got.Reason != "without a tag, since "+since+"; such manifests are kept for 30d" {
			e.Errorf("the event is %+v", got)
		}
	}},
	{"reviews/what would go", func(e *env) {
		subject := e.put(image(repo, "subject"), "v1")
		e.put(of(subject, image(repo, "signature")))
		e.put(of(digest("absent"), image(repo, "orphan")))
		e.put(image(repo, "m"))
		child := e.put(image(repo, "child"))
		e.put(index(repo, "i", child))
		var got []string
		for _, m := range e.loose() {
			got = append(got, fmt.Sprintf("%s %t %s", m.Digest, m.Held(), m.Keep(monthly(m.Repository))))
			if m.Repository != repo || m.Since != e.clock.now().UnixMilli() {
				e.Errorf("%+v", m)
			}
		}
		want := []string{
			digest("signature").String() + " true 168h0m0s", digest("orphan").String() + " false 168h0m0s", digest("m").String() + " false 720h0m0s",
			child.String() + " true 720h0m0s", digest("i").String() + " false 720h0m0s",
		}
		if slices.Sort(want); !slices.Equal(got, want) {
			e.Errorf("loose are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}},
}

var queueCases = []testCase{
	{"queues/links", func(e *env) {
		for i := range 5 {
			e.push(repo, fmt.Sprint(i))
			e.clock.move(time.Second)
		}
		e.put(image(repo, "m", digest("3")))
		var got []string
		after := meta.LooseLink{ReviewAt: -1}
		for {
			page, err := e.db.LooseLinks(e.Context(), after, 2)
			if e.ok(err); len(page) == 0 {
				break
			}
			for _, l := range page {
				got = append(got, fmt.Sprintln(l.Digest == digest(fmt.Sprint(len(got))), l.Size, l.Held, l.Repository))
			}
			after = page[len(page)-1]
		}
		want := slices.Repeat([]string{"true 1 false team/app\n"}, 5)
		want[3] = "true 1 true team/app\n"
		if !slices.Equal(got, want) {
			e.Errorf("links are %v", got)
		}
	}},
	{"queues/dead objects", func(e *env) {
		var want, got []string
		for i := range 5 {
			d, key := e.push(repo, strings.Repeat("x", i+1))
			e.ok(e.db.DeleteBlob(e.Context(), repo, d))
			want = append(want, fmt.Sprint(key, i+1))
			e.clock.move(time.Second)
		}
		for at, key := int64(-1), ""; ; {
			page, err := e.db.DeadQueue(e.Context(), at, key, 2)
			if e.ok(err); len(page) == 0 {
				break
			}
			for _, o := range page {
				got = append(got, fmt.Sprint(o.Key, o.Bytes))
			}
			at, key = page[len(page)-1].At, page[len(page)-1].Key
		}
		if !slices.Equal(got, want) {
			e.Errorf("dead are %v, want %v", got, want)
		}
	}},
	{"queues/sessions and projects", func(e *env) {
		u := e.lease("other/app", 7)
		list, err := e.db.IdleUploads(e.Context(), "", 10)
		if e.ok(err); len(list) != 1 || list[0] != (meta.IdleUpload{ID: u.ID, Repository: "other/app", Size: 7, UpdatedAt: e.clock.now().UnixMilli()}) {
			e.Errorf("sessions are %+v", list)
		}
		e.push(repo, "abc")
		p, err := e.db.Project(e.Context(), "team")
		e.ok(err)
		_, err = e.db.DeleteProject(e.Context(), meta.Change{}, p.ID)
		e.ok(err)
		gone, err := e.db.DeletedProjects(e.Context(), meta.DeletedProject{DeletedAt: -1}, 10)
		want := meta.DeletedProject{ID: p.ID, Name: "team", DeletedAt: e.clock.now().UnixMilli(), Bytes: 3}
		if e.ok(err); len(gone) != 1 || gone[0] != want {
			e.Errorf("deleted are %+v, want %+v", gone, want)
		}
		if gone, err = e.db.DeletedProjects(e.Context(), want, 10); err != nil || len(gone) != 0 {
			e.Errorf("behind it are %+v, %v", gone, err)
		}
	}},
	{"queues/one sweep at a time", func(e *env) {
		for _, want := range []bool{true, false, false} {
			if mine, err := e.db.ClaimSweep(e.Context(), time.Hour); err != nil || mine != want {
				e.Errorf("claimed %t, %v; want %t", mine, err, want)
			}
		}
		e.clock.move(time.Hour)
		if mine, err := e.db.ClaimSweep(e.Context(), time.Hour); err != nil || !mine {
			e.Errorf("after an hour: %t, %v", mine, err)
		}
	}},
}
