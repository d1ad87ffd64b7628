package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/berth-registry/berth/internal/notation"
)

func checkPresent(value string) error {
	if value == "" {
		return errors.New("must not be empty")
	}
	return nil
}

func checkPath(value string) error {
	if strings.Contains(value, "://") {
		return fmt.Errorf("must be a path on this machine, not the URL %q", notation.Shown(value))
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
		return fmt.Errorf("must be host:port, such as 127.0.0.1:5000 or [::1]:5000, not %q", notation.Shown(value))
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("the port must be a number from 0 to 65535, not %q", notation.Shown(port))
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
		return fmt.Errorf("must be an address such as https://registry.example.com, not %q", notation.Shown(value))
	}
	return nil
}

// checkPostgres takes a URL, whose password can be hidden where it is shown.
func checkPostgres(value string) error {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return fmt.Errorf("must be a URL such as postgres://berth@localhost/berth, not %q", notation.Shown(value))
	}
	return nil
}

// networks are those of a list that Load has checked.
func networks(value string) (all []netip.Prefix) {
	for _, s := range list(value) {
		if p, err := notation.ParseNetwork(s); err == nil { // always
			all = append(all, p)
		}
	}
	return all
}

func checkNetwork(value string) error {
	if _, err := notation.ParseNetwork(value); err != nil {
		return fmt.Errorf("must be an address or a network such as 10.0.0.0/8, not %q", notation.Shown(value))
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

// parseNumber reads a whole number.
func parseNumber(value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil {
		return 0, fmt.Errorf("must be %v, not %q", number, notation.Shown(value))
	}
	return n, nil
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
		return fmt.Errorf("must be one of %s, not %q", strings.Join(values, ", "), notation.Shown(value))
	}
}
