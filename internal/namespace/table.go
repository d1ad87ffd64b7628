// Package namespace finds out which registry a request means that names it
// beside its path: in the parameter ns, as containerd does, or by the name under
// which it came here. It puts what it found in front of the repository's name, so
// that all that follows knows but one form. What a client says is only ever
// looked up, never dialled.
package namespace

import (
	"net/http"
	"strings"

	"github.com/berth-registry/berth/internal/proxyspec"
)

// Upstream is a registry that this one stands before.
type Upstream struct {
	Name       string   // of the project that is its cache: the prefix of its repositories here
	Namespaces []string // values of ns that mean it
	Hosts      []string // names of this server under which its repositories have no prefix
}

// Table is what can be meant. It is not changed once it is made.
type Table struct {
	prefixes   map[string]bool   // that names begin with; true: an upstream's
	namespaces map[string]string // normal form → upstream's name
	hosts      map[string]string // the same of Host headers
	own        map[string]bool   // normal forms that mean this server
}

// NewTable knows upstreams, projects that stand for several and beat ns too, and
// the hosts of this server's own addresses.
func NewTable(upstreams []Upstream, virtual, own []string) *Table {
	t := &Table{prefixes: map[string]bool{}, namespaces: map[string]string{}, hosts: map[string]string{}, own: map[string]bool{}}
	for _, host := range own { // nobody takes these for an upstream
		if name, ok := proxyspec.NormalNamespace(host); ok {
			t.own[name] = true
		}
	}
	for _, name := range virtual {
		t.prefixes[name] = false
	}
	for _, u := range upstreams {
		t.prefixes[u.Name] = true
		for _, host := range u.Hosts {
			if name, ok := proxyspec.NormalNamespace(host); ok && !t.own[name] {
				t.hosts[name] = u.Name
				t.namespaces[name] = u.Name
			}
		}
	}
	for _, u := range upstreams { // later: they win over hosts
		for _, ns := range u.Namespaces {
			if name, ok := proxyspec.NormalNamespace(ns); ok && !t.own[name] {
				t.namespaces[name] = u.Name
			}
		}
	}
	return t
}

// HostOf is the upstream whose repositories have no prefix under the name that a
// request came here by; "": none.
func (t *Table) HostOf(r *http.Request) string {
	if len(t.hosts) == 0 {
		return ""
	}
	host, ok := proxyspec.NormalNamespace(r.Host)
	if !ok {
		return ""
	}
	return t.hosts[host]
}

// Repository is the name here of what a client calls a repository that came by
// the request's host.
func (t *Table) Repository(r *http.Request, name string) string {
	host := t.HostOf(r)
	if host == "" || t.prefixed(name) {
		return name
	}
	return host + "/" + name
}

// prefixed reports whether a name begins with what is configured here.
func (t *Table) prefixed(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	_, known := t.prefixes[first]
	return known
}

// meansThis reports whether a normal ns names this very server.
func (t *Table) meansThis(ns string, r *http.Request) bool {
	if t.own[ns] {
		return true
	}
	host, ok := proxyspec.NormalNamespace(r.Host)
	return ok && host == ns
}
