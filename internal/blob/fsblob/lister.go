package fsblob

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/berth-registry/berth/internal/blob"
)

// listPage is how many keys a walk holds in memory, at most twice.
const listPage = 1 << 16

// List walks the objects in pages. Subfolders are not named by how keys begin, so
// they are not in the order of keys: each page reads all names and keeps the first
// that come behind the last page: bounded memory, for time that only an
// integrity check spends.
func (s *Store) List(ctx context.Context, after string) iter.Seq2[blob.Object, error] {
	return s.list(ctx, after, listPage)
}

func (s *Store) list(ctx context.Context, after string, page int) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		for {
			keys, err := s.firstKeys(ctx, after, page)
			if err != nil {
				yield(blob.Object{}, err)
				return
			}
			if !s.yieldAll(keys, yield) || len(keys) < page {
				return
			}
			after = keys[len(keys)-1]
		}
	}
}

// yieldAll yields the objects of keys, and false to end the walk.
func (s *Store) yieldAll(keys []string, yield func(blob.Object, error) bool) bool {
	for _, key := range keys {
		_, path := s.path(key)
		info, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted since
		}
		if err != nil {
			yield(blob.Object{}, err)
			return false
		}
		if !yield(blob.Object{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil) {
			return false
		}
	}
	return true
}

// firstKeys is the first n keys behind after, in order.
func (s *Store) firstKeys(ctx context.Context, after string, n int) ([]string, error) {
	shards, err := os.ReadDir(s.root)
	if err != nil {
		return nil, err
	}
	first := lowest{after: after, n: n}
	for _, shard := range shards {
		if !shard.IsDir() || len(shard.Name()) != shardLen {
			continue // a scratch file of Check, or another's: lost+found
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := s.readShard(shard.Name(), &first); err != nil {
			return nil, err
		}
	}
	return first.sorted(), nil
}

func (s *Store) readShard(shard string, first *lowest) error {
	dir, err := os.Open(filepath.Join(s.root, shard))
	if errors.Is(err, os.ErrNotExist) {
		return nil // deleted since
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			if blob.CheckKey(name) == nil && shardOf(name) == shard {
				first.add(name)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// lowest collects the n lowest keys behind after, and holds 2n at most.
type lowest struct {
	after string
	n     int
	below string // where n lower keys are known; "" at first
	keys  []string
}

func (l *lowest) add(key string) {
	if key <= l.after || l.below != "" && key >= l.below {
		return
	}
	l.keys = append(l.keys, key)
	if len(l.keys) == 2*l.n {
		l.below = l.sorted()[l.n-1]
	}
}

func (l *lowest) sorted() []string {
	slices.Sort(l.keys)
	if len(l.keys) > l.n {
		clear(l.keys[l.n:]) // lets go of the strings
		l.keys = l.keys[:l.n]
	}
	return l.keys
}
