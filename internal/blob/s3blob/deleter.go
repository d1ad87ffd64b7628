package s3blob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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

// Sweep implements blob.Sweeper: it removes multipart uploads, spilled tails, and
// what Check was kept from deleting. It walks these, not the objects. One that
// fails does not stop the others.
func (s *Store) Sweep(ctx context.Context, before time.Time, live func(key string) (bool, error)) (n int, err error) {
	w := sweep{s: s, before: before, live: live}
	err = s.eachUpload(ctx, "", func(u types.MultipartUpload) error { return w.upload(ctx, u) })
	if err == nil {
		err = s.eachSpill(ctx, func(key string, o types.Object) error { return w.spill(ctx, key, o) })
	}
	if err == nil {
		err = w.checks(ctx)
	}
	if err == nil {
		err = w.flush(ctx)
	}
	return w.n, failure(errors.Join(w.first, err))
}

// sweep is one run of Sweep.
type sweep struct {
	s      *Store
	before time.Time
	live   func(key string) (bool, error)
	n      int
	names  []string // of objects that go with the next request
	first  error    // of what failed by itself
}

func (w *sweep) dead(key string, began *time.Time) (bool, error) {
	if blob.CheckKey(key) != nil || began == nil || !began.Before(w.before) {
		return false, nil
	}
	alive, err := w.live(key)
	return !alive, err
}

func (w *sweep) upload(ctx context.Context, u types.MultipartUpload) error {
	key, ours := strings.CutPrefix(aws.ToString(u.Key), *w.s.name(""))
	if !ours {
		return nil
	}
	is, err := w.dead(key, u.Initiated)
	if err != nil || !is {
		return err
	}
	return w.count(1, w.s.abortMultipart(ctx, u))
}

func (w *sweep) spill(ctx context.Context, key string, o types.Object) error {
	is, err := w.dead(key, o.LastModified)
	if err != nil || !is {
		return err
	}
	return w.add(ctx, *o.Key)
}

// checks are few: each was written by a process that could not delete it.
func (w *sweep) checks(ctx context.Context) error {
	for o, err := range w.s.walk(ctx, &s3.ListObjectsV2Input{Bucket: &w.s.o.Bucket, Prefix: new(w.s.o.Prefix + checks)}) {
		if err != nil {
			return err
		}
		if aws.ToTime(o.LastModified).Before(w.before) {
			if err := w.add(ctx, *o.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *sweep) add(ctx context.Context, name string) error {
	if w.names = append(w.names, name); len(w.names) < deleteBatch {
		return nil
	}
	return w.flush(ctx)
}

func (w *sweep) flush(ctx context.Context) error {
	names := w.names
	w.names = nil
	return w.count(len(names), w.s.deleteNames(ctx, names))
}

// count notes what was removed, or why not. Its error ends the sweep.
func (w *sweep) count(n int, err error) error {
	switch {
	case err == nil:
		w.n += n
	case errors.Is(failure(err), blob.ErrUnavailable):
		return err
	case w.first == nil:
		w.first = err
	}
	return nil
}
