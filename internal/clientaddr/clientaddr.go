// Package clientaddr finds out which address a request really comes from. Its
// one idea: a header is believed exactly as far as trusted proxies wrote it, so
// it is read from the right, and nothing a client writes to the left of that
// can change the outcome.
package clientaddr

import (
	"net/http"
	"net/netip"
	"slices"
)

// Limits on what is considered of forwarding headers, from the right.
const (
	maxHeader = 4 << 10 // bytes of each of the two
	maxHops   = 32
)

// The names of the headers, in net/http's canonical form.
const (
	forwardedFor = "X-Forwarded-For"
	forwarded    = "Forwarded"
)

// Resolver finds the addresses of clients behind trusted proxies. It is safe
// for concurrent use.
type Resolver struct{ trusted []netip.Prefix }

// New trusts the proxies whose addresses lie in a prefix of trusted; with none
// a client's address is always its socket's.
func New(trusted []netip.Prefix) *Resolver {
	r := &Resolver{trusted: slices.Clone(trusted)}
	for i, p := range r.trusted {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		r.trusted[i] = p
	}
	return r
}

// Handler gives next requests whose RemoteAddr is that of the client, as
// host:port. The port is 0 where no proxy has told it.
//
// From a peer that is not trusted, headers change nothing. From a trusted one
// the client is the first address from the right that is not trusted, or the
// leftmost where all are. It is the peer itself if there is no such header, if
// the place of the client is held by anything but an address (Forwarded's
// unknown and obfuscated names too), or if it lies beyond the last 4 KiB or 32
// entries.
//
// Where both X-Forwarded-For and Forwarded are there and do not name the same
// client, a proxy has written one and passed on what a client made up in the
// other. Nobody can tell which, so that the client gets the unspecified
// address: one that it did not choose, that no key's address range holds, and
// whose limits all such clients share. Proxies must remove the header that they
// do not write.
func (t *Resolver) Handler(next http.Handler) http.Handler {
	if len(t.trusted) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if client := t.client(r); client != "" {
			at := *r // a handler must not change the request that it was given
			at.RemoteAddr = client
			r = &at
		}
		next.ServeHTTP(w, r)
	})
}

// Trusted reports whether a request's peer is a trusted proxy. It must not have
// gone through Handler.
func (t *Resolver) Trusted(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && t.trusts(plain(peer.Addr()))
}

// client is the address that headers tell, "" where the peer's holds.
func (t *Resolver) client(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !t.trusts(plain(peer.Addr())) {
		return ""
	}
	simple, standard := r.Header[forwardedFor], r.Header[forwarded]
	var found netip.AddrPort
	switch {
	case len(simple) == 0 && len(standard) == 0:
		return ""
	case len(standard) == 0:
		found = t.walk(simple, false, parseNode)
	case len(simple) == 0:
		found = t.walk(standard, true, parseElement)
	default:
		found = t.walk(simple, false, parseNode)
		if other := t.walk(standard, true, parseElement); other.Addr() != found.Addr() {
			found = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		}
	}
	if !found.IsValid() {
		return ""
	}
	return found.String()
}

func (t *Resolver) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(t.trusted, func(p netip.Prefix) bool { return p.Contains(a) })
}

// plain is an address as prefixes are compared with.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// walk goes over the entries of a header's lines from the right to the first
// address that is not trusted. It is invalid where none can be told.
func (t *Resolver) walk(lines []string, quotes bool, parse func(string) (netip.AddrPort, bool)) (client netip.AddrPort) {
	hops, bytes := 0, 0
	for _, line := range slices.Backward(lines) {
		for rest, more := line, true; more; {
			if hops++; hops > maxHops || bytes >= maxHeader {
				return netip.AddrPort{}
			}
			var entry string
			entry, rest, more = cutLast(rest, maxHeader-bytes, quotes)
			if bytes += len(entry) + 1; bytes > maxHeader {
				return netip.AddrPort{}
			}
			if entry = trim(entry); entry == "" { // lists may have empty entries
				continue
			}
			found, ok := parse(entry)
			if !ok {
				return netip.AddrPort{}
			}
			if client = found; !t.trusts(client.Addr()) {
				return client
			}
		}
	}
	return client
}

// Network is whom limits take an address for: an IPv6 client has at least a
// /64 to choose from, so all of that is one. It is "unknown" for the zero Addr.
func Network(a netip.Addr) string {
	a = plain(a)
	switch {
	case !a.IsValid():
		return "unknown"
	case a.Is4():
		return a.String()
	}
	return netip.PrefixFrom(a, 64).Masked().String()
}
