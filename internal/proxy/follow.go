package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// What is fetched beside requests: few at a time, for people wait for others, and
// what does not fit into the queue is asked for again with the next pull.
const (
	fetchers   = 2
	maxQueued  = 1000
	maxSettled = 10_000
	// retryFetch and lookAgain are how long a manifest whose company could not be
	// fetched, or is there, is not looked at again by this process.
	retryFetch = time.Minute
	lookAgain  = 10 * time.Minute
	fetchTime  = 15 * time.Minute // for the company of one manifest
)

// Bounds of the company of one manifest. What is beyond them is left to those who
// ask for it.
const (
	maxCompany   = 200       // manifests
	maxCompanion = 100 << 20 // bytes of all blobs of one
	companyDepth = 2         // referrers, and their own
)

// cosignCompany is what cosign's tags are called among artifact types.
const cosignCompany = "cosign"

// fetcher fetches what belongs to manifests that were served, beside requests.
type fetcher struct {
	mu      sync.Mutex
	queue   []fetchJob
	settled map[fetchJob]time.Time // queued (zero), or not to be looked at before
	wake    chan struct{}
	made    sync.Once
}

// fetchJob is a manifest whose company is to be fetched or, if alone, the manifest
// itself.
type fetchJob struct {
	here   string
	digest oci.Digest
	alone  bool
}

// ready signals that something is queued.
func (f *fetcher) ready() chan struct{} {
	f.made.Do(func() { f.wake = make(chan struct{}, 1) })
	return f.wake
}

// add queues a job, unless it is queued, was done lately, or there are too many.
func (f *fetcher) add(j fetchJob, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, known := f.settled[j]
	if known && (before.IsZero() || now.Before(before)) || len(f.queue) >= maxQueued {
		return
	}
	if f.settled == nil || len(f.settled) >= maxSettled {
		f.settled = map[fetchJob]time.Time{}
	}
	f.settled[j] = time.Time{}
	f.queue = append(f.queue, j)
	f.signal()
}

func (f *fetcher) signal() {
	select {
	case f.ready() <- struct{}{}:
	default:
	}
}

// take waits for a job; ok is false when ctx has ended.
func (f *fetcher) take(ctx context.Context) (j fetchJob, ok bool) {
	for {
		select {
		case <-ctx.Done():
			return j, false
		case <-f.ready():
		}
		f.mu.Lock()
		if len(f.queue) > 0 {
			j, ok = f.queue[0], true
			f.queue = slices.Delete(f.queue, 0, 1)
		}
		if len(f.queue) > 0 {
			f.signal() // the next one's
		}
		f.mu.Unlock()
		if ok {
			return j, true
		}
	}
}

// settle notes until when a job is not to be done again.
func (f *fetcher) settle(j fetchJob, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.settled != nil {
		f.settled[j] = until
	}
}

// forget has what belongs to a manifest that was evicted fetched again with it.
func (f *fetcher) forget(here string, d oci.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, alone := range [...]bool{false, true} {
		j := fetchJob{here: here, digest: d, alone: alone}
		if before := f.settled[j]; !before.IsZero() {
			delete(f.settled, j)
		}
	}
}

// keepFetching fetches what is queued, until ctx ends.
func (p *Registry) keepFetching(ctx context.Context) {
	var running sync.WaitGroup
	for range fetchers {
		running.Go(func() {
			for {
				j, ok := p.fetcher.take(ctx)
				if !ok {
					return
				}
				p.fetchQueued(ctx, j)
			}
		})
	}
	running.Wait()
}

// follow has what belongs to a manifest fetched soon, if that has not been done.
func (p *Registry) follow(here string, m registry.Manifest) {
	if len(p.o.Prefetch) > 0 {
		p.fetcher.add(fetchJob{here: here, digest: m.Digest}, p.o.Now())
	}
}

// keepSubject has the subject of what was pushed here fetched soon, if the origin
// has it: what has no subject is collected after a time.
func (p *Registry) keepSubject(here string, subject oci.Digest) {
	p.fetcher.add(fetchJob{here: here, digest: subject, alone: true}, p.o.Now())
}

// fetchQueued does a job and notes when it may be done again.
func (p *Registry) fetchQueued(ctx context.Context, j fetchJob) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	ctx, _ = registry.WithFreshness(ctx)
	_, err := recovered(func() (any, error) { return nil, p.fetchFor(ctx, j) })
	if err == nil {
		p.fetcher.settle(j, p.o.Now().Add(lookAgain))
		return
	}
	p.fetcher.settle(j, p.o.Now().Add(retryFetch))
	if p.ctx.Err() == nil {
		p.o.Log.Info("what belongs to a manifest could not be fetched; a later pull tries again",
			"repo", j.here, "digest", j.digest, "error", err)
	}
}

// there is what the origin calls a repository here.
func (p *Registry) there(here string) string { return strings.TrimPrefix(here, p.o.Name+"/") }

func (p *Registry) fetchFor(ctx context.Context, j fetchJob) error {
	if !j.alone {
		return p.fetchCompany(ctx, j)
	}
	_, err := p.manifest(ctx, j.here, p.there(j.here), oci.DigestRef(j.digest))
	if plainlyAbsent(err) {
		return nil
	}
	return err
}

// fetchCompany fetches what Options.Prefetch names of a manifest from the origin,
// unless it is there. The company of referrers comes with that of their subject.
func (p *Registry) fetchCompany(ctx context.Context, j fetchJob) error {
	row, err := p.o.State.ProxyManifest(ctx, j.here, j.digest)
	if errors.Is(err, meta.ErrNotFound) || err == nil && (row.Prefetched || row.Subject != "") {
		return nil
	}
	if err != nil {
		return err
	}
	f := &fetching{p: p, here: j.here, there: p.there(j.here), wanted: p.o.Prefetch}
	if err := f.company(ctx, j.digest, companyDepth); err != nil {
		return err
	}
	return p.markPrefetched(ctx, j.here, j.digest)
}

// markPrefetched notes that what belongs to a manifest is here; one that was
// evicted meanwhile, or pushed here, has no note.
func (p *Registry) markPrefetched(ctx context.Context, here string, d oci.Digest) error {
	if err := p.o.State.MarkPrefetched(p.writing(ctx), here, d); !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	return nil
}

// fetching brings the company of one manifest into the cache, one thing after the
// other.
type fetching struct {
	p           *Registry
	here, there string
	wanted      []string // artifact types
	manifests   int
}

func (f *fetching) wants(artifactType string) bool {
	return slices.Contains(f.wanted, "*") || slices.Contains(f.wanted, artifactType)
}

// company fetches the referrers of a manifest, and theirs, and what cosign's tags
// stand for.
func (f *fetching) company(ctx context.Context, subject oci.Digest, depth int) error {
	referrers, err := f.p.freshlyHeard(ctx, f.here, f.there, subject)
	if err != nil {
		return err
	}
	for _, d := range referrers {
		// One whose type the origin does not say is looked at.
		if d.ArtifactType != "" && !f.wants(d.ArtifactType) {
			continue
		}
		_, fetched, err := f.companion(ctx, oci.DigestRef(d.Digest))
		if err != nil {
			return err
		}
		if fetched && depth > 1 {
			if err := f.company(ctx, d.Digest, depth-1); err != nil {
				return err
			}
		}
	}
	if !f.wants(cosignCompany) || depth < companyDepth {
		return nil
	}
	for _, tag := range cosignTags(subject) {
		m, fetched, err := f.companion(ctx, oci.TagRef(tag))
		if err == nil && fetched { // nothing more belongs to it
			err = f.p.markPrefetched(ctx, f.here, m.Digest)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// companion fetches a manifest, and its blobs if it is wanted and within bounds.
func (f *fetching) companion(ctx context.Context, ref oci.Ref) (m registry.Manifest, fetched bool, err error) {
	if f.manifests++; f.manifests > maxCompany {
		return m, false, nil
	}
	m, err = f.p.manifest(ctx, f.here, f.there, ref)
	if plainlyAbsent(err) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	parsed, err := oci.ParseManifest(m.MediaType, m.Content)
	if err != nil || ref.IsDigest() && !f.wants(parsed.ArtifactType) {
		return m, false, nil
	}
	var size int64
	for _, d := range parsed.Blobs {
		if size += d.Size; size > maxCompanion || size < 0 {
			f.p.o.Log.Info("a referrer is too large to be fetched before somebody asks for it", "repo", f.here, "digest", m.Digest, "most", maxCompanion)
			return m, false, nil
		}
	}
	f.p.expect(f.here, parsed)
	for _, d := range parsed.Blobs {
		if err := f.p.fetchBlob(ctx, f.here, f.there, d.Digest); err != nil {
			return m, false, fmt.Errorf("blob %s of %s: %w", d.Digest, ref, err)
		}
	}
	return m, true, nil
}

// freshlyHeard are the origin's referrers of a subject, not those of an older list.
func (p *Registry) freshlyHeard(ctx context.Context, here, there string, subject oci.Digest) ([]oci.Descriptor, error) {
	known, err := p.knownReferrers(ctx, here, subject)
	if err != nil || p.freshReferrers(known) {
		return known.list, err
	}
	now, _, err := p.hearReferrers(ctx, here, there, subject)
	return now.list, err
}
