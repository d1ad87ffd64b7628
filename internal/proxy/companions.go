package proxy

import (
	"strings"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// Some of what belongs to a manifest is found by a tag that is made of its
// digest, not by the referrers API: what cosign signed, attested and attached
// before there was one, and the index of referrers that clients keep at registries
// without it. Such tags have the cache rules of referrers and go with their
// subject. A subject that something pushed here belongs to does not go by itself:
// a hosted registry collects referrers without one.

// cosignSuffixes are those of cosign's tags.
var cosignSuffixes = [...]string{".sig", ".att", ".sbom"}

// companionTags are the tags under which something that belongs to a manifest
// may be found.
func companionTags(subject oci.Digest) []string {
	tags := []string{subject.ReferrersTag()}
	return append(tags, cosignTags(subject)...)
}

// cosignTags are cosign's alone; it has none for other algorithms than sha256.
func cosignTags(subject oci.Digest) (tags []string) {
	if subject.Algorithm() != oci.SHA256 {
		return nil
	}
	for _, suffix := range cosignSuffixes {
		tags = append(tags, subject.ReferrersTag()+suffix)
	}
	return tags
}

// companionOf is the digest of the manifest that a tag belongs to by its name; ok
// is false of other tags. cosign says that it is one of cosign's.
func companionOf(tag string) (subject oci.Digest, cosign, ok bool) {
	for _, suffix := range cosignSuffixes {
		if name, found := strings.CutSuffix(tag, suffix); found {
			tag, cosign = name, true
			break
		}
	}
	hex, ok := strings.CutPrefix(tag, string(oci.SHA256)+"-")
	if !ok {
		return "", false, false
	}
	subject, err := oci.ParseDigest(string(oci.SHA256) + ":" + hex)
	return subject, cosign && err == nil, err == nil
}

// notThere reports whether an error says that something is not there.
func notThere(err error) bool {
	return registry.IsCode(err, registry.ManifestUnknown) || registry.IsCode(err, registry.NameUnknown)
}
