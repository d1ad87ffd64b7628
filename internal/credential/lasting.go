package credential

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	fetchTimeout = 30 * time.Second // of getting a value, whoever waits for it
	renewPause   = 10 * time.Second // after a renewal that failed
	onTheWay     = 5 * time.Second  // of a request, before it is looked at
)

// forever is the life of what holds until it is dropped.
const forever = time.Duration(1<<63 - 1)

// lasting is a value that holds for a while. It is got when it is first wanted,
// and by one of all who want it; it is got again when two thirds of its life are
// over, while it still serves. Its mutex is its own.
type lasting[T comparable] struct {
	mu         sync.Mutex
	value      T
	have       bool
	given      int // times that the value was given to be used
	renew, end time.Time
	call       *call[T]
}

// call is the getting of a value that many wait for.
type call[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// fetcher gets a value and says for how long it holds. Its context does not end
// with that of a caller.
type fetcher[T any] func(ctx context.Context) (value T, life time.Duration, err error)

// get returns the value, to be used if use is set, or to be there when it is.
func (l *lasting[T]) get(ctx context.Context, now func() time.Time, use bool, fetch fetcher[T]) (T, error) {
	l.mu.Lock()
	t := now()
	if l.have && t.Before(l.end) {
		defer l.mu.Unlock()
		if !t.Before(l.renew) && l.call == nil {
			l.start(ctx, now, fetch)
		}
		l.count(use)
		return l.value, nil
	}
	if l.call == nil {
		l.start(ctx, now, fetch)
	}
	c := l.call
	l.mu.Unlock()
	select {
	case <-c.done:
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.have && l.value == c.value {
		l.count(use)
	}
	return c.value, c.err
}

func (l *lasting[T]) count(use bool) {
	if use {
		l.given++
	}
}

// start begins to get a value. The mutex is held.
func (l *lasting[T]) start(ctx context.Context, now func() time.Time, fetch fetcher[T]) {
	c := &call[T]{done: make(chan struct{})}
	l.call = c
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	go func() {
		defer close(c.done)
		defer cancel()
		value, life, err := recovered(ctx, fetch)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.call = nil
		if err != nil {
			c.err = err
			l.renew = now().Add(renewPause)
			return
		}
		c.value = value
		l.value, l.have, l.given = value, true, 0
		l.renew, l.end = farOff, farOff
		if life != forever {
			l.renew, l.end = now().Add(life/3*2), now().Add(life-min(life/10, onTheWay))
		}
	}()
}

var farOff = time.Unix(1<<40, 0)

// drop forgets the value, if it is still this one, and says how often it was
// given to be used.
func (l *lasting[T]) drop(value T) (given int, dropped bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.have || l.value != value {
		return 0, false
	}
	l.have = false
	return l.given, true
}

var errPanic = errors.New("panic")

// recovered makes an error of a panic: nobody above this would catch it.
func recovered[T any](ctx context.Context, fetch fetcher[T]) (value T, life time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	return fetch(ctx)
}
