package registry

import (
	"context"
	"iter"
	"strings"
)

// Repositories merges the sorted lists of all routes. A registry reports only
// the names that lead to it, so no name comes twice; one that cannot list
// (Unsupported) reports none.
func (m *Mux) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		heads := make([]head, 0, len(m.routes))
		defer func() {
			for i := range heads {
				heads[i].stop()
			}
		}()
		for i := range m.routes {
			next, stop := iter.Pull2(m.names(ctx, i, after))
			heads = append(heads, head{next: next, stop: stop})
			if err := heads[i].advance(); err != nil {
				yield("", err)
				return
			}
		}
		for {
			least := lowest(heads)
			if least == nil {
				return
			}
			if !yield(least.name, nil) {
				return
			}
			if err := least.advance(); err != nil {
				yield("", err)
				return
			}
		}
	}
}

// names lists what the i-th route reports behind after. It begins shortly
// before the route's prefix and ends behind it, so that a route into a large
// registry does not walk the whole of it.
func (m *Mux) names(ctx context.Context, i int, after string) iter.Seq2[string, error] {
	route := &m.routes[i]
	after = max(after, before(route.Prefix))
	end := route.Prefix + "0" // the byte behind '/'
	return func(yield func(string, error) bool) {
		for name, err := range route.Registry.Repositories(ctx, after) {
			if IsCode(err, Unsupported) || err == nil && route.Prefix != "" && name >= end {
				return
			}
			if err == nil && m.route(name) != i {
				continue
			}
			if !yield(name, err) {
				return
			}
		}
	}
}

// before is a name, or nothing, that sorts shortly before prefix.
func before(prefix string) string {
	if prefix == "" {
		return ""
	}
	return strings.TrimRight(prefix[:len(prefix)-1], "/._-")
}

// head is the next name of one route; at the end the name is empty.
type head struct {
	name string
	next func() (string, error, bool)
	stop func()
}

// advance skips what is not behind the last name, should a list repeat itself.
func (h *head) advance() error {
	last := h.name
	for {
		name, err, ok := h.next()
		if !ok || err != nil {
			h.name = ""
			return err
		}
		if name > last {
			h.name = name
			return nil
		}
	}
}

// lowest finds the head that comes first; nil when all are at their end.
func lowest(heads []head) *head {
	var least *head
	for i := range heads {
		if h := &heads[i]; h.name != "" && (least == nil || h.name < least.name) {
			least = h
		}
	}
	return least
}
