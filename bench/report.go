package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	beginMarker = "<!-- bench:begin -->"
	endMarker   = "<!-- bench:end -->"
	absent      = "–"
)

// spread is a number that was measured several times.
type spread struct{ median, low, high float64 }

// spreadOf needs at least one value.
func spreadOf(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	mid := len(v) / 2
	m := v[mid]
	if len(v)%2 == 0 {
		m = (v[mid-1] + v[mid]) / 2
	}
	return spread{median: m, low: v[0], high: v[len(v)-1]}
}

// column picks one row's number out of each round.
func (r result) column(server string, row int) []float64 {
	var values []float64
	for _, round := range r.values[server] {
		values = append(values, round[row])
	}
	return values
}

// value is a server's median at a row.
func (r result) value(server string, row int) string {
	values := r.column(server, row)
	if len(values) == 0 {
		return absent
	}
	return number(spreadOf(values).median)
}

// ratio is how much of another server's number one reaches at a row: divided
// within the same round, for what slows a round slows both.
func (r result) ratio(server, other string, row int) string {
	values, limits := r.column(server, row), r.column(other, row)
	if !r.rows[row].ratio || len(values) == 0 || len(values) != len(limits) {
		return absent
	}
	for i := range values {
		values[i] /= limits[i]
	}
	s := spreadOf(values)
	text := strconv.FormatFloat(s.median, 'f', 2, 64)
	if len(values) > 1 {
		text += fmt.Sprintf(" (%.2f–%.2f)", s.low, s.high)
	}
	return text
}

// render makes the report in Markdown.
func render(results []result, servers []server, host host, now time.Time, command string) string {
	var t strings.Builder
	t.WriteString("| Load | Unit | Limit | distribution | Berth | Berth on PostgreSQL | distribution ÷ limit | Berth ÷ limit | PostgreSQL ÷ SQLite | Goal |\n")
	t.WriteString("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range results {
		for i, row := range r.rows {
			cells := []string{
				row.name, row.unit,
				r.value(limitName, i), r.value(distributionName, i), r.value(berthName, i), r.value(postgresName, i),
				r.ratio(distributionName, limitName, i), r.ratio(berthName, limitName, i), r.ratio(postgresName, berthName, i),
				cmp.Or(row.goal, absent),
			}
			t.WriteString("| " + strings.Join(cells, " | ") + " |\n")
		}
	}
	t.WriteString("\nValues are medians over the rounds. A ratio is the median, with the lowest and the highest, of each round's value divided by the other's of that round; the goal is for Berth ÷ limit.\n\n")
	t.WriteString(renderCPU(results))
	fmt.Fprintf(&t, "- Machine: %s\n", host)
	for _, s := range servers {
		fmt.Fprintf(&t, "- %s: %s\n", s.name, s.version)
	}
	fmt.Fprintf(&t, "- Date: %s\n- Command: `%s`\n", now.Format(time.DateOnly), command)
	return t.String()
}

// renderCPU is the table of what each operation takes of the processors.
func renderCPU(results []result) string {
	var t strings.Builder
	for _, r := range results {
		own, beside := len(r.rows), len(r.rows)+1
		if !r.rows[0].ratio {
			continue
		}
		if t.Len() == 0 {
			t.WriteString("Processor time of the server for each operation (POST and PUT of a blob are one), in microseconds:\n\n")
			t.WriteString("| Load | Limit | distribution | Berth | Berth on PostgreSQL | PostgreSQL itself |\n|---|--:|--:|--:|--:|--:|\n")
		}
		cells := []string{r.rows[0].name, r.value(limitName, own), r.value(distributionName, own),
			r.value(berthName, own), r.value(postgresName, own), r.value(postgresName, beside)}
		t.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	if t.Len() > 0 {
		t.WriteString("\n")
	}
	return t.String()
}

// number has three digits that matter, or all those before the point.
func number(v float64) string {
	switch {
	case v >= 100:
		return grouped(int(v + 0.5))
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// grouped writes n ≥ 0 with a space before every third digit from the end.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

func checkMarkers(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	_, err = betweenMarkers(text, "")
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func writeBetweenMarkers(file, section string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if text, err = betweenMarkers(text, section); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, text, 0o644)
}

// betweenMarkers replaces what stands between the two marker lines.
func betweenMarkers(text []byte, section string) ([]byte, error) {
	before, rest, ok := bytes.Cut(text, []byte(beginMarker))
	_, after, ok2 := bytes.Cut(rest, []byte(endMarker))
	if !ok || !ok2 {
		return nil, fmt.Errorf("there is no %s with a %s behind it; add both lines where the table shall stand", beginMarker, endMarker)
	}
	return slices.Concat(before, []byte(beginMarker+"\n"+section), []byte(endMarker), after), nil
}
