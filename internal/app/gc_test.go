package app

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/jobs"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// TestCollectNowOnPostgres: a replica on the same database collects, wherever it
// runs; where there is none, this process does under the lease.
func TestCollectNowOnPostgres(t *testing.T) {
	keys := map[string]string{"metadata.postgres.url": metatest.URL(t), "storage.folder.path": t.TempDir(), "gc.interval": "1h", "gc.unreferenced_after": "1s"}
	c := settings(t, keys)
	st := opened(t, c)
	content := []byte("nobody's")
	u, err := st.registry.StartUpload(t.Context(), "team/app", registry.UploadOptions{})
	if err == nil {
		_, err = u.Commit(t.Context(), 0, bytes.NewReader(content), oci.SHA256.FromBytes(content))
	}
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // until it may go
	st.close()

	now := func(ctx context.Context, c map[string]string) (hosted.Collected, error) {
		var out, log bytes.Buffer
		err := CollectNow(ctx, settings(t, c), true, Streams{&out, &log})
		var r collectionRun
		if err == nil {
			if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Removed == nil || r.Running {
				t.Fatalf("%s: %v", &out, err)
			}
			return *r.Removed, nil
		}
		return hosted.Collected{}, err
	}
	begun := time.Now()
	got, err := now(t.Context(), keys)
	if want := (hosted.Collected{Links: 1, Objects: 1, Bytes: int64(len(content))}); got != want || err != nil {
		t.Errorf("collected %+v, %v; want %+v", got, err, want)
	}
	if time.Since(begun) < othersBegin {
		t.Error("no replica was waited for")
	}

	// A replica elsewhere, with folders of its own.
	site := siteOf(t, map[string]string{"metadata.postgres.url": keys["metadata.postgres.url"], "gc.interval": "1h"})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go site.jobs.Run(ctx)
	begun = time.Now()
	if got, err := now(t.Context(), keys); got != (hosted.Collected{}) || err != nil {
		t.Errorf("collected %+v, %v", got, err)
	}
	if time.Since(begun) >= othersBegin {
		t.Error("the replica was not asked")
	}
}

// TestCollectNowStopped: who stops waiting for a server does not stop it.
func TestCollectNowStopped(t *testing.T) {
	c := settings(t, map[string]string{"gc.interval": "1h"})
	st := opened(t, c) // a server that does not get to it
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	time.AfterFunc(500*time.Millisecond, cancel)
	err := CollectNow(ctx, c, false, Streams{&bytes.Buffer{}, &bytes.Buffer{}})
	if err == nil || !strings.Contains(err.Error(), "not waited for") {
		t.Errorf("%v", err)
	}
	j, err := jobs.Find(t.Context(), st.db, collectJob)
	if err != nil || j.DueAt.IsZero() || time.Now().Before(j.DueAt) {
		t.Errorf("the collection is not due: %+v, %v", j, err)
	}
}

// TestCollectionReports how far it is, batch by batch.
func TestCollectionReports(t *testing.T) {
	var told []hosted.Collected
	var sum tally
	sum.begin(func(c hosted.Collected) { told = append(told, c) })
	sum.add(hosted.Collected{Links: 1})
	sum.add(hosted.Collected{Objects: 2, Bytes: 7})
	sum.begin(func(c hosted.Collected) { told = append(told, c) })
	sum.add(hosted.Collected{Links: 5})
	want := []hosted.Collected{{Links: 1}, {Links: 1, Objects: 2, Bytes: 7}, {Links: 5}}
	if len(told) != 3 || told[0] != want[0] || told[1] != want[1] || told[2] != want[2] {
		t.Errorf("told %+v, want %+v", told, want)
	}
}

// TestUpkeep forgets what is old, and says how much.
func TestUpkeep(t *testing.T) {
	s := siteOf(t, nil)
	j := s.upkeeping()
	result, err := j.Run(t.Context())
	if n, ok := result.(forgotten); err != nil || !ok || n != (forgotten{}) {
		t.Errorf("%+v, %v", result, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := j.Run(ctx); err == nil {
		t.Error("it does not end with its context")
	}
}

// TestJobsOfAServer: collection and upkeep run in a server.
func TestJobsOfAServer(t *testing.T) {
	s := siteOf(t, nil)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go s.jobs.Run(ctx)
	for _, name := range []string{collectJob, "upkeep"} {
		j, err := jobs.Await(t.Context(), s.store.db, name, 0, nil)
		if err != nil || j.Failure != "" {
			t.Errorf("%s: %+v, %v", name, j, err)
		}
	}
}
