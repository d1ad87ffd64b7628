package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/config"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/metrics"
)

// ErrFindings says that an integrity check was finished and found something.
var ErrFindings = errors.New("the store is not whole")

// Check holds the store's rows against its bytes and prints what is wrong. It
// takes no lock, so that it works beside a running server.
func Check(ctx context.Context, c *config.Config, repair bool, s Streams) error {
	db, err := meta.Open(ctx, meta.Options{
		Path: c.Metadata.SQLite.Path, Postgres: c.Metadata.Postgres.URL, Existing: true, Shared: true,
	})
	if err != nil {
		return err
	}
	defer db.Close()
	blobs, err := openBlobs(ctx, c, metrics.New())
	if err != nil {
		return err
	}
	findings, left := 0, 0
	meter := newMeter(s.Err)
	checker := &hosted.Checker{
		DB: db, Blobs: blobs, Repair: repair, Progress: meter.show,
		Report: func(f hosted.Finding) {
			findings++
			if f.Repaired == "" {
				left++
			}
			meter.clear()
			fmt.Fprintln(s.Out, describe(f))
		},
	}
	err = checker.Run(ctx)
	meter.clear()
	if err != nil {
		return fmt.Errorf("the check could not be finished: %w", err)
	}
	done := meter.last.Done
	fmt.Fprintf(s.Out, "checked %d manifests and %d blobs (%s): %d problems, %d repaired\n",
		done.Manifests, done.Blobs, size(done.BlobBytes), findings, findings-left)
	switch {
	case findings == 0:
		return nil
	case !repair:
		return fmt.Errorf("%w: %d problems; `berth check --repair` mends what can be mended", ErrFindings, findings)
	}
	return fmt.Errorf("%w: %d problems were found, %d of them repaired", ErrFindings, findings, findings-left)
}

func describe(f hosted.Finding) string {
	var b strings.Builder
	if len(f.Repositories) > 0 {
		b.WriteString(strings.Join(f.Repositories, ",") + " ")
	}
	if f.Digest != "" {
		b.WriteString(f.Digest.String() + " ")
	}
	b.WriteString(f.Problem)
	if f.Repaired != "" {
		b.WriteString(" [repaired: " + f.Repaired + "]")
	}
	return b.String()
}

// meter shows progress on a terminal, and nothing anywhere else.
type meter struct {
	w     io.Writer // nil: not a terminal
	shown time.Time
	last  hosted.Progress
}

func newMeter(w io.Writer) *meter {
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return &meter{w: w}
		}
	}
	return &meter{}
}

func (m *meter) show(p hosted.Progress) {
	m.last = p
	if m.w == nil || time.Since(m.shown) < 200*time.Millisecond {
		return
	}
	m.shown = time.Now()
	fmt.Fprintf(m.w, "\r\x1b[Kmanifests %d/%d, blobs %d/%d, %s of %s", p.Done.Manifests, p.Total.Manifests,
		p.Done.Blobs, p.Total.Blobs, size(p.Done.BlobBytes), size(p.Total.BlobBytes))
}

func (m *meter) clear() {
	if m.w != nil && !m.shown.IsZero() {
		fmt.Fprint(m.w, "\r\x1b[K")
	}
}

// size writes a number of bytes for people.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1024 && unit < len(units)-1 {
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[unit])
}
