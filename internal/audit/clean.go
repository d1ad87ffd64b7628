package audit

import (
	"regexp"
	"strings"
)

// maxField bounds each text of an event, in bytes.
const maxField = 256

// secrets look like what clients log in with: keys of this registry, and JSON
// Web Tokens. People paste them into names, and tools into user agents.
var secrets = regexp.MustCompile(`berth_[a-z]_[0-9A-Za-z]+|eyJ[0-9A-Za-z_-]+\.[0-9A-Za-z_.-]+`)

// Clean makes text from a client fit for the trail: one short line of valid
// UTF-8 in which nothing looks like a credential.
func Clean(s string) string {
	const ample = 16 << 10 // longer ones are cut before anything looks at them
	if len(s) > ample {
		s = s[:ample]
	}
	s = Hide(s)
	if len(s) > maxField {
		s = s[:maxField]
	}
	if plain(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if control(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// Hide takes what looks like a credential out of text that is logged.
func Hide(s string) string {
	if strings.Contains(s, "berth_") || strings.Contains(s, "eyJ") {
		s = secrets.ReplaceAllString(s, "[hidden]")
	}
	return s
}

// plain reports whether s is printable ASCII, as almost all text is.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// control reports whether r moves the cursor of a terminal or ends a line.
func control(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029'
}

// Clean cleans every text of the event.
func (e *Event) Clean() {
	for _, field := range []*string{
		&e.Request, &e.Identity, &e.Key, &e.Address, &e.Agent, &e.Action,
		&e.Project, &e.Repository, &e.Reference, &e.Digest, &e.Reason,
	} {
		*field = Clean(*field)
	}
}
