// Package auth says who a caller is. What a caller may do is not its business:
// that is decided by checks around the registry.
package auth

// Identity is an authenticated caller; the zero value is the anonymous one.
type Identity struct {
	Name string
}
