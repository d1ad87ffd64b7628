package oidc

import (
	"encoding/json"
	"strconv"
	"strings"
)

// find is the claim at a path of names with dots between them. Names may have
// dots themselves: of several readings the one with the longest first name is
// the path's only meaning.
func find(claims map[string]any, path string) (any, bool) {
	if v, ok := claims[path]; ok {
		return v, true
	}
	for end := strings.LastIndexByte(path, '.'); end >= 0; end = strings.LastIndexByte(path[:end], '.') {
		v, ok := claims[path[:end]]
		if !ok {
			continue
		}
		inner, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		return find(inner, path[end+1:])
	}
	return nil, false
}

// texts are what patterns are held against: a claim, or the elements of a list.
// Numbers and booleans are as JSON writes them; null and objects are nothing.
func texts(claim any) []string {
	list, ok := claim.([]any)
	if !ok {
		list = []any{claim}
	}
	var all []string
	for _, v := range list {
		switch v := v.(type) {
		case string:
			all = append(all, v)
		case json.Number:
			all = append(all, v.String())
		case bool:
			all = append(all, strconv.FormatBool(v))
		}
	}
	return all
}

// matches reports whether all of s is as the pattern says, in which * stands
// for any run of characters.
func matches(pattern, s string) bool {
	p, n := 0, 0
	star, resume := -1, 0 // the last * and where the text behind its run begins
	for n < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, n
			p++
		case p < len(pattern) && pattern[p] == s[n]:
			p++
			n++
		case star >= 0:
			resume++
			p, n = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
