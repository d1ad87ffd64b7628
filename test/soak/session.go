package soak

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// session is an upload that the registry opened.
type session struct {
	r       *repo
	b       content
	path    string
	acked   int64     // bytes that were acknowledged
	sent    int64     // bytes that may have arrived
	touched time.Time // begin of the last request that was acknowledged
	closing bool      // the request that ends it may have arrived
}

// pushSession pushes a blob in pieces, each to another server, or gives up.
func (c *client) pushSession(r *repo, b content) (told bool, err error) {
	path := "/v2/" + r.name + "/blobs/uploads/"
	if algorithmOf(b.digest) != "sha256" {
		path += "?digest-algorithm=" + algorithmOf(b.digest)
	}
	a, err := c.do(request{kind: "open upload", r: r, method: "POST", path: path, accept: []int{202}})
	if err != nil {
		return false, unlessLost(err)
	}
	if a.status != http.StatusAccepted {
		return false, violated(r, "%v", a)
	}
	s := &session{r: r, b: b, path: a.header.Get("Location"), touched: a.began}
	for range c.rng.IntN(4) {
		if known, err := c.append(s, 1+(b.size-s.acked)/2); !known || err != nil {
			return false, err
		}
		switch c.rng.IntN(40) {
		case 0:
			c.stats.count("uploads abandoned", 1)
			return false, nil
		case 1:
			return false, c.cancel(s)
		case 2: // comes back to it later
			c.afterwards(time.Duration(c.rng.Int64N(int64(r.graces.Upload))), func() error {
				_, err := c.finish(s)
				return err
			})
			return false, nil
		case 3:
			if known, err := c.appendTwice(s); !known || err != nil {
				return false, err
			}
		}
	}
	return c.finish(s)
}

// append sends the next n bytes, or those that are left. known is false when
// the session is over.
func (c *client) append(s *session, n int64) (known bool, err error) {
	n = min(n, s.b.size-s.acked)
	if n == 0 {
		return true, nil
	}
	a, err := c.do(s.patch(n, nil))
	if isViolation(err) {
		return false, err
	}
	if err != nil {
		s.sent = max(s.sent, s.acked+n)
		return c.status(s)
	}
	return c.patched(s, n, a)
}

func (s *session) patch(n int64, at *Target) request {
	return request{
		kind: "push chunk", r: s.r, method: "PATCH", path: s.path, kindOf: "application/octet-stream",
		header: []string{"Content-Range", fmt.Sprintf("%d-%d", s.acked, s.acked+n-1)},
		body:   s.b.part(s.acked, n), accept: []int{202}, at: at,
	}
}

// patched takes in the answer to the next n bytes.
func (c *client) patched(s *session, n int64, a answer) (known bool, err error) {
	switch a.status {
	case http.StatusAccepted:
		end, err := offset(s, a)
		if err == nil && end != s.acked+n {
			err = violated(s.r, "%v: the upload stands at %d, %d bytes were sent", a, end, s.acked+n)
		}
		s.acked, s.sent, s.touched = end, max(s.sent, end), a.began
		return true, err
	case http.StatusRequestedRangeNotSatisfiable: // an earlier request still has it, or got further
		c.rest()
		return c.status(s)
	case http.StatusNotFound:
		return false, s.over(a)
	}
	return false, violated(s.r, "%v", a)
}

// appendTwice sends the same bytes to two servers at once. One at most may take them.
func (c *client) appendTwice(s *session) (known bool, err error) {
	n := min(1+(s.b.size-s.acked)/2, s.b.size-s.acked)
	if n == 0 {
		return true, nil
	}
	c.stats.count("races on one upload", 1)
	twin := *c // of which only the counter changes
	twin.name += "-twin"
	first, second := s.patch(n, &c.targets[0]), s.patch(n, &c.targets[len(c.targets)-1])
	var other answer
	var otherErr error
	var wg sync.WaitGroup
	wg.Go(func() { other, otherErr = twin.do(second) })
	a, err := c.do(first)
	wg.Wait()
	for _, e := range []error{err, otherErr} {
		if isViolation(e) {
			return false, e
		}
	}
	if err == nil && otherErr == nil && a.status == http.StatusAccepted && other.status == http.StatusAccepted {
		return false, violated(s.r, "%v and %v: both took the same bytes", a, other)
	}
	s.sent = max(s.sent, s.acked+n)
	for _, answered := range []struct {
		a   answer
		err error
	}{{a, err}, {other, otherErr}} {
		if answered.err == nil && answered.a.status == http.StatusAccepted {
			return c.patched(s, n, answered.a)
		}
	}
	return c.status(s)
}

// status asks where a session stands, until it is told.
func (c *client) status(s *session) (known bool, err error) {
	for range 20 {
		a, err := c.do(request{kind: "ask for upload", r: s.r, method: "GET", path: s.path, accept: []int{204}})
		if isViolation(err) {
			return false, err
		}
		if err != nil {
			c.rest()
			continue
		}
		switch a.status {
		case http.StatusNoContent:
			end, err := offset(s, a)
			if err == nil && (end < s.acked || end > s.sent) {
				err = violated(s.r, "%v: the upload stands at %d; %d bytes were acknowledged, %d sent", a, end, s.acked, s.sent)
			}
			s.acked = end
			return true, err
		case http.StatusNotFound:
			return false, s.over(a)
		}
		return false, violated(s.r, "%v", a)
	}
	return false, nil // its registry is away; so is the client
}

// over judges that a session is unknown.
func (s *session) over(a answer) error {
	expired := time.Now().After(s.touched.Add(s.r.graces.Upload - clockSlack))
	// One without a byte is nothing to lose when the database crashes.
	forgotten := s.acked == 0 && s.r.crashes.forgot(s.touched, s.touched.Add(time.Second))
	if s.closing || expired || forgotten {
		return nil
	}
	return violated(s.r, "%v: an upload with %d bytes acknowledged, last at %s", a, s.acked, clock(s.touched))
}

// offset is how many bytes of a session the registry has.
func offset(s *session, a answer) (n int64, err error) {
	if path := sessionPath(a.header.Get("Location")); path != "" {
		s.path = path
	}
	if _, err := fmt.Sscan(a.header.Get("Upload-Offset"), &n); err != nil {
		return 0, violated(s.r, "%v: Upload-Offset %q: %v", a, a.header.Get("Upload-Offset"), err)
	}
	return n, nil
}

// finish sends what is left with the request that ends the session, and goes on
// from where the registry stands when that breaks off.
func (c *client) finish(s *session) (told bool, err error) {
	sep := "?"
	if strings.Contains(s.path, "?") {
		sep = "&"
	}
	for range 30 {
		s.r.comes(s.b)
		s.closing, s.sent = true, s.b.size
		a, err := c.do(request{
			kind: "close upload", r: s.r, method: "PUT", path: s.path + sep + "digest=" + s.b.digest,
			kindOf: "application/octet-stream", body: s.b.part(s.acked, s.b.size-s.acked), accept: []int{201},
		})
		switch {
		case isViolation(err):
			return false, err
		case err != nil, a.status == http.StatusRequestedRangeNotSatisfiable:
			c.rest()
			if known, err := c.status(s); !known || err != nil {
				return false, err
			}
			c.stats.count("uploads resumed", 1)
			continue
		case a.status == http.StatusCreated:
			s.r.isHere(s.b, a.began, false)
			c.stats.count("blobs acknowledged", 1)
			return true, nil
		case a.status == http.StatusNotFound:
			return false, s.over(a)
		}
		return false, violated(s.r, "%v", a)
	}
	return false, nil
}

// cancel ends a session, which must be unknown afterwards.
func (c *client) cancel(s *session) error {
	a, err := c.do(request{kind: "cancel upload", r: s.r, method: "DELETE", path: s.path, accept: []int{204}})
	if err != nil {
		return unlessLost(err)
	}
	switch a.status {
	case http.StatusNoContent:
	case http.StatusRequestedRangeNotSatisfiable:
		return nil // the lease of a request that broke off
	case http.StatusNotFound:
		return s.over(a)
	default:
		return violated(s.r, "%v", a)
	}
	a, err = c.do(request{kind: "ask for upload", r: s.r, method: "GET", path: s.path, accept: []int{404}})
	if err == nil && a.status != http.StatusNotFound {
		return violated(s.r, "%v: it was cancelled", a)
	}
	return unlessLost(err)
}
