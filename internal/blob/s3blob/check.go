package s3blob

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
)

// checks holds what Check writes.
const checks = "check/"

// Check writes, reads back and deletes a small object beside the others.
func (s *Store) Check(ctx context.Context) error {
	err := s.check(ctx)
	if err != nil {
		return fmt.Errorf("bucket %s cannot be used: %w", s.o.Bucket, failure(err))
	}
	return nil
}

func (s *Store) check(ctx context.Context) error {
	text := []byte("berth checks that this bucket can be written\n")
	name := s.o.Prefix + checks + rand.Text()
	p, err := s.gather(ctx, "", progress{Tail: text}, s.newBudget())
	if err != nil {
		return err
	}
	defer p.release()
	if err := s.put(ctx, name, p, nil); err != nil {
		return err
	}
	return errors.Join(s.readBack(ctx, name, text), s.deleteOne(context.WithoutCancel(ctx), name))
}

func (s *Store) readBack(ctx context.Context, name string, want []byte) error {
	rc, err := s.read(ctx, &name, 0, int64(len(want)))
	if err != nil {
		return err
	}
	defer rc.Close()
	got, err := io.ReadAll(rc)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("other bytes came back than were written")
	}
	return err
}
