package proxy

import (
	"container/list"
	"sync"

	"github.com/berth-registry/berth/internal/oci"
)

// maxHints bounds the blobs whose sizes are remembered: those of some hundred
// images, in a few megabytes.
const maxHints = 8 << 10

// hints are sizes of blobs as the origin, or one of its manifests, has told them.
// That it told one proves that it has the blob in that repository.
type hints struct {
	mu    sync.Mutex
	byKey map[hintKey]*list.Element // of hint
	order list.List                 // the one that was used last is in front
}

type hintKey struct {
	here   string
	digest oci.Digest
}

type hint struct {
	hintKey
	size int64
}

func (h *hints) add(here string, d oci.Digest, size int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := hintKey{here, d}
	if e := h.byKey[key]; e != nil {
		e.Value = hint{key, size}
		h.order.MoveToFront(e)
		return
	}
	if h.byKey == nil {
		h.byKey = map[hintKey]*list.Element{}
	}
	h.byKey[key] = h.order.PushFront(hint{key, size})
	if len(h.byKey) > maxHints {
		oldest := h.order.Remove(h.order.Back()).(hint)
		delete(h.byKey, oldest.hintKey)
	}
}

func (h *hints) get(here string, d oci.Digest) (size int64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.byKey[hintKey{here, d}]
	if e == nil {
		return 0, false
	}
	h.order.MoveToFront(e)
	return e.Value.(hint).size, true
}

// drop forgets what turned out to be wrong.
func (h *hints) drop(here string, d oci.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := hintKey{here, d}
	if e := h.byKey[key]; e != nil {
		h.order.Remove(e)
		delete(h.byKey, key)
	}
}
