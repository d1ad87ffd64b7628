package auth

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestHash(t *testing.T) {
	h := NewHasher()
	one, err := h.Hash(t.Context(), "wonderland")
	if err != nil || !strings.HasPrefix(one, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatalf("%q, %v", one, err)
	}
	if two, _ := h.Hash(t.Context(), "wonderland"); two == one {
		t.Error("no salt")
	}
	for _, tt := range []struct {
		stored, password string
		want             bool
	}{
		{one, "wonderland", true}, {one, "Wonderland", false}, {one, "", false},
		{"", "wonderland", false}, {"", "", false},
		// What argon2 -id prints for "password" and the salt "somesalt".
		{"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "password", true},
		{"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "passworD", false},
	} {
		if got, _, err := h.compare(tt.stored, "alice", tt.password); got != tt.want || err != nil {
			t.Errorf("%q against %q: %t, %v", tt.password, tt.stored, got, err)
		}
	}
}

func TestHashRefuses(t *testing.T) {
	h := NewHasher()
	for _, password := range []string{"", strings.Repeat("x", 1025), "a\x00b", "berth_u_x"} {
		if hash, err := h.Hash(t.Context(), password); !errors.Is(err, ErrPassword) || hash != "" {
			t.Errorf("%.20q: %v", password, err)
		}
	}
	if _, err := h.Hash(t.Context(), strings.Repeat("x", 1024)); err != nil {
		t.Error(err)
	}
}

// TestDamagedHash: what is stored cannot make us work for long, or panic.
func TestDamagedHash(t *testing.T) {
	h := NewHasher()
	const tail = "$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	for _, stored := range []string{
		"x", "$argon2id$v=19$m=256,t=2,p=1", "$argon2i$v=19$m=256,t=2,p=1" + tail, "$argon2id$v=16$m=256,t=2,p=1" + tail,
		"$argon2id$v=19$m=262145,t=2,p=1" + tail, "$argon2id$v=19$m=256,t=17,p=1" + tail, "$argon2id$v=19$m=256,t=0,p=1" + tail,
		"$argon2id$v=19$m=256,t=2,p=0" + tail, "$argon2id$v=19$m=256,t=2,p=17" + tail, "$argon2id$v=19$m=7,t=2,p=1" + tail,
		"$argon2id$v=19$m=256,t=2,p=1,x" + tail, "$argon2id$v=19$m=256,t=2,p=1$YQ$YQ", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$!",
		"$argon2id$v=19$m=-1,t=2,p=1" + tail, "$argon2id$v=19$m=256,t=2,p=1" + tail + strings.Repeat("A", 1<<20),
	} {
		if _, _, err := h.compare(stored, "alice", "password"); err == nil || strings.Contains(err.Error(), "c29t") {
			t.Errorf("%.80q: %v", stored, err)
		}
	}
	if h.Computed() != 0 {
		t.Error("work was done for a damaged hash")
	}
}

// TestBoundedWork: no more hash at once than there are slots, and no more wait
// for them than a few.
func TestBoundedWork(t *testing.T) {
	h := NewHasher()
	for range cap(h.slots) {
		if _, err := h.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range maxWaiting * cap(h.slots) {
		waiting.Go(func() {
			if _, err := h.enter(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("%v entered a full house", err)
			}
		})
	}
	for h.waiting.Load() < int64(maxWaiting*cap(h.slots)) {
		time.Sleep(time.Millisecond)
	}
	var throttled *ThrottledError
	if _, err := h.Hash(t.Context(), "x"); !errors.As(err, &throttled) || throttled.RetryAfter <= 0 {
		t.Errorf("%v, want to be sent away", err)
	}
	cancel()
	waiting.Wait()
	<-h.slots
	if _, err := h.Hash(t.Context(), "x"); err != nil {
		t.Errorf("the line does not get shorter: %v", err)
	}
}
