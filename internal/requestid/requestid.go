// Package requestid names requests, so that answers, log lines and records of
// the audit trail can be told to belong together.
package requestid

import (
	"encoding/hex"
	"math/rand/v2"
	"net/http"
)

// Header carries the id, both ways.
const Header = "X-Request-Id"

// Of is the id of a request: that which a proxy in front gave it, if it is
// plain and has at most 64 bytes, else a new one, which r has from then on.
func Of(r *http.Request) string {
	if id := r.Header.Get(Header); Plain(id, 64) {
		return id
	}
	var bits [12]byte
	for i := range bits {
		bits[i] = byte(rand.Uint32())
	}
	id := hex.EncodeToString(bits[:])
	r.Header[Header] = []string{id}
	return id
}

// Plain reports whether s has 1 to most bytes, all of [A-Za-z0-9._-].
func Plain(s string, most int) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
