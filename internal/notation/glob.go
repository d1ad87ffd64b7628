package notation

import (
	"errors"
	"fmt"
	"strings"
)

// maxMatch bounds a rule's pattern; no repository name is longer.
const maxMatch = 255

// CheckGlob reports what is wrong with a pattern for repository names.
func CheckGlob(pattern string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789._-/*"
	switch {
	case pattern == "":
		return errors.New("must name repositories, such as team/* or ** for all")
	case len(pattern) > maxMatch:
		return fmt.Errorf("must have at most %d characters", maxMatch)
	case strings.ContainsFunc(pattern, func(r rune) bool { return !strings.ContainsRune(allowed, r) }):
		return fmt.Errorf("must be the letters of a repository name (a-z 0-9 . _ - /), * and **, not %q", Shown(pattern))
	case strings.Contains(pattern, "***"):
		return fmt.Errorf("must not have more than two * in a row: %q", Shown(pattern))
	case strings.HasPrefix(pattern, "/") || strings.HasSuffix(pattern, "/") || strings.Contains(pattern, "//"):
		return fmt.Errorf("must have something before and after each slash: %q", Shown(pattern))
	}
	return nil
}

// MatchGlob reports whether pattern covers name: * is any run of characters
// without a slash, ** any run. It takes time in proportion to the product of
// the lengths, whatever the pattern.
func MatchGlob(pattern, name string) bool {
	reached := make([]bool, len(name)+1) // reached[i]: the pattern so far covers name[:i]
	reached[0] = true
	for p := 0; p < len(pattern); p++ {
		switch {
		case pattern[p] != '*':
			step(reached, name, pattern[p])
		case p+1 < len(pattern) && pattern[p+1] == '*':
			spread(reached, name, true)
			p++
		default:
			spread(reached, name, false)
		}
	}
	return reached[len(name)]
}

// step moves every reached place over the character c.
func step(reached []bool, name string, c byte) {
	for i := len(name); i > 0; i-- {
		reached[i] = reached[i-1] && name[i-1] == c
	}
	reached[0] = false
}

// spread extends every reached place over any run of characters.
func spread(reached []bool, name string, slashes bool) {
	for i := 1; i <= len(name); i++ {
		if reached[i-1] && (slashes || name[i-1] != '/') {
			reached[i] = true
		}
	}
}
