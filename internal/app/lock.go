package app

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// errInUse says that a folder has another owner.
var errInUse = errors.New("is in use by another berth")

// locks are the folders that this process owns, as their opened lock files. The
// kernel drops them with the process, however that ends.
type locks []*os.File

// lockFolders makes this process the one owner of folders, all or none. Several
// paths may lead to one folder.
func lockFolders(dirs ...string) (locks, error) {
	var held locks
	var seen []fs.FileInfo
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil {
			held.release()
			return nil, err
		}
		if slices.ContainsFunc(seen, func(other fs.FileInfo) bool { return os.SameFile(info, other) }) {
			continue
		}
		seen = append(seen, info)
		f, err := lockFolder(dir)
		if err != nil {
			held.release()
			return nil, err
		}
		held = append(held, f)
	}
	return held, nil
}

func (l locks) release() {
	for _, f := range l {
		f.Close()
	}
}

// lockFolder takes the lock and writes into it who has it.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "berth.lock"), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		owner, _ := io.ReadAll(io.LimitReader(f, 200))
		err = fmt.Errorf("the folder %s %w (%s): stop that one, or choose another folder, with --data or in the configuration",
			dir, errInUse, strings.TrimSpace(string(owner)))
	case err != nil:
		err = fmt.Errorf("lock of folder %s: %w", dir, err)
	default:
		if err = f.Truncate(0); err == nil {
			_, err = fmt.Fprintf(f, "pid %d on %s\n", os.Getpid(), hostname())
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown host"
	}
	return name
}
