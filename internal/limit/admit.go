package limit

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/registry"
)

var errSlow = errors.New("the database does not answer")

// allow uses one request of every rule of requests and asks whether there is
// anything left of those of bytes. Where one refuses, none is used, and the
// error is of the one that refuses longest.
func (l *Limiter) allow(ctx context.Context, repo string, rules []rule) error {
	var worst *registry.Error
	used := make([]int64, len(rules)) // the slot that it was used of; 0: not
	for i := range rules {
		r := &rules[i]
		at, retry, err := l.admit(ctx, r)
		switch {
		case err != nil:
			l.undo(rules, used)
			return err
		case retry == 0:
			used[i] = at
		case worst == nil || retry > worst.Limit.RetryAfter:
			worst = &registry.Error{
				Code: registry.TooManyRequests, Repo: repo, Detail: r.String(),
				Limit: &registry.Limit{Amount: r.amount, Window: r.window, RetryAfter: retry},
			}
		}
	}
	if worst != nil {
		l.undo(rules, used)
		return worst
	}
	return nil
}

func (l *Limiter) undo(rules []rule, used []int64) {
	for i := range rules {
		if used[i] != 0 {
			l.giveBack(rules[i].key, used[i], rules[i].cost())
		}
	}
}

// cost is what the admission of one HTTP request uses.
func (r *rule) cost() int64 {
	if r.unit == access.Bytes {
		return 0
	}
	return 1
}

// admit uses one admission of r. retry is 0 if it passes, and then at is the
// slot that was used; else it is how long to wait, in whole seconds. The error
// is ctx's.
func (l *Limiter) admit(ctx context.Context, r *rule) (at int64, retry time.Duration, err error) {
	var late <-chan time.Time
	for {
		b := l.locked(r.key)
		now := l.now()
		b.roll(now)
		b.asked = now
		if b.left > 0 || l.resting(now) {
			b.left -= r.cost()
			at := b.slot
			b.mu.Unlock()
			return at, 0, nil
		}
		if b.refused.holds(r.amount, now) {
			wait := b.refused.free.Sub(now)
			b.mu.Unlock()
			return 0, wholeSeconds(wait), nil
		}
		if b.trip == nil {
			l.begin(b, r, false)
		}
		trip := b.trip
		b.mu.Unlock()
		if late == nil {
			late = time.After(l.patience)
		}
		select {
		case <-trip:
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		case <-late:
			l.fail(errSlow)
			late = nil
		}
	}
}

// wholeSeconds rounds up: a wait of that long is long enough.
func wholeSeconds(d time.Duration) time.Duration {
	return max(time.Second, (d + time.Second - 1).Truncate(time.Second))
}

// giveBack returns n that were used of a slot and not needed.
func (l *Limiter) giveBack(k key, at, n int64) {
	b := l.locked(k)
	defer b.mu.Unlock()
	if b.roll(l.now()); b.slot == at {
		b.left += n
	} else {
		b.owe(at, -n)
	}
}

// charge uses n, whether there is so much left or not.
func (l *Limiter) charge(k key, n int64) {
	b := l.locked(k)
	defer b.mu.Unlock()
	now := l.now()
	b.roll(now)
	b.asked = now
	b.left = max(b.left-min(n, maxCount), -maxCount)
}

// begin starts an exchange: it tells the store what is due (with release, all
// that is left too) and asks for some of r (nil: of nothing). b.mu is held and
// no exchange is under way.
func (l *Limiter) begin(b *bucket, r *rule, release bool) {
	var want int64
	if r != nil {
		want = b.want(r)
	}
	changes, done := b.due(release), make(chan struct{})
	b.trip = done
	go func() {
		defer close(done)
		o, err := l.exchange(b.key, changes, r, want)
		if err != nil {
			l.fail(err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.settle(o, err, changes, r, l.now())
	}()
}

// exchange is one change of a row. Others may change it at the same time: the
// version says who was first, and who was not begins again.
func (l *Limiter) exchange(k key, changes []slot, r *rule, want int64) (outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), l.patience)
	defer cancel()
	row := k.row()
	for try := 0; ; try++ {
		stored, version, err := l.store.RateUsage(ctx, row)
		if err != nil {
			return outcome{}, err
		}
		u, err := decodeUsage(stored)
		if err != nil {
			l.warn("usage of "+row+" begins anew", err)
		}
		u, o := apply(u, k, changes, r, want, l.now())
		if o.taken == 0 && len(changes) == 0 {
			return o, nil
		}
		swapped, err := l.store.SwapRateUsage(ctx, row, u.encode(), version)
		if err != nil || swapped {
			return o, err
		}
		select {
		case <-ctx.Done():
			return outcome{}, errSlow
		case <-time.After(rand.N(time.Millisecond << min(try, 4))):
		}
	}
}

// apply computes the row and the outcome of an exchange at the time now.
func apply(u usage, k key, changes []slot, r *rule, want int64, now time.Time) (usage, outcome) {
	o := outcome{slot: k.slotAt(now)}
	u = u.within(o.slot)
	for _, c := range changes {
		if !outside(c.at, o.slot) {
			u = u.add(c.at, c.n)
		}
	}
	if r == nil {
		return u, o
	}
	rest := r.amount - u.sum()
	if rest <= 0 {
		o.free = k.begins(u.free(r.amount))
		return u, o
	}
	o.taken = min(want, max(1, rest/8))
	return u.add(o.slot, o.taken), o
}
