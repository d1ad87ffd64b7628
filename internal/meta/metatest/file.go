package metatest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/berth-registry/berth/internal/meta"
)

// File is the path of a new database in a folder of the test's own. It is a copy
// of one that is made once: with the race detector, making the schema takes
// longer than most tests.
func File(t testing.TB) string {
	t.Helper()
	content, err := empty()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "berth.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// empty is the content of a database without any.
var empty = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "berth-meta-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "berth.db")
	db, err := meta.Open(context.Background(), meta.Options{Path: path})
	if err != nil {
		return nil, err
	}
	if err := db.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})
