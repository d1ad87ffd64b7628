package proxy

import (
	"context"
	"iter"
	"strings"
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

// endless is an origin whose answers begin and never end.
type endless struct{ registry.Reader }

func (endless) Manifest(ctx context.Context, _ string, _ oci.Ref) (registry.Manifest, error) {
	<-ctx.Done()
	return registry.Manifest{}, ctx.Err()
}

func (endless) Blob(ctx context.Context, _ string, _ oci.Digest) (registry.Blob, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (endless) Referrers(ctx context.Context, _ string, _ oci.Digest, _ string, _ oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return func(yield func(oci.Descriptor, error) bool) {
		<-ctx.Done()
		yield(oci.Descriptor{}, ctx.Err())
	}
}

// TestAnswersEnd: work that goes on without those who asked for it does not go on
// for ever, or nobody could ever ask again.
func TestAnswersEnd(t *testing.T) {
	s := newPullStack(t)
	image := s.push(t, "v1")
	s.Registry.origin = endless{s.origin}
	s.asks.longest = time.Millisecond
	for _, ref := range []oci.Ref{oci.TagRef("v1"), oci.DigestRef(image.Digest)} {
		_, _, err := s.ask(t, ref)
		registrytest.WantCode(t, "pull "+ref.String(), err, registry.Unavailable)
	}
	_, err := s.Blob(t.Context(), appHere, image.Digest)
	registrytest.WantCode(t, "find a blob", err, registry.Unavailable)
	for _, err := range s.Referrers(t.Context(), appHere, image.Digest, "", "") {
		registrytest.WantCode(t, "list referrers", err, registry.Unavailable)
	}
	s.Registry.origin = s.origin
	s.wants(t, "when answers end again", "v1", image, "GET v1")
}

// TestClockOfTheFuture: what a clock that was ahead has written is not fresh until
// its time has come.
func TestClockOfTheFuture(t *testing.T) {
	s := newPullStack(t)
	const ahead = 1000 * time.Hour
	s.advance(ahead)
	s.wants(t, "when the clock is ahead", "v1", s.push(t, "v1"), "GET v1")
	s.fails(t, "the same of what is absent", "v2", registry.ManifestUnknown, "GET v2")
	list := func() int {
		s.origin.forget()
		return len(registrytest.Collect(t, s.Referrers(t.Context(), appHere, oci.SHA256.FromBytes(nil), "", "")))
	}
	list()
	s.advance(-ahead)
	v1, v2 := s.push(t, "v1"), s.push(t, "v2")
	s.wants(t, "when it is right", "v1", v1, "HEAD v1", "GET "+string(v1.Digest))
	s.wants(t, "what was absent", "v2", v2, "GET v2")
	if list(); len(s.origin.heard()) == 0 {
		t.Error("a list of the future is fresh")
	}
	s.wants(t, "then", "v1", v1)
}

// TestReferrersOfOneThatIsNotItself: what answers 404 to everything, as a load
// balancer whose registry is away, does not make what is signed unsigned. An origin
// that has the subject is believed.
func TestReferrersOfOneThatIsNotItself(t *testing.T) {
	s := newPullStack(t)
	image := s.push(t, "v1")
	registrytest.PushReferrer(t, s.store, appThere, image.Descriptor(), "application/x.signature", nil)
	want := func(what string, n int) {
		t.Helper()
		s.advance(time.Hour)
		if got := len(registrytest.Collect(t, s.Referrers(t.Context(), appHere, image.Digest, "", ""))); got != n {
			t.Errorf("%s: %d are listed, want %d", what, got, n)
		}
	}
	want("at first", 1)
	nothing := &registry.Error{Code: registry.ManifestUnknown}
	s.origin.fail(nothing)
	want("from one that has nothing", 1)
	want("again", 1)
	s.origin.set(func(call string) error {
		if strings.HasPrefix(call, "HEAD") {
			return errDown
		}
		return nothing
	})
	want("from one that does not say", 1)
	s.origin.set(func(call string) error {
		if strings.HasPrefix(call, "HEAD") {
			return nil
		}
		return nothing
	})
	want("from one that has the subject", 0)
}
