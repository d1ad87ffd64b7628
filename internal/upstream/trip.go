package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/remote"
)

// defaultPause is for how long a registry is left alone that says it is asked
// too much, but not until when.
const defaultPause = 5 * time.Second

// trip sends the requests about one endpoint: each waits for its turn, is not
// sent where it would be no use, and is learnt from.
type trip struct {
	upstream *Registry
	endpoint *endpoint
	role     Role // "": of the registry, or of where it redirects to
}

// journey is one request.
type journey struct {
	*trip
	call    Call
	started time.Time
	breaker *breaker
	leave   func() // gives back its place
	cancel  context.CancelCauseFunc
	ctx     context.Context // the caller's
}

// RoundTrip implements http.RoundTripper. Errors of its own have a code:
// Unavailable, TooManyRequests, Faulty.
func (t *trip) RoundTrip(req *http.Request) (*http.Response, error) {
	var j *journey
	err := t.upstream.allowed(req)
	if err == nil {
		j = t.journey(req)
		err = j.begin()
	}
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(j.ctx)
	j.cancel, j.started = cancel, time.Now()
	if t.upstream.trusted(req) {
		ctx = context.WithValue(ctx, proxyKey{}, true)
	}
	resp, err := t.upstream.transport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		j.unanswered(err)
		j.end(0, err)
		return nil, err
	}
	j.call.Status = resp.StatusCode
	note(j.ctx, j.call)
	j.answered(resp)
	resp.Request = req
	resp.Body = newBody(resp.Body, ctx, j)
	return resp, nil
}

func (t *trip) journey(req *http.Request) *journey {
	j := &journey{trip: t, ctx: req.Context()}
	j.call = Call{Kind: kindOf(j.ctx), Role: t.role, Host: req.URL.Host, Method: req.Method}
	switch at := t.endpoint.address; {
	case t.role == RoleToken:
		j.call.Kind = KindToken
	case req.URL.Scheme == at.Scheme && req.URL.Host == at.Host:
		j.call.Role = RoleRegistry
	default:
		j.call.Role = RoleStorage
	}
	j.breaker = t.upstream.breakers.of(req.URL.Host, j.call.Role)
	return j
}

// begin waits for the request's turn. Whether it would be of use is looked at
// before, so that nobody waits for nothing, and behind, as things change.
func (j *journey) begin() error {
	if err := j.useful(); err != nil {
		return err
	}
	u := j.upstream
	if j.call.Role != RoleStorage {
		if err := u.rate.wait(j.ctx, 1); err != nil {
			return err
		}
	}
	leave, err := u.gate.enter(j.ctx, j.call.Kind == KindBlob && j.call.Method == http.MethodGet)
	if err != nil {
		return err
	}
	err = j.useful()
	if err == nil {
		err = j.breaker.enter(u.o.Now())
	}
	if err != nil {
		leave()
		return err
	}
	j.leave = leave
	return nil
}

// useful reports why the request would be refused, or not be answered.
func (j *journey) useful() error {
	now := j.upstream.o.Now()
	if j.call.Role != RoleStorage {
		// Nor is a token of any use then.
		if err := j.endpoint.pause.check(j.ctx, now); err != nil {
			return err
		}
	}
	return j.breaker.check(now)
}

// unanswered takes in what the lack of an answer says of the other side: nothing
// where the caller left, or we did not dial.
func (j *journey) unanswered(err error) {
	var coded *registry.Error
	if j.ctx.Err() != nil || errors.As(err, &coded) {
		j.breaker.leave()
		return
	}
	j.failed(err)
}

// failed tells the breaker, and an operator when it opens.
func (j *journey) failed(err error) {
	u := j.upstream
	if j.breaker.fail(u.o.Now(), err) {
		u.o.Log.Warn("a host of an upstream failed several times in a row; it is not asked for a while",
			"upstream", u.o.Name, "host", j.call.Host, "role", j.call.Role, "error", err)
	}
}

// answered takes in what the beginning of an answer says of the other side.
func (j *journey) answered(resp *http.Response) {
	now := j.upstream.o.Now()
	if resp.StatusCode >= 500 && resp.StatusCode != http.StatusNotImplemented {
		j.failed(fmt.Errorf("it answered %d", resp.StatusCode))
	} else {
		j.breaker.succeed()
	}
	if j.call.Role == RoleRegistry {
		j.endpoint.budget.note(resp.Header, now)
	}
	code := registry.Unavailable
	wait, told := remote.RetryAfter(resp.Header, now)
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		if code = registry.TooManyRequests; !told {
			wait = defaultPause
		}
	case resp.StatusCode != http.StatusServiceUnavailable || !told:
		return
	}
	if j.call.Role == RoleRegistry {
		j.endpoint.pause.set(j.ctx, now.Add(wait), code)
	} else {
		j.breaker.hold(now.Add(wait), code)
	}
}

// end reports the call, with the bytes of its body, and gives back its place.
func (j *journey) end(n int64, err error) {
	j.cancel(nil)
	j.leave()
	j.call.Duration, j.call.Bytes, j.call.Err = time.Since(j.started), n, err
	j.upstream.o.Observe(j.call)
}
