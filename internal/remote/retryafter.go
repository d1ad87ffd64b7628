package remote

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter bounds for how long an upstream can have itself left alone.
const maxRetryAfter = 24 * time.Hour

// RetryAfter reads when an answer says to come back (RFC 9110, 10.2.3), between
// a second and a day from now; ok is false where it says nothing of sense. A
// date is held against the answer's own clock, if it tells its time.
func RetryAfter(h http.Header, now time.Time) (wait time.Duration, ok bool) {
	value := strings.TrimSpace(h.Get("Retry-After"))
	seconds, err := strconv.ParseInt(value, 10, 64)
	at, dateErr := http.ParseTime(value)
	switch {
	case err == nil && seconds < 0:
		return 0, false
	case err == nil && seconds > 1e9:
		wait = time.Unix(min(seconds, 1e11), 0).Sub(now) // some send a Unix time
	case err == nil:
		wait = time.Duration(min(seconds, int64(maxRetryAfter/time.Second))) * time.Second
	case dateErr == nil:
		if theirs, err := http.ParseTime(h.Get("Date")); err == nil {
			now = theirs
		}
		wait = at.Sub(now)
	default:
		return 0, false
	}
	return min(max(wait, time.Second), maxRetryAfter), true
}
