package proxy

import (
	"context"
	"iter"
	"strings"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// maxTags bounds what one walk takes of an origin's list.
const maxTags = 1_000_000

// Tags are those of the origin and those that are here beside them: pushed here,
// or deleted there and kept. Where the origin does not answer they are those that
// are here.
func (p *Registry) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		here, there, err := p.names(repo)
		if err != nil {
			p.o.Observe(Event{Kind: "tags", Result: "negative"})
			yield("", err)
			return
		}
		theirs, stop, failure := begin(p.theirTags(ctx, there, after))
		defer stop()
		show := p.showAny
		if p.o.Follow && (failure == nil || plainlyAbsent(failure)) {
			show = p.showPushed
		}
		if err := p.noteTags(ctx, here, failure, show); err != nil {
			yield("", err)
			return
		}
		for l, err := range registry.Union(compareListed, theirs, p.ourTags(ctx, here, after)) {
			ok := err == nil
			if ok && l.ours {
				ok, err = show(ctx, here, l.tag)
			}
			if (ok || err != nil) && !yield(l.tag, err) || err != nil {
				return
			}
		}
	}
}

// noteTags says how a list came about whose origin began with failure, or with
// none. An error says that there is no list to answer with.
func (p *Registry) noteTags(ctx context.Context, here string, failure error, show func(context.Context, string, string) (bool, error)) error {
	f, result, err := registry.Freshness{Forward: "miss", Status: statusOK}, "miss", failure
	if failure != nil {
		f = registry.Freshness{Forward: "stale", Status: statusOf(failure), Detail: detailOf(failure), Age: -1}
		result = "stale"
		known, ours := p.anyTag(ctx, here, show)
		switch {
		case ours != nil:
			err, result = ours, "error"
		case known:
			err = nil
		case notThere(failure):
			result = "negative"
		default:
			result = "error"
		}
	}
	registry.NoteFreshness(ctx, f)
	p.o.Observe(Event{Kind: "tags", Result: result})
	return err
}

// anyTag reports whether there is a tag to show here.
func (p *Registry) anyTag(ctx context.Context, here string, show func(context.Context, string, string) (bool, error)) (bool, error) {
	for l, err := range p.ourTags(ctx, here, "") {
		if err != nil {
			return false, err
		}
		if ok, err := show(ctx, here, l.tag); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (p *Registry) showAny(context.Context, string, string) (bool, error) { return true, nil }

// showPushed shows a tag that the origin does not list only if it was pushed here.
func (p *Registry) showPushed(ctx context.Context, here, tag string) (bool, error) {
	k, err := p.know(ctx, tagName{here: here, tag: tag})
	return k.pushed, err
}

// listed is a tag in a list.
type listed struct {
	tag  string
	ours bool // of the cache, else of the origin
}

func compareListed(a, b listed) int { return strings.Compare(a.tag, b.tag) }

// theirTags lists the origin's, as far as they are tags.
func (p *Registry) theirTags(ctx context.Context, there, after string) iter.Seq2[listed, error] {
	return func(yield func(listed, error) bool) {
		n := 0
		for tag, err := range p.origin.Tags(ctx, there, after) {
			err = theirs(err, there)
			if n++; err == nil && n > maxTags {
				err = registry.Errorf(registry.Faulty, there, "the upstream lists more than %d tags", maxTags)
			}
			if err == nil && oci.CheckTag(tag) != nil {
				continue
			}
			if !yield(listed{tag: tag}, err) || err != nil {
				return
			}
		}
	}
}

// ourTags lists the cache's; a repository that it does not have has none.
func (p *Registry) ourTags(ctx context.Context, here, after string) iter.Seq2[listed, error] {
	return func(yield func(listed, error) bool) {
		for tag, err := range p.cache.Tags(ctx, here, after) {
			if notThere(err) || !yield(listed{tag, true}, err) || err != nil {
				return
			}
		}
	}
}

// begin walks to the first element of a list and returns the whole of it, to be
// walked once, or the error that it begins with. stop ends the walk.
func begin[T any](seq iter.Seq2[T, error]) (whole iter.Seq2[T, error], stop func(), _ error) {
	next, stop := iter.Pull2(seq)
	v, err, ok := next()
	if err != nil {
		ok = false
	}
	return func(yield func(T, error) bool) {
		for ; ok; v, err, ok = next() {
			if !yield(v, err) {
				return
			}
		}
	}, stop, err
}

// Repositories are those of the cache: what was asked for so far.
func (p *Registry) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		// Behind "NAME/" and before "NAME0", for '0' is the byte behind '/'.
		for name, err := range p.cache.Repositories(ctx, max(after, p.o.Name+"/")) {
			if err == nil && name >= p.o.Name+"0" {
				return
			}
			if err == nil && !p.shows(name) {
				continue
			}
			if !yield(name, err) || err != nil {
				return
			}
		}
	}
}

// Holders are those of the cache that are this proxy's.
func (p *Registry) Holders(ctx context.Context, near string, d oci.Digest) iter.Seq2[string, error] {
	if here, _, err := p.names(near); err == nil {
		near = here
	}
	return func(yield func(string, error) bool) {
		for name, err := range p.cache.Holders(ctx, near, d) {
			if err == nil && !p.shows(name) {
				continue
			}
			if !yield(name, err) || err != nil {
				return
			}
		}
	}
}

// shows reports whether a repository of the cache is one of this proxy that may
// be had.
func (p *Registry) shows(name string) bool {
	there, ok := strings.CutPrefix(name, p.o.Name+"/")
	return ok && p.o.Allow(there)
}
