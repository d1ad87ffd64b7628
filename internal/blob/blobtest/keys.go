package blobtest

import (
	"errors"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/blob"
)

func (s *suite) testKeys() {
	for _, key := range []string{
		"abcd", "0000", "----", "--help", "a--b", "con-", strings.Repeat("k", blob.MaxKey),
		"019aa7f0-7c1e-7000-8000-0123456789ab",
	} {
		s.put(key, []byte(key))
		s.want(key, []byte(key))
	}
	if n := len(s.list("")); n != 8 {
		s.Errorf("%d objects are listed, want 8", n)
	}
}

// testBadKeys offers keys that would be paths, or that some store cannot keep.
func (s *suite) testBadKeys() {
	for _, key := range []string{
		"", "a", "abc", "....", "../x", "/etc", "ab/cd", "abcd/", `ab\cd`, "ab.cd", "ABCD", "ab cd", "ab_cd",
		"abcd\x00", "abcd\n", "äöüß", "%2e%2e", ".check-1", strings.Repeat("k", blob.MaxKey+1),
	} {
		for method, err := range s.callAll(key) {
			if err == nil {
				s.Errorf("%s takes the key %q", method, key)
			}
			if errors.Is(err, blob.ErrNotFound) {
				s.Errorf("%s looks for the key %q: %v", method, key, err)
			}
		}
	}
	if objects := s.list(""); len(objects) != 0 {
		s.Errorf("bad keys left objects: %v", objects)
	}
}

// callAll gives a key to every method that takes one.
func (s *suite) callAll(key string) map[string]error {
	ctx := s.Context()
	return map[string]error{
		"Open": func() error {
			rc, err := s.store.Open(ctx, key, 0, 0)
			if err == nil {
				rc.Close()
			}
			return err
		}(),
		"URL":    func() error { _, err := s.store.URL(ctx, key, time.Minute); return err }(),
		"Create": func() error { _, err := s.store.Create(ctx, key); return err }(),
		"Append": func() error {
			_, err := s.store.Append(ctx, key, blob.State{}, strings.NewReader("x"))
			return err
		}(),
		"Seal":                s.store.Seal(ctx, key, blob.State{}),
		"Abort":               s.store.Abort(ctx, key, blob.State{}),
		"Delete":              s.store.Delete(ctx, key),
		"Delete among others": s.store.Delete(ctx, "good-key", key),
	}
}
