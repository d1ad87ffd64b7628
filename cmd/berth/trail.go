package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/apiclient"
	"github.com/berth-registry/berth/internal/app"
	"github.com/berth-registry/berth/internal/notation"
)

const (
	followEvery = time.Second
	// lateness is how much later than another an event may come to light that
	// happened before it: they are written in batches, by several replicas.
	lateness = 30 * time.Second
)

func newAudit(s app.Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:   "audit",
		Short: "Read the audit trail",
		Long: `Read the audit trail: who did what, and what was refused. The events of a project
are for its maintainers, all of them for administrators.`,
		Example: `  berth audit tail --project acme
  berth audit export --since 30d --format csv > audit.csv`,
	}, newAuditTail(s), newAuditExport(s))
}

// trailFlags say which events are meant.
type trailFlags struct{ project, repository, identity, action, since, until string }

func (f *trailFlags) add(c *cobra.Command) {
	c.Flags().StringVarP(&f.project, "project", "p", "", "only those of the project `NAME`")
	c.Flags().StringVar(&f.repository, "repository", "", "only those of the repository `NAME`")
	c.Flags().StringVar(&f.identity, "identity", "", "only those of the `IDENTITY`, such as user:alice or robot:acme/ci")
	c.Flags().StringVar(&f.action, "action", "", "only those of the `ACTION`, such as manifest.read; with a dot at the end all that begin so")
	c.Flags().StringVar(&f.since, "since", "", "only those since a `TIME`: 2026-01-31, 2026-01-31T12:00:00Z, or 24h or 7d ago")
	c.Flags().StringVar(&f.until, "until", "", "only those before a `TIME`, written like that of --since")
}

// period reads --since and --until.
func (f *trailFlags) period(cl *client) (since, until *time.Time, err error) {
	now := time.Now()
	if since, err = parseInstant(f.since, now); err != nil {
		return nil, nil, cl.wrong("--since %w", err)
	}
	if until, err = parseInstant(f.until, now); err != nil {
		return nil, nil, cl.wrong("--until %w", err)
	}
	return since, until, nil
}

// parseInstant reads a time, or how long before now it is; nil for "".
func parseInstant(s string, now time.Time) (*time.Time, error) {
	if s == "" {
		return nil, nil
	}
	if d, err := notation.ParseDuration(s); err == nil {
		return new(now.Add(-d).UTC()), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly, "2006-01-02T15:04", time.DateTime} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return new(t.UTC()), nil
		}
	}
	return nil, fmt.Errorf("must be a time such as 2026-01-31 or 2026-01-31T12:00:00Z, or how long ago, such as 24h or 7d, not %.64q", s)
}

// trail is one `berth audit tail`.
type trail struct {
	*client
	trailFlags
	lines  int
	follow bool
	seen   map[string]time.Time // ids of the latest events that were printed
	newest time.Time            // of them
}

func newAuditTail(s app.Streams) *cobra.Command {
	t := &trail{seen: map[string]time.Time{}}
	c := &cobra.Command{
		Use:   "tail",
		Short: "Print the latest events",
		Long: `Print the latest events, or with --since all from then on; the oldest comes first.
With -f wait for new ones and print them as they come. With --json each event is a
line.`,
		Example: `  berth audit tail -f --project acme
  berth audit tail --since 24h --action manifest.
  berth audit tail --identity user:alice --json`,
		Args: noArgs,
	}
	t.add(c)
	c.Flags().BoolVarP(&t.follow, "follow", "f", false, "wait for new events")
	c.Flags().IntVarP(&t.lines, "lines", "n", 20, "print the latest `N` events")
	return talks(c, s, func(ctx context.Context, cl *client, _ []string) error {
		t.client = cl
		if t.lines < 0 {
			return cl.wrong("-n %d: must not be less than nothing", t.lines)
		}
		return t.run(ctx)
	})
}

func (t *trail) run(ctx context.Context) error {
	since, until, err := t.period(t.client)
	if err != nil {
		return err
	}
	if since != nil {
		t.newest = *since
		err = t.forward(ctx, since, until)
	} else {
		err = t.latest(ctx, until)
	}
	if err != nil || !t.follow {
		return err
	}
	return t.wait(ctx, until)
}

// wait prints what comes until it is interrupted, which is how following ends.
func (t *trail) wait(ctx context.Context, until *time.Time) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		var since *time.Time
		if !t.newest.IsZero() {
			since = new(t.newest.Add(-lateness))
		}
		err := t.forward(ctx, since, until)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *trail) params(since, until *time.Time) *apiclient.ListAuditParams {
	return &apiclient.ListAuditParams{
		Project: given(t.project), Repository: given(t.repository), Identity: given(t.identity), Action: given(t.action),
		Since: since, Until: until, Limit: new(int64(pageSize)),
	}
}

// latest prints the latest events. One that is found later than a newer one was
// not there before: those that are, and were not asked for, count as printed.
func (t *trail) latest(ctx context.Context, until *time.Time) error {
	p := t.params(nil, until)
	p.Order = new(apiclient.Newest)
	var all []apiclient.Event
	for e, err := range pages[apiclient.Event](func(after *string) (*http.Response, error) {
		p.After = after
		return t.ListAudit(ctx, p)
	}) {
		if err != nil {
			return err
		}
		t.newest = later(t.newest, e.Time)
		late := t.newest.Sub(e.Time) <= lateness
		if late {
			t.remember(e)
		}
		if len(all) < t.lines {
			all = append(all, e)
		} else if !t.follow || !late {
			break
		}
	}
	slices.Reverse(all)
	for _, e := range all {
		if err := t.write(e); err != nil {
			return err
		}
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// forward prints the events of a time that were not printed yet, the oldest first.
func (t *trail) forward(ctx context.Context, since, until *time.Time) error {
	p := t.params(since, until)
	for e, err := range pages[apiclient.Event](func(after *string) (*http.Response, error) {
		p.After = after
		return t.ListAudit(ctx, p)
	}) {
		if err == nil {
			err = t.print(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// print writes an event that was not written yet.
func (t *trail) print(e apiclient.Event) error {
	if _, again := t.seen[e.Id]; again {
		return nil
	}
	if t.follow {
		t.remember(e)
	}
	return t.write(e)
}

// remember keeps what the next look may find again.
func (t *trail) remember(e apiclient.Event) {
	t.seen[e.Id] = e.Time
	if !e.Time.After(t.newest) {
		return
	}
	t.newest = e.Time
	for id, at := range t.seen {
		if t.newest.Sub(at) > lateness {
			delete(t.seen, id)
		}
	}
}

func (t *trail) write(e apiclient.Event) error {
	if t.json {
		return writeLine(t.w, e)
	}
	_, err := fmt.Fprintln(t.w, printable(eventLine(e)))
	return err
}

// eventLine is an event for people: when, who, what, where, with what outcome.
func eventLine(e apiclient.Event) string {
	where := or(value(e.Repository), value(e.Project))
	switch at := or(value(e.Reference), value(e.Digest)); {
	case at == "" || at == where:
	case value(e.Repository) == "":
		where = strings.TrimSpace(where + " " + at)
	case value(e.Reference) == "":
		where += "@" + at
	default:
		where += ":" + at
	}
	return strings.TrimRight(fmt.Sprintf("%s  %-20s  %-16s  %3d  %s  %s", e.Time.Local().Format(time.DateTime),
		or(value(e.Identity), "anonymous"), e.Action, e.Status, or(where, "-"), value(e.Reason)), " ")
}

func newAuditExport(s app.Streams) *cobra.Command {
	var f trailFlags
	var format, file string
	c := &cobra.Command{
		Use:   "export",
		Short: "Export the audit trail",
		Long: `Export the audit trail, or a part of it, the oldest event first: as JSON lines
(jsonl) or CSV, in which no cell is a formula to a spreadsheet.`,
		Example: `  berth audit export --format csv --since 30d > audit.csv
  berth audit export --project acme --output acme.jsonl`,
		Args: noArgs,
	}
	f.add(c)
	c.Flags().StringVar(&format, "format", "jsonl", "`jsonl` or csv")
	c.Flags().StringVarP(&file, "output", "o", "", "write to `FILE`, not to standard output")
	return talks(c, s, func(ctx context.Context, cl *client, _ []string) error {
		since, until, err := f.period(cl)
		if err != nil {
			return err
		}
		resp, err := cl.ExportAudit(ctx, &apiclient.ExportAuditParams{
			Project: given(f.project), Repository: given(f.repository), Identity: given(f.identity), Action: given(f.action),
			Since: since, Until: until, Format: given(apiclient.ExportAuditParamsFormat(format)),
		})
		if err != nil {
			return unreachable(err)
		}
		defer resp.Body.Close()
		if err := problemOf(resp); err != nil {
			return err
		}
		return export(cl.w, file, resp.Body)
	})
}

// export copies an export to a file, or to w.
func export(w io.Writer, file string, from io.Reader) error {
	if file != "" {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := export(f, "", from); err != nil {
			return err
		}
		return f.Close()
	}
	if _, err := io.Copy(w, from); err != nil {
		return fmt.Errorf("the export was cut off and is not complete: %w; try again, or take a part of it with --since and --until", err)
	}
	return nil
}
