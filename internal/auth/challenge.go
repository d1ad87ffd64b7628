package auth

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// TokenPath is where tokens are to be had, below a registry's address.
const TokenPath = "/auth/token"

// basicChallenge is for clients that cannot be told where tokens are to be had.
const basicChallenge = `Basic realm="Berth"`

// Challenges tell clients how to log in.
type Challenges struct {
	service string
	realms  map[string]string // by Host, in lower case
	main    string            // realm for hosts that are not in the table; "": none
	secure  bool              // the main address is https://
	other   func(r *http.Request) bool
}

// NewChallenges tells clients of a registry that has these addresses, the main
// one first. What a client says about its host is never repeated to it, unless
// it is one of them; where there are none, unless it is on this machine.
func NewChallenges(service string, urls []string) (*Challenges, error) {
	c := &Challenges{service: service, realms: map[string]string{}, other: func(*http.Request) bool { return false }}
	if err := checkService(service); err != nil {
		return nil, err
	}
	for _, base := range urls {
		if err := Validate(base, service); err != nil {
			return nil, err
		}
		u, err := url.Parse(base)
		if err != nil {
			return nil, err
		}
		realm := strings.TrimRight(base, "/") + TokenPath
		if c.main == "" {
			c.main, c.secure = realm, u.Scheme == "https"
		}
		for _, host := range hostsOf(u) {
			c.realms[host] = realm
		}
	}
	return c, nil
}

// AlsoAt has clients that came by another name that was given to this server on
// purpose, as other tells, get their tokens under that name. Call it before the
// first challenge.
func (c *Challenges) AlsoAt(other func(r *http.Request) bool) { c.other = other }

// ServiceOf is the service of a registry that has these addresses.
func ServiceOf(urls []string) string {
	if len(urls) > 0 {
		if u, err := url.Parse(urls[0]); err == nil && u.Host != "" {
			return strings.ToLower(u.Host)
		}
	}
	return "berth"
}

// hostsOf are the Host headers of those who use an address.
func hostsOf(u *url.URL) []string {
	host := strings.ToLower(u.Host)
	usual := usualPort(u.Scheme == "https")
	if port := u.Port(); port == "" {
		return []string{host, host + ":" + usual}
	} else if port == usual {
		return []string{host, strings.TrimSuffix(host, ":"+usual)}
	}
	return []string{host}
}

func usualPort(secure bool) string {
	if secure {
		return "443"
	}
	return "80"
}

// Validate says what is wrong with a registry's address or service, which both
// stand in headers.
func Validate(base, service string) error {
	if err := checkService(service); err != nil {
		return err
	}
	u, err := url.Parse(base)
	switch {
	case !Printable(base) || strings.Contains(base, " "):
		return fmt.Errorf("address %q: must be ASCII without quotes, spaces and control characters", clip(base))
	case err != nil || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("address %q: must be a URL such as https://registry.example.com", clip(base))
	case u.Hostname() == "":
		return fmt.Errorf("address %q: the host is missing", clip(base))
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("an address must have no user, query or fragment")
	}
	return nil
}

func checkService(service string) error {
	if service == "" || !Printable(service) || strings.HasPrefix(service, ":") {
		return fmt.Errorf("service %q: must be ASCII without quotes and control characters, and not empty", clip(service))
	}
	return nil
}

// Value is the one WWW-Authenticate header of the answer to r, which needs a
// scope ("" for none) and failed with err.
func (c *Challenges) Value(r *http.Request, scope string, err error) string {
	realm := c.realm(r)
	if realm == "" {
		return basicChallenge
	}
	value := `Bearer realm="` + realm + `",service="` + c.service + `"`
	if scope != "" && Printable(scope) {
		value += `,scope="` + scope + `"`
	}
	switch {
	case errors.Is(err, ErrInvalidToken):
		value += `,error="invalid_token"`
	case errors.Is(err, ErrInsufficientScope):
		value += `,error="insufficient_scope"`
	}
	return value
}

func (c *Challenges) realm(r *http.Request) string {
	if realm := c.realms[strings.ToLower(r.Host)]; realm != "" {
		return realm
	}
	switch {
	case Printable(r.Host) && c.other(r):
	case c.main != "" || !onThisMachine(r):
		return c.main
	}
	scheme := "http://"
	if r.TLS != nil || c.secure {
		scheme = "https://"
	}
	return scheme + strings.ToLower(r.Host) + TokenPath
}

// onThisMachine reports whether the client used a loopback address, or the very
// address that its connection came in at.
func onThisMachine(r *http.Request) bool {
	name, port := r.Host, usualPort(r.TLS != nil)
	if host, p, err := net.SplitHostPort(r.Host); err == nil {
		name, port = host, p
	} else {
		name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || !Printable(r.Host) {
		return false
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	if err != nil || addr.Zone() != "" {
		return false
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return addr.IsLoopback() ||
		local != nil && local.AddrPort().Addr().Unmap() == addr.Unmap() && local.Port == int(number)
}
