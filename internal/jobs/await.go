package jobs

import (
	"context"
	"time"

	"github.com/berth-registry/berth/internal/meta"
)

// Await waits for the end of a job's run whose version is above after. seen, if
// not nil, is told what its row says meanwhile.
func Await(ctx context.Context, s Store, name string, after int64, seen func(meta.Job)) (meta.Job, error) {
	for {
		j, err := Find(ctx, s, name)
		if err != nil || j.Finished > after {
			return j, err
		}
		if seen != nil {
			seen(j)
		}
		select {
		case <-ctx.Done():
			return j, ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// Find is a job's row; an empty one where there is none.
func Find(ctx context.Context, s Store, name string) (meta.Job, error) {
	rows, err := s.Jobs(ctx)
	if err != nil {
		return meta.Job{}, err
	}
	for _, j := range rows {
		if j.Name == name {
			return j, nil
		}
	}
	return meta.Job{Name: name}, nil
}
