package meta_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/pgtest"
)

// TestPostgresCrashKeepsNotes: no crash leaves a manifest that came from upstream
// without its note, also where it comes between the two and the manifest is put
// when the server is back.
func TestPostgresCrashKeepsNotes(t *testing.T) {
	const repo = "hub/app"
	s := pgtest.Start(t, true)
	db := open(t, meta.Options{Postgres: s.URL("postgres"), Timeout: 5 * time.Second})
	put(t, db, repo)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var fetched atomic.Int64
	var clients sync.WaitGroup
	for c := range 8 {
		clients.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				err := fetchAgain(t.Context(), db, repo, fmt.Sprintf("%d-%d", c, i))
				switch {
				case err == nil:
					fetched.Add(1)
				case errors.Is(err, meta.ErrUnavailable):
					time.Sleep(5 * time.Millisecond)
				default:
					t.Errorf("fetch: %v", err)
				}
			}
		})
	}
	for range 3 {
		before := fetched.Load()
		for limit := time.Now().Add(20 * time.Second); fetched.Load() < before+50; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("nothing is fetched any more")
			}
		}
		s.Kill()
		s.Restart(t)
	}
	stop()
	clients.Wait()
	found := 0
	for after := ""; ; {
		tags, err := db.Tags(t.Context(), repo, after, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(tags) == 0 {
			break
		}
		for _, tag := range tags {
			m, err := db.Resolve(t.Context(), repo, oci.TagRef(tag))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.ProxyManifest(t.Context(), repo, m.Digest); tag[0] == 'f' && err != nil {
				t.Errorf("the note of %s: %v", tag, err)
			}
			found++
		}
		after = tags[len(tags)-1]
	}
	if found < 150 {
		t.Errorf("only %d manifests were looked at", found)
	}
}

// fetchAgain notes a manifest and puts it.
func fetchAgain(ctx context.Context, db *meta.DB, repo, name string) error {
	d, now := oci.SHA256.FromBytes([]byte(name)), time.Now()
	if err := db.SaveProxyManifest(ctx, meta.ProxyManifest{Proxy: "hub", Repository: repo, Digest: d, FetchedAt: now, UsedAt: now}); err != nil {
		return err
	}
	return db.PutManifest(ctx, meta.PutManifest{Repository: repo, Digest: d, Content: []byte(name), Parsed: &oci.Manifest{}, Tags: []string{"f" + name}})
}
