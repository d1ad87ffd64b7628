package main

import (
	"strings"
	"testing"
	"time"
)

func TestSpreadOf(t *testing.T) {
	tests := []struct {
		values []float64
		want   spread
	}{
		{[]float64{7}, spread{7, 7, 7}},
		{[]float64{9, 1, 2}, spread{2, 1, 9}},
		{[]float64{4, 1, 9, 2}, spread{3, 1, 9}},
	}
	for _, tt := range tests {
		if got := spreadOf(tt.values); got != tt.want {
			t.Errorf("spreadOf(%v) = %v, want %v", tt.values, got, tt.want)
		}
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0.5: "0.50", 9.994: "9.99", 42.25: "42.2", 100: "100", 999.6: "1 000", 1234567: "1 234 567",
	} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestRender(t *testing.T) {
	results := []result{{
		rows: []row{{"Push", "MiB/s", "≥ 0.85", true}},
		values: map[string][][]float64{
			limitName:    {{100, 40, 0}, {400, 41, 0}, {200, 42, 0}},
			berthName:    {{90, 70, 0}, {200, 71, 0}, {200, 72, 0}}, // ratios 0.9, 0.5, 1: not those of the medians
			postgresName: {{45, 80, 90}, {120, 81, 91}, {160, 82, 92}},
		},
	}, {
		rows:   []row{{"Few", "pages/s", "", false}, {"Cost", "×", "≤ 1.3", false}},
		values: map[string][][]float64{berthName: {{5000, 1.25, 0, 0}}},
	}}
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	got := render(results, []server{{name: "Berth", version: "v1"}}, host{cpu: "CPU", cores: 2, kernel: "6.1", filesystem: "ext4"}, now, "bench")
	for _, line := range []string{
		"| Push | MiB/s | 200 | – | 200 | 120 | – | 0.90 (0.50–1.00) | 0.60 (0.50–0.80) | ≥ 0.85 |",
		"| Few | pages/s | – | – | 5 000 | – | – | – | – | – |",
		"| Cost | × | – | – | 1.25 | – | – | – | – | ≤ 1.3 |",
		"| Push | 41.0 | – | 71.0 | 81.0 | 91.0 |",
		"- Berth: v1",
		"- Date: 2026-03-04",
		"- Command: `bench`",
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in:\n%s", line, got)
		}
	}
}

func TestBetweenMarkers(t *testing.T) {
	page := "before\n" + beginMarker + "\nold\n" + endMarker + "\nafter\n"
	want := "before\n" + beginMarker + "\nnew\n" + endMarker + "\nafter\n"
	got, err := betweenMarkers([]byte(page), "new\n")
	if err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for _, page := range []string{"", beginMarker, endMarker, endMarker + beginMarker} {
		if got, err := betweenMarkers([]byte(page), "new\n"); err == nil {
			t.Errorf("page %q became %q without an error", page, got)
		}
	}
}

func TestCommandLine(t *testing.T) {
	got := commandLine([]string{"-only", "push|it's", "-quick"})
	if want := `cd bench && go run . -only 'push|it'\''s' -quick`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
