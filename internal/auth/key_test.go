package auth_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/auth"
)

func TestKeyForm(t *testing.T) {
	form := regexp.MustCompile(`^berth_[up]_[0-9A-Za-z]{49}$`)
	seen := map[string]bool{}
	for range 200 {
		for _, kind := range []auth.KeyKind{auth.UserKey, auth.ProjectKey} {
			secret, hash := auth.NewKey(kind)
			got, parsed, err := auth.ParseKey(secret)
			if err != nil || got != kind || parsed != hash || len(hash) != 64 || !form.MatchString(secret) || !auth.LooksLikeKey(secret) {
				t.Fatalf("a new key: kind %c, %v, right hash %t, right form %t", got, err, parsed == hash, form.MatchString(secret))
			}
			if seen[secret] {
				t.Fatal("the same key twice")
			}
			seen[secret] = true
		}
	}
}

// TestMistypedKey: every change of one character is told from a revoked key.
func TestMistypedKey(t *testing.T) {
	secret, _ := auth.NewKey(auth.UserKey)
	for i := len("berth_u_"); i < len(secret); i++ {
		for _, c := range "0aZ-é " {
			typed := secret[:i] + string(c) + secret[i+1:]
			if typed == secret {
				continue
			}
			if _, _, err := auth.ParseKey(typed); !errors.Is(err, auth.ErrMistypedKey) {
				t.Errorf("character %d replaced by %q: %v", i, c, err)
			}
		}
	}
	for what, typed := range map[string]string{
		"cut": secret[:len(secret)-1], "longer": secret + "0", "head": "berth_u_", "twice": secret + secret,
		"of the other kind": strings.Replace(secret, "_u_", "_p_", 1),
	} {
		if _, _, err := auth.ParseKey(typed); !errors.Is(err, auth.ErrMistypedKey) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, other := range []string{"", "hunter2", "berth_", "berth_u", "Berth_u_" + secret[8:]} {
		if _, _, err := auth.ParseKey(other); !errors.Is(err, auth.ErrNoKey) {
			t.Errorf("%q: %v", other, err)
		}
		if auth.LooksLikeKey(other) {
			t.Errorf("%q looks like a key", other)
		}
	}
	if auth.LooksLikeKey("berth_u_hunter2") {
		t.Error("a password that can be guessed is taken for a key")
	}
}

func FuzzParseKey(f *testing.F) {
	secret, _ := auth.NewKey(auth.UserKey)
	f.Add(secret)
	f.Add("berth_p_")
	f.Add("berth_x_0")
	f.Fuzz(func(t *testing.T, s string) {
		kind, hash, err := auth.ParseKey(s)
		if err == nil != (hash != "") || err == nil != (kind == auth.UserKey || kind == auth.ProjectKey) {
			t.Errorf("%q: %c, %q, %v", s, kind, hash, err)
		}
		if err == nil && (!auth.LooksLikeKey(s) || len(s) != len(secret)) {
			t.Errorf("%q is a key", s)
		}
		if err != nil && strings.Contains(err.Error(), s) && len(s) > 20 {
			t.Errorf("the secret is told: %v", err)
		}
	})
}
