package remote

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// Bounds of one walk over a list, so that no upstream can make it endless.
const (
	pageSize = 1000
	maxPages = 10_000
	maxPage  = 32 << 20  // bytes
	maxList  = 256 << 20 // bytes, all pages together
	maxHeld  = 32 << 20  // bytes of names that are held at once, to be sorted
)

// Tags asks for what comes after the given tag, page by page.
func (r *Registry) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return r.names(ctx, after, oci.CheckTag, request{
		repo: repo, url: r.at(repo, "/tags/list", nil), absent: registry.NameUnknown,
	})
}

// Repositories is Unsupported where upstream has no catalog or keeps it closed.
func (r *Registry) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	names := r.names(ctx, after, oci.CheckRepository, request{url: r.at("_catalog", "", nil), absent: registry.Unsupported})
	return func(yield func(string, error) bool) {
		for name, err := range names {
			switch registry.CodeOf(err) {
			case registry.Unauthorized, registry.Denied, registry.NameUnknown:
				err = registry.Errorf(registry.Unsupported, "", "the upstream registry does not show its catalog")
			}
			if !yield(name, err) {
				return
			}
		}
	}
}

// names walks a list of names in bytewise order. An upstream that has another
// order is asked for everything, from then on always, and its list is sorted.
func (r *Registry) names(ctx context.Context, after string, check func(string) error, req request) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if !r.unordered.Load() {
			last, ok := after, true
			for page, err := range r.pages(ctx, req, after) {
				if err != nil {
					yield("", err)
					return
				}
				if !ordered(page, last) {
					r.unordered.Store(true)
					break
				}
				if last, ok = yieldAfter(page, last, check, yield); !ok {
					return
				}
			}
			if !r.unordered.Load() {
				return
			}
			after = last
		}
		all, err := r.sorted(ctx, req)
		if err != nil {
			yield("", err)
			return
		}
		yieldAfter(all, after, check, yield)
	}
}

// ordered reports whether page is in bytewise order and lies behind last.
func ordered(page []string, last string) bool {
	return slices.IsSorted(page) && (len(page) == 0 || last == "" || page[0] > last)
}

// yieldAfter yields the valid names of a sorted list that come after last and
// returns the last one; ok is false when the walk was ended.
func yieldAfter(list []string, last string, check func(string) error, yield func(string, error) bool) (_ string, ok bool) {
	for _, name := range list {
		if name <= last || check(name) != nil {
			continue
		}
		if !yield(name, nil) {
			return name, false
		}
		last = name
	}
	return last, true
}

// sorted collects a whole list.
func (r *Registry) sorted(ctx context.Context, req request) ([]string, error) {
	var all []string
	held := 0
	for page, err := range r.pages(ctx, req, "") {
		if err != nil {
			return nil, err
		}
		for _, name := range page {
			held += len(name)
		}
		if held > maxHeld {
			return nil, faulty(req.repo, "its list is in no order, and has more than %d bytes", maxHeld)
		}
		all = append(all, page...)
	}
	slices.Sort(all)
	return all, nil
}

// pages gets the pages of a list of names. They are linked; a registry of old
// that links nothing is asked for what comes after a full page.
func (r *Registry) pages(ctx context.Context, req request, after string) iter.Seq2[[]string, error] {
	query := url.Values{"n": {strconv.Itoa(pageSize)}}
	if after != "" {
		query.Set("last", after)
	}
	first := *req.url
	first.RawQuery = query.Encode()
	req.url = &first
	return func(yield func([]string, error) bool) {
		walk := &pager{registry: r, req: req}
		previous := ""
		for walk.req.url != nil {
			var page struct {
				Tags         []string `json:"tags"`
				Repositories []string `json:"repositories"`
			}
			if err := walk.next(ctx, &page); err != nil {
				yield(nil, err)
				return
			}
			names := append(page.Tags, page.Repositories...)
			if len(names) > 0 && names[len(names)-1] == previous {
				return // it ignores last, or repeats itself
			}
			if !yield(names, nil) {
				return
			}
			if walk.req.url == nil && len(names) == pageSize {
				previous = names[len(names)-1]
				walk.req.url = withLast(req.url, previous)
			}
		}
	}
}

func withLast(u *url.URL, last string) *url.URL {
	next := *u
	query := next.Query()
	query.Set("last", last)
	next.RawQuery = query.Encode()
	return &next
}

// pager follows the links of a list within its bounds.
type pager struct {
	registry *Registry
	req      request // url is nil behind the last page
	pages    int
	bytes    int64
}

// next gets a page, decodes it into v and moves on to the one it links.
func (p *pager) next(ctx context.Context, v any) error {
	if p.pages++; p.pages > maxPages {
		return faulty(p.req.repo, "its list has more than %d pages", maxPages)
	}
	p.req.method = http.MethodGet
	resp, err := p.registry.send(ctx, p.req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := http.MaxBytesReader(nil, resp.Body, min(maxPage, maxList-p.bytes))
	decoder := json.NewDecoder(body)
	if err := decoder.Decode(v); err != nil {
		if malformed(err) {
			return &registry.Error{Code: registry.Faulty, Repo: p.req.repo, Err: err,
				Detail: "the upstream registry is at fault: its list is malformed or too long"}
		}
		return broken(p.req.repo, err)
	}
	p.bytes += decoder.InputOffset()
	p.req.url, err = p.registry.nextLink(p.req, resp)
	return err
}

// malformed reports whether reading a list failed for what it holds, rather
// than for where it ends.
func malformed(err error) bool {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	var long *http.MaxBytesError
	return errors.As(err, &syntax) || errors.As(err, &kind) || errors.As(err, &long)
}

// Holders are none: the protocol has no way to ask. A mount from any repository
// is for the other side to find.
func (r *Registry) Holders(context.Context, string, oci.Digest) iter.Seq2[string, error] {
	return func(func(string, error) bool) {}
}
