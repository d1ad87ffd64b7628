package config

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
		if got, err := parseDuration(value); err != nil || got != want {
			t.Errorf("%q: %v, %v", value, got, err)
		}
	}
	for _, value := range []string{"", "5", "-1s", "-1d", "+1s", "1d-1h", "d", "1d1d", "1.5d", "1w", "106752d", "106751d24h", "99999999999999999999d", "9999999999h", "1d1"} {
		if got, err := parseDuration(value); err == nil {
			t.Errorf("%q is accepted as %v", value, got)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 30 * time.Second: "30s", time.Minute: "1m", 10 * time.Minute: "10m", time.Hour: "1h", 24 * time.Hour: "24h",
		90 * time.Second: "1m30s", time.Hour + time.Second: "1h0m1s", 20*time.Hour + 20*time.Minute: "20h20m", 1500 * time.Millisecond: "1.5s",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for value, want := range map[string]int64{
		"512KiB": 512 << 10, "32MiB": 32 << 20, "1GiB": 1 << 30, "5 TiB": 5 << 40, "0MiB": 0, "1536KiB": 1536 << 10, "8388607TiB": 8388607 << 40,
	} {
		got, err := parseSize(value)
		if err != nil || got != want {
			t.Errorf("%q: %d, %v", value, got, err)
		}
		if again, err := parseSize(formatSize(got)); err != nil || again != got {
			t.Errorf("%q is written %q, which is %d, %v", value, formatSize(got), again, err)
		}
	}
	if got := formatSize(1536 << 10); got != "1536KiB" {
		t.Errorf("1536 KiB are written %q", got)
	}
	for _, value := range []string{"", "5", "-1MiB", "+1MiB", "1.5MiB", "1MB", "1M", "MiB", "1MiB1", "1  MiB", "8388608TiB", "99999999999999999999KiB", "1mib"} {
		if got, err := parseSize(value); err == nil {
			t.Errorf("%q is accepted as %d", value, got)
		}
	}
}

func TestNetworks(t *testing.T) {
	var got []string
	for _, p := range networks("10.0.0.0/8, ::1,::ffff:192.0.2.0/120 ,::ffff:192.0.2.7") {
		got = append(got, p.String())
	}
	if want := "10.0.0.0/8 ::1/128 192.0.2.0/24 192.0.2.7/32"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
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
		if got := redacted(value); got != want {
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
		if got := matchGlob(tt.pattern, tt.name); got != tt.want {
			t.Errorf("%q over %q: %t", tt.pattern, tt.name, got)
		}
	}
}

// A pattern that would take a backtracking matcher for ever.
func TestMatchGlobEnds(t *testing.T) {
	if matchGlob(strings.Repeat("*a", 100)+"b", strings.Repeat("a", 255)) {
		t.Error("matched")
	}
}

func TestCheckGlob(t *testing.T) {
	for _, pattern := range []string{"", "/a", "a/", "a//b", "***", "A", "a b", "ä", "a?", strings.Repeat("a", 256)} {
		if checkGlob(pattern) == nil {
			t.Errorf("%q is accepted", pattern)
		}
	}
	for _, pattern := range []string{"a", "**", "*", "a_b-c.d/**", "*/x*"} {
		if err := checkGlob(pattern); err != nil {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}

func TestNearest(t *testing.T) {
	for name, want := range map[string]string{
		"lisen": "listen", "lsiten": "listen", "LISTEN": "listen", "dat": "data", "tls.crt": "tls.cert", "tls.certificate": "tls.cert",
		"certt": "tls.cert", "sqlite.path": "metadata.sqlite.path", "expire": "uploads.expire", "log.levle": "log.level",
		"gc.unreferenced": "gc.unreferenced_after", "http.idle": "http.body_idle", "insecure": "insecure_anonymous",
		"sparse_manifests": "repositories.sparse_manifests",
	} {
		if got := nearest(name, keyPaths(), "."); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"ab", "", 2}, {"ab", "ab", 0}, {"ab", "ba", 1}, {"kitten", "sitting", 3}, {"abc", "axc", 1}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("%q to %q: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
