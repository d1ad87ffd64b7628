package proxy

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

const (
	usesEvery = 5 * time.Second  // uses are noted
	usesStep  = time.Minute      // between two notes of one manifest
	usesLast  = 10 * time.Second // for noting them at the end
	maxUses   = 16 << 10         // manifests that are remembered at a time
)

// uses are the manifests that were asked for of late.
type uses struct {
	mu    sync.Mutex
	byKey map[useKey]*use
}

type useKey struct {
	here   string
	digest oci.Digest
}

type use struct {
	at    time.Time // the last one
	noted time.Time // that the database knows of; the zero Time: none
}

// used notes that a manifest was asked for. It is for eviction to tell what is
// idle: where there are too many at once, some go unnoticed.
func (p *Registry) used(here string, d oci.Digest) {
	p.uses.mu.Lock()
	defer p.uses.mu.Unlock()
	key := useKey{here, d}
	u := p.uses.byKey[key]
	switch {
	case u != nil:
	case len(p.uses.byKey) >= maxUses:
		return
	case p.uses.byKey == nil:
		p.uses.byKey = map[useKey]*use{}
		fallthrough
	default:
		u = &use{}
		p.uses.byKey[key] = u
	}
	u.at = p.o.Now()
}

// usedSince reports whether this process was asked for a manifest at that time
// or later, as far as it remembers.
func (p *Registry) usedSince(here string, d oci.Digest, t time.Time) bool {
	p.uses.mu.Lock()
	defer p.uses.mu.Unlock()
	u := p.uses.byKey[useKey{here, d}]
	return u != nil && !u.at.Before(t)
}

// keepUses notes them every few seconds, and once more at the end.
func (p *Registry) keepUses(ctx context.Context) {
	for {
		select {
		case <-time.After(usesEvery):
			p.noteUses(ctx, usesStep)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), usesLast)
			defer cancel()
			p.noteUses(last, 0)
			return
		}
	}
}

// noteUses tells the database of uses that it was not told of for as long as
// step, and forgets manifests that nobody has asked for since.
func (p *Registry) noteUses(ctx context.Context, step time.Duration) {
	list := p.uses.due(p.o.Now(), step)
	if len(list) == 0 {
		return
	}
	if err := p.o.State.TouchProxyManifests(ctx, list); err != nil {
		p.o.Log.Warn("uses of cached manifests could not be noted; they may be evicted as if they were idle", "manifests", len(list), "error", err)
		return
	}
	p.uses.told(list)
}

// due lists the uses to be noted, those of a repository together.
func (u *uses) due(now time.Time, step time.Duration) (list []meta.ProxyUse) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for key, use := range u.byKey {
		switch {
		case !use.at.After(use.noted):
			if now.Sub(use.at) > usesStep {
				delete(u.byKey, key)
			}
		case use.noted.IsZero() || use.at.Sub(use.noted) >= step || now.Sub(use.noted) >= step:
			list = append(list, meta.ProxyUse{Repository: key.here, Digest: key.digest, At: use.at})
		}
	}
	slices.SortFunc(list, func(a, b meta.ProxyUse) int {
		return cmp.Or(strings.Compare(a.Repository, b.Repository), strings.Compare(a.Digest.String(), b.Digest.String()))
	})
	return list
}

func (u *uses) told(list []meta.ProxyUse) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, l := range list {
		if use := u.byKey[useKey{l.Repository, l.Digest}]; use != nil {
			use.noted = l.At
		}
	}
}
