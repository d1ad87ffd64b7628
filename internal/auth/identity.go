// Package auth says who a caller is. What a caller may do is not its business:
// that is decided by checks around the registry.
package auth

import "github.com/berth-registry/berth/internal/access"

// Identity is the caller of one request; the zero value is an anonymous one.
type Identity struct {
	access.Principal
	// Scopes bound what the caller's token is good for. nil: it came without a
	// token, and nothing is bound. Empty: good for nothing but log-in.
	Scopes *[]Scope
}

// Scope is one resource that a token is asked for, and what may be done with
// it: repository:acme/app:pull,push.
type Scope struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}
