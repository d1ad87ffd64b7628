//go:build linux && (amd64 || arm64)

package disk

import (
	"os"
	"syscall"
)

// syncFileRangeWrite is SYNC_FILE_RANGE_WRITE of sync_file_range(2).
const syncFileRangeWrite = 2

// StartWriting asks the system to begin writing n bytes of f from off to the
// disk, and waits for none of it: a hint that makes the sync at the end short.
func StartWriting(f *os.File, off, n int64) {
	_ = syscall.SyncFileRange(int(f.Fd()), off, n, syncFileRangeWrite)
}
