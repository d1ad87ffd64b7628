package upstream

import (
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/oci"
)

const (
	distrustFor  = time.Hour
	maxDistrusts = 1000
)

// distrust is which blobs of a mirror were wrong, so that it is not asked for
// them for a while.
type distrust struct {
	mu    sync.Mutex
	until map[oci.Digest]time.Time
}

func (d *distrust) holds(digest oci.Digest, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return now.Before(d.until[digest])
}

func (d *distrust) add(digest oci.Digest, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.until == nil || len(d.until) == maxDistrusts {
		d.until = map[oci.Digest]time.Time{}
	}
	d.until[digest] = now.Add(distrustFor)
}
