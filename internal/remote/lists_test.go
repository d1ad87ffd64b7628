package remote_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// lists serves pages in turn, each linking the next.
func lists(pages ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		i := 0
		fmt.Sscan(r.URL.Query().Get("page"), &i)
		if i+1 < len(pages) {
			w.Header().Add("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, r.URL.Path, i+1))
		}
		io.WriteString(w, pages[i])
	}
}

func TestListsFollowLinks(t *testing.T) {
	r := upstream(t, lists(`{"tags":["a","b"]}`, `{"tags":null}`, `{"tags":["c","not valid!","d"]}`))
	registrytest.WantList(t, "tags", r.Tags(t.Context(), "team/app", ""), "a", "b", "c", "d")
	registrytest.WantList(t, "tags after b", r.Tags(t.Context(), "team/app", "b"), "c", "d")
}

func TestListsInAnotherOrder(t *testing.T) {
	r := upstream(t, lists(`{"tags":["a","B","b"]}`, `{"tags":["C","a","c"]}`))
	want := []string{"B", "C", "a", "b", "c"}
	registrytest.WantList(t, "tags", r.Tags(t.Context(), "team/app", ""), want...)
	registrytest.WantList(t, "tags after B", r.Tags(t.Context(), "team/app", "B"), want[1:]...)
}

// TestEndlessListInNoOrder: what has to be sorted has to be held, and is bounded.
func TestEndlessListInNoOrder(t *testing.T) {
	name := strings.Repeat("x", 120)
	page := `{"tags":["b","a"` + strings.Repeat(`,"`+name+`"`, 998) + `]}`
	var sent atomic.Int64
	r := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		i := 0
		fmt.Sscan(r.URL.Query().Get("page"), &i)
		w.Header().Add("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, r.URL.Path, i+1))
		sent.Add(int64(len(page)))
		io.WriteString(w, page[:len(page)-2]+fmt.Sprintf(`,"end-%d"]}`, i)) // no page repeats the last
	})
	for _, err := range r.Tags(t.Context(), "team/app", "") {
		if err != nil {
			registrytest.WantCode(t, "an endless list", err, registry.Faulty)
			if n := sent.Load(); n > 40<<20 {
				t.Errorf("%d bytes were held", n)
			}
			return
		}
	}
	t.Error("an endless list has an end")
}

func TestListsWithoutLinks(t *testing.T) {
	var all []string
	for i := range 2500 {
		all = append(all, fmt.Sprintf("t%04d", i))
	}
	r := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		i, found := slices.BinarySearch(all, r.URL.Query().Get("last"))
		if found {
			i++
		}
		page := all[i:min(i+1000, len(all))]
		fmt.Fprintf(w, `{"tags":["%s"]}`, strings.Join(page, `","`))
	})
	registrytest.WantList(t, "tags", r.Tags(t.Context(), "team/app", ""), all...)
}

func TestBadLists(t *testing.T) {
	for what, c := range map[string]struct {
		script http.HandlerFunc
		code   registry.Code
	}{
		"a link to another host": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `<http://elsewhere.example/v2/team/app/tags/list>; rel="next"`)
			io.WriteString(w, `{"tags":["a"]}`)
		}, registry.Faulty},
		"a link out of the API": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `</admin>; rel=next`)
			io.WriteString(w, `{"tags":["a"]}`)
		}, registry.Faulty},
		"no JSON":           {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") }, registry.Faulty},
		"half a list":       {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"tags":["a"`) }, registry.Unavailable},
		"too many requests": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(429) }, registry.TooManyRequests},
		"a gateway's error": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(502) }, registry.Unavailable},
		"a plain 404":       {http.NotFound, registry.NameUnknown},
		"a plain 401":       {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(401) }, registry.Unauthorized},
		"a plain 403":       {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }, registry.Denied},
		"a 404 with a code": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(404)
			io.WriteString(w, `{"errors":[{"code":"DENIED"}]}`)
		}, registry.Denied},
		"a page of 33 MiB": {func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"x":"`+strings.Repeat("x", 33<<20)+`","tags":["a"]}`)
		}, registry.Faulty},
	} {
		t.Run(what, func(t *testing.T) {
			var err error
			for _, err = range upstream(t, c.script).Tags(t.Context(), "team/app", "") {
			}
			registrytest.WantCode(t, "list", err, c.code)
		})
	}
}

func TestClosedCatalog(t *testing.T) {
	for _, status := range []int{401, 403, 404, 405} {
		r := upstream(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
		registrytest.WantCode(t, fmt.Sprint(status), registrytest.ListError(t, r.Repositories(t.Context(), "")), registry.Unsupported)
	}
}

func TestReferrersTag(t *testing.T) {
	tag := indexDigest.ReferrersTag()
	list := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[
		{"mediaType":%q,"digest":%q,"size":5,"artifactType":"application/x.sbom"},
		{"mediaType":%q,"digest":"no digest","size":5},
		{"mediaType":%q,"digest":%q,"size":7,"artifactType":"application/x.signature"}]}`,
		oci.MediaTypeIndex, oci.MediaTypeImage, max(otherDigest, blobDigest), oci.MediaTypeImage, oci.MediaTypeImage, min(otherDigest, blobDigest))
	r := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/team/app/manifests/"+tag {
			http.NotFound(w, r)
			return
		}
		manifest(list, "")(w, r)
	})
	digests := func(artifactType string, after oci.Digest) (all []oci.Digest) {
		for _, d := range registrytest.Collect(t, r.Referrers(t.Context(), "team/app", indexDigest, artifactType, after)) {
			all = append(all, d.Digest)
		}
		return all
	}
	first, second := min(otherDigest, blobDigest), max(otherDigest, blobDigest)
	for _, c := range []struct {
		artifactType string
		after        oci.Digest
		want         []oci.Digest
	}{{"", "", []oci.Digest{first, second}}, {"application/x.sbom", "", []oci.Digest{second}}, {"", first, []oci.Digest{second}}, {"", second, nil}} {
		if got := digests(c.artifactType, c.after); !slices.Equal(got, c.want) {
			t.Errorf("referrers of type %q after %q are %v, want %v", c.artifactType, c.after, got, c.want)
		}
	}
	if got := registrytest.Collect(t, r.Referrers(t.Context(), "team/none", indexDigest, "", "")); len(got) != 0 {
		t.Errorf("%d referrers without a tag", len(got))
	}
}
