package registrytest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

var concurrentCases = []testCase{
	{"concurrent/one blob", func(t *testing.T, r registry.Registry) {
		content := Random(50_000)
		noErrors(t, together(8, func(i int) error { return push(t, r, fmt.Sprintf("team/app%d", i%2), content) }))
		for _, repo := range []string{"team/app0", "team/app1"} {
			WantBlob(t, r, repo, oci.SHA256.FromBytes(content), content)
		}
	}},
	{"concurrent/one manifest", func(t *testing.T, r registry.Registry) {
		m := ImageDocument(t, r, "team/app").Manifest(t)
		noErrors(t, together(8, func(int) error {
			_, err := r.PutManifest(t.Context(), "team/app", m, "v1")
			return err
		}))
		m.Digest = oci.SHA256.FromBytes(m.Content)
		WantManifest(t, r, "team/app", oci.TagRef("v1"), m)
	}},
	{"concurrent/one tag", func(t *testing.T, r registry.Registry) {
		images := make([]registry.Manifest, 8)
		for i := range images {
			images[i] = PushImage(t, r, "team/app").Manifest
		}
		noErrors(t, together(len(images), func(i int) error {
			_, err := r.PutManifest(t.Context(), "team/app", images[i], "v1", fmt.Sprintf("own-%d", i))
			return err
		}))
		d, err := r.Resolve(t.Context(), "team/app", oci.TagRef("v1"))
		if err != nil || !slices.ContainsFunc(images, func(m registry.Manifest) bool { return m.Digest == d.Digest }) {
			t.Errorf("the tag that all wrote is %s: %v", d.Digest, err)
		}
		for i, m := range images {
			WantManifest(t, r, "team/app", oci.TagRef(fmt.Sprintf("own-%d", i)), m)
		}
	}},
	{"concurrent/push against delete", func(t *testing.T, r registry.Registry) {
		for range 8 {
			doc := ImageDocument(t, r, "team/app")
			m := doc.Manifest(t)
			errs := together(2, func(i int) error {
				if i == 0 {
					return r.DeleteBlob(t.Context(), "team/app", doc.Config.Digest)
				}
				_, err := r.PutManifest(t.Context(), "team/app", m)
				return err
			})
			if (errs[0] == nil) == (errs[1] == nil) {
				t.Fatalf("delete: %v, push: %v; one of them must win", errs[0], errs[1])
			}
			if errs[0] != nil {
				WantCode(t, "delete a blob that is being held", errs[0], registry.Referenced)
			} else {
				WantCode(t, "push what is being deleted", errs[1], registry.ManifestBlobUnknown)
			}
		}
	}},
}

// together runs f for 0 … n-1 at once.
func together(n int, f func(i int) error) []error {
	errs := make([]error, n)
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-begin
			errs[i] = f(i)
		})
	}
	close(begin)
	all.Wait()
	return errs
}

func noErrors(t *testing.T, errs []error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// push is PushBlob for goroutines, where t must not be ended.
func push(t *testing.T, r registry.Registry, repo string, content []byte) error {
	u, err := r.StartUpload(t.Context(), repo, registry.UploadOptions{})
	if err != nil {
		return err
	}
	_, err = u.Commit(t.Context(), 0, bytes.NewReader(content), oci.SHA256.FromBytes(content))
	return err
}
