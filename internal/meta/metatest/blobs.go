package metatest

import (
	"slices"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

var blobCases = []testCase{
	{"blob/kept", func(e *env) {
		u := e.lease(repo, 5)
		kept, err := e.db.CommitBlob(e.Context(), u, digest("a"))
		if e.ok(err); !kept {
			e.Error("the first bytes of a blob are not kept")
		}
		if b := e.hasBlob(repo, digest("a")); b.Key != u.ID || b.Size != 5 || b.SeenAt != e.clock.now().UnixMilli() {
			e.Errorf("committed as %+v", b)
		}
		_, err = e.db.Upload(e.Context(), repo, u.ID)
		e.wantErr("find a committed session", err, meta.ErrNotFound)
		e.wantDead()
	}},
	{"blob/not kept", func(e *env) {
		d, key := e.push(repo, "a")
		for _, name := range []string{repo, other} {
			u := e.lease(name, 1)
			kept, err := e.db.CommitBlob(e.Context(), u, d)
			if e.ok(err); kept {
				e.Error("the same content is kept twice")
			}
			if b := e.hasBlob(name, d); b.Key != key {
				e.Errorf("%s serves %s, want the first bytes %s", name, b.Key, key)
			}
			e.wantDead(u.ID)
			e.ok(e.db.ForgetDead(e.Context(), u.ID))
		}
	}},
	{"blob/damaged is replaced", func(e *env) {
		d, old := e.push(repo, "a")
		e.push(other, "a")
		e.ok(e.db.ForgetDead(e.Context(), e.dead()...))
		e.damage(d, old)
		e.noBlob(repo, d)
		e.noBlob(other, d)
		_, err := e.db.Mount(e.Context(), "team/new", "", d)
		e.wantErr("mount a damaged blob", err, meta.ErrNotFound)
		e.wantMissing(image(repo, "m", d), d)
		_, key := e.push(other, "a")
		if key == "" {
			e.Fatal("new bytes of a damaged blob are not kept")
		}
		for _, name := range []string{repo, other} {
			if b := e.hasBlob(name, d); b.Key != key {
				e.Errorf("%s serves %s, want the new bytes %s", name, b.Key, key)
			}
		}
		e.wantDead(old)
	}},
	{"blob/damage is known of one key only", func(e *env) {
		d, _ := e.push(repo, "a")
		err := e.db.MarkDamaged(e.Context(), meta.CheckedBlob{Digest: d, Key: "another"})
		e.wantErr("mark a blob that has changed", err, meta.ErrNotFound)
		e.hasBlob(repo, d)
	}},
	{"blob/only through its link", func(e *env) {
		d, _ := e.push(repo, "a")
		e.push(other, "b")
		e.noBlob(other, d)
		_, err := e.db.Blob(e.Context(), "team/none", d)
		e.wantErr("find in an unknown repository", err, meta.ErrNoRepository)
	}},
	{"blob/touched", func(e *env) {
		d, _ := e.push(repo, "a")
		e.clock.move(time.Hour)
		e.ok(e.db.TouchBlob(e.Context(), repo, d))
		if b := e.hasBlob(repo, d); b.SeenAt != e.clock.now().UnixMilli() {
			e.Errorf("seen at %d, want %d", b.SeenAt, e.clock.now().UnixMilli())
		}
		e.wantErr("touch what is not there", e.db.TouchBlob(e.Context(), repo, digest("x")), meta.ErrNotFound)
		e.wantErr("touch in an unknown repository", e.db.TouchBlob(e.Context(), "team/none", d), meta.ErrNotFound)
	}},
	{"blob/commit twice", func(e *env) {
		u := e.lease(repo, 1)
		_, err := e.db.CommitBlob(e.Context(), u, digest("a"))
		e.ok(err)
		_, err = e.db.CommitBlob(e.Context(), u, digest("a"))
		e.wantErr("commit twice", err, meta.ErrLeased)
		e.wantDead()
	}},
	{"mount/from", func(e *env) { wantMounted(e, repo) }},
	{"mount/any", func(e *env) { wantMounted(e, "") }},
	{"mount/holders", func(e *env) {
		d, _ := e.push(repo, "abc") // team/app
		for _, name := range []string{"alone", "other/a", "team/b"} {
			_, err := e.db.Mount(e.Context(), name, repo, d)
			e.ok(err)
		}
		for near, want := range map[string][]string{"team/new": {"team/app", "team/b"}, "other/new": {"other/a"}, "nobody/new": {}} {
			all, err := e.db.Holders(e.Context(), near, d, 10)
			e.ok(err)
			nearest := slices.Sorted(slices.Values(all[:min(len(want), len(all))]))
			if len(all) != 4 || !slices.Equal(nearest, want) {
				e.Errorf("holders near %s: %v; want four, %v first", near, all, want)
			}
		}
		few, err := e.db.Holders(e.Context(), "team/new", d, 3)
		if e.ok(err); len(few) != 3 {
			e.Errorf("three of the holders: %v", few)
		}
		none, err := e.db.Holders(e.Context(), repo, digest("x"), 3)
		if e.ok(err); len(none) != 0 {
			e.Errorf("holders of an unknown blob: %v", none)
		}
	}},
	{"mount/unknown", func(e *env) {
		d, _ := e.push(repo, "a")
		e.push(other, "b")
		for from, d := range map[string]oci.Digest{other: d, "team/none": d, repo: digest("x"), "": digest("x")} {
			_, err := e.db.Mount(e.Context(), "team/new", from, d)
			e.wantErr("mount an unknown blob from "+from, err, meta.ErrNotFound)
		}
		_, err := e.db.Blob(e.Context(), "team/new", d)
		e.wantErr("a refused mount makes no repository", err, meta.ErrNoRepository)
	}},
}

func wantMounted(e *env, from string) {
	d, key := e.push(repo, "abc")
	e.clock.move(time.Hour)
	size, err := e.db.Mount(e.Context(), other, from, d)
	if e.ok(err); size != 3 {
		e.Errorf("mounted %d bytes, want 3", size)
	}
	e.ok(e.db.DeleteBlob(e.Context(), repo, d))
	if b := e.hasBlob(other, d); b.Key != key || b.SeenAt != e.clock.now().UnixMilli() {
		e.Errorf("mounted as %+v", b)
	}
}
