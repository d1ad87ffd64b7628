package fsblob

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/berth-registry/berth/internal/disk"
)

// TestDirSyncShares holds syncs up and lets callers gather behind them.
func TestDirSyncShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var syncs atomic.Int32
		release := make(chan error)
		d := dirSyncer{fsync: func(string) error {
			syncs.Add(1)
			return <-release
		}}
		call := func() <-chan error {
			done := make(chan error, 1)
			go func() { done <- d.sync("dir") }()
			synctest.Wait()
			return done
		}
		ended := func(who string, done <-chan error, want error) {
			t.Helper()
			select {
			case err := <-done:
				if err != want {
					t.Errorf("%s: %v, want %v", who, err, want)
				}
			default:
				t.Errorf("%s still waits", who)
			}
		}
		finish := func(err error, n int32) {
			t.Helper()
			release <- err
			synctest.Wait()
			if got := syncs.Load(); got != n {
				t.Fatalf("%d syncs have begun, want %d", got, n)
			}
		}

		leader := call()
		b, c := call(), call()
		if n := syncs.Load(); n != 1 {
			t.Fatalf("%d syncs have begun, want 1", n)
		}
		finish(nil, 2) // b and c came after the first had begun: it does not cover them
		ended("leader", leader, nil)
		if len(b) != 0 || len(c) != 0 {
			t.Error("a caller was served by a sync that began before it asked")
		}
		late := call()
		broken := errors.New("broken disk")
		finish(broken, 3)
		ended("b", b, broken)
		ended("c", c, broken)
		finish(nil, 3)
		ended("late", late, nil)

		alone := call()
		finish(nil, 4)
		ended("alone", alone, nil)
		if len(d.dirs) != 0 {
			t.Errorf("%d folders are still remembered", len(d.dirs))
		}
	})
}

// TestDirSyncFoldersApart lets one folder's sync hang: another's must not.
func TestDirSyncFoldersApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		d := dirSyncer{fsync: func(dir string) error {
			if dir == "slow" {
				<-release
			}
			return nil
		}}
		slow := make(chan error, 1)
		go func() { slow <- d.sync("slow") }()
		synctest.Wait()
		if err := d.sync("quick"); err != nil {
			t.Error(err)
		}
		if len(slow) != 0 {
			t.Error("the slow sync did not wait")
		}
		close(release)
		if err := <-slow; err != nil {
			t.Error(err)
		}
	})
}

func TestSyncDirMissing(t *testing.T) {
	if err := disk.SyncFolder(t.TempDir() + "/missing"); err == nil {
		t.Error("a missing folder was synced")
	}
}
