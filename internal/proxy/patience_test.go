package proxy

import (
	"context"
	"iter"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

func (l *listened) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return func(yield func(oci.Descriptor, error) bool) {
		if err := l.note("referrers", repo, subject.String()); err != nil {
			yield(oci.Descriptor{}, err)
			return
		}
		l.Reader.Referrers(ctx, repo, subject, artifactType, after)(yield)
	}
}

// TestReferrersOfOneThatHangs: who could be served an older list does not wait for
// the origin, and what it says in the end is kept.
func TestReferrersOfOneThatHangs(t *testing.T) {
	s := newPullStack(t)
	s.asks.patience = time.Millisecond
	image := s.push(t, "v1")
	list := func() (n int, how registry.Freshness) {
		ctx, told := registry.WithFreshness(t.Context())
		n = len(registrytest.Collect(t, s.Referrers(ctx, appHere, image.Digest, "", "")))
		return n, *told()
	}
	list()
	registrytest.PushReferrer(t, s.store, appThere, image.Descriptor(), "application/x.signature", nil)
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	s.origin.set(func(string) error {
		asked <- struct{}{}
		<-answer
		return nil
	})
	s.advance(time.Hour)
	if n, how := list(); n != 0 || how.Forward != "stale" || how.Detail != "upstream-slow" || how.Age != time.Hour {
		t.Errorf("while the origin hangs %d are listed, as %+v", n, how)
	}
	<-asked
	s.origin.set(nil)
	if n, how := list(); n != 0 || how.Forward != "stale" || len(s.origin.heard()) > 2 {
		t.Errorf("at once again %d are listed, as %+v", n, how)
	}
	close(answer)
	// The question that nobody waited for ends like any.
	if _, _, err := s.hearReferrers(context.WithoutCancel(t.Context()), appHere, appThere, image.Digest); err != nil {
		t.Fatal(err)
	}
	if n, how := list(); n != 1 || !how.Hit {
		t.Errorf("then %d are listed, as %+v", n, how)
	}
}
