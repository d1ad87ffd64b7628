package fsblob

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/berth-registry/berth/internal/disk"
)

// TestDirSyncBeginsAfterTheCall has many callers sync a real folder that comes
// and goes. A sync of an absent folder fails: a caller that got the outcome of a
// sync begun before it asked would see success while the folder was away, or a
// failure while it was there.
func TestDirSyncBeginsAfterTheCall(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "here")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	d := dirSyncer{fsync: disk.SyncFolder}
	var moves atomic.Int64 // 0 of 4: here; 2 of 4: away; odd: in between
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				before := moves.Load()
				err := d.sync(dir)
				if moves.Load() != before || before%2 == 1 {
					continue // the folder moved during the call: either is right
				}
				if here := before%4 == 0; here != (err == nil) {
					t.Errorf("the folder was there throughout the call: %t; sync: %v", here, err)
				}
			}
		})
	}
	for from, to := dir, dir+"-away"; moves.Load() < 4*200; from, to = to, from {
		moves.Add(1)
		if err := os.Rename(from, to); err != nil {
			t.Error(err)
		}
		moves.Add(1)
		for range 3 { // long enough for calls to begin and end in this state
			if err := disk.SyncFolder(to); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	callers.Wait()
}
