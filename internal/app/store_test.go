package app

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpenStoreMakesWhatIsMissing(t *testing.T) {
	elsewhere := t.TempDir()
	c := settings(t, map[string]string{
		"metadata.sqlite.path": filepath.Join(elsewhere, "meta", "berth.db"),
		"storage.folder.path":  filepath.Join(elsewhere, "bytes", "blobs"),
	})
	opened(t, c)
	for _, name := range []string{filepath.Join(c.Data, "berth.lock"), c.Metadata.SQLite.Path, c.Storage.Folder.Path} {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
}

// The kernel counts a lock per opened file, so one process can be both sides.
func TestDataFolderHasOneOwner(t *testing.T) {
	c := settings(t, nil)
	first := opened(t, c)
	_, err := openStore(t.Context(), c)
	if err == nil {
		t.Fatal("two stores are open on one data folder")
	}
	for _, want := range []string{c.Data, fmt.Sprintf("pid %d ", os.Getpid()), "--data"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	first.close()
	opened(t, c)
}

// Two data folders must not lead to one database or one folder of blobs either.
func TestSharedPartsHaveOneOwner(t *testing.T) {
	for _, key := range []string{"metadata.sqlite.path", "storage.folder.path"} {
		shared := map[string]string{key: filepath.Join(t.TempDir(), "shared")}
		opened(t, settings(t, shared))
		if st, err := openStore(t.Context(), settings(t, shared)); err == nil {
			st.close()
			t.Errorf("two stores share %s", key)
		}
	}
}

func TestOneFolderForAll(t *testing.T) {
	c := settings(t, nil)
	link := c.Data + ".link"
	if err := os.Symlink(c.Data, link); err != nil {
		t.Fatal(err)
	}
	c.Storage.Folder.Path, c.Metadata.SQLite.Path = c.Data, filepath.Join(link, "berth.db")
	opened(t, c)
}
