package apihttp

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/berth-registry/berth/internal/manage"
	"github.com/berth-registry/berth/internal/proxyspec"
)

// Proxy is a pull-through cache.
type Proxy struct {
	Name    string          `json:"name" doc:"Name of the project that is the cache" example:"docker.io"`
	Managed bool            `json:"managed" doc:"It was added here; else it is in the configuration file, and can only be changed there" example:"true"`
	Secret  bool            `json:"secret" doc:"It has a password or token, which is never shown" example:"false"`
	Spec    proxyspec.Proxy `json:"spec" doc:"What it is, in the words of the configuration file"`
	Created *time.Time      `json:"created,omitempty" doc:"When it was added"`
	Updated *time.Time      `json:"updated,omitempty" doc:"When it was last changed"`
}

// ProxyStats is what a cache has, and how its upstream does.
type ProxyStats struct {
	Bytes     int64           `json:"bytes" doc:"Bytes that it keeps, with what was pushed into it" example:"73400320"`
	Budget    int64           `json:"budget" doc:"Bytes that it may keep; 0: no bound" example:"107374182400"`
	Manifests int             `json:"manifests" doc:"Manifests that came from the upstream, counted up to a bound" example:"120"`
	Images    int             `json:"images" doc:"Of these, those that no index holds and that refer to no other" example:"40"`
	Pinned    int             `json:"pinned" doc:"Of these, those that never go" example:"2"`
	OldestUse *time.Time      `json:"oldestUse,omitempty" doc:"When that was last used which was used the longest ago"`
	NewestUse *time.Time      `json:"newestUse,omitempty" doc:"When any was last used"`
	InFlight  int             `json:"inFlight" doc:"Requests to the upstream that are under way from this process" example:"3"`
	Queued    int             `json:"queued" doc:"Requests that wait for them" example:"0"`
	Stretch   int             `json:"stretch" doc:"By how much the times are multiplied for which answers are believed: more than 1 where the upstream allows little more" example:"1"`
	Broken    string          `json:"broken,omitempty" doc:"Why the upstream cannot be asked at all"`
	Endpoints []ProxyEndpoint `json:"endpoints" nullable:"false" doc:"Addresses of the upstream, in their order"`
	Hosts     []ProxyHost     `json:"hosts" nullable:"false" doc:"Hosts that were asked lately"`
}

// ProxyEndpoint is an address of an upstream.
type ProxyEndpoint struct {
	Address     string     `json:"address" doc:"The address" example:"https://registry-1.docker.io"`
	PausedUntil *time.Time `json:"pausedUntil,omitempty" doc:"It said that it is not to be asked before"`
	Limit       int64      `json:"limit,omitempty" doc:"Requests that it allows in a time; absent: it does not say" example:"100"`
	Remaining   int64      `json:"remaining" doc:"Of these, those that are left" example:"76"`
}

// ProxyHost is a host of an upstream.
type ProxyHost struct {
	Host     string     `json:"host" doc:"The host" example:"auth.docker.io"`
	Role     string     `json:"role" enum:"registry,token,storage" doc:"What it is to the upstream" example:"token"`
	State    string     `json:"state" enum:"closed,open,half-open" doc:"It is asked, not asked because it failed again and again, or asked once to see" example:"closed"`
	Failures int        `json:"failures" doc:"Failures in a row" example:"0"`
	Until    *time.Time `json:"until,omitempty" doc:"It is not asked before"`
}

// ProxyImage says what an action is about.
type ProxyImage struct {
	Repository string `json:"repository,omitempty" maxLength:"255" doc:"Repository, as the upstream names it; absent: all" example:"library/nginx"`
	Reference  string `json:"reference,omitempty" maxLength:"255" doc:"Tag or digest; absent: all" example:"1.27"`
}

func (i ProxyImage) image() manage.Image { return manage.Image(i) }

// ProxyFreed is what was taken out of a cache.
type ProxyFreed struct {
	Images    int   `json:"images" doc:"Images" example:"1"`
	Manifests int   `json:"manifests" doc:"Manifests of these" example:"5"`
	Blobs     int   `json:"blobs" doc:"Blobs that no other image in their repository needs" example:"9"`
	Bytes     int64 `json:"bytes" doc:"Bytes of both" example:"73400320"`
	Kept      int   `json:"kept" doc:"Images that stay, because something was pushed here that refers to them" example:"0"`
}

// ProxyPrefetch asks for an image.
type ProxyPrefetch struct {
	Repository string   `json:"repository" minLength:"1" maxLength:"255" doc:"Repository, as the upstream names it" example:"library/nginx"`
	Reference  string   `json:"reference" minLength:"1" maxLength:"255" doc:"Tag or digest" example:"1.27"`
	Platforms  []string `json:"platforms,omitempty" nullable:"false" maxItems:"100" doc:"Platforms of an index that are wanted; absent: all" example:"[\"linux/amd64\"]"`
}

// ProxyProgress is a line that tells how far a prefetch is.
type ProxyProgress struct {
	Manifests int    `json:"manifests" doc:"Manifests that are in the cache" example:"5"`
	Blobs     int    `json:"blobs" doc:"Blobs that are in the cache" example:"9"`
	Bytes     int64  `json:"bytes" doc:"Bytes of both" example:"73400320"`
	Failed    int    `json:"failed" doc:"Manifests and blobs that could not be had" example:"0"`
	Done      bool   `json:"done,omitempty" doc:"This is the last line"`
	Error     string `json:"error,omitempty" doc:"What could not be had"`
}

// ProxyStep is a line that tells of a step of a test.
type ProxyStep struct {
	Endpoint string `json:"endpoint,omitempty" doc:"Address that was tried" example:"https://registry-1.docker.io"`
	Name     string `json:"name,omitempty" doc:"What was tried" example:"log-in"`
	OK       bool   `json:"ok" doc:"It went well; of the last line: all did" example:"true"`
	Skipped  bool   `json:"skipped,omitempty" doc:"It was not tried; detail says why"`
	Detail   string `json:"detail,omitempty" doc:"What was found"`
	Advice   string `json:"advice,omitempty" doc:"What to do about it"`
	Done     bool   `json:"done,omitempty" doc:"This is the last line"`
	Error    string `json:"error,omitempty" doc:"Why it ended early"`
}

// InProxy names a proxy in a path.
type InProxy struct {
	Proxy string `path:"proxy" maxLength:"255" doc:"Name of the proxy" example:"docker.io"`
}

func proxyOf(p manage.Proxy) Proxy {
	return Proxy{Name: p.Spec.Name, Managed: p.Managed, Secret: p.Secret, Spec: p.Spec, Created: maybe(p.CreatedAt), Updated: maybe(p.Updated)}
}

func proxyStats(s manage.ProxyStats) ProxyStats {
	out := ProxyStats{
		Bytes: s.Bytes, Budget: s.Budget, Manifests: s.Manifests, Images: s.Images, Pinned: s.Pinned,
		OldestUse: maybe(s.OldestUse), NewestUse: maybe(s.NewestUse), InFlight: s.InFlight, Queued: s.Queued, Stretch: s.Stretch, Broken: s.Broken,
		Endpoints: []ProxyEndpoint{}, Hosts: []ProxyHost{},
	}
	for _, e := range s.Endpoints {
		out.Endpoints = append(out.Endpoints, ProxyEndpoint{e.Address, maybe(e.PausedUntil), e.Limit, e.Remaining})
	}
	for _, h := range s.Hosts {
		out.Hosts = append(out.Hosts, ProxyHost{h.Host, h.Role, h.State, h.Failures, maybe(h.Until)})
	}
	return out
}

func proxies(a *api) {
	m := a.Manage
	const tag, all, one = "proxies", "/proxies", "/proxies/{proxy}"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-proxies", tag: tag,
		summary: "List proxies", description: "Those of the configuration file, too. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *Paging) (*body[List[Proxy]], error) {
		page, err := m.Proxies(ctx, c, in.page())
		return list(page, err, proxyOf)
	})
	add(a, op{
		method: http.MethodGet, path: one, id: "get-proxy", tag: tag,
		summary: "Get a proxy", description: "For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *InProxy) (*body[Proxy], error) {
		p, err := m.Proxy(ctx, c, in.Proxy)
		return answer(proxyOf(p), err)
	})
	add(a, op{
		method: http.MethodPut, path: one, id: "put-proxy", tag: tag,
		summary: "Add or change a proxy",
		description: "The proxy is as the body says from then on. Its secret is encrypted with the key in secrets.key_file of the configuration; " +
			"one that is not sent is taken away, unless keepSecret says otherwise. What would read files of the server, run programs there, use its own identity at a cloud or reach private networks is for the configuration file alone. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProxy
		KeepSecret bool `query:"keepSecret" doc:"Keep the password or token that it has"`
		Body       proxyspec.Proxy
	}) (*body[Proxy], error) {
		p, err := m.PutProxy(ctx, c, in.Proxy, in.Body, in.KeepSecret)
		return answer(proxyOf(p), err)
	})
	add(a, op{
		method: http.MethodDelete, path: one, id: "delete-proxy", tag: tag,
		summary: "Take a proxy away", description: "What is cached stays in the project of its name, and is there again if the proxy is. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *InProxy) (*none, error) {
		return empty(m.DeleteProxy(ctx, c, in.Proxy))
	})
	add(a, op{
		method: http.MethodGet, path: one + "/stats", id: "get-proxy-stats", tag: tag,
		summary: "What a cache has, and how its upstream does", description: "Of the upstream it tells what the process knows that answers. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *InProxy) (*body[ProxyStats], error) {
		s, err := m.ProxyStats(ctx, c, in.Proxy)
		return answer(proxyStats(s), err)
	})
	proxyActions(a)
}

func proxyActions(a *api) {
	m := a.Manage
	const tag, one = "proxies", "/proxies/{proxy}"
	add(a, op{
		method: http.MethodPost, path: one + "/refresh", id: "refresh-proxy", tag: tag, status: http.StatusNoContent,
		summary: "Have the upstream asked again", description: "For tags, for what was not there and for lists of referrers, with the next pull. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProxy
		Body ProxyImage
	}) (*none, error) {
		return empty(m.RefreshProxy(ctx, c, in.Proxy, in.Body.image()))
	})
	add(a, op{
		method: http.MethodPost, path: one + "/purge", id: "purge-proxy", tag: tag, status: http.StatusOK,
		summary: "Take out of a cache", description: "What came from the upstream; what was pushed here stays. It is fetched again when somebody asks for it. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProxy
		Body ProxyImage
	}) (*body[ProxyFreed], error) {
		freed, err := m.PurgeProxy(ctx, c, in.Proxy, in.Body.image())
		return answer(ProxyFreed(freed), err)
	})
	add(a, op{
		method: http.MethodPost, path: one + "/prefetch", id: "prefetch-proxy", tag: tag, status: http.StatusOK,
		summary: "Bring an image into a cache",
		description: "Whole: all children of an index, all blobs, and what refers to them. The answer is a line of JSON now and then: manifests, blobs, bytes, failed; " +
			"the last has done, and error if not all could be had. It ends when the connection does. For administrators.",
		content: lines[ProxyProgress](a),
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProxy
		Body ProxyPrefetch
	}) (*stream, error) {
		run, err := m.PrefetchProxy(ctx, c, in.Proxy, manage.Image{Repository: in.Body.Repository, Reference: in.Body.Reference}, in.Body.Platforms)
		if err != nil {
			return nil, err
		}
		return a.streamed(func(write func(any)) {
			last := ProxyProgress{}
			err := run(func(p manage.ProxyProgress) {
				last = ProxyProgress{Manifests: p.Manifests, Blobs: p.Blobs, Bytes: p.Bytes, Failed: p.Failed}
				write(last)
			})
			last.Done, last.Error = true, told(err)
			write(last)
		}), nil
	})
	add(a, op{
		method: http.MethodPost, path: one + "/test", id: "test-proxy", tag: tag, status: http.StatusOK,
		summary:     "Try all that a pull needs",
		description: "Without a repository up to the log-in. The answer is a line of JSON for each step: endpoint, name, ok, detail, advice; the last has done. For administrators.",
		content:     lines[ProxyStep](a),
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InProxy
		Body ProxyImage
	}) (*stream, error) {
		run, err := m.TestProxy(ctx, c, in.Proxy, in.Body.image())
		if err != nil {
			return nil, err
		}
		return a.streamed(func(write func(any)) {
			failed := false
			err := run(func(s manage.ProxyStep) {
				failed = failed || !s.OK && !s.Skipped
				write(ProxyStep{Endpoint: s.Endpoint, Name: s.Name, OK: s.OK, Skipped: s.Skipped, Detail: s.Detail, Advice: s.Advice})
			})
			write(ProxyStep{OK: !failed && err == nil, Done: true, Error: told(err)})
		}), nil
	})
}

// lines documents an answer of lines of JSON, each a T.
func lines[T any](a *api) map[string]*huma.MediaType {
	t := reflect.TypeFor[T]()
	a.huma.OpenAPI().Components.Schemas.Schema(t, true, "")
	return map[string]*huma.MediaType{"application/x-ndjson": {Schema: &huma.Schema{
		Type: huma.TypeString, Description: "Lines of JSON, each a " + t.Name(), Extensions: map[string]any{lineSchema: t.Name()},
	}}}
}

// lineSchema is what a document names the schema of lines by.
const lineSchema = "x-line-schema"

// told is what a client may know of an error.
func told(err error) string {
	if err == nil {
		return ""
	}
	return describe(err).detail
}

// stream is an answer that is written line by line.
type stream struct{ Body func(huma.Context) }

// streamEvery is how often the last line is written again, so that nobody on the
// way takes the connection for dead.
const streamEvery = 15 * time.Second

// streamed has run write lines, each to be taken in within a while.
func (a *api) streamed(run func(write func(any))) *stream {
	return &stream{func(h huma.Context) {
		h.SetHeader("Content-Type", "application/x-ndjson")
		h.SetStatus(http.StatusOK)
		_, w := humago.Unwrap(h)
		l := &lineWriter{w: w, connection: http.NewResponseController(w)}
		l.flush()
		ended := make(chan struct{})
		var beside sync.WaitGroup
		beside.Go(func() {
			tick := time.NewTicker(streamEvery)
			defer tick.Stop()
			for {
				select {
				case <-ended:
					return
				case <-tick.C:
					l.again()
				}
			}
		})
		defer beside.Wait()
		defer close(ended)
		run(l.write)
		_ = l.connection.SetWriteDeadline(time.Time{})
	}}
}

// lineWriter writes lines of JSON. Who does not take them in loses the connection,
// and with it the request's context ends.
type lineWriter struct {
	mu         sync.Mutex
	w          http.ResponseWriter
	connection *http.ResponseController
	last       []byte
}

func (l *lineWriter) write(v any) {
	text, err := json.Marshal(v)
	if err != nil { // the types above always have a form
		panic(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = append(text, '\n')
	l.send()
}

func (l *lineWriter) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.send()
}

func (l *lineWriter) send() {
	// A ResponseWriter without deadlines (a test's recorder) has no connection to guard.
	_ = l.connection.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, _ = l.w.Write(l.last)
	_ = l.connection.Flush()
}

func (l *lineWriter) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.connection.SetWriteDeadline(time.Now().Add(writeTimeout))
	_ = l.connection.Flush()
}
