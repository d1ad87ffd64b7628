package fsblob

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// MakeFolder creates a folder, with those above it, where it is missing. Its
// error says how to mend that, as CheckFolder's does.
func MakeFolder(dir string) error { return explain(dir, os.MkdirAll(dir, 0o750)) }

// Check writes, syncs, renames and deletes a scratch file in the folder. Its
// error says how to mend the folder.
func (s *Store) Check(context.Context) error { return CheckFolder(s.root) }

// CheckFolder proves that a folder takes durable writes.
func CheckFolder(dir string) error {
	f, err := os.CreateTemp(dir, ".check-*")
	if err != nil {
		return explain(dir, err)
	}
	renamed := f.Name() + ".renamed"
	defer os.Remove(f.Name())
	defer os.Remove(renamed)
	_, err = f.WriteString("berth checks that this folder can be written\n")
	if err == nil {
		err = syncData(f)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), renamed)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err == nil {
		err = os.Remove(renamed)
	}
	return explain(dir, err)
}

// explain adds to an error what an operator needs to end it: who we are, whose
// the folder is, and the command that mends it.
func explain(dir string, err error) error {
	if err == nil {
		return nil
	}
	at := dir
	info, statErr := os.Stat(at)
	for statErr != nil && at != filepath.Dir(at) {
		at = filepath.Dir(at)
		info, statErr = os.Stat(at)
	}
	who := fmt.Sprintf("this process runs as uid %d", os.Getuid())
	if statErr == nil {
		who += fmt.Sprintf("; %s has mode %v", at, info.Mode())
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			who += fmt.Sprintf(" and belongs to uid %d", st.Uid)
		}
	}
	hint := ""
	switch {
	case errors.Is(err, os.ErrPermission):
		hint = fmt.Sprintf("; mend it with: chown -R %d %s && chmod u+rwx %s", os.Getuid(), at, at)
	case errors.Is(err, syscall.EROFS):
		hint = "; mount its file system writable, or choose another folder with --data"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = fmt.Sprintf("; free space on it: df -h %s", at)
	case errors.Is(err, syscall.ENOTDIR):
		hint = "; a file stands where a folder is needed: choose another folder with --data"
	}
	return fmt.Errorf("folder %s cannot be written: %w (%s%s)", dir, failure(err), who, hint)
}
