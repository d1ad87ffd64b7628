package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Bounds of what one token is asked for.
const (
	maxScopes    = 100
	maxScope     = 512      // bytes of one
	maxScopesAll = 16 << 10 // bytes of all
)

// actions are all that a scope may have.
var actions = []string{"pull", "push", "delete", "*"}

// ErrScope is wrapped by errors of ParseScopes, whose text is for the client.
var ErrScope = errors.New("invalid scope")

// ParseScopes reads what a token is asked for: in each value any number of
// type(class):name:action,action, separated by spaces. A name may hold a colon,
// as in host:port; the class is of the past and ignored. Scopes of one resource
// become one, in the order of their first appearance. Types and names that mean
// nothing here are no error: they are just never granted. Of the actions only
// those that there are remain.
func ParseScopes(values []string) ([]Scope, error) {
	var scopes []Scope
	bytes := 0
	for _, value := range values {
		if bytes += len(value); bytes > maxScopesAll {
			return nil, fmt.Errorf("%w: more than %d bytes of them; ask for fewer at once", ErrScope, maxScopesAll)
		}
		for text := range strings.SplitSeq(value, " ") {
			if text == "" {
				continue
			}
			s, err := parseScope(text)
			if err != nil {
				return nil, err
			}
			if scopes = merge(scopes, s); len(scopes) > maxScopes {
				return nil, fmt.Errorf("%w: more than %d of them; ask for fewer at once", ErrScope, maxScopes)
			}
		}
	}
	return scopes, nil
}

func parseScope(text string) (Scope, error) {
	if len(text) > maxScope {
		return Scope{}, fmt.Errorf("%w: one has %d bytes; at most %d are allowed", ErrScope, len(text), maxScope)
	}
	if !Printable(text) {
		return Scope{}, fmt.Errorf("%w: quotes, backslashes, control characters and what is not ASCII are not allowed", ErrScope)
	}
	first, last := strings.IndexByte(text, ':'), strings.LastIndexByte(text, ':')
	kind, _, _ := strings.Cut(text[:max(first, 0)], "(")
	if first == last || kind == "" || first+1 == last {
		return Scope{}, fmt.Errorf("%w %q: use type:name:actions, such as repository:acme/app:pull", ErrScope, clip(text))
	}
	s := Scope{Type: kind, Name: text[first+1 : last]}
	for action := range strings.SplitSeq(text[last+1:], ",") {
		s.add(action)
	}
	return s, nil
}

// merge adds s to the scope of the same resource, or at the end.
func merge(scopes []Scope, s Scope) []Scope {
	for i := range scopes {
		if scopes[i].Type == s.Type && scopes[i].Name == s.Name {
			for _, action := range s.Actions {
				scopes[i].add(action)
			}
			return scopes
		}
	}
	return append(scopes, s)
}

func (s *Scope) add(action string) {
	if slices.Contains(actions, action) && !slices.Contains(s.Actions, action) {
		s.Actions = append(s.Actions, action)
	}
}

// String is the scope as clients write it.
func (s Scope) String() string {
	return s.Type + ":" + s.Name + ":" + strings.Join(s.Actions, ",")
}

// Printable reports whether s is ASCII that may stand in a quoted string of a
// header: no control characters, quotes or backslashes.
func Printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\' {
			return false
		}
	}
	return true
}

// clip bounds what a message repeats.
func clip(s string) string {
	if len(s) <= 64 {
		return s
	}
	return s[:64] + "…"
}
