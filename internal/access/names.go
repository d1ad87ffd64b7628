package access

import (
	"fmt"
	"slices"
	"strings"
)

// MaxName bounds the names of everything that is managed, in bytes. Projects
// that pushes made may have longer ones.
const MaxName = 64

// reserved user names mean something to log-in or in the audit trail.
var reserved = []string{"oidc", "anonymous", "local"}

// ValidUserName checks the name of a new user. Errors: ErrInvalid.
func ValidUserName(name string) error {
	if slices.Contains(reserved, name) {
		return fmt.Errorf("%w user name %q: it is reserved; choose another", ErrInvalid, name)
	}
	return ValidName("user", name)
}

// ValidName checks the name of a new user, group, organization or plan, which
// the error calls by kind. Errors: ErrInvalid.
func ValidName(kind, name string) error {
	if err := nameLength(kind, name); err != nil {
		return err
	}
	if !words(name, func(s string) int { return min(1, len(s)-len(strings.TrimLeft(s, "._-"))) }) {
		return fmt.Errorf("%w %s name %q: use lower-case letters and digits, with single '.', '_' or '-' between them", ErrInvalid, kind, name)
	}
	return nil
}

// ValidProjectName checks the name of a new project: what may stand before the
// first slash of a repository name. Errors: ErrInvalid.
func ValidProjectName(name string) error {
	if err := nameLength("project", name); err != nil {
		return err
	}
	if !words(name, separator) {
		return fmt.Errorf("%w project name %q: use lower-case letters and digits, with '.', '_', '__' or dashes between them", ErrInvalid, name)
	}
	return nil
}

// separator measures what may stand between two words of a project's name.
func separator(s string) int {
	switch {
	case strings.HasPrefix(s, "__"):
		return 2
	case s[0] == '.' || s[0] == '_':
		return 1
	}
	return len(s) - len(strings.TrimLeft(s, "-"))
}

// ValidLabel checks the name of a new key or trust rule, which the error calls
// by kind. Errors: ErrInvalid.
func ValidLabel(kind, name string) error {
	if err := nameLength(kind, name); err != nil {
		return err
	}
	for _, c := range []byte(name) {
		if !lower(c) && (c < 'A' || c > 'Z') && !strings.ContainsRune("._-", rune(c)) {
			return fmt.Errorf("%w %s name %q: use letters, digits, '.', '_' and '-'", ErrInvalid, kind, name)
		}
	}
	return nil
}

func nameLength(kind, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w %s name: it is empty", ErrInvalid, kind)
	case len(name) > MaxName:
		return fmt.Errorf("%w %s name %.16q…: it has %d bytes; up to %d are allowed", ErrInvalid, kind, name, len(name), MaxName)
	}
	return nil
}

// words reports whether s is words of lower-case letters and digits with
// separators between them; separator measures the one that its text begins
// with, 0 for none.
func words(s string, separator func(string) int) bool {
	for {
		n := 0
		for n < len(s) && lower(s[n]) {
			n++
		}
		if n == 0 || n == len(s) {
			return n > 0
		}
		between := separator(s[n:])
		if between == 0 {
			return false
		}
		s = s[n+between:]
	}
}

// lower reports whether c is a lower-case letter or a digit.
func lower(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
