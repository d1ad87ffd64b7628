package s3blob

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/berth-registry/berth/internal/blob"
)

// Seal implements blob.Store. It never replaces an object. Whether one that is
// there already has the bytes of st, nothing in the bucket says for certain: a
// process that was frozen may have sealed others. Errors, besides:
// blob.ErrNotFound if the service has lost what st says, and has no object of
// that size.
func (s *Store) Seal(ctx context.Context, key string, st blob.State) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	p, err := parse(key, st)
	if err != nil {
		return err
	}
	err = s.seal(ctx, key, p)
	if err == nil && p.Upload != "" {
		err = s.appears(ctx, key, st.Size)
	}
	if isGone(err) || isTaken(err) {
		sealed, headErr := s.sealed(ctx, key, st.Size)
		switch {
		case headErr != nil:
			return failure(headErr)
		case sealed:
			err = fmt.Errorf("%w: upload %s", blob.ErrSealed, key)
		case hasCode(err, conflict):
			return fmt.Errorf("%w: %w", blob.ErrUnavailable, err)
		default:
			return fmt.Errorf("%w: S3 has lost what upload %s had stored: %w", blob.ErrNotFound, key, err)
		}
	}
	if err == nil || errors.Is(err, blob.ErrSealed) {
		// What this leaves, Abort and Sweep find.
		s.deleteSpills(context.WithoutCancel(ctx), key, append(p.Spent, p.Spills...))
	}
	return failure(err)
}

// appears waits for the object of a multipart upload that the service calls
// complete. One that assembles it for an earlier request, or was killed while it
// did, may say so too early, or for ever.
func (s *Store) appears(ctx context.Context, key string, size int64) error {
	for wait := 100 * time.Millisecond; ; wait *= 2 {
		sealed, err := s.sealed(ctx, key, size)
		switch {
		case err != nil || sealed:
			return err
		case wait > time.Second:
			return fmt.Errorf("%w: S3 says that upload %s is complete, and has no such object", blob.ErrUnavailable, key)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// seal turns the bytes of an upload into an object.
func (s *Store) seal(ctx context.Context, key string, p progress) error {
	if p.Upload == "" || p.pending() > 0 {
		rest, err := s.gather(ctx, key, p, s.newBudget())
		if err != nil {
			return err
		}
		defer rest.release()
		if p.Upload == "" {
			return s.once(func(absent *string) error { return s.put(ctx, *s.name(key), rest, absent) })
		}
		etag, crc, err := s.uploadPart(ctx, key, p.Upload, len(p.Parts)+1, rest)
		if err != nil {
			return err
		}
		p.Parts = append(p.Parts[:len(p.Parts):len(p.Parts)], piece{rest.size, etag, crc})
	}
	parts := make([]types.CompletedPart, len(p.Parts))
	for i, part := range p.Parts {
		parts[i] = types.CompletedPart{PartNumber: new(int32(i + 1)), ETag: &part.Name, ChecksumCRC32: orNil(part.CRC32)}
	}
	return s.once(func(absent *string) error {
		_, err := s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &s.o.Bucket, Key: s.name(key), UploadId: &p.Upload, IfNoneMatch: absent,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
		return err
	})
}

// once makes a request that must not replace an object. It says so to services
// that understand; what the others get is remembered once it has worked.
func (s *Store) once(request func(ifNoneMatch *string) error) error {
	if s.rash.Load() {
		return request(nil)
	}
	err := request(new("*"))
	if !hasCode(err, unconditional...) && status(err) != http.StatusNotImplemented {
		return err
	}
	if again := request(nil); again != nil {
		return again
	}
	s.rash.Store(true)
	return nil
}

// sealed reports whether an object of this size exists: a crash may have kept the
// one that sealed it from knowing.
func (s *Store) sealed(ctx context.Context, key string, size int64) (bool, error) {
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.o.Bucket, Key: s.name(key)})
	if isGone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return out.ContentLength != nil && *out.ContentLength == size, nil
}

// Abort implements blob.Store. It frees all that the bucket has for the key,
// also what the state does not tell of.
func (s *Store) Abort(ctx context.Context, key string, _ blob.State) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	err := s.eachUpload(ctx, *s.name(key), func(u types.MultipartUpload) error {
		if *u.Key != *s.name(key) {
			return nil
		}
		return s.abortMultipart(ctx, u)
	})
	spills, listErr := s.listNames(ctx, s.tails(key))
	return failure(errors.Join(err, listErr, s.deleteNames(ctx, append(spills, *s.name(key)))))
}

func (s *Store) abortMultipart(ctx context.Context, u types.MultipartUpload) error {
	_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
		Bucket: &s.o.Bucket, Key: u.Key, UploadId: u.UploadId})
	if isGone(err) {
		return nil
	}
	return err
}
