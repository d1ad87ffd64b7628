package ocihttp

import (
	"strconv"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/registry"
)

// cacheName is what Berth is called in Cache-Status.
const cacheName = "berth"

// setFreshness says where an answer came from (RFC 9211), and how old it is.
func (x *exchange) setFreshness(f *registry.Freshness) {
	x.set("Cache-Status", cacheStatus(f))
	if f.Age >= 0 {
		x.set("Age", strconv.FormatInt(int64(f.Age/time.Second), 10))
	}
}

func cacheStatus(f *registry.Freshness) string {
	if f.Hit && f.Detail == "" {
		return cacheName + "; hit"
	}
	var b strings.Builder
	b.WriteString(cacheName)
	if f.Hit {
		b.WriteString("; hit")
	} else if isToken(f.Forward) {
		b.WriteString("; fwd=" + f.Forward)
		if f.Status > 0 {
			b.WriteString("; fwd-status=" + strconv.Itoa(f.Status))
		}
		if f.Stored {
			b.WriteString("; stored")
		}
		if f.Shared {
			b.WriteString("; collapsed")
		}
	}
	if isToken(f.Detail) {
		b.WriteString("; detail=" + f.Detail)
	}
	return b.String()
}

// isToken reports whether s can stand in a structured field as it is (RFC 9651).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (i == 0 || strings.IndexByte("0123456789-._:/", s[i]) < 0) {
			return false
		}
	}
	return s != ""
}
