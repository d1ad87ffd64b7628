package soak

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"text/tabwriter"
	"time"
)

// stats counts what was done. Safe for concurrent use.
type stats struct {
	mu       sync.Mutex
	kinds    map[string]*kind
	counters map[string]int
}

// kind is one kind of operation.
type kind struct {
	done    int             // answered as asked
	refused int             // answered otherwise, as it may be
	lost    int             // without an answer that says anything
	took    []time.Duration // of those that were done
}

func newStats() *stats { return &stats{kinds: map[string]*kind{}, counters: map[string]int{}} }

func (s *stats) kind(name string) *kind {
	k := s.kinds[name]
	if k == nil {
		k = &kind{}
		s.kinds[name] = k
	}
	return k
}

func (s *stats) done(name string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kind(name)
	k.done++
	k.took = append(k.took, took)
}

func (s *stats) refused(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kind(name).refused++
}

func (s *stats) lost(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kind(name).lost++
}

func (s *stats) count(name string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counters[name] += n
}

// total is how many requests were done.
func (s *stats) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kinds {
		n += k.done
	}
	return n
}

// print writes both tables.
func (s *stats) print(out io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "requests\tdone\trefused\tno answer\tp50\tp99\tmax\t")
	for _, name := range slices.Sorted(maps.Keys(s.kinds)) {
		k := s.kinds[name]
		slices.Sort(k.took)
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\t%s\t\n", name, k.done, k.refused, k.lost, k.at(0.5), k.at(0.99), k.at(1))
	}
	w.Flush()
	for _, name := range slices.Sorted(maps.Keys(s.counters)) {
		fmt.Fprintf(out, "%8d %s\n", s.counters[name], name)
	}
}

func (k *kind) at(q float64) time.Duration {
	if len(k.took) == 0 {
		return 0
	}
	return k.took[int(q*float64(len(k.took)-1))].Round(100 * time.Microsecond)
}
