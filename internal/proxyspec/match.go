package proxyspec

import (
	"net/netip"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/notation"
)

// Defaults of what is absent. Those of the proxy itself are its own.
const (
	defaultTagTTL = time.Minute
	always        = 100 * 365 * 24 * time.Hour // in place of for ever, where sums are made
)

// Or is the time that d says, or else the default. 0 is told apart from none: it
// is the shortest time.
func (d *Duration) Or(otherwise time.Duration) time.Duration {
	switch {
	case d == nil:
		return otherwise
	case *d < 0:
		return always
	}
	return max(time.Duration(*d), 1)
}

// Bound is the time that d says, or 0 for none.
func (d *Duration) Bound() time.Duration {
	if d == nil || *d < 0 {
		return 0
	}
	return max(time.Duration(*d), 1)
}

// Allow says which repositories, as the upstream names them, may be had; nil:
// all.
func (p *Proxy) Allow() func(name string) bool {
	if len(p.Repositories) == 0 {
		return nil
	}
	var with, without []string
	for _, s := range p.Repositories {
		if pattern, not := strings.CutPrefix(s, "!"); not {
			without = append(without, pattern)
		} else {
			with = append(with, s)
		}
	}
	return func(name string) bool {
		return (len(with) == 0 || matchAny(with, name)) && !matchAny(without, name)
	}
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if notation.MatchGlob(p, name) {
			return true
		}
	}
	return false
}

// TagTTL is for how long a tag of a repository is not asked for again; negative:
// for ever.
func (p *Proxy) TagTTL(name, tag string) time.Duration {
	for _, t := range p.Tags.TTLs {
		if matchTag(t.Match, name, tag) {
			return time.Duration(t.TTL)
		}
	}
	if p.Tags.TTL == nil {
		return defaultTagTTL
	}
	return time.Duration(*p.Tags.TTL)
}

// matchTag matches a pattern of TAG or REPOSITORY:TAG.
func matchTag(pattern, name, tag string) bool {
	repo, tags, both := strings.Cut(pattern, ":")
	if !both {
		return notation.MatchGlob(pattern, tag)
	}
	return notation.MatchGlob(repo, name) && notation.MatchGlob(tags, tag)
}

// Pinned reports whether a tag of a repository never goes from the cache. An
// empty tag stands for what has none.
func (p *Proxy) Pinned(name, tag string) bool {
	for _, pin := range p.Cache.Pins {
		if repo, tags, both := strings.Cut(pin, ":"); notation.MatchGlob(repo, name) && (!both || tag != "" && notation.MatchGlob(tags, tag)) {
			return true
		}
	}
	return false
}

// Prefixes are the networks, of private and local addresses, that may be dialled.
func (p *Proxy) Prefixes() (all []netip.Prefix) {
	for _, s := range p.Networks {
		if n, err := notation.ParseNetwork(s); err == nil { // Check has seen to it
			all = append(all, n)
		}
	}
	return all
}

// HasSecret reports whether the credential holds what must not be shown.
func (k Credential) HasSecret() bool { return k.Password != "" || k.Token != "" }
