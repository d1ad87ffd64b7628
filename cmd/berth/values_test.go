package main

import (
	"strings"
	"testing"
	"time"
)

func TestDurationFlag(t *testing.T) {
	for in, want := range map[string]time.Duration{"90d": 90 * 24 * time.Hour, "12h": 12 * time.Hour, "1d12h": 36 * time.Hour} {
		var d durationFlag
		if err := d.Set(in); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %v, %v", in, time.Duration(d), err)
		}
	}
	for _, in := range []string{"", "90", "-1h", "0", "0d", "d", "1y", "99999999d"} {
		if err := new(durationFlag).Set(in); err == nil {
			t.Errorf("%q is taken for a duration", in)
		}
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "12": 12, "5B": 5, "10GiB": 10 << 30, "10 gib": 10 << 30, "500MB": 500e6, "1tib": 1 << 40, "7kb": 7e3} {
		if n, _, err := parseSize(in); err != nil || n != want {
			t.Errorf("%s: %d, %v; want %d", in, n, err, want)
		}
	}
	for _, in := range []string{"", "B", "GiB", "-1", "-1B", "1.5GiB", "9999999TiB", "x", "1GiBB", "1 2"} {
		if n, _, err := parseSize(in); err == nil {
			t.Errorf("%q is taken for %d", in, n)
		}
	}
	var none sizeFlag
	if err := none.Set("none"); err != nil || none.n == nil || *none.n != 0 {
		t.Errorf("none: %v, %v", none.n, err)
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 70 << 20: "70.0 MiB", 3 << 40: "3.0 TiB"} {
		if got := formatSize(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestRates(t *testing.T) {
	for in, want := range map[string]rate{
		"identity=600/minute":         {"identity", "requests", "minute", 600},
		"project=10GiB/day":           {"project", "bytes", "day", 10 << 30},
		"organization=5MB/hour":       {"organization", "bytes", "hour", 5e6},
		"address=1B/minute":           {"address", "bytes", "minute", 1},
		"key=9223372036854775807/day": {"key", "requests", "day", 1<<63 - 1},
	} {
		got, err := parseRate(in)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
		if got.String() != in {
			t.Errorf("%s is printed as %s", in, got)
		}
	}
	for in, why := range map[string]string{
		"":                      "identity=600/minute",
		"identity":              "identity=600/minute",
		"identity=600":          "identity=600/minute",
		"user=600/minute":       "address, identity, key, project, organization",
		"identity=600/second":   "minute, hour, day",
		"identity=many/minute":  "10GiB",
		"identity=0/minute":     "larger",
		"identity=-5GiB/minute": "10GiB",
	} {
		if got, err := parseRate(in); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
}
