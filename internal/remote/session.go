package remote

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strings"
)

// An id of a session must lead back to its location, but comes from clients:
// it must not lead anywhere else, for requests there carry our credentials. A
// location of the common form is cut down to its last part; every other one is
// signed. The first byte tells them apart.
const (
	plainSession  = "p"
	signedSession = "s"
	macSize       = 16
)

// sessionID encodes the location of a session of repo.
func (r *Registry) sessionID(repo string, location *url.URL) string {
	id, ok := strings.CutPrefix(location.Path, r.at(repo, "/blobs/uploads/", nil).Path)
	if ok && location.RawQuery == "" && plain(id) {
		return plainSession + id
	}
	target := location.EscapedPath()
	if location.RawQuery != "" {
		target += "?" + location.RawQuery
	}
	return signedSession + base64.RawURLEncoding.EncodeToString(append(r.sign(repo, target), target...))
}

// sessionLocation reverses sessionID. It reports false for an id that this
// registry has not given out for repo.
func (r *Registry) sessionLocation(repo, id string) (*url.URL, bool) {
	if rest, ok := strings.CutPrefix(id, plainSession); ok {
		return r.at(repo, "/blobs/uploads/"+rest, nil), plain(rest)
	}
	rest, ok := strings.CutPrefix(id, signedSession)
	raw, err := base64.RawURLEncoding.DecodeString(rest)
	if !ok || err != nil || len(raw) <= macSize {
		return nil, false
	}
	target := string(raw[macSize:])
	if !hmac.Equal(raw[:macSize], r.sign(repo, target)) {
		return nil, false
	}
	u, err := r.base.Parse(target)
	return u, err == nil && r.ours(u)
}

func (r *Registry) sign(repo, target string) []byte {
	h := hmac.New(sha256.New, r.sessionKey)
	h.Write([]byte(repo + "\n" + target))
	return h.Sum(nil)[:macSize]
}

// plain reports whether s is one component of a path that needs no escape and
// does not lead upwards.
func plain(s string) bool {
	for i := range len(s) {
		c := s[i]
		word := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !word && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return s != "" && s[0] != '.'
}
