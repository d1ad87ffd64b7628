package test

import (
	"errors"
	"slices"
	"testing"
)

// repo is one repository of a registry, for one test.
type repo struct {
	t    *testing.T
	api  *api
	name string
}

func newRepo(t *testing.T, at *place, name string) *repo {
	return &repo{t, at.api, name}
}

// at is the reference of a tag or digest in the form that clients take.
func (r *repo) at(ref string) string {
	if len(ref) > 7 && ref[:7] == "sha256:" {
		return r.api.host() + "/" + r.name + "@" + ref
	}
	return r.api.host() + "/" + r.name + ":" + ref
}

// must unwraps what the api returned.
func (r *repo) must(d descriptor, err error) descriptor {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

// verify fetches ref with everything below it, byte for byte.
func (r *repo) verify(ref string) descriptor {
	r.t.Helper()
	return r.must(r.api.verify(r.name, ref))
}

// same wants ref to be whole and to have the given digest.
func (r *repo) same(ref, digest string) {
	r.t.Helper()
	if got := r.verify(ref); got.Digest != digest {
		r.t.Fatalf("%s has digest %s, want %s", r.at(ref), got.Digest, digest)
	}
}

// hasTags wants exactly these tags, in the server's order.
func (r *repo) hasTags(want ...string) {
	r.t.Helper()
	got, err := r.api.tags(r.name)
	if err != nil {
		r.t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		r.t.Fatalf("tags of %s: %q, want %q", r.name, got, want)
	}
}

// gone wants a manifest to be absent.
func (r *repo) gone(ref string) {
	r.t.Helper()
	_, _, err := r.api.manifest(r.name, ref)
	var status *statusError
	if !errors.As(err, &status) || status.got != 404 {
		r.t.Fatalf("%s should be gone: %v", r.at(ref), err)
	}
}

// equal compares two things of which a client made at least one.
func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}
