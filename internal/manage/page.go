package manage

// Page is a part of a list.
type Page struct {
	After string // the Next of the page before; "" is the first
	Limit int    // at most so many
}

// MaxPage is the most that a page holds.
const MaxPage = 1000

func (p Page) size() int { return min(max(p.Limit, 1), MaxPage) }

// List is a page of a list.
type List[T any] struct {
	Items []T
	Next  string // After of the next page; "" where this is the last
}

// page is what a store answered for p; cursor is what an item's followers come
// after.
func page[T any](items []T, err error, p Page, cursor func(T) string) (List[T], error) {
	if err != nil {
		return List[T]{}, asked(err)
	}
	l := List[T]{Items: items}
	if len(items) == p.size() {
		l.Next = cursor(items[len(items)-1])
	}
	return l, nil
}
