package credential

import (
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/berth-registry/berth/internal/registry"
)

const maxRealm = 2 << 10

// realms are the token services that a registry may send us to.
type realms struct {
	upstream *url.URL
	listed   []string // host or host:port, in lower case
}

// check reads a realm. Credentials may be sent there if it is of the registry's
// own domain, or listed by who runs Berth; over TLS, unless the registry itself
// is not.
func (r realms) check(realm string) (*url.URL, error) {
	u, err := url.Parse(realm)
	switch {
	case len(realm) > maxRealm || err != nil || u.Hostname() == "" || u.Opaque != "" || u.User != nil || u.Fragment != "":
		return nil, registry.Errorf(registry.Faulty, "", "the registry at %s names a token service that is no address; nothing was sent there", r.upstream.Host)
	case u.Scheme != "https" && (u.Scheme != "http" || r.upstream.Scheme != "http"):
		return nil, registry.Errorf(registry.Faulty, "", "the registry at %s sends us to a token service at %s without TLS; nothing was sent there", r.upstream.Host, shown(u.Host))
	case !r.trusted(u):
		return nil, registry.Errorf(registry.Faulty, "", "the registry at %s sends us to a token service at %s, another domain; nothing was sent there. "+
			"If that is right, list %[2]s in the upstream's realms", r.upstream.Host, shown(u.Host))
	}
	return u, nil
}

func (r realms) trusted(u *url.URL) bool {
	name, own := hostname(u), hostname(r.upstream)
	if name == own {
		return true
	}
	for _, listed := range r.listed {
		if listed = strings.ToLower(listed); listed == name || listed == strings.ToLower(u.Host) {
			return true
		}
	}
	domain := registrable(name)
	return domain != "" && domain == registrable(own)
}

// hostname is the name in an address, in one form.
func hostname(u *url.URL) string {
	return strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
}

// registrable is the part of a name that somebody has registered, "" for
// addresses and names like localhost.
func registrable(name string) string {
	if _, err := netip.ParseAddr(name); err == nil {
		return ""
	}
	domain, err := publicsuffix.EffectiveTLDPlusOne(name)
	if err != nil {
		return ""
	}
	return domain
}

// shown is a host as an upstream named it, fit for a message.
func shown(host string) string {
	if len(host) > 255 {
		host = host[:255]
	}
	return strings.Map(func(c rune) rune {
		if c <= ' ' || c > '~' || c == '"' {
			return '?'
		}
		return c
	}, host)
}
