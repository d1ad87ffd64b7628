package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/berth-registry/berth/internal/registry"
)

// policy is which addresses may be dialled: those of the public internet, and of
// networks that an operator named. A registry is led to by names, redirects and
// realms that others write; none of them is to lead into our own network.
type policy struct {
	networks []netip.Prefix
}

// special are networks that are not public, besides those that netip knows.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // carrier-grade NAT; some clouds' metadata
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("2001::/23"), // Teredo among them
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"), // 6to4
	netip.MustParsePrefix("3fff::/20"),
}

// global holds all public addresses of IPv6: no others are assigned.
var global = netip.MustParsePrefix("2000::/3")

// nat64 holds an IPv4 address in its last four bytes.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// allows reports whether a may be dialled.
func (p policy) allows(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if contains(p.networks, a) {
		return true
	}
	if nat64.Contains(a) {
		bytes := a.As16()
		return p.allows(netip.AddrFrom4([4]byte(bytes[12:])))
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && !contains(special, a) && (a.Is4() || global.Contains(a))
}

func contains(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// control is asked with the very address that is about to be dialled, when names
// have been resolved: what a name resolves to a second time does not matter.
func (p policy) control(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !p.allows(a.Addr()) {
		return refusedAddress(address)
	}
	return nil
}

var errNotPublic = errors.New("is in none of the networks that may be dialled")

func refusedAddress(address string) error {
	e := registry.Errorf(registry.Faulty, "", "the upstream registry leads to an address that is not public, which is dialled only if its network is listed under networks")
	e.Err = fmt.Errorf("%s %w", address, errNotPublic)
	return e
}

// allowed looks at where a request goes before it does. A proxy resolves names
// itself and nothing is known of what it dials; addresses, however they are
// written, and names of the proxy's own machine are not for it either.
func (u *Registry) allowed(req *http.Request) error {
	if strings.ContainsFunc(req.URL.Host, unspeakable) {
		return registry.Errorf(registry.Faulty, "", "the upstream registry leads to an address that makes no sense")
	}
	if !u.proxied(req) {
		return nil // the dialler looks
	}
	host := strings.TrimSuffix(strings.ToLower(req.URL.Hostname()), ".")
	if a, err := netip.ParseAddr(host); err == nil {
		if !u.policy.allows(a) {
			return refusedAddress(host)
		}
		return nil
	}
	label := host[strings.LastIndexByte(host, '.')+1:]
	if label == "" || label == "localhost" || label[0] >= '0' && label[0] <= '9' || !ascii(host) {
		return refusedAddress(host)
	}
	return nil
}

// unspeakable are the letters that no host has, also of bytes that are no text.
func unspeakable(r rune) bool {
	return r == utf8.RuneError || r <= ' ' || strings.ContainsRune("\"<>\\^`{|}", r) || !unicode.IsPrint(r)
}

// ascii reports whether a name has one spelling. In other letters there are digits
// and dots too, which become an address when the name is asked for.
func ascii(host string) bool {
	return !strings.ContainsFunc(host, func(r rune) bool { return r > unicode.MaxASCII })
}
