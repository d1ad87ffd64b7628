package registrytest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/berth-registry/berth/internal/registry"
)

// nastyTags and nastyNames tell bytewise order from every other one.
var (
	nastyTags = []string{"a", "A", "b", "B", "Z", "z", "_", "_a", "__", "0", "00", "10", "9", "a-", "a--", "a.", "a.b",
		"a-b", "a_b", "aB", "ab", "AB", "Ab", "a0", "v1.10", "v1.9", "v1-9", "v1_9", "V1.9", "sha256-abc"}
	nastyNames = []string{"a", "a/b", "a-b", "a--b", "a.b", "a_b", "a__b", "a0", "ab", "a/b/c", "a/b-c", "a/b.c", "a/b0", "b", "0", "0/a", "z9"}
)

var tagCases = []testCase{
	{"tags/bytewise order", func(t *testing.T, r registry.Registry) {
		PushImage(t, r, "team/app", nastyTags...)
		PushImage(t, r, "team/other", "elsewhere")
		want := slices.Sorted(slices.Values(nastyTags))
		WantList(t, "tags", r.Tags(t.Context(), "team/app", ""), want...)
		for i, tag := range want {
			WantList(t, "tags after "+tag, r.Tags(t.Context(), "team/app", tag), want[i+1:]...)
		}
	}},
	{"tags/after what is no tag", func(t *testing.T, r registry.Registry) {
		PushImage(t, r, "team/app", "a", "c", "e")
		WantList(t, "tags after b", r.Tags(t.Context(), "team/app", "b"), "c", "e")
		WantList(t, "tags after z", r.Tags(t.Context(), "team/app", "z"))
	}},
	{"tags/many", func(t *testing.T, r registry.Registry) {
		m := PushImage(t, r, "team/app").Manifest
		var want []string
		for i := 0; i < 1250; i += 25 {
			var tags []string
			for k := range 25 {
				tags = append(tags, fmt.Sprintf("t%04d", i+k))
			}
			PushManifest(t, r, "team/app", m, tags...)
			want = append(want, tags...)
		}
		WantList(t, "tags", r.Tags(t.Context(), "team/app", ""), want...)
		WantList(t, "tags after t1100", r.Tags(t.Context(), "team/app", "t1100"), want[1101:]...)
	}},
	{"tags/stopped early", func(t *testing.T, r registry.Registry) {
		PushImage(t, r, "team/app", "a", "b", "c")
		for tag, err := range r.Tags(t.Context(), "team/app", "") {
			if err != nil || tag != "a" {
				t.Fatalf("the first tag is %q, %v", tag, err)
			}
			break
		}
		PushImage(t, r, "team/app", "d")
		WantList(t, "tags", r.Tags(t.Context(), "team/app", "b"), "c", "d")
	}},
	{"tags/of an unknown repository", func(t *testing.T, r registry.Registry) {
		WantCode(t, "list", ListError(t, r.Tags(t.Context(), "team/none", "")), registry.NameUnknown)
		WantCode(t, "list behind", ListError(t, r.Tags(t.Context(), "team/none", "x")), registry.NameUnknown)
	}},
}

var repositoryCases = []testCase{
	{"repositories/none", func(t *testing.T, r registry.Registry) {
		WantList(t, "repositories", r.Repositories(t.Context(), ""))
	}},
	{"repositories/bytewise order", func(t *testing.T, r registry.Registry) {
		for _, name := range nastyNames {
			PushIndex(t, r, name, nil, "v1")
		}
		want := slices.Sorted(slices.Values(nastyNames))
		WantList(t, "repositories", r.Repositories(t.Context(), ""), want...)
		for i, name := range want {
			WantList(t, "repositories after "+name, r.Repositories(t.Context(), name), want[i+1:]...)
		}
	}},
}
