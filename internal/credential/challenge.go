package credential

import "strings"

// Bounds of what is read of WWW-Authenticate.
const (
	maxChallengeHeaders = 8
	maxChallengeLength  = 8 << 10
	maxChallenges       = 16
	maxParameters       = 16
)

// challenge is one way to log in that a server offers.
type challenge struct {
	scheme string            // in lower case
	params map[string]string // names in lower case; the first of a name counts
}

// parseChallenges reads the WWW-Authenticate headers of an answer (RFC 9110,
// 11.6.1). It is lenient about what registries get wrong, unquoted values and
// missing commas; what makes no sense ends a header.
func parseChallenges(headers []string) []challenge {
	var all []challenge
	for i, header := range headers {
		if i == maxChallengeHeaders {
			break
		}
		if len(header) > maxChallengeLength {
			continue
		}
		s := scanner(header)
		for len(all) < maxChallenges {
			c, ok := s.challenge()
			if !ok {
				break
			}
			all = append(all, c)
		}
	}
	return all
}

// scanner is what is left of a header.
type scanner string

// challenge takes a scheme and its parameters.
func (s *scanner) challenge() (c challenge, ok bool) {
	s.skip(" \t,")
	scheme := s.token()
	if scheme == "" {
		return c, false
	}
	c = challenge{scheme: strings.ToLower(scheme), params: map[string]string{}}
	if s.token68() {
		return c, true
	}
	for {
		name, value, ok := s.parameter()
		if !ok {
			return c, true
		}
		if _, known := c.params[name]; !known && len(c.params) < maxParameters {
			c.params[name] = value
		}
	}
}

// parameter takes name=value and the comma behind it. It takes nothing where
// another challenge begins.
func (s *scanner) parameter() (name, value string, ok bool) {
	rest := *s
	rest.skip(" \t,")
	name = strings.ToLower(rest.token())
	rest.skip(" \t")
	if name == "" || !rest.take('=') {
		return "", "", false
	}
	rest.skip(" \t")
	if rest.take('"') {
		value, ok = rest.quoted()
	} else {
		value, ok = rest.upTo(" \t,"), true
	}
	if !ok { // the quote is never closed: nothing behind it means anything
		rest = ""
	}
	*s = rest
	return name, value, ok
}

// token68 takes what some schemes have in place of parameters.
func (s *scanner) token68() bool {
	rest := *s
	rest.skip(" \t")
	word := rest.upTo(" \t,")
	padding := strings.TrimRight(word, "=")
	if padding == word && !strings.ContainsAny(word, "/+~") || padding == "" || strings.ContainsAny(padding, `="`) {
		return false
	}
	// name= with nothing behind is a parameter only where a value follows.
	after := rest
	after.skip(" \t")
	if len(word)-len(padding) == 1 && after != "" && after[0] != ',' {
		return false
	}
	*s = rest
	return true
}

func (s *scanner) skip(set string) { *s = scanner(strings.TrimLeft(string(*s), set)) }

func (s *scanner) take(c byte) bool {
	if *s == "" || (*s)[0] != c {
		return false
	}
	*s = (*s)[1:]
	return true
}

func (s *scanner) upTo(set string) string {
	end := strings.IndexAny(string(*s), set)
	if end < 0 {
		end = len(*s)
	}
	word := string((*s)[:end])
	*s = (*s)[end:]
	return word
}

// token takes what RFC 9110 calls one.
func (s *scanner) token() string {
	end := 0
	for end < len(*s) && isTokenChar((*s)[end]) {
		end++
	}
	word := string((*s)[:end])
	*s = (*s)[end:]
	return word
}

func isTokenChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// quoted takes the rest of a quoted string.
func (s *scanner) quoted() (string, bool) {
	var b strings.Builder
	for i := 0; i < len(*s); i++ {
		switch c := (*s)[i]; {
		case c == '"':
			*s = (*s)[i+1:]
			return b.String(), true
		case c == '\\' && i+1 < len(*s):
			i++
			b.WriteByte((*s)[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}
