package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/berth-registry/berth/internal/config"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/jobs"
	"github.com/berth-registry/berth/internal/meta"
)

// ErrCollection says that a collection did not end well.
var ErrCollection = errors.New("the collection failed")

// CollectionState prints when the last collection was, what it removed, and when
// the next one is.
func CollectionState(ctx context.Context, c *config.Config, asJSON bool, s Streams) error {
	db, err := openExisting(ctx, c)
	if err != nil {
		return err
	}
	defer db.Close()
	j, err := jobs.Find(ctx, db, collectJob)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSONLine(s.Out, newRun(j))
	}
	t := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "Collection\truns by itself, %s after the last one, wherever a server runs\n", c.GC.Interval)
	if !j.LeaseUntil.IsZero() && time.Now().Before(j.LeaseUntil) {
		fmt.Fprintf(t, "Under way\tsince %s: %s so far\n", clock(j.StartedAt), removed(counted(j.Progress)))
	}
	switch {
	case j.Finished == 0:
		fmt.Fprintf(t, "Last run\tnone yet\n")
	case j.Failure != "":
		fmt.Fprintf(t, "Last run\tfailed at %s, %d in a row: %s\n", clock(j.FinishedAt), j.Failures, firstLine(j.Failure))
	default:
		fmt.Fprintf(t, "Last run\tended at %s: %s\n", clock(j.FinishedAt), removed(counted(j.Result)))
	}
	if !j.DueAt.IsZero() {
		fmt.Fprintf(t, "Next run\tdue at %s\n", clock(j.DueAt))
	}
	fmt.Fprintf(t, "\t\n\t`berth gc --dry-run` says what would go and why, `berth gc --now` collects at once.\n")
	return t.Flush()
}

// CollectNow has what is due collected now and prints what that came to: by a
// running server if there is one, else by this process.
func CollectNow(ctx context.Context, c *config.Config, asJSON bool, s Streams) error {
	db, err := openExisting(ctx, c)
	if err != nil {
		return err
	}
	defer db.Close()
	st, err := openStore(ctx, c)
	switch {
	case errors.Is(err, errInUse): // by a server: it collects
	case err != nil:
		return err
	default:
		defer st.close()
	}
	after, err := db.RequestJob(ctx, collectJob)
	if err != nil {
		return err
	}
	j, err := awaitCollection(ctx, c, db, st, after, s)
	if err != nil {
		return err
	}
	if asJSON {
		err = writeJSONLine(s.Out, newRun(j))
	} else {
		_, err = fmt.Fprintln(s.Out, removed(counted(j.Result)))
	}
	if err == nil && j.Failure != "" {
		err = fmt.Errorf("%w: %s", ErrCollection, firstLine(j.Failure))
	}
	return err
}

// How long a server may take to begin a collection.
const (
	othersBegin = 10 * time.Second // before this process does it itself
	serverBegin = time.Minute      // before it is given up
)

// awaitCollection waits for a run above a version. Where st is set this process
// may do it, at once where no other can.
func awaitCollection(ctx context.Context, c *config.Config, db *meta.DB, st *store, after int64, s Streams) (meta.Job, error) {
	show := newLine(s.Err)
	defer show.clear()
	begun := time.Now()
	patience := serverBegin
	switch {
	case st != nil && c.Metadata.Postgres.URL == "":
		patience = 0
	case st != nil:
		patience = othersBegin
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	own := make(chan struct{})
	trying := false
	j, err := jobs.Await(ctx, db, collectJob, after, func(j meta.Job) {
		show.show(func() string { return progressText(j, after) })
		switch {
		case trying || j.Version > after || time.Since(begun) < patience:
		case st == nil:
			stop(fmt.Errorf("%w: no server began it within %s; is an older release running?", ErrCollection, patience))
		default:
			trying = true
			go func() {
				defer close(own)
				runCollection(ctx, c, st, s)
			}()
		}
	})
	if trying { // gives the lease back
		stop(nil)
		<-own
	}
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrCollection) {
		return j, cause
	}
	switch {
	case errors.Is(err, context.Canceled) && trying:
		err = errors.New("stopped: what is removed is removed, the rest is for the next collection")
	case errors.Is(err, context.Canceled):
		err = errors.New("not waited for: the collection goes on where a server runs; see `berth gc`")
	}
	return j, err
}

// runCollection does the job in this process, under its lease.
func runCollection(ctx context.Context, c *config.Config, st *store, s Streams) {
	log, err := newLog(c, s.Err)
	if err != nil {
		return // Serve would not have begun
	}
	r := jobs.New(jobs.Options{Store: st.db, Log: log, Jobs: []jobs.Job{collecting(c, st, log)}})
	for ctx.Err() == nil {
		done, err := r.Try(ctx, collectJob)
		if done || err != nil {
			return
		}
		select { // another has it: its end is waited for, or it is killed
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func progressText(j meta.Job, after int64) string {
	if j.Version <= after || j.Progress == "" {
		return "collecting"
	}
	return "collecting: " + removed(counted(j.Progress))
}

// collectionRun is a run as JSON.
type collectionRun struct {
	Started  *time.Time        `json:"started,omitempty"`
	Finished *time.Time        `json:"finished,omitempty"`
	Next     *time.Time        `json:"next,omitempty"`
	Running  bool              `json:"running"`
	Removed  *hosted.Collected `json:"removed,omitempty"`
	Failure  string            `json:"failure,omitempty"`
}

func newRun(j meta.Job) collectionRun {
	r := collectionRun{Started: utc(j.StartedAt), Finished: utc(j.FinishedAt), Next: utc(j.DueAt),
		Running: time.Now().Before(j.LeaseUntil), Failure: j.Failure}
	if j.Result != "" {
		got := counted(j.Result)
		r.Removed = &got
	}
	return r
}

func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}

// counted is what a row says of a run; another release may say it otherwise.
func counted(text string) (c hosted.Collected) {
	_ = json.Unmarshal([]byte(text), &c)
	return c
}

// removed says in a line what a collection removed.
func removed(c hosted.Collected) string {
	var parts []string
	for _, p := range []struct {
		n         int
		one, many string
	}{
		{c.Projects, "project", "projects"}, {c.Uploads, "upload session", "upload sessions"},
		{c.Manifests, "manifest", "manifests"}, {c.Referrers, "referrer", "referrers"},
		{c.Links, "blob out of a repository", "blobs out of repositories"},
		{c.Objects, "object", "objects"}, {c.Swept, "piece that a crash left", "pieces that crashes left"},
	} {
		switch {
		case p.n == 1:
			parts = append(parts, "1 "+p.one)
		case p.n > 1:
			parts = append(parts, fmt.Sprint(p.n, " ", p.many))
		}
	}
	if len(parts) == 0 {
		return "nothing was to be removed"
	}
	return "removed " + strings.Join(parts, ", ") + "; freed " + size(c.Bytes)
}

func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func writeJSONLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
