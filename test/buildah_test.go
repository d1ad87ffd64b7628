package test

import (
	"path/filepath"
	"testing"
)

func newBuildah(t *testing.T) *client {
	buildah := newClient(t, "buildah")
	root := filepath.Join(buildah.home, "storage")
	buildah.args = []string{"--storage-driver=vfs", "--root", root, "--runroot", root + "-run"}
	return buildah
}

func TestBuildah(t *testing.T) { onBoth(t, testBuildah) }

func testBuildah(t *testing.T, at *place) {
	buildah := newBuildah(t).at(at)
	r := newRepo(t, at, "buildah/app")
	plain := "--tls-verify=false"

	work := buildah.run("from", "scratch")
	buildah.run("copy", work, buildah.file("data", stuff{400, 300_000}.bytes()), "/data")
	buildah.run("config", "--cmd", "/data", "--label", "made=by-buildah", work)
	buildah.run("commit", "--format", "oci", work, "app:v1")

	for _, format := range []struct{ name, mediaType string }{
		{"oci", ociManifest},
		{"v2s2", "application/vnd.docker.distribution.manifest.v2+json"},
	} {
		t.Run(format.name, func(t *testing.T) {
			digestFile := filepath.Join(buildah.home, format.name)
			buildah.run("push", plain, "--format", format.name, "--digestfile", digestFile, "app:v1", "docker://"+r.at(format.name))
			r.same(format.name, readFile(t, digestFile))
			equal(t, "media type", r.verify(format.name).MediaType, format.mediaType)

			pulled := newBuildah(t).at(at)
			pulled.run("pull", plain, r.at(format.name))
			equal(t, "layers",
				pulled.run("inspect", "--type", "image", "--format", "{{.OCIv1.RootFS.DiffIDs}}", r.at(format.name)),
				buildah.run("inspect", "--type", "image", "--format", "{{.OCIv1.RootFS.DiffIDs}}", "app:v1"))
		})
	}
	r.hasTags("oci", "v2s2")
}
