package disk

import (
	"os"
	"syscall"
)

// SyncData makes a file's bytes and size durable, but not its times: syncing
// those too would commit the file system's journal every time.
func SyncData(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
