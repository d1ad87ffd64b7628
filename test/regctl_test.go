package test

import (
	"strings"
	"testing"
)

func TestRegctl(t *testing.T) { onBoth(t, testRegctl) }

func testRegctl(t *testing.T, at *place) {
	regctl := newClient(t, "regctl").at(at)
	r, other := newRepo(t, at, "regctl/app"), newRepo(t, at, "regctl/copied")
	regctl.env = append(regctl.env, "REGCTL_CONFIG="+regctl.file("regctl.json", []byte("{}")))
	regctl.run("registry", "set", "--skip-check", "--tls", "disabled", r.api.host())
	image := r.pushImage("v1", 700, 701)

	regctl.run("artifact", "put", "--subject", r.at("v1"), "--artifact-type", "application/x-sbom",
		"-f", regctl.file("sbom", stuff{702, 50_000}.bytes()))
	tree := regctl.run("artifact", "tree", r.at("v1"))
	if !strings.Contains(tree, image.Digest) || !strings.Contains(tree, "application/x-sbom") {
		t.Fatalf("artifact tree lacks image or artifact:\n%s", tree)
	}
	artifact := regctl.run("artifact", "list", "--filter-artifact-type", "application/x-sbom", "--format", "{{range .Descriptors}}{{.Digest}}{{end}}", r.at("v1"))
	r.same(artifact, artifact)
	equal(t, "other artifact types", regctl.run("artifact", "list", "--filter-artifact-type", "application/x-other", "--format", "{{range .Descriptors}}{{.Digest}}{{end}}", r.at("v1")), "")
	regctl.run("artifact", "get", "--subject", r.at("v1"), "--filter-artifact-type", "application/x-sbom", "-o", regctl.home)
	equal(t, "artifact", readFile(t, regctl.home, "sbom"), string(stuff{702, 50_000}.bytes()))

	regctl.run("image", "copy", "--referrers", r.at("v1"), other.at("v1"))
	other.same("v1", image.Digest)
	other.same(artifact, artifact)

	regctl.run("image", "copy", r.at("v1"), r.at("v2"))
	equal(t, "tag ls", strings.Join(strings.Fields(regctl.run("tag", "ls", r.api.host()+"/"+r.name)), " "), "v1 v2")
	regctl.run("tag", "delete", r.at("v2"))
	r.gone("v2")
	r.same("v1", image.Digest)
	r.hasTags("v1")

	regctl.run("manifest", "delete", r.at(artifact))
	r.gone(artifact)
	equal(t, "artifacts after delete", regctl.run("artifact", "list", "--format", "{{range .Descriptors}}{{.Digest}}{{end}}", r.at("v1")), "")
}
