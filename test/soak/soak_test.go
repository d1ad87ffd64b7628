package soak

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// graces are cut to seconds. An upload must outlive the lease of a server that
// was killed, which is 15 seconds.
var graces = Graces{
	Untagged: 8 * time.Second, Orphans: 7 * time.Second, Unreferenced: 6 * time.Second, Upload: 20 * time.Second,
}

// settings are those of the registry, so that collection runs without a pause.
func settings(binary string) []string {
	return []string{
		"BERTH_BINARY=" + binary,
		"BERTH_LOG_LEVEL=info",
		"BERTH_STORAGE_S3_REDIRECT=never", // bytes go with their rows, rather than when no address of them can be good
		"BERTH_GC_INTERVAL=100ms",
		"BERTH_GC_RATE=0",
		"BERTH_GC_SWEEP_AFTER=5s",
		fmt.Sprint("BERTH_GC_UNTAGGED=", graces.Untagged),
		fmt.Sprint("BERTH_GC_ORPHANS_AFTER=", graces.Orphans),
		fmt.Sprint("BERTH_GC_UNREFERENCED_AFTER=", graces.Unreferenced),
		fmt.Sprint("BERTH_UPLOADS_EXPIRE=", graces.Upload),
	}
}

// TestSingle soaks one process with SQLite and a folder.
func TestSingle(t *testing.T) {
	binary, dir := program(t), folder(t)
	s, err := NewSingle(binary, dir, settings(binary)[1:])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	run(t, s, 10*time.Second)
}

// TestReplicas soaks two processes with PostgreSQL and S3 behind a balancer.
func TestReplicas(t *testing.T) {
	script, err := filepath.Abs("../../examples/replicas/run")
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewReplicas(script, folder(t), settings(program(t)))
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, f, 10*time.Second)
}

// run soaks for SOAK, or for the short time of a test among others.
func run(t *testing.T, s System, length time.Duration) {
	seed := rand.Uint64() >> 32
	if text := os.Getenv("SOAK_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SOAK_SEED: %v", err)
		}
	}
	if text := os.Getenv("SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatalf("SOAK: %v", err)
		}
	}
	t.Logf("%v of load, SOAK_SEED=%d, logs in %s", length, seed, s.Logs())
	err := Run(t.Context(), s, Options{Length: length, Seed: seed, Graces: graces, Log: t.Logf, Out: os.Stdout})
	if err != nil {
		t.Fatal(err)
	}
}

// folder is one that stays when the test fails. PostgreSQL's own user must be
// able to enter it.
func folder(t *testing.T) string {
	dir, err := os.MkdirTemp("", "berth-soak-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			os.RemoveAll(dir)
		}
	})
	return dir
}

// program is the berth that BERTH_BINARY names, or one built from this tree.
func program(t *testing.T) string {
	if path := os.Getenv("BERTH_BINARY"); path != "" {
		abs, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		return abs
	}
	path := filepath.Join(t.TempDir(), "berth")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", path, "./cmd/berth")
	build.Dir = "../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build ./cmd/berth: %v\n%s", err, out)
	}
	return path
}
