// Package disk makes files and their names survive the loss of power.
package disk

import "os"

// SyncFolder makes a folder's entries durable: the names, not what they name.
func SyncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
