package proxy

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	lookAfter = 5 * time.Second // between two looks at what is used
	lookEvery = time.Minute     // also where nothing is stored by this process
	tellAgain = 10              // looks after which what has not changed is told again
)

// OverBudget notices that a cache grows beyond its budget, so that eviction does
// not wait for its time. It guesses from what is stored, and looks at what is used
// at most every few seconds.
type OverBudget struct {
	budget Budget
	usage  func(context.Context) (int64, error)
	over   func(context.Context)
	guess  atomic.Int64
	wake   chan struct{}
	after  func(time.Duration) <-chan time.Time

	told  int64 // what was in use when over was told last; 0: it has been less since
	looks int   // since then
}

// NewOverBudget makes one for a budget. usage is how many bytes are in use, and
// over is told that they are more than may be. Both are called by Run alone.
func NewOverBudget(b Budget, usage func(context.Context) (int64, error), over func(context.Context)) *OverBudget {
	return &OverBudget{budget: b, usage: usage, over: over, wake: make(chan struct{}, 1), after: time.After}
}

// Stored is told of bytes that were added: Options.Stored.
func (o *OverBudget) Stored(bytes int64) {
	if o.budget.over(o.guess.Add(bytes)) {
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
}

// Run looks until ctx ends: when there may be too much, and now and then, for
// others store too.
func (o *OverBudget) Run(ctx context.Context) {
	if o.budget.Bytes <= 0 {
		return
	}
	for {
		o.look(ctx)
		select { // it has just been looked
		case <-o.after(lookAfter):
		case <-ctx.Done():
			return
		}
		select {
		case <-o.wake:
		case <-o.after(lookEvery - lookAfter):
		case <-ctx.Done():
			return
		}
	}
}

// look corrects the guess. Where too much is in use that nobody can evict, that is
// told again only when it has grown, or now and then.
func (o *OverBudget) look(ctx context.Context) {
	guess := o.guess.Load()
	used, err := o.usage(ctx)
	if err != nil {
		return // what is guessed has the next look come soon
	}
	o.guess.Add(used - guess)
	switch o.looks++; {
	case !o.budget.over(used):
		o.told = 0
	case o.told == 0, used > o.told+o.budget.Bytes/100, o.looks >= tellAgain:
		o.told, o.looks = used, 0
		o.over(ctx)
	}
}
