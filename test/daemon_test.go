package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startDaemon runs a container daemon in folders of its own until the test
// ends, and returns once ready succeeds. It is stopped by its process id.
func startDaemon(t *testing.T, d *client, ready func() error) {
	t.Helper()
	log := &logBook{ready: make(chan string, 1)}
	cmd := exec.Command(d.path, d.args...)
	cmd.Dir = d.home
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			cmd.Process.Kill()
			<-ended
			t.Errorf("%s did not end within 30 s of SIGTERM", d.path)
		}
		unmountBelow(t, d.home)
	})
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := ready()
		if err == nil {
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended (it needs root):\n%s", filepath.Base(d.path), log.tail())
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready after 30 s: %v\n%s", filepath.Base(d.path), err, log.tail())
		}
	}
}

// unmountBelow undoes the mounts that a daemon left in its folder: dockerd
// leaves one on its data where the machine's root mount is not shared.
func unmountBelow(t *testing.T, folder string) {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range slices.Backward(strings.Split(string(table), "\n")) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(fields[1], folder+"/") {
			continue
		}
		if err := syscall.Unmount(fields[1], 0); err != nil {
			t.Errorf("unmount %s: %v", fields[1], err)
		}
	}
}
