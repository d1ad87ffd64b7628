// Package notation reads and writes what people write for a registry, in the
// configuration file, on the command line and in the management API alike.
package notation

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// What values look like, for messages.
const (
	DurationText = "a duration such as 90s, 24h or 7d"
	SizeText     = "a size such as 512KiB, 32MiB or 1GiB"
)

// MaxShown bounds how much of a foreign text an error message repeats.
const MaxShown = 64

// Shown is value as messages and prints may have it: without the password of a
// URL, and short.
func Shown(value string) string {
	value = Redacted(value)
	if len(value) <= MaxShown {
		return value
	}
	return strings.ToValidUTF8(value[:MaxShown], "") + "…"
}

// Redacted hides the password in a URL's userinfo. What looks like a URL with
// userinfo but cannot be parsed is hidden whole.
func Redacted(value string) string {
	_, rest, ok := strings.Cut(value, "://")
	if !ok || !strings.Contains(rest, "@") {
		return value
	}
	u, err := url.Parse(value)
	if err != nil {
		return "(hidden)"
	}
	if _, secret := u.User.Password(); !secret {
		return value
	}
	return u.Redacted()
}

// ParseDuration reads what time.ParseDuration does, and days before it: 7d,
// 1d12h. The result is not negative.
func ParseDuration(value string) (time.Duration, error) {
	const day = 24 * time.Hour
	wrong := fmt.Errorf("must be %s, not %q", DurationText, Shown(value))
	var days uint64
	rest := value
	if number, after, ok := strings.Cut(value, "d"); ok {
		var err error
		if days, err = strconv.ParseUint(number, 10, 64); err != nil || days > uint64(math.MaxInt64/day) {
			return 0, wrong
		}
		if rest = after; rest == "" {
			rest = "0s"
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || strings.HasPrefix(rest, "+") || d > math.MaxInt64-time.Duration(days)*day {
		return 0, wrong
	}
	return time.Duration(days)*day + d, nil
}

// FormatDuration is d as one would write it: 168h, not 168h0m0s.
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// units of sizes, the largest first.
var units = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// ParseSize reads a whole number of KiB, MiB, GiB or TiB.
func ParseSize(value string) (int64, error) {
	for _, u := range units {
		digits, ok := strings.CutSuffix(value, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(digits, " "), 10, 63)
		if err != nil || int64(n) > math.MaxInt64/u.bytes {
			break
		}
		return int64(n) * u.bytes, nil
	}
	return 0, fmt.Errorf("must be %s, not %q", SizeText, Shown(value))
}

// FormatSize writes n, which ParseSize has read, in its largest unit.
func FormatSize(n int64) string {
	for _, u := range units {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n/units[len(units)-1].bytes, 10) + units[len(units)-1].name
}

// ParseNetwork reads a network in CIDR notation, or one address.
func ParseNetwork(value string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(value); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(value)
	if err == nil && p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, err
}
