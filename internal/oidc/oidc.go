// Package oidc turns what an identity provider vouches for into an identity of
// the registry: a job's ID token into the workload of a trust rule, a person's
// log-in into a user with a key. No provider is believed, or even contacted,
// that the operator or a trust rule does not name.
package oidc

import (
	"fmt"

	"github.com/berth-registry/berth/internal/auth"
)

// invalid is the error of a token that is no good, matching
// auth.ErrInvalidToken. The reason is for logs and the trail.
func invalid(format string, args ...any) error {
	return fmt.Errorf("ID token: "+format+": %w", append(args, auth.ErrInvalidToken)...)
}
