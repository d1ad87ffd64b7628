package upstream_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
	"github.com/berth-registry/berth/internal/upstream"
)

// table is where processes tell each other of pauses.
type table struct {
	mu    sync.Mutex
	until map[string]time.Time
	looks int
	fails error
}

func (p *table) ProxyPause(_ context.Context, name string) (time.Time, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looks++
	return p.until[name], p.fails
}

func (p *table) PauseProxy(_ context.Context, name string, until time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil {
		p.until = map[string]time.Time{}
	}
	p.until[name] = until
	return p.fails
}

// TestPause: who says when to come back is left alone until then, by everything
// and everybody.
func TestPause(t *testing.T) {
	for what, c := range map[string]struct {
		answer http.HandlerFunc
		code   registry.Code
		others registry.Code // what another process says
		wait   time.Duration
	}{
		"429":                     {status(429, "Retry-After", "60"), registry.TooManyRequests, registry.TooManyRequests, time.Minute},
		"503":                     {status(503, "Retry-After", "60"), registry.Unavailable, registry.TooManyRequests, time.Minute},
		"429 that does not say":   {status(429), registry.TooManyRequests, registry.TooManyRequests, 5 * time.Second},
		"429 that says very long": {status(429, "Retry-After", "999999999"), registry.TooManyRequests, registry.TooManyRequests, 24 * time.Hour},
	} {
		t.Run(what, func(t *testing.T) {
			now, shared := newClock(), &table{}
			s := scripted(t, c.answer)
			tokens := scripted(t, serveToken)
			o := upstream.Options{Endpoints: []string{s.URL}, Now: now.now, Pauses: shared, Authorize: tokenUser(tokens.URL)}
			here, there := open(t, o), open(t, o)
			err := resolve(t, here)
			registrytest.WantCode(t, "resolve", err, c.code)
			s.now(serve)
			s.asked()
			tokens.asked()
			now.move(c.wait - time.Second)
			_, blobErr := here.Blob(t.Context(), "team/app", blobDigest)
			for who, err := range map[string]error{"resolve": resolve(t, here), "blob": blobErr, "tags": registrytest.ListError(t, here.Tags(t.Context(), "team/app", ""))} {
				wantLater(t, who, err, c.code, time.Second, time.Second)
			}
			wantLater(t, "in another process", resolve(t, there), c.others, time.Second, time.Second)
			s.wantAsked(t, "during the pause")
			tokens.wantAsked(t, "token service during the pause")
			if until := here.Status().Endpoints[0].PausedUntil; !until.Equal(now.now().Add(time.Second)) {
				t.Errorf("the status tells of a pause until %v", until)
			}
			now.move(time.Second)
			wantCode(t, "afterwards", resolve(t, here), 0)
			wantCode(t, "afterwards, there", resolve(t, there), 0)
			if until := here.Status().Endpoints[0].PausedUntil; !until.IsZero() {
				t.Errorf("the status tells of a pause until %v", until)
			}
		})
	}
}

// TestNoPause: a failure that does not say when to come back is the breaker's
// business.
func TestNoPause(t *testing.T) {
	s, shared := scripted(t, status(503)), &table{}
	u := open(t, upstream.Options{Endpoints: []string{s.URL}, Pauses: shared})
	registrytest.WantCode(t, "resolve", resolve(t, u), registry.Unavailable)
	s.now(serve)
	wantCode(t, "resolve", resolve(t, u), 0)
	if len(shared.until) != 0 {
		t.Errorf("others were told of pauses: %v", shared.until)
	}
}

// TestPausesAreLookedUpNowAndThen: not with each request.
func TestPausesAreLookedUpNowAndThen(t *testing.T) {
	now, shared := newClock(), &table{}
	s := scripted(t, serve)
	u := open(t, upstream.Options{Endpoints: []string{s.URL}, Now: now.now, Pauses: shared})
	for range 10 {
		resolve(t, u)
	}
	if shared.looks != 1 {
		t.Errorf("looked %d times", shared.looks)
	}
	shared.PauseProxy(t.Context(), "hub", now.now().Add(time.Minute))
	now.move(time.Second)
	wantLater(t, "a second later", resolve(t, u), registry.TooManyRequests, 59*time.Second, 59*time.Second)
}

// TestPausesThatCannotBeTold: this process keeps them.
func TestPausesThatCannotBeTold(t *testing.T) {
	now, shared := newClock(), &table{fails: errors.New("no database")}
	s := scripted(t, serve)
	u := open(t, upstream.Options{Endpoints: []string{s.URL}, Now: now.now, Pauses: shared})
	wantCode(t, "resolve", resolve(t, u), 0)
	s.now(status(429, "Retry-After", "60"))
	registrytest.WantCode(t, "resolve", resolve(t, u), registry.TooManyRequests)
	s.now(serve)
	wantLater(t, "resolve", resolve(t, u), registry.TooManyRequests, time.Minute, time.Minute)
}

// TestPauseWhileWaiting: who waited for its turn when the pause began is not sent,
// and does not keep its place.
func TestPauseWhileWaiting(t *testing.T) {
	now := newClock()
	arrived, answer := make(chan bool), make(chan bool)
	s := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- true
		<-answer
		status(429, "Retry-After", "60")(w, r)
	})
	u := open(t, upstream.Options{Endpoints: []string{s.URL}, Now: now.now, Limits: upstream.Limits{Connections: 1}})
	results := make(chan error)
	ask := func() { _, err := u.Resolve(t.Context(), "team/app", v1); results <- err }
	go ask()
	<-arrived
	go ask()
	for u.Status().Queued == 0 {
		time.Sleep(time.Millisecond)
	}
	close(answer)
	for range 2 {
		registrytest.WantCode(t, "resolve", <-results, registry.TooManyRequests)
	}
	s.wantAsked(t, "in all", "HEAD manifests/v1")
	s.now(serve)
	now.move(time.Minute)
	wantCode(t, "afterwards", resolve(t, u), 0)
	if n := u.Status().InFlight; n != 0 {
		t.Errorf("%d under way in the end", n)
	}
}

// TestPauseOfAMirror: the registry itself, or another mirror, is not left alone
// for it; nor is the registry asked less because its storage is overrun.
func TestPauseOfAMirror(t *testing.T) {
	now, shared := newClock(), &table{}
	m, o := scripted(t, status(429, "Retry-After", "60")), scripted(t, serve)
	u := open(t, upstream.Options{Endpoints: []string{m.URL + "/path", o.URL}, Now: now.now, Pauses: shared})
	for range 3 {
		wantCode(t, "resolve", resolve(t, u), 0)
	}
	if n := len(m.asked()); n != 1 {
		t.Errorf("asked the mirror %d times", n)
	}
	if name := "hub " + host(m) + "/path"; shared.until[name].IsZero() || len(shared.until) != 1 {
		t.Errorf("paused are %v, want %s", shared.until, name)
	}
}

// TestPauseOfStorage: the others go on.
func TestPauseOfStorage(t *testing.T) {
	now := newClock()
	storage := scripted(t, status(429, "Retry-After", "60"))
	s := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, storage.URL, http.StatusTemporaryRedirect)
			return
		}
		serve(w, r)
	})
	u := open(t, upstream.Options{Endpoints: []string{s.URL}, Now: now.now})
	_, err := read(t.Context(), known(u))
	wantLater(t, "read", err, registry.TooManyRequests, time.Minute, time.Minute)
	storage.asked()
	now.move(30 * time.Second)
	_, err = read(t.Context(), known(u))
	wantLater(t, "read", err, registry.TooManyRequests, 30*time.Second, 30*time.Second)
	storage.wantAsked(t, "storage")
	wantCode(t, "resolve", resolve(t, u), 0)
	now.move(31 * time.Second)
	storage.now(func(w http.ResponseWriter, r *http.Request) { w.Write(content) })
	if got, err := read(t.Context(), known(u)); got != string(content) || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}
