package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/berth-registry/berth/internal/blob/fsblob"
	"github.com/berth-registry/berth/internal/config"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
)

// store is an opened hosted registry with what it stands on.
type store struct {
	lock     *os.File
	db       *meta.DB
	blobs    *fsblob.Store
	registry *hosted.Registry
	folders  []string // that must take writes
}

// openStore opens the data folder as its one owner and creates what is missing.
func openStore(ctx context.Context, c *config.Config) (*store, error) {
	st := &store{folders: []string{c.Data}}
	if err := st.open(ctx, c); err != nil {
		st.close()
		return nil, err
	}
	return st, nil
}

func (st *store) open(ctx context.Context, c *config.Config) (err error) {
	database := c.Metadata.SQLite.Path
	if dir := filepath.Dir(database); dir != filepath.Clean(c.Data) {
		st.folders = append(st.folders, dir)
	}
	for _, dir := range st.folders {
		if err := fsblob.MakeFolder(dir); err != nil {
			return err
		}
		if err := fsblob.CheckFolder(dir); err != nil {
			return err
		}
	}
	if st.lock, err = lockFolder(c.Data); err != nil {
		return err
	}
	if st.blobs, err = fsblob.New(c.Storage.Folder.Path); err != nil {
		return err
	}
	if err := st.blobs.Check(ctx); err != nil {
		return err
	}
	if st.db, err = meta.Open(ctx, meta.Options{Path: database}); err != nil {
		return err
	}
	st.registry = hosted.New(st.db, st.blobs, hosted.Options{
		Sparse: c.Sparse, UploadExpiry: c.Uploads.Expire, UnreferencedAge: c.GC.UnreferencedAfter,
	})
	return nil
}

func (st *store) close() {
	if st.db != nil {
		st.db.Close()
	}
	if st.lock != nil {
		st.lock.Close() // and with it the lock
	}
}

// check proves that the database answers and that every folder takes writes.
func (st *store) check(ctx context.Context) error {
	errs := []error{st.db.Ping(ctx), st.blobs.Check(ctx)}
	for _, dir := range st.folders {
		errs = append(errs, fsblob.CheckFolder(dir))
	}
	return errors.Join(errs...)
}

// lockFolder makes this process the data folder's one owner while the file is
// open. The kernel drops the lock with the process, however that ends.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "berth.lock"), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		owner, _ := io.ReadAll(io.LimitReader(f, 200))
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("the data folder %s is in use by another berth (%s): stop that one, or choose another folder with --data",
				dir, strings.TrimSpace(string(owner)))
		}
		return nil, fmt.Errorf("lock of data folder %s: %w", dir, err)
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, err
	}
	_, err = fmt.Fprintf(f, "pid %d on %s\n", os.Getpid(), hostname())
	return f, err
}
