package soak

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// verify holds the store against the model when nobody writes any more: first
// what is stored, once collection has nothing left to do, then what is served.
func (s *soak) verify(ctx context.Context) error {
	if err := s.each((*client).resolveAll); err != nil {
		return err
	}
	s.log("no write is in doubt; waiting until collection has nothing left to do")
	if err := s.collected(ctx); err != nil {
		return err
	}
	s.log("pulling all that must be there")
	if err := s.each((*client).pullAll); err != nil {
		return err
	}
	out, err := s.system.Check(ctx)
	if err != nil {
		return violated(nil, "berth check: %v\n%s", err, out)
	}
	s.log("berth check: %s", strings.TrimSpace(out))
	return nil
}

// resolveAll finds out about every lost write.
func (c *client) resolveAll() error {
	for len(c.doubts) > 0 {
		if err := c.resolve(); err != nil {
			return err
		}
		c.rest()
	}
	return nil
}

// pullAll pulls every tag and every manifest of this client that must be there.
func (c *client) pullAll() error {
	for _, r := range append(slices.Clone(c.own), c.common...) {
		for _, name := range c.tagsOf(r, true) {
			if err := c.surely(func() (found, error) { return c.fetchTag(r, name) }); err != nil {
				return err
			}
		}
		for _, m := range c.mine(r, func(m *manifest) bool { return r.must(m, time.Now()) }) {
			if err := c.surely(func() (found, error) { return c.fetchManifest(r, m) }); err != nil {
				return err
			}
			for _, d := range m.blobs {
				r.mu.Lock()
				b := r.blobs[d].content
				r.mu.Unlock()
				if err := c.surely(func() (found, error) { ok, err := c.pullBlob(r, b); return found{ok: ok}, err }); err != nil {
					return err
				}
			}
			c.stats.count("manifests pulled whole at the end", 1)
		}
	}
	return nil
}

// surely repeats a read until it is answered: all parts are up.
func (c *client) surely(read func() (found, error)) error {
	for range 20 {
		if got, err := read(); err != nil || got.ok {
			return err
		}
		c.rest()
	}
	return violated(nil, "there is still no answer, although all parts are up")
}

// mostCollecting is how long collection may take at the end, whatever waits.
const mostCollecting = 20 * time.Minute

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// collected waits until what is stored is what must be, and no more. Missing is
// wrong at any time; too much only when collection had time enough.
func (s *soak) collected(ctx context.Context) error {
	g := s.o.Graces
	end := time.Now().Add(4*max(g.Untagged, g.Orphans) + g.Unreferenced + g.Upload + 2*time.Minute)
	began, least := time.Now(), math.MaxInt
	for {
		v, err := s.system.Inventory(ctx)
		if err != nil {
			return err
		}
		missing, more := s.compare(v)
		if len(missing) > 0 {
			return violated(s.repoOf(missing[0]), "the store lacks what must be there:\n  %s", strings.Join(missing, "\n  "))
		}
		if len(more) == 0 {
			s.log("collection was done after %v; %d repositories hold %d manifests, %d tags, %d links to %d blobs, in %d objects",
				time.Since(began).Round(time.Second), len(s.repos), len(v.Manifests), len(v.Tags), len(v.Links), len(v.Blobs), len(v.Objects))
			return nil
		}
		// Collection is slow beside load, and what it could not do under kills it
		// does now: for as long as it gets on, it has time.
		if len(more) < least {
			least, end = len(more), laterOf(end, time.Now().Add(time.Minute))
		}
		if time.Now().After(end) || time.Since(began) > mostCollecting {
			return violated(s.repoOf(more[0]), "the store still has, after %v, what should be collected:\n  %s",
				time.Since(began).Round(time.Second), strings.Join(more[:min(50, len(more))], "\n  "))
		}
		time.Sleep(time.Second)
	}
}

// repoOf finds the repository that a line is about, for the story; may be nil.
func (s *soak) repoOf(line string) *repo {
	for _, r := range s.repos {
		if strings.HasPrefix(line, r.name+" ") {
			return r
		}
	}
	return nil
}

// compare lists what the inventory lacks and what it has beyond the model.
func (s *soak) compare(v *Inventory) (missing, more []string) {
	lack := func(format string, args ...any) { missing = append(missing, fmt.Sprintf(format, args...)) }
	have := func(format string, args ...any) { more = append(more, fmt.Sprintf(format, args...)) }
	tags, manifests, links := maps.Clone(v.Tags), maps.Clone(v.Manifests), maps.Clone(v.Links)
	linked := map[string]bool{}
	for _, r := range s.repos {
		r.mu.Lock()
		for name, t := range r.tags {
			at := [2]string{r.name, name}
			if tags[at] != t.at {
				lack("%s tag %s points to %q, not to %q", r.name, name, tags[at], t.at)
			}
			delete(tags, at)
		}
		for digest, m := range r.manifests {
			at := [2]string{r.name, digest}
			if !r.until(m).Equal(forever) {
				if manifests[at] && m.deleted {
					lack("%s the deletion of manifest %s", r.name, digest)
				}
				continue
			}
			if !manifests[at] {
				lack("%s manifest %s, which must be there", r.name, digest)
			}
			delete(manifests, at)
			for _, d := range m.blobs {
				if !v.Links[[2]string{r.name, d}] {
					lack("%s blob %s, which manifest %s holds", r.name, d, digest)
				}
				delete(links, [2]string{r.name, d})
				linked[d] = true
			}
		}
		r.mu.Unlock()
	}
	for at := range tags {
		lack("%s the absence of tag %s", at[0], at[1])
	}
	for at := range manifests {
		have("%s manifest %s, which nothing holds", at[0], at[1])
	}
	for at := range links {
		have("%s a link to blob %s, which no manifest names", at[0], at[1])
	}
	objects, pieces := s.compareObjects(v, linked)
	return append(missing, objects...), append(more, pieces...)
}

// compareObjects does the same for blobs and their objects.
func (s *soak) compareObjects(v *Inventory, linked map[string]bool) (missing, more []string) {
	objects := maps.Clone(v.Objects)
	for digest, o := range v.Blobs {
		size, there := objects[o.key]
		switch {
		case !linked[digest]:
			more = append(more, fmt.Sprintf("blob %s, which no repository needs", digest))
			if there {
				delete(objects, o.key)
			}
			continue
		case !there:
			missing = append(missing, fmt.Sprintf("object %s of blob %s", o.key, digest))
		case size != o.size:
			missing = append(missing, fmt.Sprintf("object %s has %d bytes, its blob %s %d", o.key, size, digest, o.size))
		}
		delete(objects, o.key)
	}
	known := func(key string) string {
		switch {
		case v.Uploads[key]:
			return "an unfinished upload"
		case v.Dead[key]:
			return "a dead object that waits"
		}
		return "no row knows it"
	}
	for key := range objects {
		more = append(more, fmt.Sprintf("object %s: %s", key, known(key)))
	}
	for name, key := range v.Pieces {
		more = append(more, fmt.Sprintf("%s of object %s: %s", name, key, known(key)))
	}
	for id := range v.Uploads {
		more = append(more, fmt.Sprintf("upload session %s", id))
	}
	for key := range v.Dead {
		more = append(more, fmt.Sprintf("the note of dead object %s", key))
	}
	return missing, more
}
