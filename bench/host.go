package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// host is what a number depends on besides the program.
type host struct {
	cpu        string
	cores      int
	memory     int64 // bytes
	kernel     string
	filesystem string // of the data folders
}

func (h host) String() string {
	return fmt.Sprintf("%s, %d cores, %d GiB memory, Linux %s, %s, %s",
		h.cpu, h.cores, (h.memory+1<<29)>>30, h.kernel, h.filesystem, runtime.Version())
}

// describeHost looks around on Linux; dir is where the data folders are.
func describeHost(dir string) (host, error) {
	h := host{cpu: runtime.GOARCH, cores: runtime.NumCPU()}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return h, err
	}
	h.kernel = strings.TrimSpace(string(kernel))
	if model, err := procField("/proc/cpuinfo", "model name"); err == nil { // not on every architecture
		h.cpu = model
	}
	if h.memory, err = procKilobytes("/proc/meminfo", "MemTotal"); err != nil {
		return h, err
	}
	h.filesystem, err = filesystemOf(dir)
	return h, err
}

// filesystemOf names the type of the filesystem with the longest mount point
// above dir.
func filesystemOf(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	var point, kind string
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f[1]) < len(point) {
			continue
		}
		if rel, err := filepath.Rel(f[1], dir); err == nil && filepath.IsLocal(rel) {
			point, kind = f[1], f[2]
		}
	}
	return kind, nil
}

// peakMemory is the most resident memory that a process ever had, in bytes.
func peakMemory(pid int) (int64, error) {
	return procKilobytes(fmt.Sprintf("/proc/%d/status", pid), "VmHWM")
}

// procKilobytes reads a field that the kernel gives in kB, as bytes.
func procKilobytes(file, name string) (int64, error) {
	text, err := procField(file, name)
	if err != nil {
		return 0, err
	}
	kb, err := strconv.ParseInt(strings.TrimSuffix(text, " kB"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s in %s: %w", name, file, err)
	}
	return kb << 10, nil
}

// procField finds "name : value".
func procField(file, name string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v), nil
		}
	}
	return "", fmt.Errorf("%s has no field %q", file, name)
}
