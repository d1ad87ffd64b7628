package proxy

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/oci"
)

// TestFetcherIsBounded: what is to be fetched waits in a queue that drops what
// does not fit, and nothing waits in it twice.
func TestFetcherIsBounded(t *testing.T) {
	var f fetcher
	now := time.Now()
	job := func(i int) fetchJob { return fetchJob{here: "a/b", digest: oci.Digest(fmt.Sprint(i))} }
	for range 2 {
		for i := range 3 * maxQueued {
			f.add(job(i), now)
		}
	}
	if len(f.queue) != maxQueued || len(f.settled) != maxQueued {
		t.Fatalf("%d are queued, %d noted", len(f.queue), len(f.settled))
	}
	for i := range maxQueued {
		j, ok := f.take(t.Context())
		if !ok || j != job(i) {
			t.Fatalf("the %d. is %v, %v", i, j, ok)
		}
		f.settle(j, now.Add(time.Minute))
	}
	f.add(job(1), now)
	if len(f.queue) != 0 {
		t.Error("what was just done is queued again")
	}
	f.add(job(1), now.Add(time.Hour))
	if len(f.queue) != 1 {
		t.Error("what was done an hour ago is not queued again")
	}
	for i := range 3 * maxSettled {
		f.add(job(i), now)
		f.queue = nil
	}
	if len(f.settled) > maxSettled {
		t.Errorf("%d are remembered", len(f.settled))
	}
	f.queue = nil
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := f.take(ended); ok {
		t.Error("there is a job after the end")
	}
}
