package ocihttp_test

import (
	"context"
	"iter"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/ocihttp"
	"github.com/berth-registry/berth/internal/registry"
)

// noting is a registry whose answers come from elsewhere, as f says; it fails
// with err.
type noting struct {
	registry.Registry
	f   *registry.Freshness
	err error
}

func (r *noting) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	registry.NoteFreshness(ctx, *r.f)
	if r.err != nil {
		return oci.Descriptor{}, r.err
	}
	return r.Registry.Resolve(ctx, repo, ref)
}

func (r *noting) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	registry.NoteFreshness(ctx, *r.f)
	if r.err != nil {
		return registry.Manifest{}, r.err
	}
	return r.Registry.Manifest(ctx, repo, ref)
}

func (r *noting) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	registry.NoteFreshness(ctx, *r.f)
	if r.err != nil {
		return nil, r.err
	}
	return r.Registry.Blob(ctx, repo, d)
}

func (r *noting) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return noted(ctx, r, r.Registry.Tags(ctx, repo, after))
}

func (r *noting) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return noted(ctx, r, r.Registry.Referrers(ctx, repo, subject, artifactType, after))
}

func noted[T any](ctx context.Context, r *noting, list iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		registry.NoteFreshness(ctx, *r.f)
		if r.err != nil {
			var none T
			yield(none, r.err)
			return
		}
		list(yield)
	}
}

// serveNoting starts a server over a registry that notes.
func serveNoting(t *testing.T) (*server, *noting) {
	r := &noting{}
	s := newServer(t, func(o *ocihttp.Options) {
		open := o.Open
		o.Open = func(id auth.Identity) registry.Registry {
			r.Registry = open(id)
			return r
		}
	})
	r.f = &registry.Freshness{Hit: true}
	return s, r
}

// pulls are the paths of what s serves of an image.
func pulls(s *server) []string {
	m := s.pushImage("a", "v1", "config")
	return []string{"/v2/a/manifests/v1", "/v2/a/manifests/" + string(digestOf(m)), "/v2/a/blobs/" + string(digestOf("config")),
		"/v2/a/tags/list", "/v2/a/tags/list?n=1", "/v2/a/referrers/" + string(digestOf(m))}
}

func TestAnswersSayWhereTheyComeFrom(t *testing.T) {
	s, r := serveNoting(t)
	paths := pulls(s)
	for f, want := range map[registry.Freshness][2]string{
		{Hit: true, Age: 90 * time.Second}:                                                                       {"berth; hit", "90"},
		{Hit: true, Age: 999 * time.Millisecond}:                                                                 {"berth; hit", "0"},
		{Hit: true, Age: -1, Detail: "local"}:                                                                    {"berth; hit; detail=local", ""},
		{Forward: "uri-miss", Status: 200, Stored: true}:                                                         {"berth; fwd=uri-miss; fwd-status=200; stored", "0"},
		{Forward: "uri-miss", Shared: true, Age: -1}:                                                             {"berth; fwd=uri-miss; collapsed", ""},
		{Forward: "stale", Status: 503, Age: time.Hour, Detail: "upstream-unavailable"}:                          {"berth; fwd=stale; fwd-status=503; detail=upstream-unavailable", "3600"},
		{Forward: "miss", Detail: "no token", Age: -1}:                                                           {"berth; fwd=miss", ""},
		{Forward: "stale", Status: 429, Stored: true, Shared: true, Detail: "7digits\r\nX-Injected: 1", Age: -1}: {"berth; fwd=stale; fwd-status=429; stored; collapsed", ""},
	} {
		r.f = &f
		for _, path := range paths {
			for _, method := range []string{"GET", "HEAD"} {
				s.do(method, path, nil).wants(200, "Cache-Status", want[0], "Age", want[1])
			}
		}
		s.get(paths[0], "If-None-Match", "*").wants(304, "Cache-Status", want[0], "Age", want[1])
	}
}

func TestErrorsSayWhereTheyComeFrom(t *testing.T) {
	s, r := serveNoting(t)
	paths := pulls(s)
	r.f = &registry.Freshness{Forward: "uri-miss", Status: 502, Detail: "upstream-faulty", Age: -1}
	r.err = &registry.Error{Code: registry.Faulty}
	for _, path := range paths {
		s.get(path).wants(502, "Cache-Status", "berth; fwd=uri-miss; fwd-status=502; detail=upstream-faulty", "Age", "")
	}
}

func TestOwnContentSaysNothing(t *testing.T) {
	s := newServer(t)
	for _, path := range append(pulls(s), "/v2/", "/v2/_catalog") {
		s.get(path).wants(200, "Cache-Status", "", "Age", "")
	}
}

// TestReferrersOfNoRepository: a registry that does not have a repository at all
// says so of its referrers too. One that is hidden from the caller, or is not
// there yet, has none.
func TestReferrersOfNoRepository(t *testing.T) {
	s, r := serveNoting(t)
	path := "/v2/none/referrers/" + string(digestOf("x"))
	absent := s.get(path).wants(200, "Content-Type", oci.MediaTypeIndex)
	hidden := newServer(t, func(o *ocihttp.Options) {
		open := o.Open
		o.Open = func(id auth.Identity) registry.Registry {
			return registry.Guard(open(id), func(context.Context, registry.Op) error { return &registry.Error{Code: registry.NameUnknown} })
		}
	})
	hidden.get(path).wants(200, "Content-Type", oci.MediaTypeIndex).holds(absent.body)
	r.err = &registry.Error{Code: registry.NameUnknown}
	s.get(path).fails(404, "NAME_UNKNOWN")
}
