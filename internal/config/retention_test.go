package config

import (
	"testing"
	"time"
)

const day = 24 * time.Hour

func TestRetention(t *testing.T) {
	rules := `gc: {untagged: 90d}
repositories:
  - match: ci/**
    untagged: 1d
  - match: ci/release
    untagged: keep
  - match: ci/**
    sparse_manifests: true
`
	c := load(t, Sources{File: write(t, rules)})
	for repo, want := range map[string]time.Duration{"team/app": 90 * day, "ci/app": day, "ci/release": 0} {
		untagged, orphans := c.Retention(repo)
		if untagged != want || orphans != 7*day {
			t.Errorf("%s keeps %v and %v, want %v and a week", repo, untagged, orphans, want)
		}
	}
	if untagged, orphans := load(t, Sources{}).Retention("team/app"); untagged != 0 || orphans != 7*day {
		t.Errorf("by default kept are %v and %v", untagged, orphans)
	}
}

func TestCollectRate(t *testing.T) {
	for text, want := range map[string]int{"": 1000, "0": 0, "20": 20, "500/s": 500} {
		var environ []string
		if text != "" {
			environ = []string{"BERTH_GC_RATE=" + text}
		}
		if got := load(t, Sources{Environ: environ}).CollectRate(); got != want {
			t.Errorf("%q is %d a second, want %d", text, got, want)
		}
	}
}

// TestRetentionName: it changes with what Retention says, and with nothing else.
func TestRetentionName(t *testing.T) {
	name := func(file string) string { return load(t, Sources{File: write(t, file)}).RetentionName() }
	first := name("")
	if again := name("log: {level: warn}\nrepositories:\n  - match: a\n    sparse_manifests: true\n"); again != first {
		t.Error("it changes with other settings")
	}
	seen := map[string]bool{first: true}
	for _, file := range []string{
		"gc: {untagged: 1d}\n", "gc: {orphans_after: 1d}\n", "repositories:\n  - match: a\n    untagged: 1d\n",
		"repositories:\n  - match: b\n    untagged: 1d\n", "repositories:\n  - match: a\n    untagged: keep\n",
	} {
		if n := name(file); seen[n] {
			t.Errorf("it is the same with\n%s", file)
		} else {
			seen[n] = true
		}
	}
}
