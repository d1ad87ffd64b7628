package proxy

import (
	"slices"
	"testing"

	"github.com/berth-registry/berth/internal/oci"
)

func TestCompanionTags(t *testing.T) {
	d := oci.SHA256.FromBytes([]byte("image"))
	tag := "sha256-" + d.Hex()
	if got, want := companionTags(d), []string{tag, tag + ".sig", tag + ".att", tag + ".sbom"}; !slices.Equal(got, want) {
		t.Errorf("companions of %s are %v, want %v", d, got, want)
	}
	for _, got := range companionTags(d) {
		subject, cosign, ok := companionOf(got)
		if subject != d || !ok || cosign != (got != tag) {
			t.Errorf("%s belongs to %q, cosign's: %v, %v", got, subject, cosign, ok)
		}
	}
	long := oci.SHA512.FromBytes(nil)
	if got := companionTags(long); !slices.Equal(got, []string{long.ReferrersTag()}) {
		t.Errorf("companions of %s are %v", long, got)
	}
	for _, other := range []string{
		"latest", ".sig", "sha256-", "sha256-.sig", "sha256-" + d.Hex()[1:] + ".sig", tag + ".sig.sig", tag + ".SIG",
		tag + "0", "sha512-" + d.Hex(), "sha256-" + d.Hex()[:63] + "G.sig", "v1.sig",
	} {
		if subject, cosign, ok := companionOf(other); ok || cosign {
			t.Errorf("%s belongs to %s", other, subject)
		}
	}
}
