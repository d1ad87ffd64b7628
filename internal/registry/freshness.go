package registry

import (
	"context"
	"sync"
	"time"
)

// Freshness says where an answer came from, for a front that tells its clients
// (RFC 9211, Cache-Status). A registry that answers from its own content says
// nothing.
type Freshness struct {
	Hit     bool          // answered without asking elsewhere
	Forward string        // why elsewhere was asked, or would have been: "uri-miss", "stale", "miss"; "" of a hit
	Status  int           // HTTP status that elsewhere answered with; 0: none, or it was not asked
	Shared  bool          // another request asked for both
	Stored  bool          // the answer is kept
	Age     time.Duration // since elsewhere last said that it is so; negative: not known
	Detail  string        // one token that says more, such as "upstream-unavailable"; may be ""
}

// freshnessKey is that of a *FreshnessNote in a context.
type freshnessKey struct{}

// FreshnessNote keeps what registries note of one answer. The zero value is ready.
type FreshnessNote struct {
	mu   sync.Mutex
	last *Freshness
}

// In makes a context in which registries write on the note.
func (n *FreshnessNote) In(ctx context.Context) context.Context {
	return context.WithValue(ctx, freshnessKey{}, n)
}

// Told is what was noted last; nil: nothing was.
func (n *FreshnessNote) Told() *Freshness {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.last
}

// WithFreshness is FreshnessNote.In with a note of its own, and its Told.
func WithFreshness(ctx context.Context) (_ context.Context, told func() *Freshness) {
	n := &FreshnessNote{}
	return n.In(ctx), n.Told
}

// NoteFreshness tells who asked with ctx, if anybody wants to know.
func NoteFreshness(ctx context.Context, f Freshness) {
	if n, ok := ctx.Value(freshnessKey{}).(*FreshnessNote); ok {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.last = &f
	}
}
