package proxy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// Bounds of what an origin lists.
const (
	maxKeptList    = 4 << 20  // bytes of a list that is kept; a longer one is asked for each time
	maxList        = 32 << 20 // of one that is served at all
	maxListed      = 100_000
	maxTagged      = 2000     // entries under a referrers tag, each of which costs a request
	maxAnnotations = 64 << 10 // bytes of those of a descriptor that the origin wrote
	// retryReferrers is what clients are told to wait when the origin said nothing.
	retryReferrers = 30 * time.Second
)

// pushedBatch is how many manifests are looked at for where they came from at once.
const pushedBatch = 128

// ReferrersLister is an origin that lists referrers as it has them: unfiltered,
// and in no order. tagged says that they are what somebody wrote into the index
// under the referrers tag, which nobody has checked. Errors: those of the origin;
// that there are none is no error.
type ReferrersLister interface {
	AllReferrers(ctx context.Context, repo string, subject oci.Digest) (list []oci.Descriptor, tagged bool, err error)
}

// heard is what the origin last said of the referrers of a subject: all of them,
// by digest, none twice.
type heard struct {
	list []oci.Descriptor
	at   time.Time // the zero Time: nothing yet
	kept bool
}

// Referrers are those that the origin lists and those that were pushed here. The
// origin's are kept as they are, unfiltered and apart, and joined with what is
// here now. Where they cannot be had and no earlier list is known, that is
// Unavailable: a short list would read as "not signed".
func (p *Registry) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return func(yield func(oci.Descriptor, error) bool) {
		here, there, err := p.names(repo)
		if err != nil {
			yield(oci.Descriptor{}, err)
			return
		}
		theirs, err := p.theirReferrers(ctx, here, there, subject)
		if err != nil {
			yield(oci.Descriptor{}, err)
			return
		}
		for d, err := range p.joinPushed(ctx, here, subject, theirs, after) {
			if err == nil && artifactType != "" && d.ArtifactType != artifactType {
				continue
			}
			if !yield(d, err) || err != nil {
				return
			}
		}
	}
}

// theirReferrers are the origin's: as they are known, or as it lists them now. It
// is not waited for long where an older list is known.
func (p *Registry) theirReferrers(ctx context.Context, here, there string, subject oci.Digest) ([]oci.Descriptor, error) {
	known, err := p.knownReferrers(ctx, here, subject)
	if err != nil {
		return nil, err
	}
	if p.freshReferrers(known) {
		p.toldReferrers(ctx, "hit", registry.Freshness{Hit: true, Age: p.age(known.at)})
		return known.list, nil
	}
	now, joined, err := p.hearSoon(ctx, here, there, subject, known)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return p.unansweredReferrers(ctx, here, subject, known, err)
	}
	f := registry.Freshness{Forward: "uri-miss", Status: statusOK, Shared: joined, Stored: now.kept, Age: p.age(now.at)}
	if known.at.IsZero() {
		p.toldReferrers(ctx, "miss", f)
	} else {
		f.Forward = "stale"
		p.toldReferrers(ctx, "revalidated", f)
	}
	return now.list, nil
}

// hearSoon asks the origin. Where an older list will do, that is for a while only,
// and not again soon after it did not answer.
func (p *Registry) hearSoon(ctx context.Context, here, there string, subject oci.Digest, known heard) (h heard, joined bool, err error) {
	question := tagName{here, there, "referrers of " + string(subject)}
	waiting := ctx
	if p.servableReferrers(known) {
		if err := p.asks.silence.of(question, p.o.Now()); err != nil {
			return h, false, err
		}
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeoutCause(ctx, cmp.Or(p.asks.patience, patience), errSlow)
		defer cancel()
	}
	h, joined, err = p.hearReferrers(waiting, here, there, subject)
	if err != nil && ctx.Err() == nil {
		if cause := context.Cause(waiting); cause != nil {
			err = cause
		}
		p.asks.silence.add(question, p.o.Now(), err)
	}
	return h, joined, err
}

// unansweredReferrers are those of an older list, where the origin does not say
// which there are now.
func (p *Registry) unansweredReferrers(ctx context.Context, here string, subject oci.Digest, known heard, err error) ([]oci.Descriptor, error) {
	f := registry.Freshness{Forward: "stale", Status: statusOf(err), Detail: detailOf(err), Age: p.age(known.at)}
	if p.servableReferrers(known) {
		p.o.Log.Debug("an older list of referrers is served", "repo", here, "subject", subject, "error", err)
		p.toldReferrers(ctx, "stale", f)
		return known.list, nil
	}
	f.Forward, f.Age = "uri-miss", -1
	p.toldReferrers(ctx, "error", f)
	if p.o.ShortReferrers {
		p.o.Log.Warn("the upstream's referrers are not known; only those that were pushed here are listed",
			"repo", here, "subject", subject, "error", err)
		return nil, nil
	}
	return nil, unheard(err, here, subject)
}

func (p *Registry) toldReferrers(ctx context.Context, result string, f registry.Freshness) {
	registry.NoteFreshness(ctx, f)
	p.o.Observe(Event{Kind: "referrers", Result: result})
}

// unheard is the answer where nothing is known of the origin's referrers.
func unheard(err error, here string, subject oci.Digest) error {
	wait := cmp.Or(retryAfter(err), retryReferrers)
	return &registry.Error{Code: registry.Unavailable, Repo: here, Err: err, Limit: &registry.Limit{RetryAfter: wait},
		Detail: fmt.Sprintf("the upstream registry does not say which referrers %s has, and has not said it before; "+
			"nothing is listed, as a short list would read as not signed; try again later", subject)}
}

func (p *Registry) freshReferrers(h heard) bool {
	return p.recent(h.at, p.stretched(p.o.ReferrersTTL))
}

// servableReferrers reports whether a list will do where the origin does not answer.
func (p *Registry) servableReferrers(h heard) bool {
	return !h.at.IsZero() && p.age(h.at) <= p.o.ReferrersStale
}

// knownReferrers is what was heard before.
func (p *Registry) knownReferrers(ctx context.Context, here string, subject oci.Digest) (h heard, err error) {
	row, err := p.o.State.ProxyReferrers(ctx, here, subject)
	if errors.Is(err, meta.ErrNotFound) {
		return h, nil
	}
	if err != nil {
		return h, coded(err, here)
	}
	if err := json.Unmarshal(row.List, &h.list); err != nil {
		p.o.Log.Error("a kept list of referrers cannot be read; it is asked for again", "repo", here, "subject", subject, "error", err)
		return heard{}, nil
	}
	h.at, h.kept = row.CheckedAt, true
	return h, nil
}

// hearReferrers asks the origin, once for all who ask meanwhile, and keeps what
// it says.
func (p *Registry) hearReferrers(ctx context.Context, here, there string, subject oci.Digest) (h heard, joined bool, err error) {
	return share(ctx, p, "referrers "+here+" "+string(subject),
		func(ctx context.Context) (heard, bool, error) {
			h, err := p.knownReferrers(ctx, here, subject)
			return h, p.freshReferrers(h), err
		},
		func(ctx context.Context) (heard, error) {
			// What becomes of the manifests that confirm a list is not the answer.
			ctx, _ = registry.WithFreshness(ctx)
			at := p.o.Now()
			list, err := p.listReferrers(ctx, here, there, subject)
			if err != nil {
				return heard{}, err
			}
			kept, err := p.keepReferrers(ctx, here, subject, list, at)
			return heard{list, at, kept}, err
		})
}

// keepReferrers saves what was heard. Where that fails it is passed on and asked
// for again; only what is too long for that too is an error.
func (p *Registry) keepReferrers(ctx context.Context, here string, subject oci.Digest, listed []oci.Descriptor, at time.Time) (kept bool, err error) {
	list, err := json.Marshal(listed)
	switch {
	case err != nil:
		return false, err
	case len(list) > maxList:
		return false, registry.Errorf(registry.Faulty, here, "the upstream registry lists %d bytes of referrers of %s; at most %d are allowed", len(list), subject, maxList)
	case len(list) > maxKeptList:
		p.o.Log.Warn("a list of referrers is too long to be kept; the upstream is asked each time, and nothing is known when it does not answer",
			"repo", here, "subject", subject, "bytes", len(list), "most", maxKeptList)
		return false, nil
	}
	if err := p.o.State.SaveProxyReferrers(p.writing(ctx), here, subject, meta.ProxyReferrers{List: list, CheckedAt: at}); err != nil {
		p.o.Log.Warn("a list of referrers could not be kept", "repo", here, "subject", subject, "error", err)
		return false, nil
	}
	return true, nil
}

// listReferrers is all that the origin lists, by digest.
func (p *Registry) listReferrers(ctx context.Context, here, there string, subject oci.Digest) ([]oci.Descriptor, error) {
	var tagged bool
	list, err := within(ctx, p, func(ctx context.Context) (list []oci.Descriptor, err error) {
		list, tagged, err = p.originReferrers(ctx, there, subject)
		return list, err
	})
	switch {
	case plainlyAbsent(err):
		return p.noneAnyMore(ctx, here, there, subject)
	case err != nil:
		return nil, err
	}
	list = tidied(list)
	switch {
	case !tagged:
		return list, nil
	case len(list) == 0:
		return p.noneAnyMore(ctx, here, there, subject)
	}
	return p.confirmed(ctx, here, there, subject, list)
}

// noneAnyMore is the list where an origin has nothing by any of the names that
// referrers are found by: none, if there were none before. Else that is believed of
// a subject that it has. One that it has not was deleted there, or what answers for
// the origin just now is none of it: what is kept of that is still signed.
func (p *Registry) noneAnyMore(ctx context.Context, here, there string, subject oci.Digest) ([]oci.Descriptor, error) {
	known, err := p.knownReferrers(ctx, here, subject)
	if err != nil || known.at.IsZero() || len(known.list) == 0 {
		return nil, err
	}
	_, err = within(ctx, p, func(ctx context.Context) (oci.Descriptor, error) {
		return p.origin.Resolve(ctx, there, oci.DigestRef(subject))
	})
	if plainlyAbsent(err) {
		return known.list, nil
	}
	return nil, err
}

func (p *Registry) originReferrers(ctx context.Context, there string, subject oci.Digest) (list []oci.Descriptor, tagged bool, err error) {
	if lister, ok := p.origin.(ReferrersLister); ok {
		return lister.AllReferrers(ctx, there, subject)
	}
	for d, err := range p.origin.Referrers(ctx, there, subject, "", "") {
		if err != nil {
			return nil, false, err
		}
		if list = append(list, d); len(list) > maxListed {
			return nil, false, registry.Errorf(registry.Faulty, there, "the upstream registry lists more than %d referrers of %s", maxListed, subject)
		}
	}
	return list, false, nil
}

// tidied leaves of an origin's descriptors what says something about a referrer,
// within bounds, sorted and each once.
func tidied(list []oci.Descriptor) []oci.Descriptor {
	tidy := make([]oci.Descriptor, 0, len(list))
	for _, d := range list {
		if _, err := oci.ParseDigest(string(d.Digest)); err != nil || d.Size < 0 || !plain(d.MediaType) {
			continue
		}
		// It stays on the list all the same: what it is stands in its manifest.
		if !plain(d.ArtifactType) {
			d.ArtifactType = ""
		}
		if annotationBytes(d.Annotations) > maxAnnotations {
			d.Annotations = nil
		}
		tidy = append(tidy, oci.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size,
			ArtifactType: d.ArtifactType, Annotations: d.Annotations})
	}
	slices.SortStableFunc(tidy, byDigest)
	return slices.CompactFunc(tidy, func(a, b oci.Descriptor) bool { return a.Digest == b.Digest })
}

func byDigest(a, b oci.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) }

func plain(mediaType string) bool {
	return len(mediaType) <= oci.MaxMediaType && !strings.ContainsFunc(mediaType, unicode.IsControl)
}

func annotationBytes(annotations map[string]string) (n int) {
	for k, v := range annotations {
		n += len(k) + len(v)
	}
	return n
}

// confirmed reads the manifests of a list that nobody has checked: those that are
// no referrers of the subject are left out, and the others described as they are.
// Each is fetched once, as it cannot change. One that cannot be had for now fails
// the list; what does not exist, or is no manifest that this registry passes on, is
// no referrer.
func (p *Registry) confirmed(ctx context.Context, here, there string, subject oci.Digest, list []oci.Descriptor) ([]oci.Descriptor, error) {
	if len(list) > maxTagged {
		return nil, registry.Errorf(registry.Faulty, here, "the index under the referrers tag of %s has %d entries; at most %d are looked at", subject, len(list), maxTagged)
	}
	found := make([]oci.Descriptor, len(list))
	err := fewAtOnce(ctx, len(list), func(ctx context.Context, i int) error {
		m, err := p.manifest(ctx, here, there, oci.DigestRef(list[i].Digest))
		if plainlyAbsent(err) || errors.Is(err, oci.ErrManifest) {
			return nil
		}
		if err != nil {
			return err
		}
		if d, ok := describe(m, subject); ok {
			found[i] = d
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(d oci.Descriptor) bool { return d.Digest == "" }), nil
}

// describe is the descriptor of a manifest as one of its subject's referrers; ok
// is false of one that is not.
func describe(m registry.Manifest, subject oci.Digest) (d oci.Descriptor, ok bool) {
	parsed, err := oci.ParseManifest(m.MediaType, m.Content)
	if err != nil || parsed.Subject == nil || parsed.Subject.Digest != subject {
		return d, false
	}
	return oci.Descriptor{MediaType: parsed.MediaType, Digest: m.Digest, Size: int64(len(m.Content)),
		ArtifactType: parsed.ArtifactType, Annotations: parsed.Annotations}, true
}

// few is how many things are fetched for one purpose at once.
const few = 4

// fewAtOnce does n things, few at a time. The first error ends the rest.
func fewAtOnce(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	free := make(chan struct{}, few)
	for i := range n {
		free <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		running.Go(func() {
			defer func() { <-free }()
			if _, err := recovered(func() (any, error) { return nil, do(ctx, i) }); err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

// joinPushed yields the origin's referrers and those that were pushed here, by
// digest, starting behind after. One that is in the cache is described as it is
// there, whatever the origin says of it.
func (p *Registry) joinPushed(ctx context.Context, here string, subject oci.Digest, theirs []oci.Descriptor, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return func(yield func(oci.Descriptor, error) bool) {
		next := find(theirs, after)
		if next < len(theirs) && theirs[next].Digest == after {
			next++
		}
		for d, err := range p.cachedReferrers(ctx, here, subject, theirs, after) {
			if err != nil {
				yield(oci.Descriptor{}, err)
				return
			}
			for ; next < len(theirs) && theirs[next].Digest < d.Digest; next++ {
				if !yield(theirs[next], nil) {
					return
				}
			}
			if next < len(theirs) && theirs[next].Digest == d.Digest {
				next++
			}
			if !yield(d, nil) {
				return
			}
		}
		for _, d := range theirs[next:] {
			if !yield(d, nil) {
				return
			}
		}
	}
}

// find is the place of a digest in a sorted list.
func find(list []oci.Descriptor, d oci.Digest) int {
	i, _ := slices.BinarySearchFunc(list, d, func(e oci.Descriptor, d oci.Digest) int { return strings.Compare(string(e.Digest), string(d)) })
	return i
}

// cachedReferrers yields the referrers in the cache that were pushed here or are
// on the origin's list. Others came from it once, and it lists them no more.
func (p *Registry) cachedReferrers(ctx context.Context, here string, subject oci.Digest, theirs []oci.Descriptor, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return func(yield func(oci.Descriptor, error) bool) {
		listed := func(d oci.Digest) bool {
			i := find(theirs, d)
			return i < len(theirs) && theirs[i].Digest == d
		}
		for batch, err := range batches(p.cache.Referrers(ctx, here, subject, "", after), pushedBatch) {
			if err != nil {
				yield(oci.Descriptor{}, err)
				return
			}
			var ask []oci.Digest
			for _, d := range batch {
				if !listed(d.Digest) {
					ask = append(ask, d.Digest)
				}
			}
			theirOld, err := p.fromOrigin(ctx, here, ask)
			if err != nil {
				yield(oci.Descriptor{}, err)
				return
			}
			for _, d := range batch {
				if !theirOld[d.Digest] && !yield(d, nil) {
					return
				}
			}
		}
	}
}

// fromOrigin says which manifests came from the origin.
func (p *Registry) fromOrigin(ctx context.Context, here string, digests []oci.Digest) (map[oci.Digest]bool, error) {
	if len(digests) == 0 {
		return nil, nil
	}
	theirs, err := p.o.State.FromUpstream(ctx, here, digests)
	return theirs, coded(err, here)
}

// batches yields up to n values at a time, and an error by itself.
func batches[T any](seq iter.Seq2[T, error], n int) iter.Seq2[[]T, error] {
	return func(yield func([]T, error) bool) {
		var batch []T
		for v, err := range seq {
			if err != nil {
				yield(nil, err)
				return
			}
			if batch = append(batch, v); len(batch) < n {
				continue
			}
			if !yield(batch, nil) {
				return
			}
			batch = batch[:0]
		}
		if len(batch) > 0 {
			yield(batch, nil)
		}
	}
}
