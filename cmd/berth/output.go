package main

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"
	"text/tabwriter"
	"time"
)

// output prints what a command was asked for: for people, or as JSON.
type output struct {
	w    io.Writer
	json bool
}

// value prints v as JSON, or the text.
func (o output) value(v any, text func() error) error {
	if !o.json {
		return text()
	}
	enc := json.NewEncoder(o.w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// say prints v as JSON, or a sentence.
func (o output) say(v any, format string, args ...any) error {
	return o.value(v, func() error {
		_, err := fmt.Fprintf(o.w, format+"\n", args...)
		return err
	})
}

// fields prints v as JSON, or names and values; those without a value are left
// out.
func (o output) fields(v any, pairs ...[2]string) error {
	return o.value(v, func() error {
		t := newTable(o.w)
		for _, p := range pairs {
			if p[1] != "" {
				t.row(p[0], p[1])
			}
		}
		return t.Flush()
	})
}

// list prints all items: as one JSON array, or as a table with a header.
func list[T any](o output, items iter.Seq2[T, error], header string, row func(T) []string) error {
	all := []T{}
	for item, err := range items {
		if err != nil {
			return err
		}
		all = append(all, item)
	}
	return o.value(all, func() error {
		t := newTable(o.w)
		t.row(strings.Fields(header)...)
		for _, item := range all {
			t.row(row(item)...)
		}
		return t.Flush()
	})
}

// table aligns columns.
type table struct{ *tabwriter.Writer }

func newTable(w io.Writer) table { return table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

// row adds a line; what is written is told by Flush.
func (t table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = printable(cell)
	}
	fmt.Fprintln(t, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
}

// printable keeps a server from moving the cursor of a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// formatTime is a time as people read it, "" for none.
func formatTime(t *time.Time) string {
	if t == nil || t.Unix() <= 0 { // what was always there has no time
		return ""
	}
	return t.Local().Format("2006-01-02 15:04")
}

// or is s, or another word where it is empty.
func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// value is what a pointer from the API points at, zero for nil.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// given is a pointer to v, nil where v is zero: it is not sent then.
func given[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// writeLine prints v as one line of JSON.
func writeLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
