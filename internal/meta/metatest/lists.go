package metatest

import (
	"slices"

	"github.com/berth-registry/berth/internal/meta"
)

// nastyTags and nastyNames tell bytewise order from every collation.
var (
	nastyTags = []string{"a", "A", "b", "B", "Z", "z", "_", "_a", "__", "0", "00", "10", "9", "a-", "a--", "a.", "a.b", "a-b",
		"a_b", "aB", "ab", "AB", "Ab", "a0", "v1.10", "v1.9", "v1-9", "v1_9", "V1.9"}
	nastyNames = []string{"a", "a/b", "a-b", "a--b", "a.b", "a_b", "a__b", "a0", "ab", "a/b/c", "a/b-c", "a/b.c", "a/b0", "b", "0", "0/a", "z9"}
)

var listCases = []testCase{
	{"list/tags", func(e *env) {
		e.put(image(repo, "m"), nastyTags...)
		e.put(image(other, "n"), "elsewhere")
		e.wantPages(nastyTags, func(after string, n int) ([]string, error) { return e.db.Tags(e.Context(), repo, after, n) })
		list, err := e.db.Tags(e.Context(), repo, "a/", 1)
		if e.ok(err); !slices.Equal(list, []string{"a0"}) {
			e.Errorf("behind what is no tag comes %v", list)
		}
		_, err = e.db.Tags(e.Context(), "team/none", "", 10)
		e.wantErr("list an unknown repository", err, meta.ErrNoRepository)
	}},
	{"list/no tags", func(e *env) {
		e.put(image(repo, "m"))
		list, err := e.db.Tags(e.Context(), repo, "", 10)
		if e.ok(err); len(list) != 0 {
			e.Errorf("tags %v, want none", list)
		}
	}},
	{"list/repositories", func(e *env) {
		for _, name := range nastyNames {
			e.put(image(name, "m"))
		}
		e.wantPages(nastyNames, func(after string, n int) ([]string, error) { return e.db.Repositories(e.Context(), after, n) })
	}},
	{"list/a session makes no repository", func(e *env) {
		e.lease(repo, 1)
		list, err := e.db.Repositories(e.Context(), "", 10)
		if e.ok(err); len(list) != 0 {
			e.Errorf("repositories %v, want none", list)
		}
	}},
}

// wantPages walks a list in pages of several sizes; it must be in bytewise order.
func (e *env) wantPages(items []string, page func(after string, n int) ([]string, error)) {
	e.Helper()
	want := slices.Sorted(slices.Values(items))
	for _, n := range []int{1, 7, len(want), 1000} {
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			list, err := page(after, n)
			e.ok(err)
			if len(list) > n {
				e.Fatalf("a page of %d has %d items", n, len(list))
			}
			if len(list) == 0 {
				break
			}
			got = append(got, list...)
		}
		if !slices.Equal(got, want) {
			e.Errorf("in pages of %d: %v, want %v", n, got, want)
		}
	}
}
