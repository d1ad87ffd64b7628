package metatest

import (
	"errors"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

var deleteCases = []testCase{
	{"delete/tag", func(e *env) {
		m := e.put(image(repo, "m"), "v1", "v2")
		e.ok(e.db.DeleteTag(e.Context(), repo, "v1"))
		e.noManifest(repo, oci.TagRef("v1"), meta.ErrNotFound)
		e.wantManifest(repo, oci.TagRef("v2"), "m")
		e.wantManifest(repo, oci.DigestRef(m), "m")
		e.wantErr("delete a tag twice", e.db.DeleteTag(e.Context(), repo, "v1"), meta.ErrNotFound)
		e.wantErr("delete in an unknown repository", e.db.DeleteTag(e.Context(), "team/none", "v1"), meta.ErrNoRepository)
	}},
	{"delete/manifest", func(e *env) {
		d, _ := e.push(repo, "a")
		m := e.put(image(repo, "m", d), "v1", "v2")
		e.put(image(repo, "n"), "v3")
		e.put(image(other, "m2"), "v1")
		e.ok(e.db.DeleteManifest(e.Context(), repo, m))
		for _, ref := range []oci.Ref{oci.TagRef("v1"), oci.TagRef("v2"), oci.DigestRef(m)} {
			e.noManifest(repo, ref, meta.ErrNotFound)
		}
		e.wantManifest(repo, oci.TagRef("v3"), "n")
		e.wantManifest(other, oci.TagRef("v1"), "m2")
		e.ok(e.db.DeleteBlob(e.Context(), repo, d))
		e.wantErr("delete a manifest twice", e.db.DeleteManifest(e.Context(), repo, m), meta.ErrNotFound)
		e.wantErr("delete in an unknown repository", e.db.DeleteManifest(e.Context(), "team/none", m), meta.ErrNoRepository)
	}},
	{"delete/manifest that is held", func(e *env) {
		child := e.put(image(repo, "child"), "child")
		inner := e.put(index(repo, "inner", child))
		outer := e.put(index(repo, "outer", child, inner))
		e.wantHeld("delete a child", e.db.DeleteManifest(e.Context(), repo, child), inner, outer)
		e.wantHeld("delete an inner index", e.db.DeleteManifest(e.Context(), repo, inner), outer)
		e.wantManifest(repo, oci.TagRef("child"), "child")
		for _, d := range []oci.Digest{outer, inner, child} {
			e.ok(e.db.DeleteManifest(e.Context(), repo, d))
		}
	}},
	{"delete/holders are named up to a bound", func(e *env) {
		d, _ := e.push(repo, "a")
		var all []oci.Digest
		for i := range 12 {
			all = append(all, e.put(image(repo, string(rune('a'+i)), d)))
		}
		var held *meta.ReferencedError
		if err := e.db.DeleteBlob(e.Context(), repo, d); !errors.As(err, &held) || len(held.By) == 0 || len(held.By) > len(all) {
			e.Errorf("delete a blob of %d holders: %v", len(all), err)
		}
	}},
	{"delete/subject", func(e *env) {
		m := e.put(image(repo, "m"))
		p := image(repo, "sig")
		p.Parsed.Subject = &oci.Descriptor{Digest: m}
		e.put(p)
		e.ok(e.db.DeleteManifest(e.Context(), repo, m))
		e.wantManifest(repo, oci.DigestRef(p.Digest), "sig")
	}},
	{"delete/blob", func(e *env) {
		d, key := e.push(repo, "a")
		e.push(other, "a")
		e.ok(e.db.ForgetDead(e.Context(), e.dead()...))
		e.ok(e.db.DeleteBlob(e.Context(), repo, d))
		e.noBlob(repo, d)
		e.hasBlob(other, d)
		e.wantDead()
		e.wantErr("delete a blob twice", e.db.DeleteBlob(e.Context(), repo, d), meta.ErrNotFound)
		e.ok(e.db.DeleteBlob(e.Context(), other, d))
		e.wantDead(key)
		e.wantErr("delete in an unknown repository", e.db.DeleteBlob(e.Context(), "team/none", d), meta.ErrNoRepository)
		if _, again := e.push(repo, "a"); again == "" || again == key {
			e.Errorf("a deleted blob comes back under the key %q", again)
		}
	}},
	{"delete/blob that is held", func(e *env) {
		d, _ := e.push(repo, "a")
		e.push(other, "a")
		m, n := e.put(image(repo, "m", d)), e.put(image(repo, "n", d))
		e.wantHeld("delete a layer of two", e.db.DeleteBlob(e.Context(), repo, d), m, n)
		e.ok(e.db.DeleteManifest(e.Context(), repo, m))
		e.wantHeld("delete a layer of one", e.db.DeleteBlob(e.Context(), repo, d), n)
		e.hasBlob(repo, d)
		e.ok(e.db.DeleteBlob(e.Context(), other, d))
		e.ok(e.db.DeleteManifest(e.Context(), repo, n))
		e.ok(e.db.DeleteBlob(e.Context(), repo, d))
	}},
}
