// Package fsblob keeps blob objects as files of one folder. An object is
// written in place under its final path: nothing looks at it before its key
// stands in a committed row, so there is nothing to rename or to copy.
package fsblob

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/disk"
)

// A key's subfolder is named by shardLen of its characters, from shardAt. Of a
// UUIDv7 they count in minutes: objects written at the same time share a
// subfolder, and with it the syncs of it, while over the hours all fill evenly.
const (
	shardAt  = 6
	shardLen = 2
)

// Store is a folder of objects, spread over subfolders named by two characters
// of their keys.
type Store struct {
	root    string
	dirs    dirSyncer
	buffers sync.Pool // of *[bufferSize]byte

	mu     sync.Mutex
	shards map[string]bool // subfolders known to exist durably
}

var _ blob.Store = (*Store)(nil)

// New uses the folder root and creates it where it is missing.
func New(root string) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if err := MakeFolder(root); err != nil {
		return nil, err
	}
	return &Store{
		root:    root,
		dirs:    dirSyncer{fsync: disk.SyncFolder},
		buffers: sync.Pool{New: func() any { return new([bufferSize]byte) }},
		shards:  map[string]bool{},
	}, nil
}

// shardOf names the subfolder of a key that has passed CheckKey.
func shardOf(key string) string {
	i := min(shardAt, len(key)-shardLen)
	return key[i : i+shardLen]
}

// path of an object; the key has passed CheckKey.
func (s *Store) path(key string) (dir, file string) {
	dir = filepath.Join(s.root, shardOf(key))
	return dir, filepath.Join(dir, key)
}

// shard makes sure that a subfolder exists, durably.
func (s *Store) shard(dir string) error {
	s.mu.Lock()
	known := s.shards[dir]
	s.mu.Unlock()
	if known {
		return nil
	}
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	// Also where it existed: whoever made it may not have synced it yet.
	if err := s.dirs.sync(s.root); err != nil {
		return err
	}
	s.mu.Lock()
	s.shards[dir] = true
	s.mu.Unlock()
	return nil
}

// URL is unsupported: a folder has no server of its own.
func (s *Store) URL(context.Context, string, time.Duration) (string, error) {
	return "", blob.ErrUnsupported
}

// failure maps the errors of the file system to those of a blob store.
func failure(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: %w", blob.ErrNotFound, err)
	case isFull(err):
		return fmt.Errorf("%w: %w", blob.ErrFull, err)
	}
	return err
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
