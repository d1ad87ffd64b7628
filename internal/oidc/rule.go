package oidc

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/berth-registry/berth/internal/access"
)

const (
	maxClaims  = 20  // of a rule
	maxPattern = 256 // bytes of a pattern, a claim's path or an audience
)

// ValidateRule says what is wrong with the issuer, the audience or the claims
// of a trust rule. One that would let in every job of an issuer is refused: the
// issuers of CI services sign for all of their customers.
func ValidateRule(r access.TrustRule) error {
	if err := checkURL(r.Issuer); err != nil {
		return fmt.Errorf("issuer %w", err)
	}
	if err := checkText(r.Audience); err != nil {
		return fmt.Errorf("audience %w", err)
	}
	if len(r.Claims) == 0 {
		return errors.New("claims must name at least one, like repository=acme/app")
	}
	if len(r.Claims) > maxClaims {
		return fmt.Errorf("claims must be at most %d", maxClaims)
	}
	narrow := false
	for claim, pattern := range r.Claims {
		if err := checkText(claim); err != nil {
			return fmt.Errorf("claim %.64q: its name %w", claim, err)
		}
		if err := checkText(pattern); err != nil {
			return fmt.Errorf("claim %.64q: its pattern %w", claim, err)
		}
		narrow = narrow || strings.Trim(pattern, "*") != ""
	}
	if !narrow {
		return errors.New("claims must have a pattern that is more than *")
	}
	return nil
}

func checkText(s string) error {
	switch {
	case s == "":
		return errors.New("must not be empty")
	case len(s) > maxPattern:
		return fmt.Errorf("must have at most %d bytes", maxPattern)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return errors.New("must be UTF-8 without control characters")
	}
	return nil
}

// admits reports whether all claims of a rule match. A rule without any admits
// nobody.
func admits(r *access.TrustRule, claims map[string]any) bool {
	for path, pattern := range r.Claims {
		claim, ok := find(claims, path)
		if !ok || !anyMatches(pattern, texts(claim)) {
			return false
		}
	}
	return len(r.Claims) > 0
}

func anyMatches(pattern string, texts []string) bool {
	for _, s := range texts {
		if matches(pattern, s) {
			return true
		}
	}
	return false
}
