package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/registry"
)

// Budget is what eviction keeps a cache within.
type Budget struct {
	// Bytes that the cache may have; 0: any number. Where more than nine tenths of
	// it are in use, images go until no more than eight tenths are, those first
	// that were used the longest ago.
	Bytes int64
	// MaxIdle is for how long an image is kept that nobody uses; 0: for ever.
	MaxIdle time.Duration
	// Pinned says what is never evicted, by the name that the origin has for a
	// repository and a tag, "" of an image without one. nil: nothing.
	Pinned func(name, tag string) bool
}

// over reports whether so many bytes in use are a reason to evict.
func (b Budget) over(used int64) bool { return b.Bytes > 0 && used > b.Bytes-b.Bytes/10 }

// within reports whether so many are few enough to stop.
func (b Budget) within(used int64) bool { return used <= b.Bytes-b.Bytes/5 }

// Freed is what was taken out of a cache.
type Freed struct {
	Images    int `json:"images"`
	Manifests int `json:"manifests"` // of these images, all in all
	Blobs     int `json:"blobs"`
	// Bytes of both. What other repositories have too is freed with the last of
	// them, and objects when their deletion is collected.
	Bytes int64 `json:"bytes"`
	// Pinned are images whose turn it was, and which stay: a pin says so, or
	// something was pushed here that refers to them.
	Pinned int `json:"pinned"`
	Busy   int `json:"busy"` // the same, in use just now
}

// Add counts what another run, or a part of one, freed.
func (f *Freed) Add(o Freed) {
	f.Images += o.Images
	f.Manifests += o.Manifests
	f.Blobs += o.Blobs
	f.Bytes += o.Bytes
	f.Pinned += o.Pinned
	f.Busy += o.Busy
}

const (
	coldPage    = 100 // notes that are read at a time
	maxFailures = 10  // images that fail before a run ends
)

// Evict takes images out of the cache that nobody has used for too long, and,
// where it has grown beyond its budget, those that were used the longest ago. An
// image goes as a whole: its manifests, what refers to them at the origin, and the
// blobs that no other image of its repository needs. What was pushed here stays,
// with what it refers to. What is evicted is fetched again when somebody asks.
//
// It may end at any time: what is half gone is fetched again too, and what is left
// of it goes with a later run or is collected.
func (p *Registry) Evict(ctx context.Context, b Budget) (sum Freed, err error) {
	p.noteUses(ctx, 0)
	used, err := p.o.State.ProxyUsage(ctx, p.o.Name)
	if err != nil {
		return sum, err
	}
	now := p.o.Now()
	idle, until := now.Add(-b.MaxIdle), now.Add(time.Millisecond)
	shrink := b.over(used)
	switch {
	case b.MaxIdle <= 0 && !shrink:
		return sum, nil
	case b.MaxIdle <= 0:
		idle = time.Time{}
	case !shrink:
		until = idle
	}
	e := eviction{p: p, pinned: b.Pinned, began: now}
	return e.run(ctx, e.cold(until), func(m meta.ProxyManifest) (due bool, err error) {
		if m.UsedAt.Before(idle) || !shrink {
			return true, nil
		}
		used, err := p.o.State.ProxyUsage(ctx, p.o.Name)
		return err == nil && !b.within(used), err
	})
}

// eviction is a run over the images of a cache.
type eviction struct {
	p      *Registry
	pinned func(name, tag string) bool // may be nil
	began  time.Time
	force  bool // takes what is in use, too
	moved  bool // an image turned out to have its turn later

	failures []error
}

// notes lists manifests that came from the origin, behind the one given.
type notes func(ctx context.Context, after meta.ProxyManifest) ([]meta.ProxyManifest, error)

func (e *eviction) cold(until time.Time) notes {
	return func(ctx context.Context, after meta.ProxyManifest) ([]meta.ProxyManifest, error) {
		return e.p.o.State.ColdProxyManifests(ctx, e.p.o.Name, until, after, coldPage)
	}
}

// run goes over a list and evicts the images in it, until one is not due. What
// fails with one does not stop the others, unless it would fail them too.
func (e *eviction) run(ctx context.Context, list notes, due func(meta.ProxyManifest) (bool, error)) (sum Freed, err error) {
	for after := (meta.ProxyManifest{}); err == nil; {
		var page []meta.ProxyManifest
		if page, err = list(ctx, after); err != nil || len(page) == 0 {
			break
		}
		e.moved = false
		for i := 0; i < len(page) && !e.moved && err == nil; i++ {
			var got Freed
			got, err = e.next(ctx, page[i], due)
			sum.Add(got)
			after = page[i]
		}
	}
	if err == errDone {
		err = nil
	}
	return sum, errors.Join(append(e.failures, err)...)
}

var errDone = errors.New("nothing more is due")

// next evicts the image that begins with a manifest, if it is due. Its error ends
// the run.
func (e *eviction) next(ctx context.Context, m meta.ProxyManifest, due func(meta.ProxyManifest) (bool, error)) (Freed, error) {
	if err := ctx.Err(); err != nil {
		return Freed{}, err
	}
	if ok, err := due(m); !ok || err != nil {
		return Freed{}, cmp.Or(err, errDone)
	}
	got, err := e.evict(ctx, m)
	if err == nil {
		return got, nil
	}
	err = fmt.Errorf("evict %s@%s: %w", m.Repository, m.Digest, err)
	if ctx.Err() != nil || registry.IsCode(err, registry.Unavailable) || errors.Is(err, meta.ErrUnavailable) || len(e.failures) == maxFailures {
		return got, err
	}
	e.failures = append(e.failures, err)
	return got, nil
}

// evict takes an image out that begins with a manifest. One that belongs to
// another goes with that.
func (e *eviction) evict(ctx context.Context, m meta.ProxyManifest) (Freed, error) {
	i, err := e.image(ctx, m)
	if err != nil || i == nil {
		return Freed{}, err
	}
	switch newest := i.newest(); {
	case i.pinned:
		return Freed{Pinned: 1}, nil
	case e.force:
	case e.inUse(i):
		return Freed{Busy: 1}, nil
	case newest.Sub(m.UsedAt) > usesStep:
		// It is as new as its newest part, and has its turn with that.
		e.moved = true
		return Freed{}, e.p.o.State.TouchProxyManifests(ctx, []meta.ProxyUse{{Repository: m.Repository, Digest: m.Digest, At: newest}})
	}
	return e.remove(e.p.writing(ctx), i) // as a whole
}

// inUse reports whether somebody reads a part of an image, as far as this process
// knows.
func (e *eviction) inUse(i *image) bool {
	for d, n := range i.nodes {
		if e.p.usedSince(i.here, d, e.began) {
			return true
		}
		for _, b := range n.blobs() {
			if e.p.flights.busy(b.Digest) {
				return true
			}
		}
	}
	return false
}

// remove takes an image out, its root first: what it holds cannot go before.
func (e *eviction) remove(ctx context.Context, i *image) (sum Freed, err error) {
	gone, err := e.removeManifests(ctx, i)
	for _, n := range gone {
		sum.Manifests++
		sum.Bytes += n.size
	}
	if len(gone) == 0 || err != nil {
		if err == nil {
			sum.Busy++
		}
		return sum, err
	}
	sum.Images++
	blobs, bytes, err := e.removeBlobs(ctx, i.here, gone)
	sum.Blobs += blobs
	sum.Bytes += bytes
	for _, n := range gone {
		err = errors.Join(err, e.forget(ctx, n))
	}
	return sum, err
}

// removeManifests removes the manifests of an image. Those that something came to
// hold meanwhile stay; where that is the root, all do.
func (e *eviction) removeManifests(ctx context.Context, i *image) (gone []*node, err error) {
	left := i.inOrder()
	for len(left) > 0 {
		var held []*node
		for _, n := range left {
			err := e.take(ctx, n)
			var holders *meta.ReferencedError
			switch {
			case errors.Is(err, meta.ErrNotFound), errors.Is(err, meta.ErrNoRepository):
			case errors.As(err, &holders):
				held = append(held, n)
			case err != nil:
				return gone, coded(err, i.here)
			default:
				gone = append(gone, n)
			}
			if len(gone) == 0 {
				return nil, nil // the root stays
			}
		}
		if len(held) == len(left) {
			break
		}
		left = held
	}
	return gone, nil
}

// take removes a manifest, unless somebody used it since its image was looked at,
// or pushed it here: meta.ErrNotFound, then.
func (e *eviction) take(ctx context.Context, n *node) error {
	if !e.force && e.p.usedSince(n.note.Repository, n.note.Digest, e.began) {
		return meta.ErrNotFound
	}
	return e.p.o.State.EvictProxyManifest(ctx, n.note, e.force)
}

// removeBlobs removes what manifests named that are gone. What others hold stays.
func (e *eviction) removeBlobs(ctx context.Context, here string, gone []*node) (count int, bytes int64, err error) {
	for _, n := range gone {
		for _, b := range n.blobs() {
			if e.p.flights.busy(b.Digest) {
				continue // is linked when it has come, and collected after a day
			}
			err := e.p.cache.DeleteBlob(ctx, here, b.Digest)
			switch {
			case noBlob(err), registry.IsCode(err, registry.Referenced):
			case err != nil:
				return count, bytes, err
			default:
				count++
				bytes += b.Size
			}
		}
	}
	return count, bytes, nil
}

// forget drops what is remembered of a manifest that is gone. Somebody may have
// pushed a referrer of it when that had been looked for: then it is fetched again.
func (e *eviction) forget(ctx context.Context, n *node) error {
	here, d := n.note.Repository, n.note.Digest
	err := coded(e.p.o.State.ForgetProxyManifest(ctx, n.note, n.tags), here)
	e.p.fetcher.forget(here, d)
	if _, local, failed := e.referrers(ctx, here, d); failed == nil && local {
		e.p.keepSubject(here, d)
	}
	return err
}
