package upstream

import (
	"net/http"
	"testing"
	"time"
)

func TestParseRate(t *testing.T) {
	for s, want := range map[string]struct {
		n      int64
		window time.Duration
		ok     bool
	}{
		"100;w=21600":                  {100, 6 * time.Hour, true},
		"76;w=21600":                   {76, 6 * time.Hour, true},
		" 0 ; W = 60 ":                 {0, time.Minute, true},
		"100":                          {100, 0, true},
		"100, 100;w=60, 1000;w=3600":   {100, 0, true},
		"100;burst=5;w=60;comment=\"x": {100, time.Minute, true},
		"100;w=0":                      {100, 0, true},
		"100;w=x":                      {100, 0, true},
		"100;w=99999999999999":         {100, maxWindow, true},
		"":                             {}, "x": {}, "-1": {}, "1.5": {}, ";w=60": {}, "99999999999999999999": {},
	} {
		n, window, ok := parseRate(s)
		if n != want.n || window != want.window || ok != want.ok {
			t.Errorf("%q is %d in %v, %v", s, n, window, ok)
		}
	}
}

func FuzzRate(f *testing.F) {
	for _, s := range []string{"100;w=21600", "0", ";;", "1;w=9223372036854775807", "9223372036854775807;w=1"} {
		f.Add(s, s, int64(20))
	}
	f.Fuzz(func(t *testing.T, limit, remaining string, reserve int64) {
		var b budget
		now := time.Unix(1e9, 0)
		b.note(http.Header{"Ratelimit-Limit": {limit}, "Ratelimit-Remaining": {remaining}}, now)
		last := b.get(now)
		if last.Limit < 0 || last.Remaining < 0 || last.Window < 0 || last.Window > maxWindow {
			t.Errorf("%q, %q: %+v", limit, remaining, last)
		}
		if n := last.stretch(reserve); n < 1 || n > maxStretch {
			t.Errorf("%q, %q: stretched by %d", limit, remaining, n)
		}
	})
}

// TestStretch: the less is left of what an upstream allows, the longer answers
// are believed, until its window has passed.
func TestStretch(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, c := range []struct {
		limit, remaining string
		reserve          int64
		want             int
	}{
		{"100;w=21600", "100;w=21600", 20, 1}, {"100", "20", 20, 1}, {"100", "19", 20, 2}, {"100", "10", 20, 6},
		{"100", "1", 20, 9}, {"100", "0", 20, 10}, {"100", "0", -1, 1}, {"10", "5", 20, 1}, {"10", "4", 20, 3}, {"10", "0", 20, 10},
		{"100", "", 20, 1}, {"", "0", 20, 1}, {"1", "0", 20, 1}, {"0", "0", 20, 1},
	} {
		var b budget
		b.note(http.Header{"Ratelimit-Limit": {c.limit}, "Ratelimit-Remaining": {c.remaining}}, now)
		if got := b.get(now).stretch(c.reserve); got != c.want {
			t.Errorf("%s of %s left, reserve %d: stretched by %d, want %d", c.remaining, c.limit, c.reserve, got, c.want)
		}
	}
	var b budget
	b.note(http.Header{"Ratelimit-Limit": {"100;w=21600"}, "Ratelimit-Remaining": {"0;w=21600"}}, now)
	b.note(http.Header{}, now.Add(time.Hour)) // an answer that says nothing
	if got := b.get(now.Add(6*time.Hour - time.Second)); got.stretch(20) != 10 || got.Window != 6*time.Hour || got.Limit != 100 {
		t.Errorf("within the window: %+v", got)
	}
	if got := b.get(now.Add(6 * time.Hour)); got.stretch(20) != 1 || !got.Seen.IsZero() {
		t.Errorf("behind it: %+v", got)
	}
}
