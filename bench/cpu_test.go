package main

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestCPUTime: what a process and its children use is seen, also of those that
// have ended.
func TestCPUTime(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	after, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if used < 5*tick {
		t.Skipf("the child used %v of the processor, too little to see", used)
	}
	if seen := after - before; seen < used-2*tick || seen > used+5*time.Second {
		t.Errorf("%v are seen of the %v that a child used", seen, used)
	}
}

func TestPinned(t *testing.T) {
	if got := pinned(0, "a", "b"); len(got) != 2 {
		t.Errorf("all cores: %q", got)
	}
	if got := pinned(2, "a")[:3]; got[2] != "0-1" {
		t.Errorf("two cores: %q", got)
	}
}
