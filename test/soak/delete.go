package soak

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// deleteTag takes a tag away; its manifest stays until collection comes.
func (c *client) deleteTag(r *repo, name string) error {
	w := &write{what: "delete tag", tags: map[string]string{name: ""}}
	if !r.begin(w, c.number) {
		return nil
	}
	_, err := c.change(w, request{
		kind: "delete tag", r: r, method: "DELETE", path: "/v2/" + r.name + "/manifests/" + name, accept: []int{202},
	}, func(a answer) (verdict, error) {
		// An attempt without an answer may have been the one that did it.
		if a.status == http.StatusAccepted || a.status == http.StatusNotFound && !w.lost.IsZero() {
			return done, nil
		}
		return refused, violated(r, "%v: the tag is there", a)
	})
	return err
}

// deleteManifest deletes a manifest with its tags, unless an index holds it.
func (c *client) deleteManifest(r *repo, m *manifest) error {
	w := &write{what: "delete manifest", deletes: m}
	r.mu.Lock()
	must := r.must(m, time.Now())
	r.mu.Unlock()
	if !r.begin(w, c.number) {
		return nil
	}
	_, err := c.change(w, request{
		kind: "delete manifest", r: r, method: "DELETE", path: "/v2/" + r.name + "/manifests/" + m.digest, accept: []int{202},
	}, func(a answer) (verdict, error) {
		r.mu.Lock()
		mustHold, mayHold := r.listed(m, time.Now())
		r.mu.Unlock()
		switch {
		case a.status == http.StatusAccepted && !mustHold:
			c.stats.count("manifests deleted", 1)
			return done, nil
		case a.status == http.StatusConflict && mayHold:
			return refused, nil
		case a.status == http.StatusNotFound && (!must || !w.lost.IsZero()):
			return done, nil
		}
		return refused, violated(r, "%v: an index that holds it must be there: %v, may be there: %v", a, mustHold, mayHold)
	})
	return err
}

// deleteBlob has the repository let go of a blob, unless a manifest holds it.
func (c *client) deleteBlob(r *repo, b *blob) error {
	r.mu.Lock()
	must := r.mustBlob(b.digest, time.Now())
	b.deleting++
	b.change()
	told := b.told
	b.told, b.asked = time.Time{}, [2]time.Time{} // from here on, no promise holds it
	r.mu.Unlock()
	a, err := c.do(request{
		kind: "delete blob", r: r, method: "DELETE", path: "/v2/" + r.name + "/blobs/" + b.digest, accept: []int{202},
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	b.deleting--
	b.change()
	b.busy = later(b.busy, now)
	if err != nil {
		b.busy = later(b.busy, now.Add(settle))
		return unlessLost(err)
	}
	mustHold, mayHold := r.heldBlob(b.digest, now)
	switch {
	case a.status == http.StatusAccepted && !mustHold:
		b.deleted = true
		c.stats.count("blobs deleted", 1)
		return nil
	case a.status == http.StatusConflict && mayHold:
		if b.deleting == 0 {
			b.told = told
		}
		return nil
	case a.status == http.StatusNotFound && (!must || r.common):
		return nil
	}
	return violated(r, "%v: a manifest that holds it must be there: %v, may be there: %v", a, mustHold, mayHold)
}

// resolve finds out about the writes whose answers were lost some time ago.
func (c *client) resolve() error {
	var left []*write
	for _, w := range c.doubts {
		w.r.mu.Lock()
		open, due := w.open(), w.overdue(time.Now())
		w.r.mu.Unlock()
		if !open {
			continue
		}
		left = append(left, w)
		if !due {
			continue
		}
		if err := c.probe(w); err != nil {
			return err
		}
	}
	c.doubts = left
	return nil
}

// open says that the outcome is not known yet. The caller has the lock.
func (w *write) open() bool {
	for name := range w.tags {
		return w.r.tags[name].doubt == w
	}
	return w.puts != nil && w.puts.doubt == w || w.deletes != nil && w.deletes.doubt == w
}

// probe reads what tells whether a write happened. Where nothing would have
// changed there is nothing to find out.
func (c *client) probe(w *write) error {
	w.r.mu.Lock()
	var differs string
	for name, at := range w.tags {
		if w.r.tags[name].at != at {
			differs = name
		}
	}
	m := w.puts
	if m == nil {
		m = w.deletes
	}
	if differs == "" && (m == nil || m.there == (w.puts != nil)) {
		w.resolve(false)
		w.r.mu.Unlock()
		return nil
	}
	w.r.mu.Unlock()
	if differs != "" {
		_, err := c.fetchTag(w.r, differs)
		return err
	}
	_, err := c.fetchManifest(w.r, m)
	return err
}

// mine lists what this client writes in a repository and what f accepts, in an
// order that the seed alone decides about.
func (c *client) mine(r *repo, f func(*manifest) bool) []*manifest {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*manifest
	for _, m := range r.manifests {
		if m.owner == c.number && f(m) {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b *manifest) int { return strings.Compare(a.digest, b.digest) })
	return list
}

// tagsOf lists the tags of a repository that point somewhere; all or one's own.
func (c *client) tagsOf(r *repo, own bool) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []string
	for _, name := range slices.Sorted(maps.Keys(r.tags)) {
		if t := r.tags[name]; t.at != "" && (!own || t.owner == c.number) {
			list = append(list, name)
		}
	}
	return list
}
