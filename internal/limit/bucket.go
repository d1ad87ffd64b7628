package limit

import (
	"fmt"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/access"
)

// key names what is counted together.
type key struct {
	per    access.Scope
	id     string // of what the scope says
	unit   access.Unit
	window time.Duration
}

// row is the key's name in the database.
func (k key) row() string {
	return fmt.Sprintf("%s/%s/%d:%s", k.per, k.unit, int64(k.window/time.Second), k.id)
}

// width is the length of a slot.
func (k key) width() time.Duration { return k.window / windowSlots }

// slotAt is the slot that a moment lies in.
func (k key) slotAt(now time.Time) int64 { return now.UnixMilli() / k.width().Milliseconds() }

// begins is when a slot begins.
func (k key) begins(slot int64) time.Time { return time.UnixMilli(slot * k.width().Milliseconds()) }

// rule is a bucket with what it may use.
type rule struct {
	key
	amount int64
	name   string // of whom it is about, for refusals
}

// add appends the rule that a rate makes for somebody, unless the rate cannot
// have been stored. Of two rates that count the same the smaller one holds.
func add(rules []rule, rate *access.Rate, id, name string) []rule {
	if rate.Validate() != nil {
		return rules
	}
	r := rule{key{rate.Per, id, rate.Unit, rate.Window}, rate.Amount, name}
	for i := range rules {
		if rules[i].key == r.key {
			rules[i].amount = min(rules[i].amount, r.amount)
			return rules
		}
	}
	return append(rules, r)
}

var windowNames = map[time.Duration]string{time.Minute: "minute", time.Hour: "hour", 24 * time.Hour: "day"}

var scopeNames = map[access.Scope]string{
	access.PerAddress: "address ", access.PerKey: "the key of ",
	access.PerProject: "project ", access.PerOrganization: "the organization of project ",
}

// String says it to the caller: 100 requests per minute for project acme.
func (r *rule) String() string {
	return fmt.Sprintf("%d %s per %s for %s%s", r.amount, r.unit, windowNames[r.window], scopeNames[r.per], r.name)
}

// largest is the largest lease of the rule.
func (r *rule) largest() int64 { return max(1, min(r.amount/200, maxCount)) }

// bucket is what this server holds of a rate.
type bucket struct {
	key key

	mu      sync.Mutex
	slot    int64         // that the lease is of
	left    int64         // of the lease; below zero: used beyond it
	taken   int64         // in all leases of the slot
	lease   int64         // size of the last one of the slot
	slice   int64         // to be asked for next; 0: not known yet
	owed    []slot        // to be added to other slots in the store; negative: given back
	asked   time.Time     // when it was last used
	refused refusal       // the store's last answer, if it was one
	trip    chan struct{} // closed at the end of the exchange that is under way, else nil
	gone    bool          // from the table: look again
}

// refusal is remembered, so that a flood of requests costs nothing.
type refusal struct {
	amount int64     // of the rate that was asked for
	free   time.Time // when something is free again
	until  time.Time // when the store is asked again
}

// holds reports whether the refusal still answers a request; a clock that was
// set back does not prolong it.
func (r *refusal) holds(amount int64, now time.Time) bool {
	wait := r.until.Sub(now)
	return r.amount == amount && wait > 0 && wait <= breather
}

// roll leaves the lease of another slot behind. b.mu is held, as it is in all
// methods of bucket.
func (b *bucket) roll(now time.Time) {
	current := b.key.slotAt(now)
	if b.slot == current {
		return
	}
	b.owe(b.slot, -b.left)
	if b.taken > 0 {
		b.slice = max(1, b.taken-b.left) // what this slot used is a guess at the next
	}
	b.slot, b.left, b.taken, b.lease = current, 0, 0, 0
}

// owe notes a change of a slot in the store.
func (b *bucket) owe(at, n int64) {
	if n == 0 {
		return
	}
	oldest := 0
	for i := range b.owed {
		if b.owed[i].at == at {
			b.owed[i].n += n
			return
		}
		if b.owed[i].at < b.owed[oldest].at {
			oldest = i
		}
	}
	if len(b.owed) > windowSlots { // the store has not answered for a whole window
		b.owed[oldest] = slot{at, n}
		return
	}
	b.owed = append(b.owed, slot{at, n})
}

// due takes away what must be told to the store; with release, all that is left.
func (b *bucket) due(release bool) []slot {
	if b.left < 0 || release {
		b.owe(b.slot, -b.left)
		if release && b.left > 0 {
			b.taken, b.lease = b.taken-b.left, 0
			b.slice = max(1, b.taken)
		}
		b.left = 0
	}
	due := b.owed
	b.owed = nil
	return due
}

// owing reports whether due has anything.
func (b *bucket) owing(release bool) bool {
	return len(b.owed) > 0 || b.left < 0 || release && b.left > 0
}

// idle reports whether nobody has used the bucket of late.
func (b *bucket) idle(now time.Time) bool {
	since := now.Sub(b.asked)
	return since < 0 || since >= max(time.Second, b.key.width()/4)
}

// want is how much to lease next.
func (b *bucket) want(r *rule) int64 {
	switch {
	case b.lease > 0: // and it was used up within its slot
		b.slice = 2 * b.lease
	case b.slice == 0 && r.unit == access.Requests:
		b.slice = 1 // most callers come once
	case b.slice == 0:
		b.slice = r.largest()
	}
	b.slice = min(b.slice, r.largest())
	return b.slice
}

// outcome of an exchange with the store.
type outcome struct {
	slot  int64 // that taken is of
	taken int64
	free  time.Time // where nothing could be taken: when it can
}

// settle takes in the outcome of an exchange of changes, which began with
// asking for some of r (nil: for nothing).
func (b *bucket) settle(o outcome, err error, changes []slot, r *rule, now time.Time) {
	b.trip = nil
	if err != nil {
		for _, c := range changes { // what was given back may have arrived: never twice
			if c.n > 0 {
				b.owe(c.at, c.n)
			}
		}
		return
	}
	if r == nil {
		return
	}
	if o.slot > b.slot {
		b.roll(b.key.begins(o.slot))
	}
	if o.slot != b.slot {
		b.owe(o.slot, -o.taken)
		return
	}
	b.left, b.taken, b.lease = b.left+o.taken, b.taken+o.taken, o.taken
	b.refused = refusal{}
	if o.taken == 0 {
		b.refused = refusal{amount: r.amount, free: o.free, until: now.Add(breather)}
		if o.free.Before(b.refused.until) {
			b.refused.until = o.free
		}
	}
}
