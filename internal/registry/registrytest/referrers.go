package registrytest

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

var referrerCases = []testCase{
	{"referrers/described and in order", func(t *testing.T, r registry.Registry) {
		subject := PushImage(t, r, "team/app", "v1").Manifest
		notes := map[string]string{"org.example.note": "ü & <x>", "org.example.other": ""}
		want := map[oci.Digest]oci.Descriptor{}
		for _, artifactType := range []string{"application/x.sbom", "application/x.signature", "application/x.sbom"} {
			m := PushReferrer(t, r, "team/app", subject.Descriptor(), artifactType, notes)
			want[m.Digest] = described(m, artifactType, notes)
		}
		plain := PushReferrer(t, r, "team/app", subject.Descriptor(), "", nil)
		want[plain.Digest] = described(plain, ConfigType, nil)
		PushReferrer(t, r, "team/app", PushImage(t, r, "team/app").Manifest.Descriptor(), "application/x.sbom", nil)
		wantReferrers(t, r.Referrers(t.Context(), "team/app", subject.Digest, "", ""), want)
	}},
	{"referrers/indexes", func(t *testing.T, r registry.Registry) {
		image := PushImage(t, r, "team/app", "v1").Manifest
		subject := image.Descriptor()
		want := map[oci.Digest]oci.Descriptor{}
		for _, artifactType := range []string{"", "application/x.bundle"} {
			doc := Document{MediaType: oci.MediaTypeIndex, ArtifactType: artifactType, Subject: &subject,
				Manifests: []oci.Descriptor{subject}, Annotations: map[string]string{"a": "b"}}
			m := PushManifest(t, r, "team/app", doc.Manifest(t))
			want[m.Digest] = described(m, artifactType, doc.Annotations)
		}
		wantReferrers(t, r.Referrers(t.Context(), "team/app", subject.Digest, "", ""), want)
	}},
	{"referrers/filter", func(t *testing.T, r registry.Registry) {
		subject := PushImage(t, r, "team/app").Manifest.Descriptor()
		want := map[oci.Digest]oci.Descriptor{}
		for range 2 {
			m := PushReferrer(t, r, "team/app", subject, "application/x.sbom", nil)
			want[m.Digest] = described(m, "application/x.sbom", nil)
		}
		PushReferrer(t, r, "team/app", subject, "application/x.signature", nil)
		wantReferrers(t, r.Referrers(t.Context(), "team/app", subject.Digest, "application/x.sbom", ""), want)
		wantReferrers(t, r.Referrers(t.Context(), "team/app", subject.Digest, "application/x.none", ""), nil)
	}},
	{"referrers/after", func(t *testing.T, r registry.Registry) {
		subject := PushImage(t, r, "team/app").Manifest.Descriptor()
		for range 7 {
			PushReferrer(t, r, "team/app", subject, "application/x.sbom", nil)
		}
		all := Collect(t, r.Referrers(t.Context(), "team/app", subject.Digest, "", ""))
		for i, d := range all {
			rest := Collect(t, r.Referrers(t.Context(), "team/app", subject.Digest, "application/x.sbom", d.Digest))
			if !slices.EqualFunc(rest, all[i+1:], sameDigest) {
				t.Errorf("behind the %d. of %d come %d", i+1, len(all), len(rest))
			}
		}
	}},
	{"referrers/subject comes later", func(t *testing.T, r registry.Registry) {
		image := ImageDocument(t, r, "team/app").Manifest(t)
		image.Digest = oci.SHA256.FromBytes(image.Content)
		subject := image.Descriptor()
		doc := ImageDocument(t, r, "team/app")
		doc.Subject = &subject
		m := doc.Manifest(t)
		put, err := r.PutManifest(t.Context(), "team/app", m)
		if err != nil || put.Subject != subject.Digest {
			t.Fatalf("put a manifest before its subject: subject %q, %v", put.Subject, err)
		}
		m.Digest = put.Descriptor.Digest
		want := map[oci.Digest]oci.Descriptor{m.Digest: described(m, ConfigType, nil)}
		wantReferrers(t, r.Referrers(t.Context(), "team/app", subject.Digest, "", ""), want)
		PushManifest(t, r, "team/app", image)
		wantReferrers(t, r.Referrers(t.Context(), "team/app", subject.Digest, "", ""), want)
	}},
	{"referrers/result of the push", func(t *testing.T, r registry.Registry) {
		put, err := r.PutManifest(t.Context(), "team/app", ImageDocument(t, r, "team/app").Manifest(t))
		if err != nil || put.Subject != "" {
			t.Errorf("a manifest without a subject reports %q, %v", put.Subject, err)
		}
	}},
	{"referrers/in a referrers tag too", func(t *testing.T, r registry.Registry) {
		subject := PushImage(t, r, "team/app").Manifest.Descriptor()
		m := PushReferrer(t, r, "team/app", subject, "application/x.sbom", nil)
		PushIndex(t, r, "team/app", []registry.Manifest{m}, subject.Digest.ReferrersTag())
		want := map[oci.Digest]oci.Descriptor{m.Digest: described(m, "application/x.sbom", nil)}
		wantReferrers(t, r.Referrers(t.Context(), "team/app", subject.Digest, "", ""), want)
	}},
	{"referrers/none", func(t *testing.T, r registry.Registry) {
		subject := PushImage(t, r, "team/app").Manifest.Digest
		wantReferrers(t, r.Referrers(t.Context(), "team/app", subject, "", ""), nil)
		wantReferrers(t, r.Referrers(t.Context(), "team/app", oci.SHA256.FromBytes(Random(9)), "", ""), nil)
		wantReferrers(t, r.Referrers(t.Context(), "team/none", subject, "", ""), nil)
	}},
	{"referrers/only in the repository", func(t *testing.T, r registry.Registry) {
		subject := PushImage(t, r, "team/app").Manifest.Descriptor()
		PushReferrer(t, r, "team/other", subject, "application/x.sbom", nil)
		wantReferrers(t, r.Referrers(t.Context(), "team/app", subject.Digest, "", ""), nil)
	}},
	{"referrers/gone when deleted", func(t *testing.T, r registry.Registry) {
		subject := PushImage(t, r, "team/app").Manifest.Descriptor()
		m := PushReferrer(t, r, "team/app", subject, "application/x.sbom", nil)
		if err := r.DeleteManifest(t.Context(), "team/app", m.Digest); err != nil {
			t.Fatalf("delete a referrer: %v", err)
		}
		wantReferrers(t, r.Referrers(t.Context(), "team/app", subject.Digest, "", ""), nil)
	}},
	{"referrers/outlive their subject", func(t *testing.T, r registry.Registry) {
		subject := PushImage(t, r, "team/app").Manifest.Descriptor()
		m := PushReferrer(t, r, "team/app", subject, "application/x.sbom", nil)
		if err := r.DeleteManifest(t.Context(), "team/app", subject.Digest); err != nil {
			t.Fatalf("delete a subject: %v", err)
		}
		want := map[oci.Digest]oci.Descriptor{m.Digest: described(m, "application/x.sbom", nil)}
		wantReferrers(t, r.Referrers(t.Context(), "team/app", subject.Digest, "", ""), want)
	}},
}

// described is m as a listing of referrers shows it.
func described(m registry.Manifest, artifactType string, annotations map[string]string) oci.Descriptor {
	d := m.Descriptor()
	d.ArtifactType, d.Annotations = artifactType, annotations
	return d
}

func sameDigest(a, b oci.Descriptor) bool { return a.Digest == b.Digest }

// wantReferrers checks that seq yields just want, ordered by digest.
func wantReferrers(t *testing.T, seq func(func(oci.Descriptor, error) bool), want map[oci.Digest]oci.Descriptor) {
	t.Helper()
	got := Collect(t, seq)
	if !slices.IsSortedFunc(got, func(a, b oci.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) }) {
		t.Error("referrers are not ordered by digest")
	}
	if len(got) != len(want) {
		t.Errorf("%d referrers, want %d", len(got), len(want))
	}
	for _, d := range got {
		w := want[d.Digest]
		if d.MediaType != w.MediaType || d.Size != w.Size || d.ArtifactType != w.ArtifactType || !maps.Equal(d.Annotations, w.Annotations) {
			t.Errorf("referrer %+v, want %+v", d, w)
		}
	}
}
