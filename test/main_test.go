// Package test drives a real berth process with the clients that people use,
// and kills, restarts and loads that process. It is a module of its own so that
// what it needs never reaches the product; it knows berth by its command line
// and by HTTP only.
//
// BERTH_BINARY names a binary to test instead of one built from the parent folder.
package test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// shared is what every test of the package uses; TestMain fills it.
var shared struct {
	dir    string    // of all that outlives a test
	binary string    // the berth program
	server *server   // one process for all client tests
	fleet  lazyFleet // see sharedFleet
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "berth-test-")
	if err != nil {
		return report(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL is another user
		return report(err)
	}
	shared.dir = dir
	if shared.binary, err = program(dir); err != nil {
		return report(err)
	}
	if shared.server, err = start(filepath.Join(dir, "data")); err != nil {
		return report(err)
	}
	if err := sideBySide(); err != nil {
		return report(err)
	}
	code := m.Run()
	if err := shared.server.terminate(); err != nil {
		code = report(fmt.Errorf("the server of the client tests: %w", err))
	}
	if err := shared.fleet.end(); err != nil {
		code = report(err)
	}
	if code != 0 {
		fmt.Fprintf(os.Stderr, "end of the server's log:\n%s\n", shared.server.log.tail())
		if f := shared.fleet.fleet; f != nil {
			fmt.Fprint(os.Stderr, f.logs())
		}
	}
	printClients()
	return code
}

// sideBySide lets tests that are parallel be so beyond the processors: they
// wait most of the time.
func sideBySide() error {
	flag.Parse()
	return flag.Set("test.parallel", "10")
}

func report(err error) int {
	fmt.Fprintln(os.Stderr, "test:", err)
	return 1
}

// program builds berth into dir, unless BERTH_BINARY names one.
func program(dir string) (string, error) {
	if path := os.Getenv("BERTH_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(dir, "berth")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", path, "./cmd/berth")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/berth: %w\n%s", err, out)
	}
	return path, nil
}
