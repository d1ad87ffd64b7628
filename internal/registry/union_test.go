package registry_test

import (
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// listOf yields words; at "!" it ends with errList.
func listOf(words string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, w := range strings.Fields(words) {
			if w == "!" {
				yield("", errList)
				return
			}
			if !yield(w, nil) {
				return
			}
		}
	}
}

var errList = errors.New("the list broke off")

func TestUnion(t *testing.T) {
	for _, c := range []struct {
		lists []string
		want  string
		fails bool
	}{
		{nil, "", false},
		{[]string{"", ""}, "", false},
		{[]string{"a c e", "b c d e f", "a"}, "a b c d e f", false},
		{[]string{"a a b", "b b"}, "a b", false},
		{[]string{"b a c", "c"}, "b c", false},
		{[]string{"a b !", "c"}, "a b", true},
		{[]string{"a c", "!"}, "", true},
		{[]string{"a b c", "b !"}, "a b", true},
	} {
		lists := []iter.Seq2[string, error]{}
		for _, words := range c.lists {
			lists = append(lists, listOf(words))
		}
		var got []string
		var failure error
		for v, err := range registry.Union(strings.Compare, lists...) {
			if failure != nil {
				t.Fatalf("%q go on behind an error", c.lists)
			}
			if failure = err; err == nil {
				got = append(got, v)
			}
		}
		if !slices.Equal(got, strings.Fields(c.want)) || errors.Is(failure, errList) != c.fails {
			t.Errorf("the union of %q is %v, %v; want %q", c.lists, got, failure, c.want)
		}
	}
}

// TestUnionStopsItsLists: a walk that is ended ends those below.
func TestUnionStopsItsLists(t *testing.T) {
	open := 0
	endless := func(yield func(int, error) bool) {
		open++
		defer func() { open-- }()
		for i := 0; yield(i, nil); i++ {
		}
	}
	for v := range registry.Union(func(a, b int) int { return a - b }, endless, endless) {
		if v == 3 {
			break
		}
	}
	if open != 0 {
		t.Errorf("%d lists are still walked", open)
	}
}

// TestUnionPrefersTheEarlier: of equal elements that of the earlier list counts.
func TestUnionPrefersTheEarlier(t *testing.T) {
	fold := func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) }
	registrytest.WantList(t, "union", registry.Union(fold, listOf("a B"), listOf("A b C")), "a", "B", "C")
}
