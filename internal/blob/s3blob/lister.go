package s3blob

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/berth-registry/berth/internal/blob"
)

// List implements blob.Store. Of what is not sealed it knows multipart uploads
// and spilled tails; a smaller upload has nothing in the bucket yet.
func (s *Store) List(ctx context.Context, after string) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		unsealed, err := s.unsealed(ctx, after)
		if err != nil {
			yield(blob.Object{}, failure(err))
			return
		}
		for o, err := range s.objects(ctx, after) {
			if err != nil {
				yield(blob.Object{}, failure(err))
				return
			}
			for len(unsealed) > 0 && unsealed[0].Key < o.Key {
				if !yield(unsealed[0], nil) {
					return
				}
				unsealed = unsealed[1:]
			}
			if len(unsealed) > 0 && unsealed[0].Key == o.Key {
				unsealed = unsealed[1:]
			}
			if !yield(o, nil) {
				return
			}
		}
		for _, o := range unsealed {
			if !yield(o, nil) {
				return
			}
		}
	}
}

// objects walks what is sealed.
func (s *Store) objects(ctx context.Context, after string) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		in := &s3.ListObjectsV2Input{Bucket: &s.o.Bucket, Prefix: s.name("")}
		if after != "" {
			in.StartAfter = s.name(after)
		}
		for o, err := range s.walk(ctx, in) {
			key := ""
			if err == nil {
				key = strings.TrimPrefix(*o.Key, *s.name(""))
			}
			if err == nil && (key <= after || blob.CheckKey(key) != nil) {
				continue // a service that ignores StartAfter; something that is not ours
			}
			if !yield(blob.Object{Key: key, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified)}, err) {
				return
			}
		}
	}
}

func (s *Store) walk(ctx context.Context, in *s3.ListObjectsV2Input) iter.Seq2[types.Object, error] {
	return func(yield func(types.Object, error) bool) {
		for pages := s3.NewListObjectsV2Paginator(s.client, in); pages.HasMorePages(); {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(types.Object{}, err)
				return
			}
			for _, o := range page.Contents {
				if !yield(o, nil) {
					return
				}
			}
		}
	}
}

func (s *Store) listNames(ctx context.Context, prefix string) (names []string, err error) {
	for o, err := range s.walk(ctx, &s3.ListObjectsV2Input{Bucket: &s.o.Bucket, Prefix: &prefix}) {
		if err != nil {
			return names, err
		}
		names = append(names, *o.Key)
	}
	return names, nil
}

// unsealed lists what is being written, or was left; there is little of it.
func (s *Store) unsealed(ctx context.Context, after string) ([]blob.Object, error) {
	found := map[string]blob.Object{}
	add := func(key string, size int64, modified time.Time) {
		if key <= after || blob.CheckKey(key) != nil {
			return
		}
		o := found[key]
		if o.Key = key; o.Modified.Before(modified) {
			o.Modified = modified
		}
		o.Size += size
		found[key] = o
	}
	err := s.eachUpload(ctx, "", func(u types.MultipartUpload) error {
		key, ours := strings.CutPrefix(*u.Key, *s.name(""))
		if !ours || key <= after {
			return nil
		}
		size, err := s.partsSize(ctx, u)
		add(key, size, aws.ToTime(u.Initiated))
		return err
	})
	if err != nil {
		return nil, err
	}
	err = s.eachSpill(ctx, func(key string, o types.Object) error {
		add(key, aws.ToInt64(o.Size), aws.ToTime(o.LastModified))
		return nil
	})
	list := make([]blob.Object, 0, len(found))
	for _, o := range found {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b blob.Object) int { return cmp.Compare(a.Key, b.Key) })
	return list, err
}

// eachUpload walks multipart uploads. A service without that call has none.
// name is "" or a whole name: MinIO finds nothing by a prefix that is neither.
func (s *Store) eachUpload(ctx context.Context, name string, fn func(types.MultipartUpload) error) error {
	in := &s3.ListMultipartUploadsInput{Bucket: &s.o.Bucket, Prefix: orNil(name)}
	for pages := s3.NewListMultipartUploadsPaginator(s.client, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if hasCode(err, "NotImplemented") {
			return nil
		}
		if err != nil {
			return err
		}
		for _, u := range page.Uploads {
			if err := fn(u); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) eachSpill(ctx context.Context, fn func(key string, o types.Object) error) error {
	prefix := strings.TrimSuffix(s.tails(""), "/")
	for o, err := range s.walk(ctx, &s3.ListObjectsV2Input{Bucket: &s.o.Bucket, Prefix: &prefix}) {
		if err != nil {
			return err
		}
		key, _, _ := strings.Cut(strings.TrimPrefix(*o.Key, prefix), "/")
		if err := fn(key, o); err != nil {
			return err
		}
	}
	return nil
}

// partsSize is how much a multipart upload holds.
func (s *Store) partsSize(ctx context.Context, u types.MultipartUpload) (size int64, err error) {
	in := &s3.ListPartsInput{Bucket: &s.o.Bucket, Key: u.Key, UploadId: u.UploadId}
	for pages := s3.NewListPartsPaginator(s.client, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if isGone(err) {
			return 0, nil // ended since it was listed
		}
		if err != nil {
			return 0, err
		}
		for _, p := range page.Parts {
			size += aws.ToInt64(p.Size)
		}
	}
	return size, nil
}
