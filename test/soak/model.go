package soak

import (
	"math"
	"slices"
	"sync"
	"time"
)

// Graces are how long collection leaves alone what nothing holds. Untagged and
// Orphans may be 0: such manifests are never collected.
type Graces struct {
	Untagged     time.Duration // manifests without a tag
	Orphans      time.Duration // manifests whose subject is gone
	Unreferenced time.Duration // blobs that no manifest names, since a client was told of them
	Upload       time.Duration // sessions that nobody continues
}

// clockSlack is by how much the clocks of one machine may seem to differ.
const clockSlack = 100 * time.Millisecond

// forever is when what is held goes.
var forever = time.UnixMilli(math.MaxInt64 / 4)

// repo is what one repository holds, as far as its answers oblige it. Each
// manifest and tag has one client that writes it, so that its answers alone say
// what must be there; blobs may be anybody's.
//
// Three things may be said of anything at a moment: it must be there, it must
// not, or neither, for a write's answer was lost or collection may have come.
type repo struct {
	name    string
	common  bool // several clients write here, each its own tags and manifests
	graces  Graces
	crashes *crashes
	story   journal

	mu        sync.Mutex
	manifests map[string]*manifest
	tags      map[string]*tag
	blobs     map[string]*blob
}

func newRepo(name string, common bool, g Graces, c *crashes) *repo {
	return &repo{
		name: name, common: common, graces: g, crashes: c,
		manifests: map[string]*manifest{}, tags: map[string]*tag{}, blobs: map[string]*blob{},
	}
}

// manifest is one that was pushed at some time. What it is never changes.
type manifest struct {
	digest, mediaType string
	content           []byte
	blobs, children   []string
	subject           string
	owner             int // the client that writes it

	there   bool      // it was acknowledged, and neither deleted nor found absent
	deleted bool      // it was deleted, and must be absent
	told    time.Time // begin of the request that was answered with its being there
	let     time.Time // the earliest time at which its last hold may have gone
	turn
}

// tag is where a name points: "" is nowhere.
type tag struct {
	at    string
	owner int
	turn
}

// turn is what manifests and tags have in common: the one write at a time that
// may change them.
type turn struct {
	doubt   *write
	busy    time.Time // until when a lost request may still arrive
	changes int       // so that readers see that something changed meanwhile
	changed time.Time // when it did last
}

func (t *turn) change() {
	t.changes++
	t.changed = time.Now()
}

// idle says that no request is under way, or may still arrive, that changes it.
func (t *turn) idle(now time.Time) bool { return t.doubt == nil && now.After(t.busy) }

// blob is a blob as the repository links it.
type blob struct {
	content
	told     time.Time    // the link counts as seen at that time at least
	asked    [2]time.Time // begin and end of the last request that asked for it
	deleted  bool         // it was deleted, and must be absent
	deleting int          // requests under way
	busy     time.Time    // until when a lost request may still delete it
	changes  int
	changed  time.Time
}

func (b *blob) change() {
	b.changes++
	b.changed = time.Now()
}

// blob finds or makes the record of content. The caller has the lock.
func (r *repo) blob(c content) *blob {
	b := r.blobs[c.digest]
	if b == nil {
		b = &blob{content: c}
		r.blobs[c.digest] = b
	}
	return b
}

// until is the time up to which a manifest must be there; zero: it need not be.
func (r *repo) until(m *manifest) time.Time {
	if m == nil || !m.there {
		return time.Time{}
	}
	if m.doubt != nil && m.doubt.deletes == m {
		return time.Time{}
	}
	return r.undeleted(m)
}

// undeleted is the time up to which a manifest must be there if nobody deletes it.
func (r *repo) undeleted(m *manifest) time.Time {
	grace := r.graceOf(m)
	if grace == 0 {
		return forever
	}
	end := later(m.told, m.let).Add(grace)
	for name, t := range r.tags {
		switch {
		case t.at != m.digest:
		case t.doubt == nil || t.doubt.tags[name] == m.digest:
			return forever
		default:
			end = later(end, t.doubt.began.Add(grace))
		}
	}
	for _, h := range r.holders(m) {
		if h.doubt != nil && h.doubt.deletes == h { // it may have been collected before
			held := r.undeleted(h)
			if held.After(h.doubt.began) {
				held = h.doubt.began
			}
			end = later(end, held.Add(grace))
			continue
		}
		switch held := r.until(h); {
		case held.Equal(forever):
			return forever
		case !held.IsZero():
			end = later(end, held.Add(grace)) // its own time begins when its holder goes
		}
	}
	return end
}

// graceOf is how long a manifest stays without a hold; 0: for ever.
func (r *repo) graceOf(m *manifest) time.Duration {
	if m.subject != "" {
		return r.graces.Orphans
	}
	return r.graces.Untagged
}

// holders are the manifests that keep m: the indexes that list it, its subject.
func (r *repo) holders(m *manifest) (list []*manifest) {
	for _, h := range r.manifests {
		if h.there && (h.digest == m.subject || slices.Contains(h.children, m.digest)) {
			list = append(list, h)
		}
	}
	return list
}

// must says that a manifest must be there now.
func (r *repo) must(m *manifest, now time.Time) bool { return r.until(m).After(now.Add(clockSlack)) }

// mustBlob says that a blob must be there now.
func (r *repo) mustBlob(digest string, now time.Time) bool {
	return r.untilBlob(digest).After(now.Add(clockSlack))
}

func (r *repo) untilBlob(digest string) (end time.Time) {
	if b := r.blobs[digest]; b != nil {
		if !b.told.IsZero() {
			end = b.told.Add(r.graces.Unreferenced)
		}
		// Who only asks is covered for half the grace time: the mark that
		// protects a blob is renewed when it is older than that.
		if !b.asked[0].IsZero() && !r.crashes.forgot(b.asked[0], b.asked[1]) {
			end = later(end, b.asked[0].Add(r.graces.Unreferenced/2))
		}
	}
	for _, m := range r.manifests {
		if slices.Contains(m.blobs, digest) {
			end = later(end, r.until(m))
		}
	}
	return end
}

// mustAll says that all that m names must be there now.
func (r *repo) mustAll(m *manifest, now time.Time) bool {
	for _, d := range m.blobs {
		if !r.mustBlob(d, now) {
			return false
		}
	}
	for _, d := range m.children {
		if !r.must(r.manifests[d], now) {
			return false
		}
	}
	return true
}

// heldBlob says whether a manifest that must be there, or that may be, names
// the blob.
func (r *repo) heldBlob(digest string, now time.Time) (must, may bool) {
	for _, m := range r.manifests {
		if slices.Contains(m.blobs, digest) {
			must, may = must || r.must(m, now), may || m.may()
		}
	}
	return must, may
}

// revives says that to push m would hold referrers of it again of which nobody
// knows whether they are still there: m may have been gone, and they after it.
func (r *repo) revives(m *manifest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.until(m).Equal(forever) {
		return false
	}
	for _, x := range r.manifests {
		if x.subject == m.digest && x.there {
			return true
		}
	}
	return false
}

// listed says whether an index that must be there, or that may be, lists m.
func (r *repo) listed(m *manifest, now time.Time) (must, may bool) {
	for _, h := range r.manifests {
		if slices.Contains(h.children, m.digest) {
			must, may = must || r.must(h, now), may || h.may()
		}
	}
	return must, may
}

// may says that it need not be absent.
func (m *manifest) may() bool { return !m.deleted || m.doubt != nil }

// isHere notes that the registry said of a blob, to a request that began at
// the given time, that it is here, be it that it brought it or only asked.
func (r *repo) isHere(c content, began time.Time, asked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.blob(c)
	switch {
	case b.deleting > 0 || !began.After(b.busy):
	case asked:
		b.asked = [2]time.Time{began, time.Now()}
	default:
		b.told = later(b.told, began)
	}
}

// comes notes that a request is about to bring a blob.
func (r *repo) comes(c content) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.blob(c)
	b.deleted = false
	b.change()
}

// absent notes that a manifest that need not be there is not. What it held has
// been without a hold since it may have gone.
func (r *repo) absent(m *manifest) {
	if !m.there {
		return
	}
	since := r.until(m)
	m.there = false
	m.change()
	r.lettingGo(m, since)
}

// lettingGo notes that m no longer holds its children and referrers, at the
// earliest since the given time.
func (r *repo) lettingGo(m *manifest, since time.Time) {
	for _, held := range r.manifests {
		if held.subject == m.digest || slices.Contains(m.children, held.digest) {
			held.let = later(held.let, since)
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// memory is how long the model remembers what is gone.
const memory = 2 * time.Minute

// forget drops what is long gone, so that a long run does not slow down.
func (r *repo) forget(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	named := map[string]bool{}
	for digest, m := range r.manifests {
		if !m.there && m.idle(now) && now.Sub(m.changed) > memory {
			delete(r.manifests, digest)
			continue
		}
		for _, d := range m.blobs {
			named[d] = true
		}
	}
	for digest, b := range r.blobs {
		if !named[digest] && b.deleting == 0 && now.Sub(later(later(b.told, b.asked[1]), b.changed)) > memory {
			delete(r.blobs, digest)
		}
	}
}
