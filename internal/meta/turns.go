package meta

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// turn is how long one transaction of collection goes on taking up more: all
// others who write wait for SQLite's one writer.
const turn = 3 * time.Millisecond

// putOff is when an item that collection failed at is looked at again.
const putOff = time.Hour

// Reviewed counts what looks at a queue came to.
type Reviewed struct {
	Seen      int // items that were looked at
	Removed   int // of these
	Referrers int // of those, for want of their subject
}

func (r *Reviewed) add(o Reviewed) {
	r.Seen += o.Seen
	r.Removed += o.Removed
	r.Referrers += o.Referrers
}

// turns say how the items of a queue are looked at. Nobody waits for the disk
// here: what a loss of power undoes is found again, and no bytes go before
// DeadObjects has made sure that nothing is undone any more.
type turns[T any] struct {
	db *DB
	// begin runs first in each transaction; nil: nothing does.
	begin func(*tx) error
	// look looks at one item, of which much may have changed since it was read.
	look func(*tx, T) (Reviewed, error)
	// putOff makes an item that look fails at wait, in a transaction of its own.
	putOff func(*tx, T) error
	name   func(T) string
}

// run looks at items in transactions that are short. What fails alone is put
// off and does not stop the others; the error names the first of such items.
func (w turns[T]) run(ctx context.Context, items []T) (sum Reviewed, err error) {
	var first error
	alone := false // one that is still to come has failed
	for len(items) > 0 {
		if err := ctx.Err(); err != nil {
			return sum, errors.Join(first, err)
		}
		most := len(items)
		if alone {
			most = 1
		}
		done, got, err := w.turn(ctx, items[:most])
		switch {
		case err == nil:
			sum.add(got)
			items = items[done:]
		case ctx.Err() != nil || hopeless(err):
			return sum, errors.Join(first, err)
		case most > 1:
			alone = true
		default:
			if first == nil {
				first = fmt.Errorf("%s, which is put off: %w", w.name(items[0]), err)
			}
			if err := w.db.hint(ctx, func(t *tx) error { return w.putOff(t, items[0]) }); err != nil {
				return sum, errors.Join(first, err)
			}
			sum.Seen++
			items, alone = items[1:], false
		}
	}
	return sum, first
}

// turn is one transaction. It counts how many items it got through.
func (w turns[T]) turn(ctx context.Context, items []T) (done int, sum Reviewed, err error) {
	err = w.db.hint(ctx, func(t *tx) error {
		done, sum = 0, Reviewed{}
		if w.begin != nil {
			if err := w.begin(t); err != nil {
				return err
			}
		}
		for began := time.Now(); done < len(items) && (done == 0 || time.Since(began) < turn); done++ {
			got, err := w.look(t, items[done])
			if err != nil {
				return err
			}
			sum.add(got)
		}
		return nil
	})
	return done, sum, err
}

// hopeless reports whether an error would meet every other item too.
func hopeless(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrClosed) || errors.Is(err, ErrFull)
}

// runs splits a list where the key of its items changes.
func runs[T any](list []T, key func(T) string) (parts [][]T) {
	for begin, i := 0, 0; i < len(list); i++ {
		if i+1 == len(list) || key(list[i+1]) != key(list[begin]) {
			parts = append(parts, list[begin:i+1])
			begin = i + 1
		}
	}
	return parts
}
