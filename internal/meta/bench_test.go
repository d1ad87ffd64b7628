package meta_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

// BenchmarkPush pushes images of one new blob, many clients at a time, so that
// what a push costs besides waiting for the disk shows.
func BenchmarkPush(b *testing.B) {
	db, err := meta.Open(b.Context(), meta.Options{Path: filepath.Join(b.TempDir(), "berth.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		repo := fmt.Sprintf("team/%s", uuid.NewString())
		for pb.Next() {
			if err := pushImage(b, db, repo); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func pushImage(b *testing.B, db *meta.DB, repo string) error {
	id := uuid.NewString()
	u := meta.Upload{ID: id, Repository: repo, Algorithm: oci.SHA256, Size: 10, Hash: []byte{}}
	if err := db.CreateUpload(b.Context(), u); err != nil {
		return err
	}
	u, err := db.LeaseUpload(b.Context(), repo, id, time.Minute)
	if err != nil {
		return err
	}
	d := oci.SHA256.FromBytes([]byte(id))
	if _, err := db.CommitBlob(b.Context(), u, d); err != nil {
		return err
	}
	return db.PutManifest(b.Context(), meta.PutManifest{
		Repository: repo, Digest: oci.SHA256.FromBytes([]byte(id + "m")), Content: make([]byte, 500), Tags: []string{"latest"},
		Parsed: &oci.Manifest{MediaType: oci.MediaTypeImage, Blobs: []oci.Descriptor{{Digest: d, Size: 10}}},
	})
}
