// Package memblob is a blob store in memory, for tests of what stands on one.
package memblob

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/blob"
)

// Store keeps objects in a map. Like a folder, it lets an object be read before
// it is sealed.
type Store struct {
	mu      sync.RWMutex
	objects map[string]object
}

type object struct {
	data     []byte
	modified time.Time
}

var _ blob.Store = (*Store)(nil)

// New makes an empty store.
func New() *Store { return &Store{objects: map[string]object{}} }

func (s *Store) get(key string) (object, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, ok := s.objects[key]
	return o, ok
}

func (s *Store) put(key string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[key] = object{data, time.Now()}
}

func (s *Store) Open(_ context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := blob.CheckKey(key); err != nil {
		return nil, err
	}
	o, ok := s.get(key)
	if !ok {
		return nil, fmt.Errorf("%w: %s", blob.ErrNotFound, key)
	}
	return io.NopCloser(io.NewSectionReader(bytes.NewReader(o.data), off, n)), nil
}

func (s *Store) URL(context.Context, string, time.Duration) (string, error) {
	return "", blob.ErrUnsupported
}

func (s *Store) Create(_ context.Context, key string) (blob.State, error) {
	return blob.State{}, blob.CheckKey(key)
}

func (s *Store) Append(_ context.Context, key string, st blob.State, r io.Reader) (blob.State, error) {
	if err := blob.CheckKey(key); err != nil {
		return st, err
	}
	o, _ := s.get(key)
	if int64(len(o.data)) < st.Size {
		return st, fmt.Errorf("object %s has %d bytes, fewer than the %d its state says", key, len(o.data), st.Size)
	}
	added, err := io.ReadAll(r)
	// A new slice each time: readers of the old one are undisturbed.
	data := slices.Concat(o.data[:st.Size], added)
	s.put(key, data)
	return blob.State{Size: int64(len(data))}, err
}

func (s *Store) Seal(_ context.Context, key string, st blob.State) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	o, _ := s.get(key)
	if int64(len(o.data)) < st.Size {
		return fmt.Errorf("object %s has %d bytes, fewer than the %d its state says", key, len(o.data), st.Size)
	}
	s.put(key, o.data[:st.Size:st.Size])
	return nil
}

func (s *Store) Abort(ctx context.Context, key string, _ blob.State) error {
	return s.Delete(ctx, key)
}

func (s *Store) Delete(_ context.Context, keys ...string) error {
	for _, key := range keys {
		if err := blob.CheckKey(key); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		delete(s.objects, key)
	}
	return nil
}

func (s *Store) List(_ context.Context, after string) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		s.mu.RLock()
		objects := maps.Clone(s.objects)
		s.mu.RUnlock()
		for _, key := range slices.Sorted(maps.Keys(objects)) {
			if key <= after {
				continue
			}
			o := objects[key]
			if !yield(blob.Object{Key: key, Size: int64(len(o.data)), Modified: o.modified}, nil) {
				return
			}
		}
	}
}

func (s *Store) Check(context.Context) error { return nil }
