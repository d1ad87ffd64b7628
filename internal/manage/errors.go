package manage

import (
	"errors"
	"fmt"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

// Code classifies an error.
type Code uint8

// The codes.
const (
	Invalid      Code = iota // what was asked for makes no sense
	Unauthorized             // log-in is required
	Denied                   // the caller may not
	NotFound                 // not there, or hidden from the caller
	Conflict                 // not as things stand
	KeyReused                // the idempotency key came with another request
	TooMany                  // wrong passwords
)

// Error is why a verb did nothing. Detail tells the client what to do.
type Error struct {
	Code   Code
	Detail string
	Err    error         // for the log
	Retry  time.Duration // of TooMany: when to try again
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Detail + ": " + e.Err.Error()
	}
	return e.Detail
}

func (e *Error) Unwrap() error { return e.Err }

func errorf(c Code, format string, args ...any) error {
	return &Error{Code: c, Detail: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) error  { return errorf(Invalid, format, args...) }
func conflict(format string, args ...any) error { return errorf(Conflict, format, args...) }

// missing says that something is not there, or hidden: there is no telling.
func missing(kind, name string) error { return errorf(NotFound, "%s %.80q not found", kind, name) }

// asked gives a store's error about what was asked for its code; others are the
// server's fault and stay as they are.
func asked(err error) error {
	var own *Error
	var repeated *meta.RepeatedError
	switch {
	case err == nil || errors.As(err, &own) || errors.As(err, &repeated):
		return err
	case errors.Is(err, meta.ErrKeyReused):
		return &Error{Code: KeyReused, Detail: "this Idempotency-Key came with another request before; use a new one for each request", Err: err}
	case errors.Is(err, access.ErrInvalid), errors.Is(err, oci.ErrRepository):
		return &Error{Code: Invalid, Detail: err.Error()}
	case errors.Is(err, access.ErrNotFound):
		return &Error{Code: NotFound, Detail: err.Error()}
	case errors.Is(err, access.ErrExists), errors.Is(err, access.ErrInUse), errors.Is(err, access.ErrLastAdmin):
		return &Error{Code: Conflict, Detail: err.Error()}
	}
	return err
}
