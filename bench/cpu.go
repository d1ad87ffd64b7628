package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// tick is what the kernel counts processor time in, on every architecture.
const tick = time.Second / 100

// cpuTime is what a process and its living and awaited children have used of
// the processors.
func cpuTime(pid int) (time.Duration, error) {
	own, err := readStat(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	total := own.self + own.awaited
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, file := range all {
		switch s, err := readStat(file); {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH): // it ended meanwhile
		case err != nil:
			return 0, err
		case s.parent == pid:
			total += s.self + s.awaited
		}
	}
	return time.Duration(total) * tick, nil
}

type stat struct {
	parent        int
	self, awaited int64 // ticks
}

func readStat(file string) (s stat, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	// The name in brackets may hold anything.
	f := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(f) < 15 {
		return s, fmt.Errorf("%s has %d fields", file, len(f))
	}
	number := func(i int) (n int64) {
		v, failed := strconv.ParseInt(string(f[i]), 10, 64)
		err = errors.Join(err, failed)
		return v
	}
	s.parent, s.self, s.awaited = int(number(1)), number(11)+number(12), number(13)+number(14)
	return s, err
}

// cpu is what the server, and beside it its database, have used so far.
func (t *target) cpu() (used [2]time.Duration, err error) {
	if used[0], err = cpuTime(t.pid); err == nil && t.database != nil {
		used[1], err = cpuTime(t.database.cmd.Process.Pid)
	}
	return used, err
}
