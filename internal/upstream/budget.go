package upstream

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxStretch    = 10
	defaultWindow = time.Hour // of an allowance that does not name its own
	maxWindow     = 30 * 24 * time.Hour
)

// Budget is what an upstream said that it allows us.
type Budget struct {
	Limit     int64 // requests in any time of Window
	Remaining int64
	Window    time.Duration
	Seen      time.Time // the zero Time: nothing was said, or too long ago
}

// budget is what an endpoint last said of it.
type budget struct {
	mu   sync.Mutex
	last Budget
}

// note reads the headers of an answer, such as Docker Hub's
// "ratelimit-remaining: 76;w=21600".
func (b *budget) note(h http.Header, now time.Time) {
	remaining, window, ok := parseRate(h.Get("RateLimit-Remaining"))
	if !ok {
		return
	}
	limit, own, ok := parseRate(h.Get("RateLimit-Limit"))
	if !ok {
		return
	}
	if own > 0 {
		window = own
	}
	if window == 0 {
		window = defaultWindow
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = Budget{Limit: limit, Remaining: remaining, Window: window, Seen: now}
}

// get is what holds still: after a window everything is allowed anew.
func (b *budget) get(now time.Time) Budget {
	b.mu.Lock()
	defer b.mu.Unlock()
	if age := now.Sub(b.last.Seen); age < 0 || age >= b.last.Window {
		return Budget{}
	}
	return b.last
}

// stretch grows from 1 to maxStretch with what is left below reserve.
func (b Budget) stretch(reserve int64) int {
	// An upstream that allows little altogether is not always near its end.
	reserve = min(reserve, b.Limit/2)
	if b.Seen.IsZero() || reserve <= 0 || b.Remaining >= reserve {
		return 1
	}
	return int(min(maxStretch, 2+(maxStretch-2)*(reserve-b.Remaining)/reserve))
}

// parseRate reads a number with a window, as in "100;w=21600"; of several, apart
// by commas, the first. window is 0 where none is named.
func parseRate(s string) (n int64, window time.Duration, ok bool) {
	s, _, _ = strings.Cut(s, ",")
	number, params, _ := strings.Cut(s, ";")
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n < 0 {
		return 0, 0, false
	}
	for param := range strings.SplitSeq(params, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		seconds, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		if strings.EqualFold(strings.TrimSpace(key), "w") && err == nil && seconds > 0 {
			window = time.Duration(min(seconds, int64(maxWindow/time.Second))) * time.Second
		}
	}
	return n, window, true
}

// Stretch is by how much the times should be multiplied for which answers are
// believed: 1, or more the less the upstream, or Limits.Requests, allows us still.
func (u *Registry) Stretch() int {
	most := u.rate.stretch()
	for _, e := range u.endpoints {
		most = max(most, e.budget.get(u.o.Now()).stretch(int64(u.o.Limits.Reserve)))
	}
	return most
}
