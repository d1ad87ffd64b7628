package app

import (
	"context"
	"log/slog"
	"sync"

	"github.com/berth-registry/berth/internal/config"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/jobs"
)

// collectJob is the name of the job that frees what is due.
const collectJob = "gc"

// collecting is that job.
func collecting(c *config.Config, st *store, log *slog.Logger) jobs.Job {
	return jobs.Job{Name: collectJob, Every: c.GC.Interval, Run: func(ctx context.Context) (any, error) {
		st.tally.begin(func(sum hosted.Collected) { jobs.Report(ctx, sum) })
		got, err := st.registry.Collect(ctx)
		if got != (hosted.Collected{}) {
			log.Info("collected", "manifests", got.Manifests, "referrers", got.Referrers, "links", got.Links, "objects", got.Objects,
				"bytes", got.Bytes, "uploads", got.Uploads, "projects", got.Projects, "swept", got.Swept)
		}
		return got, err
	}}
}

// tally adds up what the collection under way has removed.
type tally struct {
	mu   sync.Mutex
	sum  hosted.Collected
	tell func(hosted.Collected)
}

func (t *tally) begin(tell func(hosted.Collected)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum, t.tell = hosted.Collected{}, tell
}

func (t *tally) add(more hosted.Collected) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum.Add(more)
	if t.tell != nil {
		t.tell(t.sum)
	}
}
