package auth

import (
	"errors"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/directory"
)

// Refusal says why credentials were refused. The reason is for logs and the
// audit trail: clients are told the same in all cases.
type Refusal struct {
	Reason string
	Err    error  // ErrCredentials or one below it
	User   string // name that was given, if it is a user's; other names may be secrets
	Key    string // id of the key that does not count any more
}

func (e *Refusal) Error() string { return e.Reason }
func (e *Refusal) Unwrap() error { return e.Err }

// AuditReason is the reason, for the trail.
func (e *Refusal) AuditReason() string { return e.Reason }

func refuse(reason string) error  { return &Refusal{Reason: reason, Err: ErrCredentials} }
func invalid(reason string) error { return &Refusal{Reason: reason, Err: ErrInvalidToken} }

// lapsed makes a LapsedError of a principal a refusal of that kind.
func lapsed(err, kind error, p *access.Principal) error {
	if l := (*directory.LapsedError)(nil); errors.As(err, &l) {
		return &Refusal{Reason: l.Reason, Err: kind, Key: p.KeyID}
	}
	return err
}

// meant adds the user whose name was given to an error of a log-in.
func meant(err error, user string) error {
	switch e := err.(type) {
	case *Refusal:
		named := *e
		named.User = user
		return &named
	case *ThrottledError:
		named := *e
		named.User = user
		return &named
	}
	return err
}

// ThrottledError says that too many log-ins failed, or are under way. It tells
// nothing about the credentials.
type ThrottledError struct {
	RetryAfter time.Duration // until they are looked at again
	Reason     string        // for the trail
	User       string        // as of Refusal
}

func (e *ThrottledError) Error() string { return e.Reason }

// AuditReason is the reason, for the trail.
func (e *ThrottledError) AuditReason() string { return e.Reason }
