package memblob_test

import (
	"testing"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/blobtest"
	"github.com/berth-registry/berth/internal/blob/memblob"
)

func TestStore(t *testing.T) {
	blobtest.Options{InMemory: true}.Run(t, func(*testing.T) blob.Store { return memblob.New() })
}
