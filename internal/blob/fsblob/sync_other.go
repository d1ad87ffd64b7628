//go:build !linux

package fsblob

import "os"

func syncData(f *os.File) error { return f.Sync() }
