package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// Bounds of a Prefetch.
const (
	maxWhole       = 10_000 // manifests
	maxWholeDepth  = 5      // indexes in indexes, referrers of referrers
	maxWholeErrors = 20     // that are told
)

// Progress is how far a Prefetch is: what is in the cache, how much of it the
// origin sent for this is not known.
type Progress struct {
	Manifests int   `json:"manifests"`
	Blobs     int   `json:"blobs"`
	Bytes     int64 `json:"bytes"`  // of both
	Failed    int   `json:"failed"` // manifests and blobs
}

// Prefetch brings a whole image into the cache: the manifest or index that ref
// names, the children of an index, configs and layers, and the referrers and
// cosign's tags of each. platforms, such as "linux/amd64" or "linux/arm/v7",
// leave out other children that say what they run on; none: all. report is told
// of each step, one at a time; nil: nobody is. What fails does not stop the rest:
// the error joins what could not be had, each with its name. Errors: NameUnknown,
// ManifestUnknown.
func (p *Registry) Prefetch(ctx context.Context, repo string, ref oci.Ref, report func(Progress), platforms ...string) error {
	here, there, err := p.names(repo)
	if err != nil {
		return err
	}
	if report == nil {
		report = func(Progress) {}
	}
	ctx, _ = registry.WithFreshness(ctx)
	m, err := p.manifest(ctx, here, there, ref)
	if err != nil {
		return err
	}
	w := &whole{p: p, here: here, there: there, platforms: platforms, report: report,
		seen: map[oci.Digest]bool{}, free: make(chan struct{}, few)}
	w.manifest(ctx, m, 0)
	w.running.Wait()
	return w.outcome(ctx)
}

// whole is a Prefetch under way. One goroutine walks manifests; blobs are fetched
// a few at a time beside it.
type whole struct {
	p           *Registry
	here, there string
	platforms   []string
	report      func(Progress)

	seen    map[oci.Digest]bool // manifests and blobs
	walked  int                 // manifests
	free    chan struct{}
	running sync.WaitGroup

	mu   sync.Mutex
	at   Progress
	errs []error
}

func (w *whole) outcome(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if more := w.at.Failed - len(w.errs); more > 0 {
		w.errs = append(w.errs, fmt.Errorf("and %d more", more))
	}
	return errors.Join(w.errs...)
}

// step notes what was done and tells of it.
func (w *whole) step(what string, done Progress, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		done = Progress{Failed: 1}
		if len(w.errs) < maxWholeErrors {
			w.errs = append(w.errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	w.at.Manifests += done.Manifests
	w.at.Blobs += done.Blobs
	w.at.Bytes += done.Bytes
	w.at.Failed += done.Failed
	w.report(w.at)
}

// named fetches a manifest and all that belongs to it. One that nobody promised
// may be absent.
func (w *whole) named(ctx context.Context, ref oci.Ref, promised bool, depth int) {
	if ctx.Err() != nil || ref.IsDigest() && w.seen[ref.Digest] {
		return
	}
	m, err := w.p.manifest(ctx, w.here, w.there, ref)
	switch {
	case !promised && plainlyAbsent(err):
	case err != nil:
		w.step(ref.String(), Progress{}, err)
	default:
		w.manifest(ctx, m, depth)
	}
}

// manifest fetches all that belongs to a manifest that is there.
func (w *whole) manifest(ctx context.Context, m registry.Manifest, depth int) {
	if w.seen[m.Digest] {
		return
	}
	w.seen[m.Digest] = true
	if w.walked++; w.walked > maxWhole || depth > maxWholeDepth {
		w.step(m.Digest.String(), Progress{}, fmt.Errorf("more than %d manifests, or one in another more than %d times", maxWhole, maxWholeDepth))
		return
	}
	parsed, err := oci.ParseManifest(m.MediaType, m.Content)
	w.step(m.Digest.String(), Progress{Manifests: 1, Bytes: int64(len(m.Content))}, err)
	if err != nil {
		return
	}
	w.p.expect(w.here, parsed)
	for _, d := range parsed.Blobs {
		w.blob(ctx, d)
	}
	w.children(ctx, parsed, depth)
	w.company(ctx, m.Digest, depth)
}

// blob fetches a blob beside the walk, which waits when a few are under way.
func (w *whole) blob(ctx context.Context, d oci.Descriptor) {
	if w.seen[d.Digest] {
		return
	}
	w.seen[d.Digest] = true
	select {
	case w.free <- struct{}{}:
	case <-ctx.Done():
		return
	}
	w.running.Go(func() {
		defer func() { <-w.free }()
		_, err := recovered(func() (any, error) { return nil, w.p.fetchBlob(ctx, w.here, w.there, d.Digest) })
		w.step(d.Digest.String(), Progress{Blobs: 1, Bytes: d.Size}, err)
	})
}

// children fetches what an index holds, for the platforms that are wanted.
func (w *whole) children(ctx context.Context, parsed *oci.Manifest, depth int) {
	var taken, others []string
	for _, d := range parsed.Manifests {
		platform := platformOf(d)
		if platform != "" && !w.wants(platform) {
			others = append(others, platform)
			continue
		}
		if platform != "" {
			taken = append(taken, platform)
		}
		w.named(ctx, oci.DigestRef(d.Digest), true, depth+1)
	}
	if len(taken) == 0 && len(others) > 0 {
		w.step("platforms", Progress{}, fmt.Errorf("the index has none of %s; it has %.500s",
			strings.Join(w.platforms, ", "), strings.Join(others, ", ")))
	}
}

// wants reports whether children for a platform are; what is wanted may leave out
// a variant.
func (w *whole) wants(platform string) bool {
	return len(w.platforms) == 0 || slices.ContainsFunc(w.platforms, func(want string) bool {
		return platform == want || strings.HasPrefix(platform, want+"/")
	})
}

// platformOf is what a child of an index runs on, "" where that is not said.
func platformOf(d oci.Descriptor) string {
	var p struct{ OS, Architecture, Variant string }
	if json.Unmarshal(d.Platform, &p) != nil || p.OS == "" || p.OS == "unknown" {
		return "" // such as an attestation that lies in the index
	}
	if p.Variant != "" {
		p.Architecture += "/" + p.Variant
	}
	return p.OS + "/" + p.Architecture
}

// company fetches all referrers of a manifest, and what cosign's tags stand for.
func (w *whole) company(ctx context.Context, subject oci.Digest, depth int) {
	referrers, err := w.p.freshlyHeard(ctx, w.here, w.there, subject)
	if err != nil {
		w.step("referrers of "+subject.String(), Progress{}, err)
		return
	}
	for _, d := range referrers {
		w.named(ctx, oci.DigestRef(d.Digest), false, depth+1)
	}
	for _, tag := range cosignTags(subject) {
		w.named(ctx, oci.TagRef(tag), false, depth+1)
	}
}
