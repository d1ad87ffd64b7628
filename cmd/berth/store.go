package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/app"
)

func newCheck(s app.Streams) *cobra.Command {
	var o app.CheckOptions
	var deep bool
	var sample string
	c := &cobra.Command{
		Use:   "check",
		Short: "Check that the store is whole",
		Long: `Hold the database against the folder or bucket of blobs, both ways: whether each
blob is there, and of its size, and whether there is anything that belongs to
nothing; and the database against itself, with each manifest's digest. No blob is
read: of a bucket, names and sizes are listed.

With --deep every byte of every blob is hashed anew; with --sample, that is done
with a share of the blobs, which is drawn by chance each time.

Each problem is printed on a line with its repository and digest. The exit status
is 1 when something is wrong. Running servers are not disturbed, and what comes
and goes meanwhile is looked at again before it is reported.

With --repair, a blob whose bytes are lost is taken out of service until a client
pushes it again, lost upload sessions are cancelled, and objects that belong to
nothing are deleted.`,
		Example: `  berth check
  berth check --sample 1%
  berth check --data /srv/berth --deep --repair
  berth check --config /etc/berth.yaml`,
		Args: noArgs,
	}
	st := loadedBy(c, dataFlag)
	c.Flags().BoolVar(&deep, "deep", false, "hash the bytes of every blob anew")
	c.Flags().StringVar(&sample, "sample", "", "hash a `SHARE` of the blobs anew, such as 1%")
	c.Flags().BoolVar(&o.Repair, "repair", false, "mend what can be mended")
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch {
		case deep && sample != "":
			return usageError{errors.New("choose one of --deep and --sample"), c.CommandPath()}
		case deep:
			o.Share = 1
		}
		if sample != "" {
			var err error
			if o.Share, err = parseShare(sample); err != nil {
				return usageError{fmt.Errorf("--sample %w", err), c.CommandPath()}
			}
		}
		conf, err := st.load(c)
		if err != nil {
			return err
		}
		return app.Check(c.Context(), conf, o, s)
	}
	return c
}

// parseShare reads a percentage as a number from 0 to 1.
func parseShare(text string) (float64, error) {
	number, ok := strings.CutSuffix(text, "%")
	v, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || math.IsNaN(v) || v <= 0 || v > 100 {
		return 0, fmt.Errorf("%q: give a percentage above 0%% and up to 100%%, such as 1%%", text)
	}
	return v / 100, nil
}

func newGC(s app.Streams) *cobra.Command {
	var dry, now, asJSON bool
	c := &cobra.Command{
		Use:   "gc",
		Short: "See and hasten garbage collection",
		Long: `Garbage collection runs by itself in every server, beside requests, one of all
replicas at a time. Without a flag, this prints when it ran last, what it removed,
and when it runs next.

--dry-run prints what it would remove, now or later, why, and how many bytes that
is; nothing is changed. With --json each is an object on a line of its own.

--now has a collection run at once and prints what was removed. A running server
does it; where there is none, this command does. Ctrl-C harms nothing.`,
		Example: `  berth gc
  berth gc --dry-run
  berth gc --dry-run --json --config /etc/berth.yaml | jq -s 'map(.bytes) | add'
  berth gc --now --data /srv/berth`,
		Args: noArgs,
	}
	st := loadedBy(c, dataFlag)
	c.Flags().BoolVar(&dry, "dry-run", false, "print what would be removed, and why")
	c.Flags().BoolVar(&now, "now", false, "collect at once")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if dry && now {
			return usageError{errors.New("choose one of --dry-run and --now"), c.CommandPath()}
		}
		conf, err := st.load(c)
		switch {
		case err != nil:
			return err
		case dry:
			return app.CollectDry(c.Context(), conf, asJSON, s)
		case now:
			return app.CollectNow(c.Context(), conf, asJSON, s)
		}
		return app.CollectionState(c.Context(), conf, asJSON, s)
	}
	return c
}

func newMigrate(s app.Streams) *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's schema up to date",
		Long: `Bring the database's schema up to date without serving. A server does that by
itself when it starts, one of all replicas at a time; this is for who wants it
done before. The release before goes on working with the new schema, so that
replicas can be replaced one by one. Back up first.

With --check nothing is changed: the exit status is 0 when the schema is up to
date, 1 when it is older, and 3 when a newer release made it, which this one, as
every other command, refuses to touch.`,
		Example: `  berth migrate --config /etc/berth.yaml
  berth migrate --check || echo not yet`,
		Args: noArgs,
	}
	st := loadedBy(c, dataFlag)
	c.Flags().BoolVar(&check, "check", false, "only say whether the schema is up to date")
	c.RunE = func(c *cobra.Command, _ []string) error {
		conf, err := st.load(c)
		if err != nil {
			return err
		}
		return app.Migrate(c.Context(), conf, check, s)
	}
	return c
}

// exitCode is that of a command which failed with err.
func exitCode(err error) int {
	switch {
	case errors.As(err, new(usageError)):
		return exitUsage
	case errors.Is(err, app.ErrNewer):
		return exitNewer
	}
	return exitFailure
}
