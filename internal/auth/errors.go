package auth

import "errors"

// What is wrong with credentials, for errors.Is. ErrCredentials is matched by
// all of them. That a name exists is told to nobody.
var (
	ErrCredentials = errors.New("log-in required")
	// ErrInvalidToken: a token that is malformed, forged, expired or revoked.
	ErrInvalidToken = errorUnder(ErrCredentials, "invalid token")
	// ErrInsufficientScope: a good token that was not asked for this.
	ErrInsufficientScope = errorUnder(ErrCredentials, "insufficient scope")
	// ErrUnavailable says nothing about a credential: who could tell whether it
	// is good cannot be reached. It is not matched by ErrCredentials.
	ErrUnavailable = errors.New("the identity provider cannot be reached")
)

// errorUnder is a sentinel that also is its parent.
func errorUnder(parent error, text string) error { return &subError{parent, text} }

type subError struct {
	parent error
	text   string
}

func (e *subError) Error() string { return e.text }
func (e *subError) Unwrap() error { return e.parent }
