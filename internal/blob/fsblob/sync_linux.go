package fsblob

import (
	"os"
	"syscall"
)

// syncData makes a file's bytes and size durable, not its times.
func syncData(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
