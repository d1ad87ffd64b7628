package test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCrane(t *testing.T) { everywhere(t, testCrane) }

func testCrane(t *testing.T, at *place) {
	crane := newClient(t, "crane").at(at)
	r, other := newRepo(t, at, "crane/app"), newRepo(t, at, "crane/copied")
	one := crane.file("one.tar", layerTar("one", stuff{600, 300_000}.bytes()))
	two := crane.file("two.tar", layerTar("two", stuff{601, 300_000}.bytes()))

	crane.run("append", "--oci-empty-base", "-f", one, "-f", two, "-t", r.at("v1"))
	digest := r.verify("v1").Digest
	equal(t, "crane digest", crane.run("digest", r.at("v1")), digest)
	crane.run("validate", "--remote", r.at("v1"))

	t.Run("pull and push", func(t *testing.T) {
		layout := filepath.Join(crane.home, "layout")
		crane.run("pull", "--format=oci", r.at("v1"), layout)
		crane.run("push", layout, r.at("v2"))
		r.same("v2", digest)
	})
	t.Run("copy", func(t *testing.T) {
		crane.run("copy", r.at("v1"), other.at("v1"))
		other.same("v1", digest)
	})
	t.Run("mutate", func(t *testing.T) {
		crane.run("mutate", "--label", "k=v", "-t", r.at("v3"), r.at("v1"))
		crane.run("validate", "--remote", r.at("v3"))
		if r.verify("v3").Digest == digest {
			t.Fatal("mutate changed nothing")
		}
	})
	t.Run("list", func(t *testing.T) {
		equal(t, "crane ls", strings.Join(strings.Fields(crane.run("ls", r.api.host()+"/"+r.name)), " "), "v1 v2 v3")
		catalog := strings.Fields(crane.run("catalog", r.api.host()))
		if !slices.Contains(catalog, r.name) || !slices.Contains(catalog, other.name) {
			t.Fatalf("crane catalog: %q lacks %s or %s", catalog, r.name, other.name)
		}
	})
	t.Run("delete", func(t *testing.T) {
		crane.run("delete", r.at("v2")) // the tag only
		r.gone("v2")
		r.same("v1", digest)
		crane.run("delete", r.at(digest)) // the manifest with its tags
		r.gone(digest)
		r.hasTags("v3")
		other.same("v1", digest)
	})
}
