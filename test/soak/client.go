package soak

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// errLost: there was no answer that says whether the request took effect. The
// connection broke, the balancer had nobody behind it, or the registry said 503.
var errLost = errors.New("no answer")

// client is one user of the registry. It does one thing after the other.
type client struct {
	number         int
	rng            *rand.Rand
	http           *http.Client
	targets        []Target
	user, password string // "" for none
	own            []*repo
	common         []*repo
	all            []*repo // everybody's
	stats          *stats
	name           string // what its request ids begin with

	steps     int
	requests  int
	alone     bool // the last request was not answered
	manifests int
	later     []step   // what it began and goes on with
	doubts    []*write // whose outcome it has to find out
}

// step is something to be done at some time.
type step struct {
	at time.Time
	do func() error
}

// request is one request to the registry.
type request struct {
	kind   string // in the statistics
	r      *repo
	method string
	path   string
	kindOf string // Content-Type
	header []string
	body   []byte
	accept []int     // statuses that are as asked
	sink   io.Writer // takes the body of an answer that is as asked; nil: kept
	at     *Target   // nil: any
}

// answer is what came back.
type answer struct {
	began   time.Time
	status  int
	header  http.Header
	body    []byte
	request string // its id, and where it went
}

func (a answer) String() string {
	text := strings.TrimSpace(string(a.body))
	if len(text) > 300 {
		text = text[:300] + "…"
	}
	return fmt.Sprintf("%s was answered with %d %s", a.request, a.status, text)
}

// code is the first error code in the body.
func (a answer) code() string {
	var body struct{ Errors []struct{ Code string } }
	if json.Unmarshal(a.body, &body) != nil || len(body.Errors) == 0 {
		return ""
	}
	return body.Errors[0].Code
}

// maxAnswer bounds bodies that are kept.
const maxAnswer = 4 << 20

// do sends a request and waits for the whole answer. Errors: errLost; a
// *violation for what a registry must not answer, whatever was asked.
func (c *client) do(q request) (answer, error) {
	target := q.at
	if target == nil {
		target = &c.targets[c.rng.IntN(len(c.targets))]
	}
	c.requests++
	id := fmt.Sprintf("%s-%d", c.name, c.requests)
	a := answer{began: time.Now(), request: fmt.Sprintf("%s %s (%s, %s)", q.method, q.path, id, target.Name)}
	err := c.send(target.URL, id, q, &a)
	took := time.Since(a.began)
	c.alone = err != nil
	switch {
	case err != nil && !isViolation(err):
		q.r.story.add(a.began, "%s: %v after %v", a.request, err, took.Round(time.Millisecond))
		c.stats.lost(q.kind)
		return a, fmt.Errorf("%w: %v", errLost, err)
	case err != nil:
		q.r.story.add(a.began, "%s: %v", a.request, err)
		return a, err
	}
	q.r.story.add(a.began, "%s %s: %d after %v %s", a.request, digestsIn(q.body), a.status, took.Round(time.Millisecond), a.code())
	for _, want := range q.accept {
		if a.status == want {
			c.stats.done(q.kind, took)
			return a, nil
		}
	}
	c.stats.refused(q.kind)
	return a, nil
}

// digestsIn shows what a manifest names.
func digestsIn(body []byte) string {
	if len(body) == 0 || len(body) > 1<<14 || body[0] != '{' {
		return ""
	}
	var d document
	if json.Unmarshal(body, &d) != nil {
		return ""
	}
	var list []string
	if d.Config != nil {
		list = append(list, short(d.Config.Digest))
	}
	for _, l := range append(d.Layers, d.Manifests...) {
		list = append(list, short(l.Digest))
	}
	if d.Subject != nil {
		list = append(list, "of "+short(d.Subject.Digest))
	}
	return "[" + strings.Join(list, " ") + "]"
}

func short(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(12, len(hex))]
}

func isViolation(err error) bool { return errors.As(err, new(*violation)) }

func (c *client) send(base, id string, q request, a *answer) error {
	req, err := http.NewRequest(q.method, base+q.path, bytes.NewReader(q.body))
	if err != nil {
		return violated(q.r, "the registry gave an address that is none: %v", err)
	}
	req.Header.Set("X-Request-Id", id)
	if c.password != "" {
		req.SetBasicAuth(c.user, c.password)
	}
	if q.kindOf != "" {
		req.Header.Set("Content-Type", q.kindOf)
	}
	for i := 0; i < len(q.header); i += 2 {
		req.Header.Set(q.header[i], q.header[i+1])
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	a.status, a.header = res.StatusCode, res.Header
	ours := res.Header.Get("Docker-Distribution-API-Version") != ""
	switch {
	case res.StatusCode == http.StatusTemporaryRedirect:
		return c.follow(res.Header.Get("Location"), q, a)
	case res.StatusCode == http.StatusServiceUnavailable || res.StatusCode >= 500 && !ours:
		return fmt.Errorf("answered with %d", res.StatusCode)
	case res.StatusCode >= 500:
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
		return violated(q.r, "%s was answered with %d: %s", a.request, res.StatusCode, text)
	case !ours:
		return violated(q.r, "%s was answered with %d by no registry", a.request, res.StatusCode)
	}
	return a.take(res, q)
}

// follow fetches from the object store what a redirect points to, without
// credentials.
func (c *client) follow(location string, q request, a *answer) error {
	res, err := c.http.Get(location)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	a.request += " via the object store"
	a.status = res.StatusCode
	if res.StatusCode >= 500 {
		return fmt.Errorf("the object store answered with %d", res.StatusCode)
	}
	return a.take(res, q)
}

// take reads the body of an answer.
func (a *answer) take(res *http.Response, q request) error {
	if q.sink != nil && res.StatusCode == http.StatusOK {
		_, err := io.Copy(q.sink, res.Body)
		return err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	a.body = body
	return err
}

// newHTTP makes what a client sends its requests with. A request that takes
// longer than patience counts as lost.
func newHTTP() *http.Client {
	const patience = time.Minute
	return &http.Client{
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	}
}

// rest waits a moment, as clients do before they try again.
func (c *client) rest() { time.Sleep(time.Duration(100+c.rng.IntN(700)) * time.Millisecond) }

// chance is true once in n times.
func (c *client) chance(n int) bool { return c.rng.IntN(n) == 0 }

func pick[T any](rng *rand.Rand, list []T) (x T) {
	if len(list) == 0 {
		return x
	}
	return list[rng.IntN(len(list))]
}
