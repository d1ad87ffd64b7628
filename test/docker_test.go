package test

import (
	"path/filepath"
	"testing"
)

// newDocker is a docker client with a daemon of its own, without networks, which
// has these flags too.
func newDocker(t *testing.T, flags ...string) *client {
	daemon := newClient(t, "dockerd")
	socket := "unix://" + filepath.Join(daemon.home, "docker.sock")
	daemon.args = append([]string{
		"--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--bridge=none",
		"--storage-driver=vfs", "--data-root", filepath.Join(daemon.home, "data"),
		"--exec-root", filepath.Join(daemon.home, "exec"), "--pidfile", filepath.Join(daemon.home, "docker.pid"),
		"-H", socket,
	}, flags...)
	docker := newClient(t, "docker", "-H", socket)
	docker.env = append(docker.env, "DOCKER_BUILDKIT=0") // newer clients have no buildx of their own
	startDaemon(t, daemon, func() error {
		_, _, err := docker.try("version")
		return err
	})
	return docker
}

func TestDocker(t *testing.T) { onBoth(t, testDocker) }

func testDocker(t *testing.T, at *place) {
	docker := newDocker(t).at(at)
	r := newRepo(t, at, "docker/app")

	docker.run("build", "-t", r.at("v1"), docker.buildContext(100))
	id := docker.run("image", "inspect", "-f", "{{.Id}} {{.RootFS.Layers}}", r.at("v1"))
	docker.run("push", r.at("v1"))
	pushed := r.verify("v1")

	docker.run("tag", r.at("v1"), r.at("v2"))
	docker.run("push", r.at("v2"))
	r.same("v2", pushed.Digest)
	r.hasTags("v1", "v2")

	t.Run("pull", func(t *testing.T) {
		docker.run("rmi", r.at("v1"), r.at("v2"))
		docker.fails("image", "inspect", r.at("v1"))
		docker.run("pull", r.at("v1"))
		equal(t, "image id and layers", docker.run("image", "inspect", "-f", "{{.Id}} {{.RootFS.Layers}}", r.at("v1")), id)
		equal(t, "repo digest", docker.run("image", "inspect", "-f", "{{index .RepoDigests 0}}", r.at("v1")), r.at(pushed.Digest))
		docker.run("rmi", r.at("v1"))
		docker.run("pull", r.at(pushed.Digest))
		docker.run("tag", r.at(pushed.Digest), r.at("v1"))
	})
	t.Run("mount", func(t *testing.T) {
		other := newRepo(t, at, "docker/mounted")
		docker.run("tag", r.at("v1"), other.at("v1"))
		docker.run("push", other.at("v1"))
		other.same("v1", pushed.Digest)
	})
	t.Run("manifest", func(t *testing.T) {
		docker.run("build", "-t", r.at("arm"), docker.buildContext(200))
		docker.run("push", r.at("arm"))
		docker.run("manifest", "create", "--insecure", r.at("list"), r.at("v1"), r.at("arm"))
		docker.run("manifest", "annotate", r.at("list"), r.at("arm"), "--os", "linux", "--arch", "arm64")
		docker.run("manifest", "push", "--insecure", r.at("list"))
		equal(t, "media type", r.verify("list").MediaType, "application/vnd.docker.distribution.manifest.list.v2+json")
		docker.run("manifest", "inspect", "--insecure", r.at("list"))
		r.hasTags("arm", "list", "v1", "v2")
	})
}
