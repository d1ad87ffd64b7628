package tracing

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// What is kept in memory: the last traces of each kind.
const (
	maxRecent = 64
	slowAfter = time.Second
	slowBytes = 10 << 20 // of bodies that have a second more
)

// recent traces, so that slow ones do not push out those that failed.
type recent struct {
	mu           sync.Mutex
	failed, slow ring
}

type ring struct {
	kept [maxRecent]*kept
	next int
}

func (r *ring) add(k *kept) {
	r.kept[r.next] = k
	r.next = (r.next + 1) % maxRecent
}

// newest first.
func (r *ring) list() []*kept {
	all := []*kept{}
	for i := range maxRecent {
		if k := r.kept[(r.next+maxRecent-1-i)%maxRecent]; k != nil {
			all = append(all, k)
		}
	}
	return all
}

// kept is a trace as it is shown.
type kept struct {
	At         time.Time `json:"at"`
	RequestID  string    `json:"request_id"`
	TraceID    string    `json:"trace_id,omitempty"` // where it was sent too
	Front      string    `json:"front"`
	Route      string    `json:"route"`
	Method     string    `json:"method"`
	Status     int       `json:"status"`
	Repository string    `json:"repository,omitempty"`
	Bytes      int64     `json:"bytes"`
	Millis     float64   `json:"duration_ms"`
	Steps      []step    `json:"steps"`
	LeftOut    int       `json:"steps_left_out,omitempty"`
}

type step struct {
	Layer   string  `json:"layer"`
	Name    string  `json:"name"`
	Outcome string  `json:"outcome"`
	After   float64 `json:"after_ms"`
	Millis  float64 `json:"duration_ms"`
	Within  *int    `json:"within,omitempty"` // index of the step that it is a part of
}

// keep remembers a trace that failed or was slow for what it moved.
func (r *recent) keep(t *trace, took time.Duration) {
	failed := t.answer.Status >= http.StatusInternalServerError
	if !failed && took < slowAfter+time.Duration(t.answer.Bytes/slowBytes)*time.Second {
		return
	}
	k := shown(t, took)
	r.mu.Lock()
	defer r.mu.Unlock()
	if failed {
		r.failed.add(k)
	} else {
		r.slow.add(k)
	}
}

// shown copies, so that the request itself is not held.
func shown(t *trace, took time.Duration) *kept {
	a := &t.answer
	k := &kept{
		At: t.start.UTC(), RequestID: a.RequestID, Front: a.Front, Route: a.Route, Method: a.Method, Status: a.Status,
		Repository: a.Repository, Bytes: a.Bytes, Millis: millis(took), Steps: make([]step, 0, len(t.spans)), LeftOut: t.left,
	}
	if t.sampled {
		k.TraceID = t.id.String()
	}
	for _, s := range t.spans {
		st := step{Layer: s.layer, Name: s.name, Outcome: s.outcome, After: millis(s.after), Millis: millis(s.took)}
		if s.within >= 0 {
			st.Within = new(s.within)
		}
		k.Steps = append(k.Steps, st)
	}
	return k
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// ServeHTTP shows the last traces of requests that failed, and of slow ones,
// newest first.
func (t *Tracer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	t.recent.mu.Lock()
	all := map[string][]*kept{"failed": t.recent.failed.list(), "slow": t.recent.slow.list()}
	t.recent.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	out.Encode(all)
}
