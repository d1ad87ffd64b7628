package registry

import (
	"errors"
	"fmt"
	"time"

	"github.com/berth-registry/berth/internal/oci"
)

// Code classifies an error. The set is closed: each front has one table that
// gives every code its form on the wire.
type Code uint8

// The codes. Internal is that of an error nobody classified.
const (
	Internal Code = iota
	BlobUnknown
	UploadInvalid
	UploadUnknown
	DigestInvalid
	ManifestBlobUnknown
	ManifestInvalid
	ManifestUnknown
	ManifestTooLarge
	BlobTooLarge
	NameInvalid
	NameUnknown
	TagInvalid
	SizeInvalid
	RangeInvalid
	Unauthorized
	Denied
	Referenced
	Unsupported
	TooManyRequests
	InsufficientStorage
	Unavailable
	Faulty // another registry, on which the answer depends, is at fault or not to be trusted
	Codes  // count of codes, for tables
)

var codeNames = [Codes]string{
	"internal error", "blob unknown", "blob upload invalid", "blob upload unknown",
	"digest invalid", "manifest references unknown content", "manifest invalid",
	"manifest unknown", "manifest too large", "blob too large", "repository name invalid", "repository name unknown",
	"tag invalid", "size invalid", "range invalid", "authentication required", "access denied",
	"still referenced", "unsupported", "too many requests", "insufficient storage", "temporarily unavailable",
	"other registry at fault",
}

func (c Code) String() string {
	if c >= Codes {
		return codeNames[Internal]
	}
	return codeNames[c]
}

// ErrRefused is wrapped by a NameUnknown where another registry refuses what it
// may well have: it shows us nothing, which is not the same as having nothing.
var ErrRefused = errors.New("the other registry refuses it")

// Error is an error with a code. Detail reaches the client (as JSON); Err is
// for the log only.
type Error struct {
	Code   Code
	Repo   string
	Detail any
	Err    error
	// Limit is what was exceeded, of TooManyRequests; of Unavailable it may say
	// when to come back.
	Limit *Limit
}

// Limit is a bound that an operation exceeded.
type Limit struct {
	Amount     int64         // that is allowed within any period of Window
	Window     time.Duration // 0: not of a rate
	RetryAfter time.Duration // until the operation would be let pass
}

// Errorf is an error of the given code whose detail is the formatted text.
func Errorf(c Code, repo, format string, args ...any) *Error {
	return &Error{Code: c, Repo: repo, Detail: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string {
	s := e.Code.String()
	if e.Repo != "" {
		s = e.Repo + ": " + s
	}
	if e.Detail != nil {
		s += fmt.Sprintf(": %v", e.Detail)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Is matches a bare *Error by its code alone: errors.Is(err, &Error{Code: c})
// holds whatever the repository and the detail.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Repo == "" && t.Detail == nil && t.Err == nil
}

// CodeOf finds the code of err; errors of package oci have theirs too.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, oci.ErrManifest):
		return ManifestInvalid
	case errors.Is(err, oci.ErrDigest):
		return DigestInvalid
	case errors.Is(err, oci.ErrRepository):
		return NameInvalid
	case errors.Is(err, oci.ErrTag):
		return TagInvalid
	}
	return Internal
}

// IsCode reports whether err has the code c.
func IsCode(err error, c Code) bool { return err != nil && CodeOf(err) == c }
