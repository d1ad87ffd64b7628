package proxy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

// noting is a state that keeps what it is told of uses.
type noting struct {
	State
	mu   sync.Mutex
	told [][]meta.ProxyUse
	err  error
}

func (s *noting) TouchProxyManifests(_ context.Context, uses []meta.ProxyUse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.told = append(s.told, uses)
	}
	return s.err
}

func (s *noting) take() (told [][]meta.ProxyUse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	told, s.told = s.told, nil
	return told
}

func usedDigest(n int) oci.Digest { return oci.SHA256.FromBytes([]byte(fmt.Sprint(n))) }

// noter is a proxy that does nothing by itself, on a clock that goes by hand.
func noter() (*pullStack, *noting) {
	state := &noting{}
	s := &pullStack{clock: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)}
	s.Registry = &Registry{o: withDefaults(Options{State: state, Now: s.now})}
	return s, state
}

// TestUses: a manifest is noted at once, and then once a minute, by the last use.
func TestUses(t *testing.T) {
	s, state := noter()
	wants := func(what string, step time.Duration, want ...meta.ProxyUse) {
		t.Helper()
		s.noteUses(t.Context(), step)
		told := state.take()
		if len(want) == 0 && len(told) == 0 {
			return
		}
		if len(told) != 1 || fmt.Sprint(told[0]) != fmt.Sprint(want) {
			t.Errorf("%s: told of %v, want %v", what, told, want)
		}
	}
	d := usedDigest(1)
	wants("without a use", usesStep)
	start := s.now()
	s.used(appHere, d)
	s.advance(time.Second)
	s.used(appHere, d)
	wants("twice", usesStep, meta.ProxyUse{Repository: appHere, Digest: d, At: start.Add(time.Second)})
	wants("not since", usesStep)
	s.advance(30 * time.Second)
	s.used(appHere, d)
	wants("a moment later", usesStep)
	if !s.usedSince(appHere, d, s.now()) || s.usedSince(appHere, d, s.now().Add(1)) || s.usedSince("hub/other", d, start) {
		t.Error("when it was used is wrong")
	}
	s.advance(31 * time.Second)
	wants("a minute later", usesStep, meta.ProxyUse{Repository: appHere, Digest: d, At: start.Add(31 * time.Second)})
	s.advance(time.Second)
	s.used(appHere, d)
	wants("at the end", 0, meta.ProxyUse{Repository: appHere, Digest: d, At: s.now()})
	s.advance(2 * time.Minute)
	wants("long after", usesStep)
	if len(s.uses.byKey) != 0 {
		t.Errorf("%d are remembered that nobody uses", len(s.uses.byKey))
	}
}

func TestUsesAreBounded(t *testing.T) {
	s, state := noter()
	state.err = errors.New("not now")
	for i := range maxUses + 10 {
		s.used(appHere, usedDigest(i))
	}
	if len(s.uses.byKey) != maxUses {
		t.Errorf("%d are remembered", len(s.uses.byKey))
	}
	s.noteUses(t.Context(), usesStep)
	if len(s.uses.byKey) != maxUses {
		t.Errorf("after a failure %d are remembered", len(s.uses.byKey))
	}
	state.err = nil
	s.noteUses(t.Context(), usesStep)
	if told := state.take(); len(told) != 1 || len(told[0]) != maxUses {
		t.Errorf("then it was told %d times", len(told))
	}
	s.advance(2 * time.Minute)
	s.noteUses(t.Context(), usesStep)
	s.used(appHere, usedDigest(maxUses+1))
	if len(s.uses.byKey) != 1 {
		t.Errorf("%d are remembered when there is room", len(s.uses.byKey))
	}
}

// TestUsesAtTheEnd: what was used just before the end is noted.
func TestUsesAtTheEnd(t *testing.T) {
	s := newPullStack(t)
	m := s.push(t, "v1")
	s.wants(t, "pull", "v1", m, "GET v1")
	s.advance(time.Hour)
	s.wants(t, "pull again", string(m.Digest), m)
	s.Close()
	row, err := s.db.ProxyManifest(t.Context(), appHere, m.Digest)
	if err != nil || !row.UsedAt.Equal(s.now()) {
		t.Errorf("found %+v, %v; want it used at %v", row, err, s.now())
	}
}
