package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/berth-registry/berth/internal/registry"
)

const maxRedirects = 5

// request is one request to the registry.
type request struct {
	method string
	repo   string // "" for the catalog
	url    *url.URL
	header http.Header
	body   io.Reader // nil: none
	length int64     // of the body; -1 where it is not known
	absent registry.Code
}

// at is the address of a resource of repo. What stands in path was validated
// and needs no escape.
func (r *Registry) at(repo, path string, query url.Values) *url.URL {
	u := *r.base
	u.Path = "/v2/" + repo + path
	u.RawQuery = query.Encode()
	return &u
}

// send returns an answer of the 2xx class, whose body the caller closes, or an
// error with a code. req.absent is the code of a 404 that does not say more.
func (r *Registry) send(ctx context.Context, req request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	hr, err := r.prepare(ctx, req)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp, err := r.client.Do(hr)
	if err != nil {
		defer cancel(nil)
		return nil, r.unreachable(ctx, req, err)
	}
	resp.Body = guardBody(resp.Body, r.o.Stall, cancel)
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, decodeError(resp, req)
}

func (r *Registry) prepare(ctx context.Context, req request) (*http.Request, error) {
	hr, err := http.NewRequestWithContext(ctx, req.method, req.url.String(), req.body)
	if err != nil {
		return nil, &registry.Error{Code: registry.Internal, Repo: req.repo, Err: err}
	}
	if req.body != nil {
		hr.ContentLength = req.length
	}
	for key, values := range req.header {
		hr.Header[key] = values
	}
	hr.Header.Set("Accept-Encoding", "identity")
	hr.Header.Set("User-Agent", "berth")
	if r.o.Authorization == nil {
		return hr, nil
	}
	value, err := r.o.Authorization(ctx, req.repo)
	if err != nil {
		return nil, &registry.Error{Code: registry.Unavailable, Repo: req.repo,
			Detail: "no credentials for the upstream registry could be had; try again", Err: err}
	}
	if value != "" {
		hr.Header.Set("Authorization", value)
	}
	return hr, nil
}

// unreachable describes a request that got no answer, without its URL: a query
// may hold what is nobody's business.
func (r *Registry) unreachable(ctx context.Context, req request, err error) error {
	var withURL *url.Error
	if errors.As(err, &withURL) {
		err = withURL.Err
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return &registry.Error{Code: registry.Unavailable, Repo: req.repo,
		Detail: fmt.Sprintf("no answer from the registry at %s; try again", r.base.Host), Err: err}
}

// checkRedirect follows reads alone, takes credentials away as soon as the way
// leads over another origin, and never leaves TLS.
func (r *Registry) checkRedirect(req *http.Request, via []*http.Request) error {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return http.ErrUseLastResponse
	}
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if r.base.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("redirected from https to another scheme")
	}
	foreign := !r.ours(req.URL)
	for _, earlier := range via {
		foreign = foreign || !r.ours(earlier.URL)
	}
	if foreign {
		req.Header.Del("Authorization")
		req.Header.Del("Referer")
	}
	return nil
}

// ours reports whether u lies at the registry's own origin.
func (r *Registry) ours(u *url.URL) bool {
	return u.Scheme == r.base.Scheme && u.Host == r.base.Host
}

var errStalled = errors.New("the body stalled")

// guardedBody ends a request whose body brings nothing for a while, and frees
// its context when it is closed.
type guardedBody struct {
	io.ReadCloser
	stall  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func guardBody(body io.ReadCloser, stall time.Duration, cancel context.CancelCauseFunc) *guardedBody {
	timer := time.AfterFunc(stall, func() { cancel(errStalled) })
	timer.Stop()
	return &guardedBody{ReadCloser: body, stall: stall, timer: timer, cancel: cancel}
}

// Read counts the time of reading alone, not that between two reads.
func (b *guardedBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.stall)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	return n, err
}

func (b *guardedBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// discard ends an answer whose body is of no interest, so that its connection
// can serve again.
func discard(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, maxErrorBody)
	resp.Body.Close()
}
