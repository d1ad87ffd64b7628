package app

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/config"
	"github.com/berth-registry/berth/internal/hosted"
)

// CollectDry prints what collection would remove, now or later, and why; nothing
// is changed. As JSON it is one object a line.
func CollectDry(ctx context.Context, c *config.Config, asJSON bool, s Streams) error {
	db, err := openExisting(ctx, c)
	if err != nil {
		return err
	}
	defer db.Close()
	// Nothing is asked of the blob store: what goes is known from rows alone.
	caches, err := cachesOf(ctx, c, db)
	if err != nil {
		return err
	}
	r := hosted.New(db, nil, registryOptions(c, func(repo string) bool { return caches[access.ProjectOf(repo)] }))
	p := &plan{w: s.Out, now: time.Now(), sums: map[string]*planSum{}}
	for candidate, err := range r.Candidates(ctx) {
		if err != nil {
			return err
		}
		if asJSON {
			candidate.Due = candidate.Due.UTC()
			err = writeJSONLine(s.Out, candidate)
		} else {
			err = p.print(candidate)
		}
		if err != nil {
			return err
		}
	}
	if asJSON {
		return nil
	}
	return p.totals()
}

// plan prints candidates for people, under a headline for each kind.
type plan struct {
	w     io.Writer
	now   time.Time
	kinds []string
	sums  map[string]*planSum
}

type planSum struct {
	now, later           int
	bytesNow, bytesLater int64
}

// headlines of the kinds that hosted.Candidate has.
var headlines = map[string]string{
	"project":  "Deleted projects, with all that they have",
	"upload":   "Upload sessions",
	"manifest": "Manifests",
	"referrer": "Referrers: signatures, SBOMs and others that name a subject",
	"link":     "Blobs that no manifest names",
	"object":   "Bytes that nothing names any more",
}

func (p *plan) print(c hosted.Candidate) error {
	sum := p.sums[c.Kind]
	if sum == nil {
		sum = &planSum{}
		p.sums[c.Kind] = sum
		p.kinds = append(p.kinds, c.Kind)
		title := headlines[c.Kind]
		if title == "" {
			title = c.Kind
		}
		if len(p.kinds) > 1 {
			fmt.Fprintln(p.w)
		}
		fmt.Fprintf(p.w, "%s\n", title)
	}
	due := "now"
	if c.Due.After(p.now) {
		due = clock(c.Due)
		sum.later++
		sum.bytesLater += c.Bytes
	} else {
		sum.now++
		sum.bytesNow += c.Bytes
	}
	_, err := fmt.Fprintf(p.w, "  %-19s %11s  %s\n%36s%s\n", due, size(c.Bytes), what(c), "", c.Why)
	return err
}

// what names a candidate.
func what(c hosted.Candidate) string {
	name := c.Repository
	switch {
	case c.Digest != "" && name != "":
		name += "@" + c.Digest.String()
	case c.Key != "" && name != "":
		name += " " + c.Key
	case c.Key != "":
		name = c.Key
	}
	return name
}

func (p *plan) totals() error {
	if len(p.kinds) == 0 {
		_, err := fmt.Fprintln(p.w, "There is nothing to collect, now or later.")
		return err
	}
	fmt.Fprintf(p.w, "\n%-10s %8s %11s %8s %11s\n", "Total", "now", "", "later", "")
	line := func(name string, s planSum) error {
		_, err := fmt.Fprintf(p.w, "%-10s %8d %11s %8d %11s\n", name, s.now, size(s.bytesNow), s.later, size(s.bytesLater))
		return err
	}
	for _, kind := range p.kinds {
		s := *p.sums[kind]
		if err := line(kind+"s", s); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(p.w, "\nBytes in the store go when their objects do: a blob's object follows the last manifest\nand repository that has it. What comes to be held until it is due stays.")
	return err
}
