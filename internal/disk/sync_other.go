//go:build !linux

package disk

import "os"

// SyncData makes a file's bytes and size durable.
func SyncData(f *os.File) error { return f.Sync() }
