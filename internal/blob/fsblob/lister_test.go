package fsblob

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/blob"
)

// populate makes n empty objects in many subfolders and returns their keys in order.
func populate(t *testing.T, s *Store, n int) (keys []string) {
	t.Helper()
	for i := range n {
		key := fmt.Sprintf("%04d-%02x", i*7919%10_000, i*31%97)
		if err := s.Seal(t.Context(), key, blob.State{}); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// TestListPages walks with pages that are smaller than the store: each key must
// come once and in order, wherever pages end.
func TestListPages(t *testing.T) {
	s := newStore(t, t.TempDir())
	keys := populate(t, s, 60)
	for _, page := range []int{1, 2, 7, 29, 30, 59, 60, 61, 1000} {
		for _, after := range []string{"", keys[0], keys[31], keys[58], keys[59]} {
			var got []string
			for o, err := range s.list(t.Context(), after, page) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, o.Key)
			}
			want := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return key <= after })
			if !slices.Equal(got, want) {
				t.Errorf("pages of %d after %q: %d keys, want %d in order: %q", page, after, len(got), len(want), got)
			}
		}
	}
}

func TestListHoldsTwoPagesAtMost(t *testing.T) {
	first := lowest{n: 10}
	for i := range 1000 {
		first.add(fmt.Sprintf("%04d", 999-i)) // the worst order
		if len(first.keys) > 20 {
			t.Fatalf("holds %d keys", len(first.keys))
		}
	}
	if got := strings.Join(first.sorted(), " "); got != "0000 0001 0002 0003 0004 0005 0006 0007 0008 0009" {
		t.Errorf("lowest keys: %s", got)
	}
}

// TestListSkipsForeign walks past what is not an object of this store.
func TestListSkipsForeign(t *testing.T) {
	root := t.TempDir()
	s := newStore(t, root)
	keys := populate(t, s, 3)
	shard := filepath.Join(root, shardOf(keys[0]))
	for _, name := range []string{
		filepath.Join(root, ".check-1"), filepath.Join(root, "README"),
		filepath.Join(shard, ".hidden"), filepath.Join(shard, "UPPER"), filepath.Join(shard, "of-another-shard"),
	} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "lost+found", "some-key"), 0o700); err != nil {
		t.Fatal(err)
	}
	var got []string
	for o, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, o.Key)
	}
	if !slices.Equal(got, keys) {
		t.Errorf("listed %q, want %q", got, keys)
	}
}

func TestListErrors(t *testing.T) {
	root := t.TempDir()
	s := newStore(t, root)
	populate(t, s, 3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for o, err := range s.List(ctx, "") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v, %v", o, err)
		}
	}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for o, err := range s.List(t.Context(), "") {
		if seen++; !errors.Is(err, os.ErrNotExist) {
			t.Errorf("without its folder: %v, %v", o, err)
		}
	}
	if seen != 1 {
		t.Errorf("without its folder the walk has %d steps, want 1 with an error", seen)
	}
}
