package test

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// newCtr is a ctr client with a containerd of its own.
func newCtr(t *testing.T) *client {
	daemon := newClient(t, "containerd")
	socket := filepath.Join(daemon.home, "c.sock")
	daemon.args = []string{"--config", daemon.file("config.toml", fmt.Appendf(nil, `version = 2
root = %q
state = %q
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper",
]
[grpc]
  address = %q
[debug]
  level = "warn"
`, filepath.Join(daemon.home, "root"), filepath.Join(daemon.home, "state"), socket))}
	ctr := newClient(t, "ctr", "-a", socket)
	startDaemon(t, daemon, func() error {
		_, _, err := ctr.try("version")
		return err
	})
	return ctr
}

func TestContainerd(t *testing.T) { onBoth(t, testContainerd) }

func testContainerd(t *testing.T, at *place) {
	ctr := newCtr(t)
	r, other := newRepo(t, at, "containerd/app"), newRepo(t, at, "containerd/pushed")
	image := r.pushImage("v1", 900, 901, 902)

	ctr.run(at.ctr("images", "pull", "--plain-http", "--snapshotter", "native", r.at("v1"))...)
	if list := ctr.run("images", "ls", "name=="+r.at("v1")); !strings.Contains(list, image.Digest) {
		t.Fatalf("ctr images ls lacks %s:\n%s", image.Digest, list)
	}
	if list := ctr.run("images", "check", "--snapshotter", "native", "name=="+r.at("v1")); !strings.Contains(list, "complete (4/4)") {
		t.Fatalf("ctr images check: not complete:\n%s", list)
	}
	stored, stderr, err := ctr.try("content", "get", image.Digest)
	if err != nil {
		t.Fatalf("ctr content get: %v\n%s", err, stderr)
	}
	equal(t, "manifest in containerd", fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(stored))), image.Digest)

	ctr.run("images", "tag", r.at("v1"), other.at("v2"))
	ctr.run(at.ctr("images", "push", "--plain-http", other.at("v2"))...)
	other.same("v2", image.Digest)
	other.hasTags("v2")
	r.hasTags("v1")
}
