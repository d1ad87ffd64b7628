package soak

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// journal remembers the last things that happened, for the story of a failure.
type journal struct {
	mu    sync.Mutex
	lines []entry
}

type entry struct {
	at   time.Time
	text string
}

const journalSize = 500

func (j *journal) add(at time.Time, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.lines) >= 2*journalSize {
		j.lines = append(j.lines[:0], j.lines[journalSize:]...)
	}
	j.lines = append(j.lines, entry{at, fmt.Sprintf(format, args...)})
}

func (j *journal) entries() []entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// tell merges journals into one text in the order of time.
func tell(journals ...*journal) string {
	var all []entry
	for _, j := range journals {
		all = append(all, j.entries()...)
	}
	slices.SortStableFunc(all, func(a, b entry) int { return a.at.Compare(b.at) })
	var text strings.Builder
	for _, e := range all {
		fmt.Fprintf(&text, "  %s  %s\n", e.at.UTC().Format("15:04:05.000"), e.text)
	}
	return text.String()
}

// violation is what the registry must never do.
type violation struct {
	what string
	r    *repo // may be nil
}

func (v *violation) Error() string {
	if v.r == nil {
		return v.what
	}
	return v.r.name + ": " + v.what
}

// violated makes a violation.
func violated(r *repo, format string, args ...any) error {
	return &violation{fmt.Sprintf(format, args...), r}
}
