package fsblob

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berth-registry/berth/internal/blob"
)

// List walks all subfolders at once, merged into the order of keys. It holds
// every file name in memory: it is for integrity checks, not for requests.
func (s *Store) List(ctx context.Context, after string) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		keys, err := s.keys(ctx, after)
		if err != nil {
			yield(blob.Object{}, err)
			return
		}
		for _, key := range keys {
			_, path := s.path(key)
			info, err := os.Stat(path)
			if errors.Is(err, os.ErrNotExist) {
				continue // deleted since
			}
			if err != nil {
				yield(blob.Object{}, err)
				return
			}
			if !yield(blob.Object{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil) {
				return
			}
		}
	}
}

func (s *Store) keys(ctx context.Context, after string) (keys []string, err error) {
	shards, err := os.ReadDir(s.root)
	if err != nil {
		return nil, err
	}
	for _, shard := range shards {
		if !shard.IsDir() {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		files, err := os.ReadDir(filepath.Join(s.root, shard.Name()))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			key := f.Name()
			if key > after && blob.CheckKey(key) == nil && strings.HasSuffix(key, shard.Name()) {
				keys = append(keys, key)
			}
		}
	}
	slices.Sort(keys)
	return keys, nil
}
