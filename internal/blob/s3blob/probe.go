package s3blob

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/berth-registry/berth/internal/blob"
)

var _ blob.Prober = (*Store)(nil)

// Probe implements blob.Prober: it asks for the parts and the objects that the
// state names, whose sizes must be those that it says.
func (s *Store) Probe(ctx context.Context, key string, st blob.State) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	p, err := parse(key, st)
	if err != nil {
		return fmt.Errorf("%w: %w", blob.ErrNotFound, err)
	}
	err = failure(s.probe(ctx, key, p))
	if err == nil {
		return nil
	}
	// Its writer may have crashed between Seal and what comes after.
	if size, sealed := s.size(ctx, s.name(key)); sealed == nil && size == st.Size {
		return nil
	}
	return err
}

func (s *Store) probe(ctx context.Context, key string, p progress) error {
	if err := s.probeParts(ctx, key, p); err != nil {
		return err
	}
	for _, spill := range p.Spills {
		name := s.tail(key, spill.Name)
		size, err := s.size(ctx, &name)
		if err != nil {
			return err
		}
		if size != spill.Size {
			return fmt.Errorf("%w: %d bytes of the tail of upload %s are stored, not %d", blob.ErrNotFound, size, key, spill.Size)
		}
	}
	return nil
}

// probeParts holds the parts that the service has against those of p.
func (s *Store) probeParts(ctx context.Context, key string, p progress) error {
	if len(p.Parts) == 0 {
		return nil
	}
	left := map[int32]piece{}
	for i, part := range p.Parts {
		left[int32(i+1)] = part
	}
	in := &s3.ListPartsInput{Bucket: &s.o.Bucket, Key: s.name(key), UploadId: &p.Upload}
	for pages := s3.NewListPartsPaginator(s.client, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, have := range page.Parts {
			n := aws.ToInt32(have.PartNumber)
			if want := left[n]; want.Size == aws.ToInt64(have.Size) && want.Name == aws.ToString(have.ETag) {
				delete(left, n)
			}
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("%w: %d of %d parts of upload %s", blob.ErrNotFound, len(left), len(p.Parts), key)
	}
	return nil
}

func (s *Store) size(ctx context.Context, name *string) (int64, error) {
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.o.Bucket, Key: name})
	if err != nil {
		return 0, err
	}
	return aws.ToInt64(out.ContentLength), nil
}
