package app

import (
	"net/http"
	"sync"
	"time"
)

// requests knows when the last running request has ended. http.Server.Close
// does not wait for them, and the store must stay open while an upload that was
// cut off saves how far it came.
type requests struct{ running sync.RWMutex }

// counted is h, known while it runs.
func (q *requests) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q.running.RLock()
		defer q.running.RUnlock()
		h.ServeHTTP(w, r)
	})
}

// end lets no request begin any more and reports whether the running ones ended
// within d.
func (q *requests) end(d time.Duration) bool {
	ended := make(chan struct{})
	go func() {
		q.running.Lock()
		close(ended)
	}()
	select {
	case <-ended:
		return true
	case <-time.After(d):
		return false
	}
}
