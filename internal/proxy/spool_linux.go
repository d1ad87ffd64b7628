package proxy

import (
	"os"
	"strconv"
	"syscall"
)

// reopen opens a file once more, also one without a name: it has a place of its
// own there.
func reopen(f *os.File) (*os.File, error) {
	return os.Open("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
}

// roomIn is how many bytes can be written into a folder, of how many that its
// disk has.
func roomIn(folder string) (free, all int64, known bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(folder, &st); err != nil {
		return 0, 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize), true
}
