package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"iter"
	"net/url"
	"slices"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// maxReferrers bounds the referrers of one subject that are kept in memory.
const maxReferrers = 100_000

// Referrers collects all of them, as upstream's order is its own, and yields
// them ordered by digest. Where upstream has no referrers API, the index that
// clients keep under the referrers tag takes its place.
func (r *Registry) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return func(yield func(oci.Descriptor, error) bool) {
		all, err := r.referrers(ctx, repo, subject, artifactType)
		switch registry.CodeOf(err) {
		case registry.ManifestUnknown, registry.NameUnknown, registry.Unsupported:
			all, err = r.taggedReferrers(ctx, repo, subject)
		}
		if err != nil {
			yield(oci.Descriptor{}, err)
			return
		}
		slices.SortStableFunc(all, func(a, b oci.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
		for _, d := range all {
			if d.Digest <= after || artifactType != "" && d.ArtifactType != artifactType {
				continue
			}
			if !yield(d, nil) {
				return
			}
			after = d.Digest // and none twice
		}
	}
}

// referrers asks the referrers API; ManifestUnknown says that there is none.
func (r *Registry) referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string) ([]oci.Descriptor, error) {
	query := url.Values{}
	if artifactType != "" {
		query.Set("artifactType", artifactType)
	}
	walk := &pager{registry: r, req: request{repo: repo, url: r.at(repo, "/referrers/"+subject.String(), query), absent: registry.ManifestUnknown}}
	var all []oci.Descriptor
	for walk.req.url != nil {
		var page oci.Index
		if err := walk.next(ctx, &page); err != nil {
			return nil, err
		}
		all = append(all, slices.DeleteFunc(page.Manifests, invalid)...)
		if len(all) > maxReferrers {
			return nil, faulty(repo, "%s has more than %d referrers", subject, maxReferrers)
		}
	}
	return all, nil
}

// taggedReferrers reads the index under the referrers tag. None is no error,
// and neither is a tag that somebody uses for something else.
func (r *Registry) taggedReferrers(ctx context.Context, repo string, subject oci.Digest) ([]oci.Descriptor, error) {
	m, err := r.Manifest(ctx, repo, oci.TagRef(subject.ReferrersTag()))
	switch {
	case registry.IsCode(err, registry.ManifestUnknown), registry.IsCode(err, registry.NameUnknown):
		return nil, nil
	case err != nil:
		return nil, err
	case !oci.IsIndex(m.MediaType):
		return nil, nil
	}
	var index oci.Index
	if err := json.Unmarshal(m.Content, &index); err != nil {
		return nil, nil
	}
	return slices.DeleteFunc(index.Manifests, invalid), nil
}

// invalid reports whether d cannot be passed on as a descriptor of a manifest.
func invalid(d oci.Descriptor) bool {
	_, err := oci.ParseDigest(string(d.Digest))
	return err != nil || d.Size < 0 || len(d.MediaType) > oci.MaxMediaType
}
