package soak

import (
	"time"
)

// settle is how long after its answer was lost a request may still take effect:
// its server, or the database on its behalf, may be about to commit. Until then
// nobody asks for something else in the same place, for the order of the two
// would be anybody's guess.
const settle = 10 * time.Second

// write is one change of manifests and tags, all or nothing. While it is under
// way, and after its answer was lost, what it touches may be as before or as after.
type write struct {
	r       *repo
	what    string
	began   time.Time
	lost    time.Time // zero: no answer was lost so far
	puts    *manifest
	deletes *manifest
	tags    map[string]string // where they point afterwards; "" for nowhere
}

// begin enters a write into the model. It is false when something that it
// touches is not idle.
func (r *repo) begin(w *write, owner int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if w.puts != nil {
		if known := r.manifests[w.puts.digest]; known != nil {
			w.puts = known
		}
		if !w.puts.idle(now) {
			return false
		}
	}
	if w.deletes != nil {
		if !w.deletes.idle(now) {
			return false
		}
		w.tags = map[string]string{}
		for name, t := range r.tags {
			if t.at == w.deletes.digest || t.doubt != nil && t.doubt.tags[name] == w.deletes.digest {
				w.tags[name] = ""
			}
		}
	}
	for name := range w.tags {
		if t := r.tags[name]; t != nil && !t.idle(now) {
			return false
		}
	}
	w.r, w.began = r, now
	for name := range w.tags {
		if r.tags[name] == nil {
			r.tags[name] = &tag{owner: owner}
		}
		r.tags[name].doubt = w
		r.tags[name].change()
	}
	for _, m := range []*manifest{w.puts, w.deletes} {
		if m != nil {
			r.manifests[m.digest] = m
			m.doubt, m.owner = w, owner
			m.change()
		}
	}
	return true
}

// lose notes that an answer did not come.
func (w *write) lose() {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	w.lost = time.Now()
}

// end resolves a write: it happened, or it did not.
func (w *write) end(happened bool) {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	w.resolve(happened)
}

// resolve is end for a caller who has the lock.
func (w *write) resolve(happened bool) {
	r := w.r
	var busy time.Time
	if !w.lost.IsZero() {
		busy = w.lost.Add(settle)
	}
	for name, at := range w.tags {
		t := r.tags[name]
		if t.doubt != w {
			return // resolved before
		}
		t.doubt, t.busy = nil, busy
		t.change()
		if happened && t.at != at {
			if before := r.manifests[t.at]; before != nil {
				before.let = later(before.let, w.began)
			}
			t.at = at
		}
	}
	if m := w.puts; m != nil && m.doubt == w {
		m.doubt, m.busy = nil, busy
		m.change()
		if happened {
			if !m.there {
				m.told = w.began
			}
			m.there, m.deleted = true, false
		}
	}
	if m := w.deletes; m != nil && m.doubt == w {
		m.doubt, m.busy = nil, busy
		m.change()
		if happened {
			since := w.began
			if end := r.until(m); end.Before(since) {
				since = end // collection may have been there before
			}
			m.there, m.deleted = false, w.lost.IsZero()
			r.lettingGo(m, since)
		}
	}
}

// overdue says that a lost write's outcome can be read now.
func (w *write) overdue(now time.Time) bool {
	return !w.lost.IsZero() && now.After(w.lost.Add(settle))
}

// sawTag holds what a reader found under a tag against the model, and resolves
// a lost write by it. began is that of the request.
func (r *repo) sawTag(name, digest string, began time.Time) (right bool) {
	t := r.tags[name]
	if t == nil {
		return digest == ""
	}
	if t.doubt == nil {
		return t.at == digest
	}
	w := t.doubt
	after := w.tags[name]
	switch {
	case digest != t.at && digest != after:
		return false
	case t.at == after || w.lost.IsZero():
	case digest == after:
		w.resolve(true)
	case w.overdue(began):
		w.resolve(false)
	}
	return true
}

// sawManifest does the same for a manifest by its digest.
func (r *repo) sawManifest(m *manifest, found bool, began, now time.Time) (right bool) {
	if w := m.doubt; w != nil {
		after := w.puts == m
		switch {
		case w.lost.IsZero() || m.there == after:
		case found == after:
			w.resolve(true)
		case w.overdue(began):
			w.resolve(false)
		}
	}
	if found {
		return !m.deleted || m.doubt != nil
	}
	if r.must(m, now) {
		return false
	}
	if m.doubt == nil {
		r.absent(m)
	}
	return true
}
