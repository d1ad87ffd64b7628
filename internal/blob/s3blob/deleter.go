package s3blob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/berth-registry/berth/internal/blob"
)

// deleteBatch is the most that one request may name.
const deleteBatch = 1000

// Delete implements blob.Store, a thousand keys a request.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	names := make([]string, len(keys))
	for i, key := range keys {
		if err := blob.CheckKey(key); err != nil {
			return err
		}
		names[i] = *s.name(key)
	}
	return failure(s.deleteNames(ctx, names))
}

func (s *Store) deleteSpills(ctx context.Context, key string, spills []piece) error {
	names := make([]string, len(spills))
	for i, p := range spills {
		names[i] = s.tail(key, p.Name)
	}
	return s.deleteNames(ctx, names)
}

func (s *Store) deleteNames(ctx context.Context, names []string) (err error) {
	for batch := range slices.Chunk(names, deleteBatch) {
		if len(batch) > 1 {
			batch, err = s.deleteMany(ctx, batch)
		}
		if err != nil {
			return err
		}
		for _, name := range batch {
			if err := s.deleteOne(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// deleteMany deletes a batch. What it returns must be deleted one by one, by
// services that lack this call, or want it in another way than ours.
func (s *Store) deleteMany(ctx context.Context, names []string) (left []string, err error) {
	ids := make([]types.ObjectIdentifier, len(names))
	for i := range names {
		ids[i] = types.ObjectIdentifier{Key: &names[i]}
	}
	out, err := s.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &s.o.Bucket, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)}})
	if hasCode(err, "NotImplemented", "MissingContentMD5", "InvalidRequest", "InvalidArgument", "MethodNotAllowed") {
		return names, nil
	}
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range out.Errors {
		if code := aws.ToString(e.Code); code != "NoSuchKey" {
			errs = append(errs, fmt.Errorf("delete %s: %s: %s", aws.ToString(e.Key), code, aws.ToString(e.Message)))
		}
	}
	return nil, errors.Join(errs...)
}

func (s *Store) deleteOne(ctx context.Context, name string) error {
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.o.Bucket, Key: &name})
	if isGone(err) {
		return nil
	}
	return err
}

// Swept counts what Sweep removed.
type Swept struct{ Uploads, Tails int }

// Sweep removes what crashes leave and no row knows: multipart uploads and
// spilled tails that began before a time and whose key is not live. It walks
// both, not the objects. A key is live while its upload session exists.
func (s *Store) Sweep(ctx context.Context, before time.Time, live func(key string) (bool, error)) (n Swept, err error) {
	dead := func(key string, began *time.Time) (bool, error) {
		if blob.CheckKey(key) != nil || began == nil || !began.Before(before) {
			return false, nil
		}
		alive, err := live(key)
		return !alive, err
	}
	prefix := *s.name("")
	err = s.eachUpload(ctx, "", func(u types.MultipartUpload) error {
		if len(*u.Key) <= len(prefix) || (*u.Key)[:len(prefix)] != prefix {
			return nil
		}
		is, err := dead((*u.Key)[len(prefix):], u.Initiated)
		if err == nil && is {
			n.Uploads++
			err = s.abortMultipart(ctx, u)
		}
		return err
	})
	if err != nil {
		return n, failure(err)
	}
	var names []string
	err = s.eachSpill(ctx, func(key string, o types.Object) error {
		is, err := dead(key, o.LastModified)
		if is {
			names = append(names, *o.Key)
		}
		return err
	})
	if err == nil {
		err = s.deleteNames(ctx, names)
	}
	if err == nil {
		n.Tails = len(names)
	}
	return n, failure(err)
}
