package apihttp

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
)

// requestID honours the id that a proxy in front gave the request, if it is
// short and plain, and makes one otherwise.
func requestID(r *http.Request) string {
	if id := r.Header.Get("X-Request-Id"); plain(id, 64) {
		return id
	}
	var id [12]byte
	rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// plain reports whether s has 1 to most bytes, all of [A-Za-z0-9._-].
func plain(s string, most int) bool {
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
