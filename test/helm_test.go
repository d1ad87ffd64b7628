package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHelm(t *testing.T) { onBoth(t, testHelm) }

func testHelm(t *testing.T, at *place) {
	helm := newClient(t, "helm").at(at)
	r := newRepo(t, at, "helm/charts/tiny")
	folder := "oci://" + r.api.host() + "/helm/charts"
	helm.file("tiny/templates/map.yaml", []byte("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\n"))

	for _, version := range []string{"0.1.0", "0.2.0"} {
		helm.file("tiny/Chart.yaml", []byte("apiVersion: v2\nname: tiny\nversion: "+version+"\ndescription: a chart\n"))
		helm.run("package", "tiny")
		helm.run("push", "--plain-http", "tiny-"+version+".tgz", folder)
		r.verify(version)
	}
	r.hasTags("0.1.0", "0.2.0")

	pulled := filepath.Join(helm.home, "pulled")
	if err := os.Mkdir(pulled, 0o755); err != nil {
		t.Fatal(err)
	}
	helm.run("pull", "--plain-http", folder+"/tiny", "--version", "0.1.0", "-d", pulled)
	equal(t, "chart", readFile(t, pulled, "tiny-0.1.0.tgz"), readFile(t, helm.home, "tiny-0.1.0.tgz"))

	shown := helm.run("show", "chart", "--plain-http", folder+"/tiny") // the newest, by its tag list
	if !strings.Contains(shown, "version: 0.2.0") {
		t.Fatalf("helm show chart: %s", shown)
	}
	if out := helm.run("template", "x", "--plain-http", folder+"/tiny", "--version", "0.1.0"); !strings.Contains(out, "name: x") {
		t.Fatalf("helm template: %s", out)
	}
}
