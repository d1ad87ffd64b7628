package manage

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/oci"
)

// Bounds of what is asked for.
const (
	maxList     = 100 // prefixes, addresses
	maxRates    = 30
	maxClaim    = 256 // bytes of what an identity provider calls a group
	minPassword = 8   // bytes
	maxExpiry   = 10  // years
)

// checkText bounds free text.
func checkText(what, s string, most int) error {
	if len(s) > most {
		return invalid("%s has %d bytes; at most %d are allowed", what, len(s), most)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return invalid("%s must be UTF-8 without control characters", what)
	}
	return nil
}

// checkPrefixes wants repository names; those of project, if it is not "".
func checkPrefixes(prefixes []string, project string) error {
	if len(prefixes) > maxList {
		return invalid("%d prefixes; at most %d are allowed", len(prefixes), maxList)
	}
	for _, p := range prefixes {
		if err := oci.CheckRepository(p); err != nil {
			return invalid("prefix: %v", err)
		}
		if project != "" && access.ProjectOf(p) != project {
			return invalid("prefix %q is not in project %s", p, project)
		}
	}
	return nil
}

// addresses reads addresses and ranges of addresses.
func addresses(list []string) ([]netip.Prefix, error) {
	if len(list) > maxList {
		return nil, invalid("%d addresses; at most %d are allowed", len(list), maxList)
	}
	var out []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			var a netip.Addr
			if a, err = netip.ParseAddr(s); err == nil && a.Zone() == "" {
				a = a.Unmap()
				p = netip.PrefixFrom(a, a.BitLen())
			}
		}
		if err != nil || !p.IsValid() || p.Addr().Is4In6() {
			return nil, invalid("address %.64q: use an address or a range like 192.0.2.0/24 or 2001:db8::/32", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// within reports whether all of the ranges lie in bounds; none means all.
func within(ranges, bounds []netip.Prefix) bool {
	if len(bounds) == 0 {
		return true
	}
	for _, r := range ranges {
		inside := false
		for _, b := range bounds {
			inside = inside || b.Bits() <= r.Bits() && b.Contains(r.Addr())
		}
		if !inside {
			return false
		}
	}
	return len(ranges) > 0
}

// expiry checks when something is to end; zero is never.
func (m *Manager) expiry(t time.Time) (time.Time, error) {
	if t.IsZero() {
		return t, nil
	}
	now := m.now()
	if !t.After(now) {
		return t, invalid("expires %s: must be in the future", t.UTC().Format(time.RFC3339))
	}
	if t.After(now.AddDate(maxExpiry, 0, 0)) {
		return t, invalid("expires %s: must be within %d years", t.UTC().Format(time.RFC3339), maxExpiry)
	}
	return t.UTC().Truncate(time.Millisecond), nil
}

func (m *Manager) checkTrustRule(r *access.TrustRule, project string) error {
	if err := access.ValidLabel("trust rule", r.Name); err != nil {
		return asked(err)
	}
	if r.Role == access.None {
		return invalid("a trust rule needs a role: reader, writer, maintainer or owner")
	}
	if err := m.o.ValidateRule(*r); err != nil {
		return invalid("%v", err)
	}
	return checkPrefixes(r.Prefixes, project)
}

func checkBounds(rates []access.Rate, bounds ...*int64) error {
	if len(rates) > maxRates {
		return invalid("%d rates; at most %d are allowed", len(rates), maxRates)
	}
	for _, r := range rates {
		if err := r.Validate(); err != nil {
			return invalid("%v", err)
		}
	}
	for _, b := range bounds {
		if b != nil && *b < 0 {
			return invalid("a bound must not be negative; 0 is none")
		}
	}
	return nil
}

// hash checks a new password and makes what is stored of it. Errors: Invalid,
// TooMany.
func (m *Manager) hash(ctx context.Context, password string) (string, error) {
	if len(password) < minPassword {
		return "", invalid("a password must have at least %d bytes", minPassword)
	}
	hash, err := m.o.Passwords.Hash(ctx, password)
	if errors.Is(err, auth.ErrPassword) {
		err = &Error{Code: Invalid, Detail: err.Error()}
	}
	return hash, throttled(err)
}

// throttled gives an error about too many passwords its code.
func throttled(err error) error {
	var t *auth.ThrottledError
	if errors.As(err, &t) {
		return &Error{Code: TooMany, Detail: "too many passwords are being tried; wait and try again", Err: err, Retry: t.RetryAfter}
	}
	return err
}
