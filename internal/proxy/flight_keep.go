package proxy

import (
	"time"

	"github.com/berth-registry/berth/internal/registry"
)

const (
	rush       = 32 << 20 // bytes a second
	rushLook   = 50 * time.Millisecond
	rushBehind = 1 << 30 // bytes, for which the system's memory may be too small
)

// keep puts the blob into the cache, while it comes.
func (f *flight) keep() error {
	ctx := f.p.writing(f.ctx)
	u, err := f.p.cache.StartUpload(ctx, f.here, registry.UploadOptions{Algorithm: f.digest.Algorithm()})
	if err != nil {
		return err
	}
	content := &patient{tail: f.spool.tail(f.ctx, 0, f.size), since: time.Now()}
	defer content.Close()
	if _, err = u.Commit(ctx, 0, content, f.digest); err == nil {
		return nil
	}
	if left := u.Cancel(ctx); left != nil && !registry.IsCode(left, registry.UploadUnknown) {
		f.p.o.Log.Warn("what came of a blob could not be freed at once; it expires as uploads do", "repo", f.here, "upload", u.ID(), "error", left)
	}
	return err
}

// patient reads a spool for the cache. Where a blob comes in a rush, hashing and
// writing it a second time meanwhile would cost those who wait for it as much
// again: the cache follows when it has come, or far behind. An origin that is
// slower than that leaves room for both.
type patient struct {
	*tail
	since time.Time
}

func (r *patient) Read(p []byte) (int, error) {
	for r.rushes(time.Since(r.since)) {
		select {
		case <-r.spool.ended:
		case <-time.After(rushLook):
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
	return r.tail.Read(p)
}

// rushes reports whether the blob comes in a rush, some time after it began.
func (r *patient) rushes(after time.Duration) bool {
	r.spool.mu.Lock()
	defer r.spool.mu.Unlock()
	written := r.spool.written
	return !r.spool.over && written-r.pos < rushBehind && float64(written) > rush*after.Seconds()
}
