package access

import (
	"errors"
	"fmt"
)

// Errors of stores, for errors.Is.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrInUse    = errors.New("is in use")
	ErrInvalid  = errors.New("invalid")
	// ErrUnavailable: what was asked for may be tried again.
	ErrUnavailable = errors.New("the database is not available")
	ErrLastAdmin   = errors.New("this is the last admin who is not locked: make another one first")
)

// DeletedError says that a name is held by a project that was deleted and can
// still be had back. It is an ErrExists.
type DeletedError struct{ Project string }

func (e *DeletedError) Error() string {
	return fmt.Sprintf("project %q exists already and is deleted: restore it; its name is free again when it can no longer be restored", e.Project)
}

func (e *DeletedError) Is(target error) bool { return target == ErrExists }
