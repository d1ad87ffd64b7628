package ocihttp

import (
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/berth-registry/berth/internal/oci"
)

// span is a part of a blob or of an upload: n bytes from off.
type span struct{ off, n int64 }

func (s span) last() int64 { return s.off + s.n - 1 }

// parseRange reads a Range header for content of the given size (RFC 9110,
// section 14). partial is false where the whole is to be sent: without a
// header, and for what need not be understood, another unit or several ranges.
// ok is false for a range that is malformed or lies outside the content.
func parseRange(header string, size int64) (s span, partial, ok bool) {
	whole := span{0, size}
	unit, set, found := strings.Cut(header, "=")
	if !found || !strings.EqualFold(strings.TrimSpace(unit), "bytes") || strings.Contains(set, ",") {
		return whole, false, true
	}
	from, to, found := strings.Cut(strings.Trim(set, " \t"), "-")
	if !found {
		return span{}, true, false
	}
	if from == "" {
		n, ok := number(to)
		if n = min(n, size); !ok || n == 0 {
			return span{}, true, false
		}
		return span{size - n, n}, true, true
	}
	first, ok := number(from)
	last := size - 1
	if to != "" {
		end, valid := number(to)
		ok = ok && valid && first <= end
		last = min(end, last)
	}
	if !ok || first >= size {
		return span{}, true, false
	}
	return span{first, last - first + 1}, true, true
}

// parseContentRange reads the Content-Range of a chunk: first and last byte,
// "0-1023", or in HTTP's own form "bytes 0-1023/*".
func parseContentRange(header string) (span, bool) {
	pair := header
	if rest, ok := strings.CutPrefix(header, "bytes "); ok {
		pair, _, _ = strings.Cut(rest, "/")
	}
	from, to, found := strings.Cut(pair, "-")
	first, ok1 := number(from)
	last, ok2 := number(to)
	if !found || !ok1 || !ok2 || first > last || last == math.MaxInt64 {
		return span{}, false
	}
	return span{first, last - first + 1}, true
}

// number reads decimal digits; a value beyond int64 is its maximum.
func number(s string) (int64, bool) {
	if s == "" {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return math.MaxInt64, true
	}
	return n, true
}

// etag of immutable content.
func etag(d oci.Digest) string { return `"` + string(d) + `"` }

// noneMatch reports whether If-None-Match names d. Weak tags and, as some
// clients send them, bare digests count. A digest holds no comma.
func noneMatch(h http.Header, d oci.Digest) bool {
	for _, line := range h["If-None-Match"] {
		for tag := range strings.SplitSeq(line, ",") {
			tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
			if tag == "*" || strings.Trim(tag, `"`) == string(d) {
				return true
			}
		}
	}
	return false
}

// rangeApplies reports whether the content is still what If-Range speaks of.
// Only a strong entity tag can say so.
func rangeApplies(h http.Header, d oci.Digest) bool {
	condition := h.Get("If-Range")
	return condition == "" || condition == etag(d)
}
