package blobtest

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/berth-registry/berth/internal/blob"
)

func (s *suite) testList() {
	if objects := s.list(""); len(objects) != 0 {
		s.Fatalf("an empty store lists %v", objects)
	}
	before := time.Now().Add(-time.Minute)
	keys := s.fill(150)
	for i, o := range s.list("") {
		if i < len(keys) && o.Size != int64(len(o.Key)) {
			s.Errorf("%s has %d bytes, want %d", o.Key, o.Size, len(o.Key))
		}
		if o.Modified.Before(before) || o.Modified.After(time.Now().Add(time.Minute)) {
			s.Errorf("%s was modified at %v", o.Key, o.Modified)
		}
	}
	s.wantListed("", keys)
	for _, after := range []string{keys[0], keys[1], keys[len(keys)/2], keys[len(keys)-2], keys[len(keys)-1]} {
		s.wantListed(after, keys)
	}
	s.wantListed("0", keys) // before the first, between two, behind the last: not keys themselves
	s.wantListed(keys[70]+"-", keys)
	s.wantListed("zzzz", keys)
	s.restart()
	s.wantListed(keys[10], keys)

	seen := 0
	for _, err := range s.store.List(s.Context(), "") {
		if seen++; err != nil || seen == 3 {
			break // a walk that ends early must not go on by itself
		}
	}
	if seen != 3 {
		s.Errorf("a walk left at the third object saw %d", seen)
	}
}

// fill stores objects of as many bytes as their keys have; every tenth is not
// sealed. It returns the keys that must be listed, in order.
func (s *suite) fill(n int) (keys []string) {
	s.Helper()
	for i := range n {
		sum := content(uint64(i), 9)
		keys = append(keys, fmt.Sprintf("%x%s", sum, bytes.Repeat([]byte("-"), i%3)))
	}
	for i, key := range keys {
		if i%10 == 0 {
			s.appendBytes(key, s.create(key), []byte(key))
		} else {
			s.put(key, []byte(key))
		}
	}
	if s.o.Deferred {
		for i := (len(keys) - 1) / 10 * 10; i >= 0; i -= 10 {
			keys = slices.Delete(keys, i, i+1)
		}
	}
	slices.Sort(keys)
	return keys
}

func (s *suite) wantListed(after string, keys []string) {
	s.Helper()
	want := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return key <= after })
	var got []string
	for _, o := range s.list(after) {
		got = append(got, o.Key)
	}
	if !slices.Equal(got, want) {
		s.Errorf("List(%q) has %d keys, want %d in order:\n%q\nwant\n%q", after, len(got), len(want), got, want)
	}
}

// testListWhileDeleting does what an integrity check does that mends.
func (s *suite) testListWhileDeleting() {
	keys := s.fill(40)
	var seen []string
	for o, err := range s.store.List(s.Context(), "") {
		if err != nil {
			s.Fatal(err)
		}
		seen = append(seen, o.Key)
		if err := s.store.Abort(s.Context(), o.Key, blob.State{Size: o.Size}); err != nil {
			s.Fatal(err)
		}
		if err := s.store.Delete(s.Context(), o.Key); err != nil {
			s.Fatal(err)
		}
	}
	if !slices.Equal(seen, keys) {
		s.Errorf("saw %d keys, want %d in order", len(seen), len(keys))
	}
	s.wantListed("", nil)
}
