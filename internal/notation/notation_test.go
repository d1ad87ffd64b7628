package notation

import (
	"strings"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for value, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "24h": day, "7d": 7 * day, "1d12h": 36 * time.Hour, "0s": 0, "0d": 0, "1.5h": 90 * time.Minute,
	} {
		if got, err := ParseDuration(value); err != nil || got != want {
			t.Errorf("%q: %v, %v", value, got, err)
		}
	}
	for _, value := range []string{"", "5", "-1s", "-1d", "+1s", "1d-1h", "d", "1d1d", "1.5d", "1w", "106752d", "106751d24h", "99999999999999999999d", "9999999999h", "1d1"} {
		if got, err := ParseDuration(value); err == nil {
			t.Errorf("%q is accepted as %v", value, got)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 30 * time.Second: "30s", time.Minute: "1m", 10 * time.Minute: "10m", time.Hour: "1h", 24 * time.Hour: "24h",
		90 * time.Second: "1m30s", time.Hour + time.Second: "1h0m1s", 20*time.Hour + 20*time.Minute: "20h20m", 1500 * time.Millisecond: "1.5s",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for value, want := range map[string]int64{
		"512KiB": 512 << 10, "32MiB": 32 << 20, "1GiB": 1 << 30, "5 TiB": 5 << 40, "0MiB": 0, "1536KiB": 1536 << 10, "8388607TiB": 8388607 << 40,
	} {
		got, err := ParseSize(value)
		if err != nil || got != want {
			t.Errorf("%q: %d, %v", value, got, err)
		}
		if again, err := ParseSize(FormatSize(got)); err != nil || again != got {
			t.Errorf("%q is written %q, which is %d, %v", value, FormatSize(got), again, err)
		}
	}
	if got := FormatSize(1536 << 10); got != "1536KiB" {
		t.Errorf("1536 KiB are written %q", got)
	}
	for _, value := range []string{"", "5", "-1MiB", "+1MiB", "1.5MiB", "1MB", "1M", "MiB", "1MiB1", "1  MiB", "8388608TiB", "99999999999999999999KiB", "1mib"} {
		if got, err := ParseSize(value); err == nil {
			t.Errorf("%q is accepted as %d", value, got)
		}
	}
}

func TestRedacted(t *testing.T) {
	for value, want := range map[string]string{
		"plain":                       "plain",
		"user@host":                   "user@host",
		"postgres://u@h/d":            "postgres://u@h/d",
		"postgres://u:secret@h/d":     "postgres://u:xxxxx@h/d",
		"postgres://u:sec%zzret@h/d":  "(hidden)",
		"postgres://u:sec ret@h:p0/d": "(hidden)",
	} {
		if got := Redacted(value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

func TestMatchGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "ab", false}, {"ab", "a", false},
		{"*", "a", true}, {"*", "a/b", false}, {"**", "a/b", true},
		{"team/*", "team/a", true}, {"team/*", "team/a/b", false}, {"team/*", "team", false},
		{"team/**", "team/a/b", true}, {"team/**", "teams/a", false},
		{"**/cache", "a/b/cache", true}, {"**/cache", "cache", false},
		{"*-dev/a*z", "x-dev/abcz", true}, {"*-dev/a*z", "x-dev/abc/z", false},
		{"a**z", "a/b/z", true}, {"*/*", "a/b", true}, {"*/*", "a/b/c", false},
	} {
		if got := MatchGlob(tt.pattern, tt.name); got != tt.want {
			t.Errorf("%q over %q: %t", tt.pattern, tt.name, got)
		}
	}
}

// A pattern that would take a backtracking matcher for ever.
func TestMatchGlobEnds(t *testing.T) {
	if MatchGlob(strings.Repeat("*a", 100)+"b", strings.Repeat("a", 255)) {
		t.Error("matched")
	}
}

func TestCheckGlob(t *testing.T) {
	for _, pattern := range []string{"", "/a", "a/", "a//b", "***", "A", "a b", "ä", "a?", strings.Repeat("a", 256)} {
		if CheckGlob(pattern) == nil {
			t.Errorf("%q is accepted", pattern)
		}
	}
	for _, pattern := range []string{"a", "**", "*", "a_b-c.d/**", "*/x*"} {
		if err := CheckGlob(pattern); err != nil {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}
