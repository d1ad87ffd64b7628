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
	lists := make([]iter.Seq2[string, error], len(m.routes))
	for i := range m.routes {
		lists[i] = m.names(ctx, i, after)
	}
	return Union(strings.Compare, lists...)
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
