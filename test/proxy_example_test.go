package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestProxyExample: the example is a good configuration, and docs/proxy.md shows
// the files of clients as they are.
func TestProxyExample(t *testing.T) {
	dir := t.TempDir()
	config := readFile(t, "../examples/proxy/berth.yaml")
	for _, secret := range []string{"hub-password", "forge-token"} {
		write(t, filepath.Join(dir, secret), "secret\n")
	}
	write(t, filepath.Join(dir, "internal-ca.crt"), certificate(t))
	file := filepath.Join(dir, "berth.yaml")
	write(t, file, strings.ReplaceAll(config, "/etc/berth/", dir+"/"))
	if out, err := berth("config", "check", "--config", file).CombinedOutput(); err != nil {
		t.Errorf("berth config check: %v\n%s", err, out)
	}
	out, err := berth("config", "print", "--config", file).CombinedOutput()
	if err != nil || strings.Contains(string(out), "secret\n") {
		t.Errorf("berth config print: %v\n%s", err, out)
	}

	docs := readFile(t, "../docs/proxy.md")
	err = filepath.WalkDir("../examples/proxy", func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if link := strings.TrimPrefix(path, "../"); !strings.Contains(docs, "(../"+link+")") {
			t.Errorf("docs/proxy.md does not link %s", link)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, name := range []string{"containerd/docker.io/hosts.toml", "docker/daemon.json", "podman/registries.conf", "buildkit/buildkitd.toml"} {
		for line := range strings.Lines(shown(docs, name)) {
			if line = strings.TrimSpace(line); !strings.Contains(squeezed(readFile(t, "../examples/proxy", name)), squeezed(line)) {
				t.Errorf("docs/proxy.md shows for %s what is not in it: %s", name, line)
			}
		}
	}
}

// shown is the block of code behind the link to an example.
func shown(docs, name string) string {
	_, rest, _ := strings.Cut(docs, "(../examples/proxy/"+name+")")
	_, rest, _ = strings.Cut(rest, "\n```")
	_, rest, _ = strings.Cut(rest, "\n")
	block, _, _ := strings.Cut(rest, "```")
	return block
}

// squeezed is a text without blanks.
func squeezed(s string) string { return strings.Join(strings.Fields(s), "") }

// certificate is one that nobody has the key of.
func certificate(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
		"-subj", "/CN=ca", "-keyout", filepath.Join(dir, "key"), "-out", filepath.Join(dir, "crt"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	return readFile(t, dir, "crt")
}
