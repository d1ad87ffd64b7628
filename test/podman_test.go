package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newPodman(t *testing.T) *client {
	podman := newClient(t, "podman")
	root, err := os.MkdirTemp("", "podman-") // podman wants a short name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root); os.RemoveAll(root + "-run"); os.RemoveAll(root + "-tmp") })
	podman.args = []string{"--storage-driver=vfs", "--root", root, "--runroot", root + "-run", "--tmpdir", root + "-tmp",
		"--cgroup-manager=cgroupfs", "--events-backend=none"}
	return podman
}

func TestPodman(t *testing.T) { onBoth(t, testPodman) }

func testPodman(t *testing.T, at *place) {
	podman := newPodman(t).at(at)
	r := newRepo(t, at, "podman/app")
	plain := "--tls-verify=false"

	podman.run("build", "--isolation=chroot", "-t", r.at("v1"), podman.buildContext(300))
	id := podman.run("image", "inspect", "-f", "{{.Id}} {{.RootFS.Layers}}", r.at("v1"))
	podman.run("push", plain, "--digestfile", filepath.Join(podman.home, "digest"), r.at("v1"))
	r.same("v1", readFile(t, podman.home, "digest"))

	podman.run("rmi", r.at("v1"))
	podman.run("pull", plain, r.at("v1"))
	equal(t, "image id and layers", podman.run("image", "inspect", "-f", "{{.Id}} {{.RootFS.Layers}}", r.at("v1")), id)

	podman.run("manifest", "create", "list")
	podman.run("manifest", "add", "list", "containers-storage:"+r.at("v1"))
	podman.run("manifest", "push", "--all", plain, "list", "docker://"+r.at("list"))
	r.verify("list")

	name := r.api.host() + "/" + r.name
	found := podman.run("search", "--list-tags", plain, name)
	equal(t, "search --list-tags", strings.Join(strings.Fields(found), " "), "NAME TAG "+name+" list "+name+" v1")
	r.hasTags("list", "v1")
}
