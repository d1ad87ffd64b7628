package metatest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

var checkCases = []testCase{
	{"check/totals", func(e *env) {
		e.push(repo, "abc")
		e.push(other, "abc")
		e.push(repo, "defgh")
		e.put(image(repo, "m"))
		t, err := e.db.CheckTotals(e.Context())
		if want := (meta.Totals{Blobs: 2, BlobBytes: 8, Manifests: 1}); t != want || err != nil {
			e.Errorf("totals %+v, %v; want %+v", t, err, want)
		}
	}},
	{"check/a whole database", func(e *env) {
		d, _ := e.push(repo, "abc")
		e.put(index(repo, "i", e.put(image(repo, "m", d), "v1")))
		findings, err := e.db.CheckDatabase(e.Context())
		if e.ok(err); len(findings) != 0 {
			e.Errorf("findings in a new database: %q", findings)
		}
	}},
	{"check/blobs", func(e *env) {
		want := map[oci.Digest]meta.CheckedBlob{}
		for _, name := range []string{"a", "bc", "def"} {
			d, key := e.push(repo, name)
			want[d] = meta.CheckedBlob{Digest: d, Size: int64(len(name)), Key: key}
		}
		bad := want[digest("a")]
		e.damage(bad.Digest, bad.Key)
		bad.Damaged = true
		want[bad.Digest] = bad
		var got []oci.Digest
		for after := oci.Digest(""); ; after = got[len(got)-1] {
			page, err := e.db.CheckBlobs(e.Context(), after, 2)
			if e.ok(err); len(page) == 0 {
				break
			}
			for _, b := range page {
				if got = append(got, b.Digest); b != want[b.Digest] {
					e.Errorf("blob %+v, want %+v", b, want[b.Digest])
				}
			}
		}
		if len(got) != len(want) || !slices.IsSorted(got) {
			e.Errorf("blobs %v", got)
		}
	}},
	{"check/linked by", func(e *env) {
		d, _ := e.push(other, "a")
		e.push(repo, "a")
		e.push("team/none", "b")
		for n, want := range map[int][]string{1: {repo}, 10: {repo, other}} {
			if got, err := e.db.LinkedBy(e.Context(), d, n); err != nil || !slices.Equal(got, want) {
				e.Errorf("linked by %v, %v; want %v", got, err, want)
			}
		}
	}},
	{"check/manifests", func(e *env) {
		want := map[string]bool{}
		for _, name := range []string{repo, other} {
			for _, content := range []string{"a", "b", strings.Repeat("c", 9<<20), strings.Repeat("d", 9<<20)} {
				e.put(image(name, content))
				want[name+" "+digest(content).String()] = true
			}
		}
		var last meta.CheckedManifest
		for seen := 0; ; {
			page, err := e.db.CheckManifests(e.Context(), last.RepositoryID, last.Digest, 3)
			e.ok(err)
			if len(page) == 0 {
				if len(want) != 0 || seen != 8 {
					e.Errorf("%d manifests; not seen: %v", seen, want)
				}
				break
			}
			for _, m := range page {
				if m.Digest != oci.SHA256.FromBytes(m.Content) || m.Size != int64(len(m.Content)) {
					e.Errorf("manifest %s has %d bytes and says %d", m.Digest, len(m.Content), m.Size)
				}
				delete(want, m.Repository+" "+m.Digest.String())
			}
			seen, last = seen+len(page), page[len(page)-1]
		}
	}},
	{"check/uploads", func(e *env) {
		var want []string
		for range 5 {
			want = append(want, e.lease(repo, 1).ID)
		}
		slices.Sort(want)
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			page, err := e.db.CheckUploads(e.Context(), after, 2)
			if e.ok(err); len(page) == 0 {
				break
			}
			for _, u := range page {
				got = append(got, u.ID)
			}
		}
		if !slices.Equal(got, want) {
			e.Errorf("sessions %v, want %v", got, want)
		}
	}},
	{"check/keys", func(e *env) {
		var want []string
		for i := range 4 {
			d, key := e.push(repo, fmt.Sprint("blob ", i))
			want = append(want, fmt.Sprint(key, " blob 6 ", d, " ", i == 1))
			if i == 1 {
				e.damage(d, key)
			}
			gone, dead := e.push(repo, fmt.Sprint(i))
			e.ok(e.db.DeleteBlob(e.Context(), repo, gone))
			want = append(want, dead+" dead 0  false", e.lease(repo, 7).ID+" upload 0  false")
		}
		slices.Sort(want)
		for _, n := range []int{1, 5, 100} {
			var got []string
			for after := ""; ; {
				page, err := e.db.CheckKeys(e.Context(), after, n)
				if e.ok(err); len(page) == 0 {
					break
				}
				for _, k := range page {
					after = k.Key
					got = append(got, fmt.Sprint(k.Key, " ", k.Kind, " ", k.Size, " ", k.Digest, " ", k.Damaged))
				}
			}
			if !slices.Equal(got, want) {
				e.Errorf("in pages of %d: %q, want %q", n, got, want)
			}
		}
	}},
	{"check/owner of a key", func(e *env) {
		_, kept := e.push(repo, "abc")
		gone, dead := e.push(repo, "b")
		e.ok(e.db.DeleteBlob(e.Context(), repo, gone))
		session := e.lease(repo, 7).ID
		for key, want := range map[string]struct {
			kind string
			size int64
		}{kept: {"blob", 3}, dead: {"dead", 0}, session: {"upload", 7}} {
			kind, size, err := e.db.KeyOwner(e.Context(), key)
			if e.ok(err); kind != want.kind || size != want.size {
				e.Errorf("%s belongs to %s of %d bytes, want %+v", key, kind, size, want)
			}
			if err := e.db.BuryOrphan(e.Context(), key); !errors.Is(err, meta.ErrInUse) {
				e.Errorf("the object of a row of kind %q is buried", kind)
			}
		}
		_, _, err := e.db.KeyOwner(e.Context(), "orphan")
		e.wantErr("ask for an orphan", err, meta.ErrNotFound)
		e.ok(e.db.BuryOrphan(e.Context(), "orphan"))
		e.wantDead(dead, "orphan")
	}},
}
