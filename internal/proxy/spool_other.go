//go:build !linux

package proxy

import (
	"errors"
	"os"
)

// reopen cannot be done here: all readers share the file, and copy.
func reopen(*os.File) (*os.File, error) { return nil, errors.ErrUnsupported }
