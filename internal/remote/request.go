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

// send returns an answer of the 2xx class, whose body the caller closes, or an
// error with a code. req.absent is the code of a 404 that does not say more.
func (r *Registry) send(ctx context.Context, req request) (*http.Response, error) {
	resp, err := r.try(ctx, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusUnauthorized && r.o.Challenged != nil && req.body == nil && !strayed(resp.Request) {
		discard(resp)
		retry, err := r.o.Challenged(ctx, req.repo, resp.Request.Header.Get("Authorization"), resp.Header)
		if err != nil {
			return nil, noCredentials(req.repo, err)
		}
		if !retry {
			return nil, r.refused(resp, req, wireError{})
		}
		if resp, err = r.try(ctx, req); err != nil {
			return nil, err
		}
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, r.decodeError(resp, req)
}

// try sends a request once and returns whatever answer comes.
func (r *Registry) try(ctx context.Context, req request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, strayKey{}, new(bool)))
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
	return resp, nil
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
		return nil, noCredentials(req.repo, err)
	}
	if value != "" {
		hr.Header.Set("Authorization", value)
	}
	return hr, nil
}

// strayKey is that of a *bool in a request's context: it has been led to
// another address than the registry's, and what answers is none of its words.
type strayKey struct{}

func strayed(req *http.Request) bool {
	stray, ok := req.Context().Value(strayKey{}).(*bool)
	return ok && *stray
}

// errRedirect is wrapped by refusals to follow a redirect.
var errRedirect = errors.New("redirect not followed")

// homeKey is that of a true in the context of requests that are not to be led
// to another address.
type homeKey struct{}

// checkRedirect follows reads alone, takes credentials away as soon as the way
// leads over another address, and never leaves TLS.
func (r *Registry) checkRedirect(req *http.Request, via []*http.Request) error {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return http.ErrUseLastResponse
	}
	if len(via) > maxRedirects {
		return fmt.Errorf("%w: more than %d redirects", errRedirect, maxRedirects)
	}
	foreign := !r.ours(req.URL)
	if foreign && req.Context().Value(homeKey{}) != nil {
		return http.ErrUseLastResponse
	}
	if r.base.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("%w: it leads from https to another scheme", errRedirect)
	}
	if stray, ok := req.Context().Value(strayKey{}).(*bool); ok {
		*stray = *stray || foreign
		foreign = *stray
	}
	if foreign {
		req.Header.Del("Authorization")
		req.Header.Del("Referer")
	}
	return nil
}

var errStalled = errors.New("the body stalled")

// guardedBody ends a request whose body brings nothing for a while, and frees
// its context when it is closed.
type guardedBody struct {
	io.ReadCloser
	stall  time.Duration
	timer  *time.Timer // nil: it may take its time
	cancel context.CancelCauseFunc
}

func guardBody(body io.ReadCloser, stall time.Duration, cancel context.CancelCauseFunc) *guardedBody {
	b := &guardedBody{ReadCloser: body, stall: stall, cancel: cancel}
	if stall > 0 {
		b.timer = time.AfterFunc(stall, func() { cancel(errStalled) })
		b.timer.Stop()
	}
	return b
}

// Read counts the time of reading alone, not that between two reads.
func (b *guardedBody) Read(p []byte) (int, error) {
	if b.timer == nil {
		return b.ReadCloser.Read(p)
	}
	b.timer.Reset(b.stall)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	return n, err
}

func (b *guardedBody) Close() error {
	if b.timer != nil {
		b.timer.Stop()
	}
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
