package app

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A server is stopped while a request runs that lasts until finish is closed.
func TestRequestsEnd(t *testing.T) {
	begin := func() (q *requests, finish, finished chan struct{}) {
		q, finish, finished = &requests{}, make(chan struct{}), make(chan struct{})
		begun := make(chan struct{})
		h := q.counted(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(begun)
			<-finish
			close(finished)
		}))
		go h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
		<-begun
		return q, finish, finished
	}

	q, finish, _ := begin()
	if q.end(time.Millisecond) {
		t.Error("a request runs and was not waited for")
	}
	close(finish)

	q, finish, finished := begin()
	go close(finish)
	if !q.end(time.Minute) {
		t.Error("the request has ended and is still waited for")
	}
	select {
	case <-finished:
	default:
		t.Error("the wait ended before the request")
	}
}
