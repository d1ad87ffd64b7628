package meta_test

import (
	"path/filepath"
	"testing"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
)

// open opens a database that ends with the test.
func open(t *testing.T, o meta.Options) *meta.DB {
	t.Helper()
	db, err := meta.Open(t.Context(), o)
	if err != nil {
		t.Fatalf("open a database: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestSQLiteConforms(t *testing.T) {
	metatest.Run(t, func(t *testing.T, o meta.Options) *meta.DB {
		o.Path = filepath.Join(t.TempDir(), "berth.db")
		return open(t, o)
	})
}
