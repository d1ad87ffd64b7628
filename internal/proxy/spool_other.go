//go:build !linux

package proxy

import (
	"errors"
	"os"
)

// reopen cannot be done here: all readers share the file, and copy.
func reopen(*os.File) (*os.File, error) { return nil, errors.ErrUnsupported }

// roomIn is not known here.
func roomIn(string) (free, all int64, known bool) { return 0, 0, false }
