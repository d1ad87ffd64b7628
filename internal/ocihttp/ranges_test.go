package ocihttp

import (
	"fmt"
	"math"
	"net/http"
	"testing"
)

func TestParseRange(t *testing.T) {
	type result struct {
		span
		partial, ok bool
	}
	part := func(off, n int64) result { return result{span{off, n}, true, true} }
	whole := func(n int64) result { return result{span{0, n}, false, true} }
	bad := result{partial: true}
	for _, c := range []struct {
		header string
		size   int64
		want   result
	}{
		{"bytes=0-0", 10, part(0, 1)},
		{"bytes=0-9", 10, part(0, 10)},
		{"bytes=3-5", 10, part(3, 3)},
		{"bytes=3-", 10, part(3, 7)},
		{"bytes=3-500", 10, part(3, 7)},
		{"bytes=3-99999999999999999999", 10, part(3, 7)},
		{"bytes=-3", 10, part(7, 3)},
		{"bytes=-500", 10, part(0, 10)},
		{"Bytes= 3-5 ", 10, part(3, 3)},
		{"bytes=9-", 10, part(9, 1)},
		{"bytes=10-", 10, bad},
		{"bytes=10-20", 10, bad},
		{"bytes=99999999999999999999-", 10, bad},
		{"bytes=5-0", 10, bad},
		{"bytes=-0", 10, bad},
		{"bytes=-", 10, bad},
		{"bytes=", 10, bad},
		{"bytes=5", 10, bad},
		{"bytes=a-b", 10, bad},
		{"bytes=1-b", 10, bad},
		{"bytes=--5", 10, bad},
		{"bytes=+1-5", 10, bad},
		{"bytes=0-", 0, bad},
		{"bytes=-1", 0, bad},
		{"bytes=0-1,3-4", 10, whole(10)},
		{"items=0-1", 10, whole(10)},
		{"nonsense", 10, whole(10)},
	} {
		s, partial, ok := parseRange(c.header, c.size)
		if got := (result{s, partial, ok}); got != c.want {
			t.Errorf("parseRange(%q, %d) = %+v; want %+v", c.header, c.size, got, c.want)
		}
	}
}

func TestParseContentRange(t *testing.T) {
	for header, want := range map[string]span{
		"0-0": {0, 1}, "0-1023": {0, 1024}, "1024-2047": {1024, 1024},
		"bytes 0-9/10": {0, 10}, "bytes 5-9/*": {5, 5}, "bytes 5-9": {5, 5},
	} {
		if got, ok := parseContentRange(header); !ok || got != want {
			t.Errorf("parseContentRange(%q) = %v, %v; want %v", header, got, ok, want)
		}
	}
	for _, header := range []string{
		"", "-", "5", "5-", "-5", "5-4", "0--1", "a-b", "0-9/10", "bytes=0-9", "bytes */10", " 0-9",
		"0-9223372036854775807", "0-99999999999999999999",
	} {
		if got, ok := parseContentRange(header); ok {
			t.Errorf("parseContentRange(%q) = %v; want a refusal", header, got)
		}
	}
}

func TestNoneMatch(t *testing.T) {
	tag := etag(someDigest)
	for header, want := range map[string]bool{
		tag: true, "*": true, "W/" + tag: true, `"x", ` + tag: true, `"x",W/` + tag + `,"y"`: true,
		string(someDigest): true, "": false, `"x"`: false, `"sha256:0"`: false, tag + "x": false,
	} {
		if got := noneMatch(http.Header{"If-None-Match": {`"other"`, header}}, someDigest); got != want {
			t.Errorf("If-None-Match: %s: %v; want %v", header, got, want)
		}
	}
}

func FuzzRange(f *testing.F) {
	for _, seed := range []string{"bytes=0-4", "bytes=-5", "bytes=5-", "bytes=5-0", "bytes=1-2,3-4", "x=1-2"} {
		f.Add(seed, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		s, partial, ok := parseRange(header, size)
		switch {
		case !ok:
			return
		case !partial && (s != span{0, size}):
			t.Fatalf("%q of %d: %v is not the whole", header, size, s)
		case partial && (s.off < 0 || s.n <= 0 || s.off > size-s.n):
			t.Fatalf("%q of %d: %v lies outside", header, size, s)
		}
	})
}

func FuzzContentRange(f *testing.F) {
	for _, seed := range []string{"0-4", "5-", "bytes 0-9/*", "9-0", "0-9223372036854775807"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		s, ok := parseContentRange(header)
		if !ok {
			return
		}
		if s.off < 0 || s.n <= 0 || s.off > math.MaxInt64-s.n {
			t.Fatalf("%q: %v is impossible", header, s)
		}
		if again, ok := parseContentRange(fmt.Sprintf("%d-%d", s.off, s.last())); !ok || again != s {
			t.Fatalf("%q: %v reads back as %v", header, s, again)
		}
	})
}
