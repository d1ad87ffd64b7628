package clientaddr

import (
	"net/netip"
	"strconv"
	"strings"
)

// cutLast splits a list at its last comma, of which it looks at no more than
// the last most+1 bytes: entry may be longer than most if there is none. With
// quotes, commas in quoted strings do not count. They are told from the right,
// so that an unclosed quote to the left cannot swallow an entry.
func cutLast(list string, most int, quotes bool) (entry, rest string, more bool) {
	quoted := false
	for i := len(list) - 1; i >= 0 && len(list)-i <= most+1; i-- {
		switch {
		case quotes && list[i] == '"':
			quoted = !quoted
		case list[i] == ',' && !quoted:
			return list[i+1:], list[:i], true
		}
	}
	return list, "", false
}

// trim takes optional white space away.
func trim(s string) string { return strings.Trim(s, " \t") }

// parseNode reads an address with or without a port: 192.0.2.1, 192.0.2.1:80,
// 2001:db8::1, [2001:db8::1], [2001:db8::1]:80.
func parseNode(s string) (netip.AddrPort, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return node(a, 0)
	}
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
		if !validPort(port) {
			return netip.AddrPort{}, false
		}
	}
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		if inner, bracketed = strings.CutSuffix(inner, "]"); !bracketed {
			return netip.AddrPort{}, false
		}
	}
	a, err := netip.ParseAddr(inner)
	if err != nil || bracketed != a.Is6() {
		return netip.AddrPort{}, false
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		number = 0 // none, or an obfuscated one
	}
	return node(a, uint16(number))
}

// node refuses zones, which mean nothing on another machine.
func node(a netip.Addr, port uint16) (netip.AddrPort, bool) {
	if a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), port), true
}

// validPort accepts a number and RFC 7239's obfuscated ports.
func validPort(s string) bool {
	if name, ok := strings.CutPrefix(s, "_"); ok {
		return name != "" && strings.Trim(name, alphanumeric+"._-") == ""
	}
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil && s[0] != '+'
}

const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// parseElement finds the address in an element of Forwarded (RFC 7239), as in
// proto=https;for="[2001:db8::1]:4711".
func parseElement(s string) (found netip.AddrPort, ok bool) {
	for s != "" {
		var name, value string
		if name, value, s, ok = cutPair(s); !ok {
			return netip.AddrPort{}, false
		}
		if !strings.EqualFold(name, "for") {
			continue
		}
		if found.IsValid() { // said twice
			return netip.AddrPort{}, false
		}
		if found, ok = parseNode(value); !ok {
			return netip.AddrPort{}, false
		}
	}
	return found, found.IsValid()
}

// cutPair reads the first name=value of a list that semicolons divide.
func cutPair(s string) (name, value, rest string, ok bool) {
	name, s, ok = strings.Cut(s, "=")
	name = trim(name)
	if !ok || !isToken(name) {
		return "", "", "", false
	}
	if strings.HasPrefix(s, `"`) {
		value, rest, ok = cutQuoted(s[1:])
	} else {
		value, rest = s, ""
		if i := strings.IndexByte(s, ';'); i >= 0 {
			value, rest = s[:i], s[i:]
		}
		value = strings.TrimRight(value, " \t")
		// A colon is no token character, but addresses with ports come unquoted.
		ok = isToken(strings.ReplaceAll(value, ":", ""))
	}
	if rest = trim(rest); !ok || rest != "" && rest[0] != ';' {
		return "", "", "", false
	}
	return name, value, trim(strings.TrimPrefix(rest, ";")), true
}

// cutQuoted reads a quoted string behind its opening quote.
func cutQuoted(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

func isToken(s string) bool {
	return s != "" && strings.Trim(s, alphanumeric+"!#$%&'*+-.^_`|~") == ""
}
