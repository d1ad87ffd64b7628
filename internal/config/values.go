package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxShown bounds how much of a foreign text an error message repeats.
const maxShown = 64

// shown is value as messages and prints may have it: without the password of a
// URL, and short.
func shown(value string) string {
	value = redacted(value)
	if len(value) <= maxShown {
		return value
	}
	return strings.ToValidUTF8(value[:maxShown], "") + "…"
}

// redacted hides the password in a URL's userinfo. What looks like a URL with
// userinfo but cannot be parsed is hidden whole.
func redacted(value string) string {
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

func checkPresent(value string) error {
	if value == "" {
		return errors.New("must not be empty")
	}
	return nil
}

func checkPath(value string) error {
	if strings.Contains(value, "://") {
		return fmt.Errorf("must be a path on this machine, not the URL %q", shown(value))
	}
	return nil
}

func checkPrintable(value string) error {
	if !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
		return errors.New("must be UTF-8 on one line, without control characters")
	}
	return nil
}

func checkAddress(value string) error {
	_, port, err := net.SplitHostPort(value)
	if err != nil {
		return fmt.Errorf("must be host:port, such as 127.0.0.1:5000 or [::1]:5000, not %q", shown(value))
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("the port must be a number from 0 to 65535, not %q", shown(port))
	}
	return nil
}

// checkURL takes the address of a server, which may have a path.
func checkURL(value string) error {
	if value == "" {
		return nil
	}
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
		u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(value, "\"\\ ") {
		return fmt.Errorf("must be an address such as https://registry.example.com, not %q", shown(value))
	}
	return nil
}

// checkPostgres takes a URL, whose password can be hidden where it is shown.
func checkPostgres(value string) error {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return fmt.Errorf("must be a URL such as postgres://berth@localhost/berth, not %q", shown(value))
	}
	return nil
}

// parseNetwork reads a network in CIDR notation, or one address.
func parseNetwork(value string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(value); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(value)
	if err == nil && p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, err
}

// networks are those of a list that Load has checked.
func networks(value string) (all []netip.Prefix) {
	for _, s := range list(value) {
		if p, err := parseNetwork(s); err == nil { // always
			all = append(all, p)
		}
	}
	return all
}

func checkNetwork(value string) error {
	if _, err := parseNetwork(value); err != nil {
		return fmt.Errorf("must be an address or a network such as 10.0.0.0/8, not %q", shown(value))
	}
	return nil
}

// list splits a value at its commas.
func list(value string) (items []string) {
	for s := range strings.SplitSeq(value, ",") {
		if s = strings.TrimSpace(s); s != "" {
			items = append(items, s)
		}
	}
	return items
}

// optional applies a check to what is not empty.
func optional(check func(string) error) func(string) error {
	return func(value string) error {
		if value == "" {
			return nil
		}
		return check(value)
	}
}

// each applies a check to each item of a list.
func each(check func(string) error) func(string) error {
	return func(value string) error {
		for _, s := range list(value) {
			if err := check(s); err != nil {
				return err
			}
		}
		return nil
	}
}

func oneOf(values ...string) func(string) error {
	return func(value string) error {
		if slices.Contains(values, value) {
			return nil
		}
		return fmt.Errorf("must be one of %s, not %q", strings.Join(values, ", "), shown(value))
	}
}

// parseDuration reads what time.ParseDuration does, and days before it: 7d,
// 1d12h. The result is not negative.
func parseDuration(value string) (time.Duration, error) {
	const day = 24 * time.Hour
	wrong := fmt.Errorf("must be %v, not %q", duration, shown(value))
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

// formatDuration is d as one would write it: 168h, not 168h0m0s.
func formatDuration(d time.Duration) string {
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

// parseSize reads a whole number of KiB, MiB, GiB or TiB.
func parseSize(value string) (int64, error) {
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
	return 0, fmt.Errorf("must be %v, not %q", size, shown(value))
}

// formatSize writes n, which parseSize has read, in its largest unit.
func formatSize(n int64) string {
	for _, u := range units {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n/units[len(units)-1].bytes, 10) + units[len(units)-1].name
}
