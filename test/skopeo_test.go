package test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// multiArch builds an OCI layout with one index over two images out of nothing:
// umoci makes the images, buildah the index. It returns skopeo's name of it.
func multiArch(t *testing.T) string {
	umoci, buildah := newClient(t, "umoci"), newBuildah(t)
	images := filepath.Join(umoci.home, "images")
	umoci.run("init", "--layout", images)
	buildah.run("manifest", "create", "both")
	for i, arch := range []string{"amd64", "arm64"} {
		image := images + ":" + arch
		umoci.run("new", "--image", image)
		umoci.run("config", "--image", image, "--architecture", arch, "--os", "linux")
		umoci.run("insert", "--image", image, umoci.file(arch, stuff{uint64(500 + i), 250_000}.bytes()), "/data")
		buildah.run("manifest", "add", "both", "oci:"+image)
	}
	layout := "oci:" + filepath.Join(buildah.home, "layout") + ":both"
	buildah.run("manifest", "push", "--all", "both", layout)
	return layout
}

func TestSkopeo(t *testing.T) { everywhere(t, testSkopeo) }

func testSkopeo(t *testing.T, at *place) {
	source := multiArch(t)
	skopeo := newClient(t, "skopeo").at(at)
	r, other := newRepo(t, at, "skopeo/app"), newRepo(t, at, "skopeo/copied")
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(rawManifest(skopeo, source)))

	skopeo.run("copy", "--all", "--dest-tls-verify=false", source, "docker://"+r.at("v1"))
	r.same("v1", digest)
	equal(t, "media type", r.verify("v1").MediaType, "application/vnd.oci.image.index.v1+json")

	skopeo.run("copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+r.at("v1"), "docker://"+other.at("v2"))
	other.same("v2", digest)

	back := "oci:" + filepath.Join(skopeo.home, "back") + ":both"
	skopeo.run("copy", "--all", "--src-tls-verify=false", "docker://"+other.at("v2"), back)
	equal(t, "index that came back", string(rawManifest(skopeo, back)), string(rawManifest(skopeo, source)))
	sameFiles(t, ociFolder(source), ociFolder(back))

	t.Run("inspect", func(t *testing.T) {
		var got struct {
			Digest, Architecture string
			RepoTags             []string
		}
		text := skopeo.run("--override-arch", "arm64", "inspect", "--tls-verify=false", "docker://"+r.at("v1"))
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
		equal(t, "digest, architecture, tags", fmt.Sprint(got), fmt.Sprint(struct {
			Digest, Architecture string
			RepoTags             []string
		}{digest, "arm64", []string{"v1"}}))
	})
	t.Run("list-tags", func(t *testing.T) {
		var got struct{ Tags []string }
		text := skopeo.run("list-tags", "--tls-verify=false", "docker://"+r.api.host()+"/"+r.name)
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
		equal(t, "tags", strings.Join(got.Tags, " "), "v1")
	})
	t.Run("delete", func(t *testing.T) {
		skopeo.run("delete", "--tls-verify=false", "docker://"+r.at("v1"))
		r.gone("v1")
		r.gone(digest)
		other.same("v2", digest)
	})
}

// rawManifest is the exact manifest of an image. It must not be trimmed.
func rawManifest(skopeo *client, image string) []byte {
	skopeo.t.Helper()
	stdout, stderr, err := skopeo.try("inspect", "--raw", image)
	if err != nil {
		skopeo.t.Fatalf("skopeo inspect --raw %s: %v\n%s", image, err, stderr)
	}
	return []byte(stdout)
}

// ociFolder is the blobs folder of "oci:FOLDER:TAG".
func ociFolder(image string) string {
	return filepath.Join(strings.Split(image, ":")[1], "blobs", "sha256")
}

// sameFiles wants every file of one folder in the other, byte for byte.
func sameFiles(t *testing.T, want, got string) {
	t.Helper()
	entries, err := os.ReadDir(want)
	if err != nil || len(entries) == 0 {
		t.Fatalf("%s holds %d files: %v", want, len(entries), err)
	}
	for _, e := range entries {
		if readFile(t, want, e.Name()) != readFile(t, got, e.Name()) {
			t.Fatalf("%s differs between %s and %s", e.Name(), want, got)
		}
	}
}

func readFile(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
