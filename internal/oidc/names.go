package oidc

import (
	"strings"

	"github.com/berth-registry/berth/internal/access"
)

const (
	usualName = "preferred_username" // claim
	maxGroups = 1000                 // of a person
)

// name is what a person would like to be called. It proves nothing: who they
// are is their issuer and subject.
func (p *People) name(claims map[string]any) string {
	claim, _ := find(claims, p.o.NameClaim)
	wish, _ := claim.(string)
	if nameOf(wish, "") == "" && p.o.NameClaim == usualName {
		wish, _ = claims["email"].(string)
	}
	return userName(wish)
}

// userName makes a user's name of what a provider calls a person. Nobody
// becomes admin by name, not even to the eye.
func userName(wish string) string {
	local, _, _ := strings.Cut(wish, "@")
	name := nameOf(local, "user")
	if name == "admin" || access.ValidUserName(name) != nil { // reserved
		name += "-1"
	}
	return name
}

// nameOf makes a name of any text: runs of letters and digits in lower case,
// with one separator between them. Text that has none is called otherwise.
func nameOf(text, otherwise string) string {
	var b strings.Builder
	separator := byte(0)
	for _, r := range strings.ToLower(text) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			if separator != 0 && b.Len() > 0 {
				b.WriteByte(separator)
			}
			separator = 0
			b.WriteByte(byte(r))
		case separator == 0 && (r == '.' || r == '_'):
			separator = byte(r)
		case separator == 0:
			separator = '-'
		}
		if b.Len() >= access.MaxName {
			break
		}
	}
	name := b.String()
	if len(name) > access.MaxName {
		name = strings.TrimRight(name[:access.MaxName], "._-")
	}
	if name == "" {
		return otherwise
	}
	return name
}

// groups are what the provider says that a person belongs to: a list, or one.
func (p *People) groups(claims map[string]any) ([]string, error) {
	claim, _ := find(claims, p.o.GroupsClaim)
	list := texts(claim)
	if len(list) > maxGroups {
		return nil, invalid("it has more than %d groups; let the provider send fewer", maxGroups)
	}
	return list, nil
}

// shortened makes text from a provider fit for a line.
func shortened(s string) string {
	const most = 64
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), most)]
}
