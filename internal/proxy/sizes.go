package proxy

import (
	"container/list"
	"sync"

	"github.com/berth-registry/berth/internal/oci"
)

// maxSizes bounds the blobs whose sizes are remembered: those of some hundred
// images, in a few megabytes.
const maxSizes = 8 << 10

// sizes are sizes of blobs as the origin, or one of its manifests, has told them.
// That it told one proves that it has the blob in that repository.
type sizes struct {
	mu    sync.Mutex
	byKey map[sizeKey]*list.Element // of sized
	order list.List                 // the one that was used last is in front
}

type sizeKey struct {
	here   string
	digest oci.Digest
}

type sized struct {
	sizeKey
	size int64
}

func (h *sizes) add(here string, d oci.Digest, size int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := sizeKey{here, d}
	if e := h.byKey[key]; e != nil {
		e.Value = sized{key, size}
		h.order.MoveToFront(e)
		return
	}
	if h.byKey == nil {
		h.byKey = map[sizeKey]*list.Element{}
	}
	h.byKey[key] = h.order.PushFront(sized{key, size})
	if len(h.byKey) > maxSizes {
		oldest := h.order.Remove(h.order.Back()).(sized)
		delete(h.byKey, oldest.sizeKey)
	}
}

func (h *sizes) get(here string, d oci.Digest) (size int64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.byKey[sizeKey{here, d}]
	if e == nil {
		return 0, false
	}
	h.order.MoveToFront(e)
	return e.Value.(sized).size, true
}

// drop forgets what turned out to be wrong.
func (h *sizes) drop(here string, d oci.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := sizeKey{here, d}
	if e := h.byKey[key]; e != nil {
		h.order.Remove(e)
		delete(h.byKey, key)
	}
}
