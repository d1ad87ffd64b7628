package meta_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/pgtest"
)

// engines runs a benchmark on each engine, with commits that reach the disk.
func engines(b *testing.B, run func(b *testing.B, db *meta.DB)) {
	for name, options := range map[string]func(b *testing.B) meta.Options{
		"sqlite":   func(b *testing.B) meta.Options { return meta.Options{Path: filepath.Join(b.TempDir(), "berth.db")} },
		"postgres": func(b *testing.B) meta.Options { return meta.Options{Postgres: pgtest.Start(b, true).URL("postgres")} },
	} {
		b.Run(name, func(b *testing.B) {
			db, err := meta.Open(b.Context(), options(b))
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			b.ResetTimer()
			run(b, db)
		})
	}
}

// BenchmarkPush pushes images of one new blob, many clients at a time, so that
// what a push costs besides waiting for the disk shows.
func BenchmarkPush(b *testing.B) {
	engines(b, func(b *testing.B, db *meta.DB) {
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
	})
}

// BenchmarkPushApart is BenchmarkPush with a project for each client.
func BenchmarkPushApart(b *testing.B) {
	engines(b, func(b *testing.B, db *meta.DB) {
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			repo := fmt.Sprintf("p%s/app", uuid.NewString())
			for pb.Next() {
				if err := pushImage(b, db, repo); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

// BenchmarkManifest reads a manifest by its tag, many clients at a time.
func BenchmarkManifest(b *testing.B) {
	engines(b, func(b *testing.B, db *meta.DB) {
		if err := pushImage(b, db, "team/app"); err != nil {
			b.Fatal(err)
		}
		b.SetParallelism(16)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := db.Manifest(b.Context(), "team/app", oci.TagRef("latest")); err != nil {
					b.Error(err)
					return
				}
			}
		})
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
