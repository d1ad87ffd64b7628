package hosted

import (
	"context"
	"iter"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// A list reads this many rows at first, for most readers want one short page,
// and then more at a time. No transaction is open between two pages, so a slow
// reader holds nothing up.
const (
	firstPage = 128
	pageSize  = 1024
)

func (r *Registry) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return pages(repo, after, func(after string, n int) ([]string, error) {
		return r.db.Tags(ctx, repo, after, n)
	})
}

func (r *Registry) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return pages("", after, func(after string, n int) ([]string, error) {
		return r.db.Repositories(ctx, after, n)
	})
}

func (r *Registry) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return func(yield func(oci.Descriptor, error) bool) {
		for n := firstPage; ; n = pageSize {
			page, err := r.db.Referrers(ctx, repo, subject, artifactType, after, n)
			if err != nil {
				yield(oci.Descriptor{}, coded(err, repo, registry.Internal, nil))
				return
			}
			for _, d := range page {
				if !yield(d, nil) {
					return
				}
				after = d.Digest
			}
			if len(page) == 0 {
				return
			}
		}
	}
}

// maxHolders bounds how many repositories a mount looks at.
const maxHolders = 100

func (r *Registry) Holders(ctx context.Context, near string, d oci.Digest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		list, err := r.db.Holders(ctx, near, d, maxHolders)
		if err != nil {
			yield("", coded(err, near, registry.Internal, nil))
			return
		}
		for _, repo := range list {
			if !yield(repo, nil) {
				return
			}
		}
	}
}

// pages yields the strings of one page after the other.
func pages(repo, after string, page func(after string, n int) ([]string, error)) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for n := firstPage; ; n = pageSize {
			list, err := page(after, n)
			if err != nil {
				yield("", coded(err, repo, registry.Internal, nil))
				return
			}
			for _, s := range list {
				if !yield(s, nil) {
					return
				}
			}
			if len(list) < n {
				return
			}
			after = list[len(list)-1]
		}
	}
}
