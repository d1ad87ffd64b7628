package fsblob

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/disk"
)

// MakeFolder creates a folder, with those above it, where it is missing. Its
// error says how to mend that, as CheckFolder's does.
func MakeFolder(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	return explain(dir, mkdirAll(dir))
}

// mkdirAll is os.MkdirAll, durably: a folder that a loss of power takes away
// takes everything in it.
func mkdirAll(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := mkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o750); err != nil {
		info, statErr := os.Stat(dir)
		switch {
		case statErr != nil:
			return err
		case !info.IsDir():
			return &os.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return nil // by another process, since we looked
	}
	return disk.SyncFolder(parent)
}

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
		err = disk.SyncData(f)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), renamed)
	}
	if err == nil {
		err = disk.SyncFolder(dir)
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
	if isFull(err) {
		err = fmt.Errorf("%w: %w", blob.ErrFull, err)
	}
	at, info, blocked := nearest(dir)
	who := fmt.Sprintf("this process runs as uid %d", os.Getuid())
	if info != nil {
		who += fmt.Sprintf("; %s has mode %v", at, info.Mode())
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			who += fmt.Sprintf(" and belongs to uid %d", st.Uid)
		}
	}
	return fmt.Errorf("folder %s cannot be written: %w (%s; %s)", dir, err, who, mend(dir, at, blocked, err))
}

// nearest is the folder itself or, where it cannot be seen, the first above it
// that can, and whether that one blocks the way down.
func nearest(dir string) (at string, info os.FileInfo, blocked bool) {
	for at = dir; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err == nil {
			return at, info, blocked
		}
		if at == filepath.Dir(at) {
			return at, nil, blocked
		}
		blocked = errors.Is(err, os.ErrPermission)
	}
}

// mend says what to do about an error in dir, of which at can be seen. It never
// tells anyone to change the owner of a folder that is not ours, such as /.
func mend(dir, at string, blocked bool, err error) string {
	switch {
	case errors.Is(err, os.ErrPermission) && blocked:
		return fmt.Sprintf("mend it with: chmod a+x %s", at)
	case errors.Is(err, os.ErrPermission) && at != dir:
		return fmt.Sprintf("mend it with: mkdir -p %s && chown -R %d %s", dir, os.Getuid(), dir)
	case errors.Is(err, os.ErrPermission):
		return fmt.Sprintf("mend it with: chown -R %d %s && chmod u+rwx %s", os.Getuid(), dir, dir)
	case errors.Is(err, syscall.EROFS):
		return "mount its file system writable, or choose another folder with --data"
	case isFull(err):
		return fmt.Sprintf("free space or raise the limit there: df -h %s", at)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Sprintf("%s is a file where a folder is needed: choose another folder with --data", at)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Sprintf("it has gone: mount its disk again, or create it with: mkdir -p %s", dir)
	}
	return "look for errors of the disk in the system's log, or choose another folder with --data"
}
