package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/notation"
)

// durationFlag is a flag such as 90d or 12h; zero where it was not given.
type durationFlag time.Duration

func (d *durationFlag) String() string { return "" }
func (d *durationFlag) Type() string   { return "duration" }

func (d *durationFlag) Set(s string) error {
	v, err := notation.ParseDuration(s)
	if err == nil && v == 0 {
		err = fmt.Errorf("must be more than nothing")
	}
	*d = durationFlag(v)
	return err
}

// units of sizes, the largest first.
var units = []struct {
	name string
	n    int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

// parseSize reads 10GiB, 500MB or a plain number of bytes. unit reports whether
// one was given.
func parseSize(s string) (n int64, unit bool, err error) {
	number, factor := strings.TrimSpace(s), int64(1)
	for _, u := range units {
		if rest, ok := cutUnit(number, u.name); ok {
			number, factor, unit = rest, u.n, true
			break
		}
	}
	n, err = strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return 0, false, fmt.Errorf("must be a whole number such as 500MB or 10GiB, not %.64q", s)
	}
	return n * factor, unit, nil
}

func cutUnit(s, unit string) (number string, ok bool) {
	at := len(s) - len(unit)
	if at <= 0 || !strings.EqualFold(s[at:], unit) {
		return s, false
	}
	return strings.TrimSpace(s[:at]), true
}

// sizeFlag is a flag such as 10GiB; nil where it was not given.
type sizeFlag struct{ n *int64 }

func (f *sizeFlag) String() string { return "" }
func (f *sizeFlag) Type() string   { return "size" }

func (f *sizeFlag) Set(s string) error {
	if s == "none" {
		f.n = new(int64)
		return nil
	}
	n, _, err := parseSize(s)
	f.n = &n
	return err
}

// formatSize is a size as people read it.
func formatSize(n int64) string {
	for _, u := range units[:4] {
		if n >= u.n {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.n), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// formatBound is formatSize where 0 means that there is none.
func formatBound(n int64) string {
	if n == 0 {
		return "none"
	}
	return formatSize(n)
}

// rate is one --rate.
type rate struct {
	per, unit, window string
	amount            int64
}

var (
	ratePers    = []string{"address", "identity", "key", "project", "organization"}
	rateWindows = []string{"minute", "hour", "day"}
)

// parseRate reads PER=AMOUNT/WINDOW: identity=600/minute counts requests,
// project=10GiB/day counts bytes.
func parseRate(s string) (r rate, err error) {
	per, rest, ok := strings.Cut(s, "=")
	amount, window, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 {
		return r, fmt.Errorf("must be like identity=600/minute or project=10GiB/day, not %.64q", s)
	}
	if !slices.Contains(ratePers, per) {
		return r, fmt.Errorf("%.64q: count per %s", per, strings.Join(ratePers, ", "))
	}
	if !slices.Contains(rateWindows, window) {
		return r, fmt.Errorf("%.64q: choose a %s", window, strings.Join(rateWindows, ", "))
	}
	n, isSize, err := parseSize(amount)
	if err != nil {
		return r, err
	}
	if n == 0 {
		return r, fmt.Errorf("%.64q lets nothing through: use a larger amount", s)
	}
	r = rate{per: per, unit: "requests", window: window, amount: n}
	if isSize {
		r.unit = "bytes"
	}
	return r, nil
}

// String is what parseRate reads.
func (r rate) String() string {
	amount := strconv.FormatInt(r.amount, 10)
	if r.unit == "bytes" {
		amount = exactSize(r.amount)
	}
	return r.per + "=" + amount + "/" + r.window
}

// exactSize is a size in the largest unit that divides it.
func exactSize(n int64) string {
	for _, u := range units {
		if n >= u.n && n%u.n == 0 {
			return fmt.Sprintf("%d%s", n/u.n, u.name)
		}
	}
	return fmt.Sprintf("%dB", n)
}
