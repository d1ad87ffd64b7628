package test

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"
)

// TestOras uses the library that is the client code of the oras CLI and of helm.
func TestOras(t *testing.T) { everywhere(t, testOras) }

func testOras(t *testing.T, at *place) {
	note(t, "oras-go", moduleVersion(t, "oras.land/oras-go/v2"))
	ctx := t.Context()
	r, other := newRepo(t, at, "oras/app"), newRepo(t, at, "oras/copied")
	app, copied := at.oras(orasRepo(t, r)), at.oras(orasRepo(t, other))

	local := memory.New()
	artifact := orasPack(t, local, "application/x-app", nil, 1000)
	if err := local.Tag(ctx, artifact, "v1"); err != nil {
		t.Fatal(err)
	}
	if _, err := oras.Copy(ctx, local, "v1", app, "v1", oras.DefaultCopyOptions); err != nil {
		t.Fatal(err)
	}
	r.same("v1", artifact.Digest.String())

	sbom := orasPack(t, app, "application/x-sbom", &artifact, 1001)
	signature := orasPack(t, app, "application/x-signature", &artifact, 1002)
	equal(t, "all referrers", len(orasReferrers(t, app, artifact, "")), 2)
	found := orasReferrers(t, app, artifact, "application/x-sbom")
	equal(t, "referrers of the type", len(found), 1)
	equal(t, "referrer", found[0].Digest, sbom.Digest)
	equal(t, "referrer's type", found[0].ArtifactType, "application/x-sbom")

	if _, err := oras.ExtendedCopy(ctx, app, "v1", copied, "v1", oras.DefaultExtendedCopyOptions); err != nil {
		t.Fatal(err)
	}
	other.same("v1", artifact.Digest.String())
	equal(t, "copied referrers", len(orasReferrers(t, copied, artifact, "")), 2)

	var tags []string
	if err := app.Tags(ctx, "", func(page []string) error { tags = append(tags, page...); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(tags, []string{"v1"}) {
		t.Fatalf("tags: %q; a fallback tag means that the referrers API was not used", tags)
	}

	if err := app.Delete(ctx, signature); err != nil {
		t.Fatal(err)
	}
	r.gone(signature.Digest.String())
	equal(t, "referrers after delete", len(orasReferrers(t, app, artifact, "")), 1)
	equal(t, "copied referrers after delete", len(orasReferrers(t, copied, artifact, "")), 2)
}

func orasRepo(t *testing.T, r *repo) *remote.Repository {
	t.Helper()
	repository, err := remote.NewRepository(r.api.host() + "/" + r.name)
	if err != nil {
		t.Fatal(err)
	}
	repository.PlainHTTP = true
	return repository
}

// orasPack pushes an artifact with one layer made from a seed.
func orasPack(t *testing.T, to content.Pusher, artifactType string, subject *ocispec.Descriptor, seed uint64) ocispec.Descriptor {
	t.Helper()
	layer := stuff{seed, 150_000}.bytes()
	d := content.NewDescriptorFromBytes("application/x-layer", layer)
	if err := to.Push(t.Context(), d, bytes.NewReader(layer)); err != nil {
		t.Fatal(err)
	}
	d, err := oras.PackManifest(t.Context(), to, oras.PackManifestVersion1_1, artifactType,
		oras.PackManifestOptions{Subject: subject, Layers: []ocispec.Descriptor{d}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func orasReferrers(t *testing.T, r *remote.Repository, subject ocispec.Descriptor, artifactType string) (all []ocispec.Descriptor) {
	t.Helper()
	err := r.Referrers(t.Context(), subject, artifactType, func(page []ocispec.Descriptor) error {
		all = append(all, page...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// moduleVersion is the version of a library that go.mod asks for.
func moduleVersion(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", path).Output()
	if err != nil {
		t.Fatalf("go list -m %s: %v", path, err)
	}
	return strings.TrimSpace(string(out))
}
