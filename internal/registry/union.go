package registry

import "iter"

// Union joins lists that are each in the order of compare into one, without
// repeats: of equal elements that of the earlier list counts. What a list yields
// out of its order is left out. The first error ends it.
func Union[T any](compare func(a, b T) int, lists ...iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		heads := make([]head[T], 0, len(lists))
		defer func() {
			for i := range heads {
				heads[i].stop()
			}
		}()
		for _, list := range lists {
			next, stop := iter.Pull2(list)
			heads = append(heads, head[T]{compare: compare, next: next, stop: stop})
			if err := heads[len(heads)-1].advance(); err != nil {
				yield(none, err)
				return
			}
		}
		for {
			least := lowest(heads)
			if least == nil || !yield(least.value, nil) {
				return
			}
			if err := pass(heads, least.value); err != nil {
				yield(none, err)
				return
			}
		}
	}
}

// head is the next element of one list.
type head[T any] struct {
	compare func(a, b T) int
	value   T
	state   headState
	next    func() (T, error, bool)
	stop    func()
}

type headState uint8

const (
	headNew headState = iota // nothing was read
	headAt                   // value is the next element
	headEnd
)

// advance skips what is not behind the last element.
func (h *head[T]) advance() error {
	for {
		v, err, ok := h.next()
		if !ok || err != nil {
			h.state = headEnd
			return err
		}
		if h.state == headNew || h.compare(v, h.value) > 0 {
			h.value, h.state = v, headAt
			return nil
		}
	}
}

// lowest finds the head that comes first; nil when all are at their end.
func lowest[T any](heads []head[T]) *head[T] {
	var least *head[T]
	for i := range heads {
		if h := &heads[i]; h.state == headAt && (least == nil || h.compare(h.value, least.value) < 0) {
			least = h
		}
	}
	return least
}

// pass moves all heads that stand at v on.
func pass[T any](heads []head[T], v T) error {
	for i := range heads {
		if h := &heads[i]; h.state == headAt && h.compare(h.value, v) == 0 {
			if err := h.advance(); err != nil {
				return err
			}
		}
	}
	return nil
}
