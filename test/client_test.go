package test

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
)

// used counts the tests of every client, for the table at the end of the run.
var used = struct {
	sync.Mutex
	version map[string]string
	tests   map[string]map[string]bool
}{version: map[string]string{}, tests: map[string]map[string]bool{}}

// note records that a test uses a client of the given version.
func note(t *testing.T, name, version string) {
	used.Lock()
	defer used.Unlock()
	if used.tests[name] == nil {
		used.tests[name] = map[string]bool{}
	}
	used.version[name] = version
	test, _, _ := strings.Cut(t.Name(), "/")
	used.tests[name][test] = true
}

func printClients() {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "client\tversion\ttests")
	for _, name := range slices.Sorted(maps.Keys(used.version)) {
		tests := slices.Sorted(maps.Keys(used.tests[name]))
		fmt.Fprintf(w, "%s\t%s\t%s\n", name, used.version[name], strings.Join(tests, " "))
	}
	w.Flush()
}

// client is an installed program with a home folder of its own, so that no
// test meets the configuration of the user or of another test.
type client struct {
	t    *testing.T
	path string
	home string
	env  []string // beside the process's own
	args []string // before the arguments of every run
}

// newClient finds a program in .tools/bin or on the PATH. A missing one fails
// the test: a run that did not try every client must not look like one that did.
func newClient(t *testing.T, name string, args ...string) *client {
	t.Helper()
	path, err := filepath.Abs("../.tools/bin/" + name)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		if path, err = exec.LookPath(name); err != nil {
			t.Fatalf("%s is not installed; install it with scripts/install-test-tools", name)
		}
	}
	home := t.TempDir()
	c := &client{t: t, path: path, home: home, args: args, env: []string{
		"HOME=" + home, "XDG_RUNTIME_DIR=" + home, "XDG_CONFIG_HOME=" + home, "DOCKER_CONFIG=" + home,
	}}
	c.file("config.json", []byte("{}")) // some fail where DOCKER_CONFIG has none
	note(t, name, c.version())
	return c
}

var versionNumber = regexp.MustCompile(`v?\d+\.\d+[0-9A-Za-z.+~-]*`)

// version is what the Go tool chain or else the program itself says.
func (c *client) version() string {
	if info, err := buildinfo.ReadFile(c.path); err == nil && strings.HasPrefix(info.Main.Version, "v") {
		return info.Main.Version
	}
	out, err := exec.Command(c.path, "--version").CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s --version: %v\n%s", c.path, err, out)
	}
	return versionNumber.FindString(string(out))
}

// run wants success and returns what came on stdout, trimmed.
func (c *client) run(args ...string) string {
	c.t.Helper()
	stdout, stderr, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("%s %s: %v\n%s%s", filepath.Base(c.path), strings.Join(args, " "), err, stdout, stderr)
	}
	return strings.TrimSpace(stdout)
}

// fails wants failure.
func (c *client) fails(args ...string) {
	c.t.Helper()
	if stdout, stderr, err := c.try(args...); err == nil {
		c.t.Fatalf("%s %s: should have failed\n%s%s", filepath.Base(c.path), strings.Join(args, " "), stdout, stderr)
	}
}

func (c *client) try(args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(c.t.Context(), c.path, append(slices.Clone(c.args), args...)...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Dir = c.home
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// file writes a file into the client's home and returns its path.
func (c *client) file(name string, content []byte) string {
	c.t.Helper()
	path := filepath.Join(c.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// buildContext writes a Dockerfile of three layers over nothing and returns its folder.
func (c *client) buildContext(seed uint64) string {
	c.t.Helper()
	for i, name := range []string{"one", "two", "three"} {
		c.file("context/"+name, stuff{seed + uint64(i), 200_000}.bytes())
	}
	c.file("context/Dockerfile", []byte("FROM scratch\nCOPY one /one\nCOPY two /two\nCOPY three /dir/three\nENV A=b\nCMD [\"/one\"]\n"))
	return filepath.Join(c.home, "context")
}
