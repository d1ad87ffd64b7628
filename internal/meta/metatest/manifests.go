package metatest

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

// wantMissing checks that p is refused and that the error names just want.
func (e *env) wantMissing(p meta.PutManifest, want ...oci.Digest) {
	e.Helper()
	var missing *meta.MissingError
	err := e.db.PutManifest(e.Context(), p)
	if !errors.As(err, &missing) {
		e.Errorf("put a manifest with missing content: %v", err)
	} else if !slices.Equal(missing.Digests, want) {
		e.Errorf("missing are %v, want %v", missing.Digests, want)
	}
}

func (e *env) wantManifest(repo string, ref oci.Ref, content string) {
	e.Helper()
	m, err := e.db.Manifest(e.Context(), repo, ref)
	e.ok(err)
	if string(m.Content) != content || m.Digest != digest(content) || m.Size != int64(len(content)) {
		e.Errorf("%s is %+v, want %q", ref, m, content)
	}
	r, err := e.db.Resolve(e.Context(), repo, ref)
	e.ok(err)
	if r.Content != nil || r.Digest != m.Digest || r.MediaType != m.MediaType || r.Size != m.Size {
		e.Errorf("%s resolves to %+v, want %+v without content", ref, r, m)
	}
}

// noManifest checks that repo answers to ref with want, both ways.
func (e *env) noManifest(repo string, ref oci.Ref, want error) {
	e.Helper()
	_, err := e.db.Manifest(e.Context(), repo, ref)
	e.wantErr("get "+ref.String(), err, want)
	_, err = e.db.Resolve(e.Context(), repo, ref)
	e.wantErr("resolve "+ref.String(), err, want)
}

var manifestCases = []testCase{
	{"manifest/by tag and digest", func(e *env) {
		d, _ := e.push(repo, "a")
		m := e.put(image(repo, "m\x00\xff", d), "v1", "v2", "v1")
		for _, ref := range []oci.Ref{oci.TagRef("v1"), oci.TagRef("v2"), oci.DigestRef(m)} {
			e.wantManifest(repo, ref, "m\x00\xff")
		}
	}},
	{"manifest/unknown", func(e *env) {
		m := e.put(image(repo, "m"), "v1")
		e.put(image(other, "n"))
		for _, ref := range []oci.Ref{oci.TagRef("v2"), oci.TagRef("V1"), oci.DigestRef(digest("x"))} {
			e.noManifest(repo, ref, meta.ErrNotFound)
		}
		e.noManifest(other, oci.DigestRef(m), meta.ErrNotFound)
		e.noManifest("team/none", oci.DigestRef(m), meta.ErrNoRepository)
		e.noManifest("team/none", oci.TagRef("v1"), meta.ErrNoRepository)
	}},
	{"manifest/put again", func(e *env) {
		d, _ := e.push(repo, "a")
		for _, tag := range []string{"v1", "v2", "v1"} {
			e.put(image(repo, "m", d), tag)
		}
		e.put(image(repo, "m", d))
		e.wantManifest(repo, oci.TagRef("v2"), "m")
		e.wantHeld("delete its blob", e.db.DeleteBlob(e.Context(), repo, d), digest("m"))
	}},
	{"manifest/a tag moves", func(e *env) {
		e.put(image(repo, "m"), "v1")
		e.put(image(repo, "n"), "v1")
		e.wantManifest(repo, oci.TagRef("v1"), "n")
		e.wantManifest(repo, oci.DigestRef(digest("m")), "m")
	}},
	{"manifest/missing content is named", func(e *env) {
		here, _ := e.push(repo, "a")
		elsewhere, _ := e.push(other, "b")
		child := e.put(image(repo, "child"))
		e.wantMissing(image(repo, "m", here, elsewhere, digest("x")), elsewhere, digest("x"))
		e.wantMissing(index(repo, "i", child, digest("y")), digest("y"))
		// A blob is no manifest, nor the other way round.
		e.wantMissing(index(repo, "i", here), here)
		e.wantMissing(image(repo, "m", child), child)
	}},
	{"manifest/all or nothing", func(e *env) {
		p := image("team/new", "m", digest("x"))
		p.Tags = []string{"v1"}
		e.wantMissing(p, digest("x"))
		e.noManifest("team/new", oci.TagRef("v1"), meta.ErrNoRepository)
		e.put(image(repo, "old"), "v1")
		p.Repository = repo
		e.wantMissing(p, digest("x"))
		e.wantManifest(repo, oci.TagRef("v1"), "old")
		e.noManifest(repo, oci.DigestRef(digest("m")), meta.ErrNotFound)
	}},
	{"referrers/described", func(e *env) {
		p := image(repo, "sig")
		p.Parsed.Subject = &oci.Descriptor{Digest: digest("subject")}
		p.Parsed.Annotations = map[string]string{"k": "ü<&>\u2028", "": ""}
		e.put(p)
		list, err := e.db.Referrers(e.Context(), repo, digest("subject"), "", "", 10)
		if e.ok(err); len(list) != 1 {
			e.Fatalf("%d referrers, want 1", len(list))
		}
		d := list[0]
		if d.Digest != p.Digest || d.MediaType != oci.MediaTypeImage || d.Size != 3 || d.ArtifactType != "application/x" || !maps.Equal(d.Annotations, p.Parsed.Annotations) {
			e.Errorf("described as %+v", d)
		}
	}},
	{"referrers/pages", func(e *env) {
		var want []oci.Digest
		for i := range 9 {
			p := image(repo, string(rune('a'+i)))
			p.Parsed.Subject = &oci.Descriptor{Digest: digest("subject")}
			p.Parsed.ArtifactType = []string{"application/x", "application/y"}[i%2]
			if e.put(p); i%2 == 0 {
				want = append(want, p.Digest)
			}
		}
		slices.Sort(want)
		for _, n := range []int{1, 2, 5, 100} {
			got := e.referrers("application/x", n)
			if !slices.Equal(got, want) {
				e.Errorf("in pages of %d: %v, want %v", n, got, want)
			}
		}
		if got := e.referrers("", 4); len(got) != 9 {
			e.Errorf("%d referrers of all types, want 9", len(got))
		}
	}},
	{"referrers/large annotations make short pages", func(e *env) {
		for i := range 3 {
			p := image(repo, string(rune('a'+i)))
			p.Parsed.Subject = &oci.Descriptor{Digest: digest("subject")}
			p.Parsed.Annotations = map[string]string{"k": strings.Repeat("x", 3<<20)}
			e.put(p)
		}
		list, err := e.db.Referrers(e.Context(), repo, digest("subject"), "", "", 10)
		if e.ok(err); len(list) != 2 {
			e.Errorf("a page of %d, want 2", len(list))
		}
		if got := e.referrers("", 10); len(got) != 3 {
			e.Errorf("%d referrers on all pages, want 3", len(got))
		}
	}},
	{"referrers/none", func(e *env) {
		for _, name := range []string{repo, "team/none"} {
			list, err := e.db.Referrers(e.Context(), name, digest("subject"), "", "", 10)
			if e.ok(err); len(list) != 0 {
				e.Errorf("%s has %d referrers", name, len(list))
			}
		}
	}},
}

// referrers walks the pages of the test's one subject.
func (e *env) referrers(artifactType string, n int) []oci.Digest {
	e.Helper()
	var all []oci.Digest
	for after := oci.Digest(""); ; after = all[len(all)-1] {
		page, err := e.db.Referrers(e.Context(), repo, digest("subject"), artifactType, after, n)
		if e.ok(err); len(page) == 0 {
			return all
		}
		for _, d := range page {
			all = append(all, d.Digest)
		}
	}
}

// sparse lets p name what is absent.
func sparse(p meta.PutManifest) meta.PutManifest {
	p.AllowMissing = true
	return p
}

var pendingCases = []testCase{
	{"pending/a blob comes", func(e *env) {
		m := e.put(sparse(image(repo, "m", digest("a"))))
		e.push(other, "a")
		d, _ := e.push(repo, "a")
		e.wantHeld("delete a blob that came late", e.db.DeleteBlob(e.Context(), repo, d), m)
		e.ok(e.db.DeleteBlob(e.Context(), other, d))
		e.ok(e.db.DeleteManifest(e.Context(), repo, m))
		e.ok(e.db.DeleteBlob(e.Context(), repo, d))
	}},
	{"pending/a blob is mounted", func(e *env) {
		m, n := e.put(sparse(image(repo, "m", digest("a")))), e.put(sparse(image(repo, "n", digest("a"))))
		d, _ := e.push(other, "a")
		_, err := e.db.Mount(e.Context(), repo, other, d)
		e.ok(err)
		e.wantHeld("delete a blob that came late", e.db.DeleteBlob(e.Context(), repo, d), m, n)
	}},
	{"pending/a child comes", func(e *env) {
		i := e.put(sparse(index(repo, "i", digest("child"))))
		child := e.put(image(repo, "child"))
		e.wantHeld("delete a child that came late", e.db.DeleteManifest(e.Context(), repo, child), i)
		e.ok(e.db.DeleteManifest(e.Context(), repo, i))
		e.ok(e.db.DeleteManifest(e.Context(), repo, child))
	}},
	{"pending/a blob is not a child", func(e *env) {
		e.put(sparse(index(repo, "i", digest("a"))))
		d, _ := e.push(repo, "a")
		e.ok(e.db.DeleteBlob(e.Context(), repo, d))
	}},
	{"pending/a foreign layer comes", func(e *env) {
		p := image(repo, "m")
		p.Parsed.Foreign = descriptors([]oci.Digest{digest("a")})
		m := e.put(p)
		d, _ := e.push(repo, "a")
		e.wantHeld("delete a foreign layer that came", e.db.DeleteBlob(e.Context(), repo, d), m)
	}},
	{"pending/a foreign layer is there", func(e *env) {
		d, _ := e.push(repo, "a")
		p := image(repo, "m")
		p.Parsed.Foreign = descriptors([]oci.Digest{d})
		m := e.put(p)
		e.wantHeld("delete a foreign layer", e.db.DeleteBlob(e.Context(), repo, d), m)
	}},
	{"pending/gone with its manifest", func(e *env) {
		m := e.put(sparse(image(repo, "m", digest("a"))))
		e.ok(e.db.DeleteManifest(e.Context(), repo, m))
		d, _ := e.push(repo, "a")
		e.ok(e.db.DeleteBlob(e.Context(), repo, d))
	}},
	{"pending/a damaged blob is healed", func(e *env) {
		d, key := e.push(repo, "a")
		e.damage(d, key)
		m := e.put(sparse(image(repo, "m", d)))
		e.push(other, "a") // heals it everywhere
		e.hasBlob(repo, d)
		e.wantHeld("delete a healed blob", e.db.DeleteBlob(e.Context(), repo, d), m)
	}},
}
