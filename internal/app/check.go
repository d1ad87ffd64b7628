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
)

// ErrFindings says that an integrity check was finished and found something.
var ErrFindings = errors.New("the store is not whole")

// CheckOptions of Check.
type CheckOptions struct {
	// Share of the blobs whose bytes are read and hashed anew, from 0 to 1.
	Share  float64
	Repair bool
}

// openExisting opens the database beside a server that may be running.
func openExisting(ctx context.Context, c *config.Config) (*meta.DB, error) {
	o := databaseOf(c)
	o.Existing, o.Shared = true, true
	return meta.Open(ctx, o)
}

// Check holds the store's rows against its bytes and prints what is wrong. It
// takes no lock, so that it works beside a running server.
func Check(ctx context.Context, c *config.Config, o CheckOptions, s Streams) error {
	db, err := openExisting(ctx, c)
	if err != nil {
		return err
	}
	defer db.Close()
	blobs, err := openBlobs(ctx, c)
	if err != nil {
		return err
	}
	findings, left := 0, 0
	meter := &progressLine{line: newLine(s.Err), read: o.Share > 0}
	checker := &hosted.Checker{
		DB: db, Blobs: blobs, Share: o.Share, Repair: o.Repair, Progress: meter.show,
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
		done.Manifests, done.Blobs, o.extent(done.BlobBytes), findings, findings-left)
	switch {
	case findings == 0:
		return nil
	case !o.Repair:
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

// extent says what was looked at.
func (o CheckOptions) extent(read int64) string {
	if o.Share == 0 {
		return "existence and sizes"
	}
	return size(read) + " read"
}

// progressLine shows how far a check is.
type progressLine struct {
	*line
	read bool // bytes too
	last hosted.Progress
}

func (m *progressLine) show(p hosted.Progress) {
	m.last = p
	m.line.show(func() string {
		text := fmt.Sprintf("manifests %d/%d, blobs %d/%d", p.Done.Manifests, p.Total.Manifests, p.Done.Blobs, p.Total.Blobs)
		if m.read {
			text += fmt.Sprintf(", %s of %s", size(p.Done.BlobBytes), size(p.Total.BlobBytes))
		}
		return text
	})
}

// line is a line of a terminal that is written again and again. Anywhere else
// nothing is.
type line struct {
	w     io.Writer // nil: not a terminal
	shown time.Time
}

func newLine(w io.Writer) *line {
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return &line{w: w}
		}
	}
	return &line{}
}

// show writes a text in place of the last, a few times in a second at most.
func (l *line) show(text func() string) {
	if l.w == nil || time.Since(l.shown) < 200*time.Millisecond {
		return
	}
	l.shown = time.Now()
	fmt.Fprint(l.w, "\r\x1b[K", text())
}

func (l *line) clear() {
	if l.w != nil && !l.shown.IsZero() {
		fmt.Fprint(l.w, "\r\x1b[K")
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
