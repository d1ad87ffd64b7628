package remote

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// nextLink is the address of the next page, nil if there is none. It must lie at
// the registry's own address.
func (r *Registry) nextLink(req request, resp *http.Response) (*url.URL, error) {
	target, ok := nextTarget(resp.Header.Values("Link"))
	if !ok {
		return nil, nil
	}
	u, err := req.url.Parse(target)
	if err != nil {
		return nil, faulty(req.repo, "the link to its next page is malformed")
	}
	own, ok := r.back(u)
	if !ok || !strings.HasPrefix(own.Path, r.base.Path+"/v2/") {
		return nil, faulty(req.repo, "the link to its next page leads elsewhere, to %.100q; that is not followed", u.Host)
	}
	return own, nil
}

// nextTarget finds the first link of the relation "next" among Link headers (RFC
// 8288), each of which may hold several, apart by commas.
func nextTarget(lines []string) (target string, ok bool) {
	for _, line := range lines {
		for rest := strings.TrimLeft(line, " \t,"); strings.HasPrefix(rest, "<"); rest = strings.TrimLeft(rest, " \t,") {
			target, params, closed := strings.Cut(rest[1:], ">")
			if !closed {
				break
			}
			params, rest = cutUnquoted(params, ',')
			if isNext(params) {
				return strings.TrimSpace(target), true
			}
		}
	}
	return "", false
}

// isNext reports whether the first parameter "rel", which alone counts, names the
// relation "next".
func isNext(params string) bool {
	for params != "" {
		var param string
		param, params = cutUnquoted(params, ';')
		key, value, _ := strings.Cut(param, "=")
		if strings.EqualFold(strings.TrimSpace(key), "rel") {
			relations := strings.Fields(strings.ToLower(strings.Trim(strings.TrimSpace(value), `"`)))
			return slices.Contains(relations, "next")
		}
	}
	return false
}

// cutUnquoted cuts s at the first sep outside of a quoted string.
func cutUnquoted(s string, sep byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}
