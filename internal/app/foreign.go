package app

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// foreign reports whether a request may be the work of a page of another site
// in a browser on this machine: one that says so, or one that came here under a
// name that a stranger may have pointed to it. Where nobody is asked to log in,
// such a page would have all that there is. own reports whether a request came by
// a name that was given to this server on purpose.
func foreign(r *http.Request, own func(*http.Request) bool) bool {
	return http.NewCrossOriginProtection().Check(r) != nil || !ownName(r.Host) && !own(r)
}

// ownName reports whether no stranger can make host lead here: an address, or a
// name without a dot, which is in nobody's domain.
func ownName(host string) bool {
	name := strings.ToLower(host)
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return true
	}
	return !strings.Contains(name, ".") || strings.HasSuffix(name, ".localhost") || name == dockerHost
}

// dockerHost is what containers of Docker Desktop call the machine they run on.
const dockerHost = "host.docker.internal"
