package recorder

import (
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/audit"
)

const (
	repeatWindow = time.Minute
	maxRepeats   = 10_000
)

// repeats are the callers who were lately told to come back later. Whoever does
// not listen must not fill the trail with that: one refusal for each rate a
// minute tells enough. Only the writing goroutine uses it.
type repeats struct {
	since time.Time
	seen  map[repeat]struct{}
}

type repeat struct{ identity, key, address, project, reason string }

// thin leaves out of a batch what was told already.
func (r *Recorder) thin(batch []audit.Event) []audit.Event {
	kept := batch[:0]
	for _, e := range batch {
		if e.Status != statusTooManyRequests || r.repeats.first(&e) {
			kept = append(kept, e)
		}
	}
	return kept
}

func (s *repeats) first(e *audit.Event) bool {
	if s.seen == nil || e.Time.Sub(s.since) >= repeatWindow || len(s.seen) >= maxRepeats {
		s.since, s.seen = e.Time, map[repeat]struct{}{}
	}
	project, _, _ := strings.Cut(e.Repository, "/")
	key := repeat{e.Identity, e.Key, e.Address, project, e.Reason}
	_, again := s.seen[key]
	s.seen[key] = struct{}{}
	return !again
}
