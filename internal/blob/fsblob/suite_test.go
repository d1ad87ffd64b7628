package fsblob

import (
	"testing"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/blobtest"
)

func newStore(t testing.TB, root string) *Store {
	t.Helper()
	s, err := New(root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	blobtest.Options{
		Reopen: func(t *testing.T, s blob.Store) blob.Store { return newStore(t, s.(*Store).root) },
	}.Run(t, func(t *testing.T) blob.Store { return newStore(t, t.TempDir()) })
}
