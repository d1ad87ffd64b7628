package ocihttp_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/oci"
)

// next is the path that a Link header of an answer leads to; "" without one.
func (a *answer) next() string {
	a.t.Helper()
	link := a.header.Get("Link")
	if link == "" {
		return ""
	}
	path, ok := strings.CutSuffix(link, `>; rel="next"`)
	if !ok || !strings.HasPrefix(path, "</v2/") {
		a.t.Fatalf("%s: Link: %s", a.what, link)
	}
	return path[1:]
}

func TestTags(t *testing.T) {
	s := newServer(t)
	s.pushBlob("a", "x") // a repository without tags
	s.get("/v2/a/tags/list").wants(200, "Content-Type", "application/json", "Link", "").holds(`{"name":"a","tags":[]}` + "\n")
	s.get("/v2/none/tags/list").fails(404, "NAME_UNKNOWN")
	s.get("/v2/none/tags/list?n=5").fails(404, "NAME_UNKNOWN")
	for _, tag := range []string{"b", "a", "B", "1", "_"} {
		s.pushImage("a", tag, "config")
	}
	list := func(tags string) string { return `{"name":"a","tags":[` + tags + `]}` + "\n" }
	for query, want := range map[string]string{
		"":                               `"1","B","_","a","b"`,
		"?last=B":                        `"_","a","b"`,
		"?last=A":                        `"B","_","a","b"`,
		"?last=b":                        ``,
		"?last=":                         `"1","B","_","a","b"`,
		"?n=0":                           ``,
		"?n=0&last=B":                    ``,
		"?n=5":                           `"1","B","_","a","b"`,
		"?n=99999999999999999999":        `"1","B","_","a","b"`,
		"?n=2&last=_":                    `"a","b"`,
		"?n=100&last=B&ns=docker.io&x=y": `"_","a","b"`,
	} {
		a := s.get("/v2/a/tags/list"+query).wants(200, "Content-Type", "application/json", "Link", "").holds(list(want))
		s.do("HEAD", "/v2/a/tags/list"+query, nil).wants(200, "Content-Length", fmt.Sprint(len(a.body))).holds("")
	}
	page := s.get("/v2/a/tags/list?n=2").wants(200, "Link", `</v2/a/tags/list?last=B&n=2>; rel="next"`).holds(list(`"1","B"`))
	page = s.get(page.next()).wants(200).holds(list(`"_","a"`))
	s.get(page.next()).wants(200, "Link", "").holds(list(`"b"`))
	for _, query := range []string{"n=-1", "n=x", "n=", "n=1.5", "n=1&n=2", "last=a&last=b"} {
		s.get("/v2/a/tags/list?"+query).fails(400, "UNSUPPORTED")
	}
	for _, query := range []string{"last=a/b", "last=%00", "last=" + strings.Repeat("x", 129)} {
		s.get("/v2/a/tags/list?"+query).fails(400, "NAME_INVALID")
	}
}

// TestManyTags has more tags than one portion, and than a page may hold.
func TestManyTags(t *testing.T) {
	const count = 10_100
	s := newServer(t)
	m := s.pushImage("a", "", "config")
	var all []string
	for i := range count {
		all = append(all, fmt.Sprintf("a-somewhat-longer-tag-%05d", i))
	}
	for some := range slices.Chunk(all, 100) {
		path := "/v2/a/manifests/" + string(digestOf(m)) + "?" + url.Values{"tag": some}.Encode()
		s.do("PUT", path, strings.NewReader(m), "Content-Type", oci.MediaTypeImage).wants(201)
	}
	whole := s.get("/v2/a/tags/list").wants(200, "Link", "", "Content-Length", "")
	if got := tagsOf(t, whole); !slices.Equal(got, all) {
		t.Errorf("%d tags came; want %d", len(got), count)
	}
	first := s.get("/v2/a/tags/list?n=50000").wants(200)
	second := s.get(first.next()).wants(200, "Link", "")
	if got := tagsOf(t, first); len(got) != 10_000 {
		t.Errorf("a page of %d tags; want 10000", len(got))
	}
	if got := append(tagsOf(t, first), tagsOf(t, second)...); !slices.Equal(got, all) {
		t.Errorf("pages hold %d tags; want %d", len(got), count)
	}
}

func tagsOf(t *testing.T, a *answer) []string {
	t.Helper()
	var list struct{ Tags []string }
	if err := json.Unmarshal([]byte(a.body), &list); err != nil {
		t.Fatal(err)
	}
	return list.Tags
}

func TestCatalog(t *testing.T) {
	s := newServer(t)
	s.get("/v2/_catalog").wants(200, "Content-Type", "application/json").holds(`{"repositories":[]}` + "\n")
	for _, repo := range []string{"b/c", "a", "b"} {
		s.pushImage(repo, "v1", "config")
	}
	list := func(repos string) string { return `{"repositories":[` + repos + `]}` + "\n" }
	s.get("/v2/_catalog").wants(200).holds(list(`"a","b","b/c"`))
	s.get("/v2/_catalog?last=a").wants(200).holds(list(`"b","b/c"`))
	s.get("/v2/_catalog?n=0").wants(200, "Link", "").holds(list(``))
	page := s.get("/v2/_catalog?n=2").wants(200, "Link", `</v2/_catalog?last=b&n=2>; rel="next"`).holds(list(`"a","b"`))
	s.get(page.next()).wants(200, "Link", "").holds(list(`"b/c"`))
	s.get("/v2/_catalog?n=-1").fails(400, "UNSUPPORTED")
	s.get("/v2/_catalog?last=A").fails(400, "NAME_INVALID")
}

// referrers of an answer, by digest.
func referrersOf(t *testing.T, a *answer) (digests []oci.Digest) {
	t.Helper()
	var index oci.Index
	if err := json.Unmarshal([]byte(a.body), &index); err != nil || index.SchemaVersion != 2 || index.MediaType != oci.MediaTypeIndex {
		t.Fatalf("%s: %v: %s", a.what, err, clip(a.body))
	}
	for _, d := range index.Manifests {
		digests = append(digests, d.Digest)
	}
	return digests
}

func TestReferrers(t *testing.T) {
	s := newServer(t)
	subject := image("subject")
	path := "/v2/a/referrers/" + string(digestOf(subject))
	const none = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}` + "\n"
	headers := []string{"Content-Type", oci.MediaTypeIndex, "Link", ""}
	s.get(path).wants(200, append(headers, "Oci-Filters-Applied", "")...).holds(none)

	var want, some []oci.Digest
	for i := range 6 {
		kind := []string{"application/a", "application/b"}[i%2]
		m := s.pushImage("a", "", fmt.Sprint(i), `,"artifactType":"`+kind+`","annotations":{"n":"`+fmt.Sprint(i)+`"},"subject":`+descriptor(oci.MediaTypeImage, subject))
		want = append(want, digestOf(m))
		if i%2 == 1 {
			some = append(some, digestOf(m))
		}
	}
	slices.Sort(want)
	slices.Sort(some)
	if got := referrersOf(t, s.get(path).wants(200, headers...)); !slices.Equal(got, want) {
		t.Errorf("referrers %v; want %v", got, want)
	}
	filtered := s.get(path+"?artifactType=application%2Fb").wants(200, append(headers, "Oci-Filters-Applied", "artifactType")...)
	if got := referrersOf(t, filtered); !slices.Equal(got, some) {
		t.Errorf("filtered referrers %v; want %v", got, some)
	}
	s.get(path+"?artifactType=x/y").wants(200, "Oci-Filters-Applied", "artifactType").holds(none)
	s.get(path+"?n=0").wants(200, "Link", "").holds(none)
	var paged []oci.Digest
	for next := path + "?artifactType=application%2Fb&n=2"; next != ""; {
		a := s.get(next).wants(200, "Oci-Filters-Applied", "artifactType")
		paged = append(paged, referrersOf(t, a)...)
		next = a.next()
	}
	if !slices.Equal(paged, some) {
		t.Errorf("paged referrers %v; want %v", paged, some)
	}
	s.get("/v2/none/referrers/"+string(digestOf("x"))).wants(200, headers...).holds(none)
	s.get("/v2/a/referrers/latest").fails(400, "DIGEST_INVALID")
	s.get("/v2/a/referrers/sha256:12").fails(400, "DIGEST_INVALID")
	s.get(path+"?last=12").fails(400, "DIGEST_INVALID")
	s.get(path+"?n=x").fails(400, "UNSUPPORTED")
	s.get(path+"?artifactType="+strings.Repeat("x", 256)).fails(400, "UNSUPPORTED")
}

// TestReferrersBySize: no page exceeds what clients take as a manifest, unless
// one descriptor does.
func TestReferrersBySize(t *testing.T) {
	s := newServer(t)
	subject := image("subject")
	var want []oci.Digest
	for i, size := range []int{1 << 20, 1 << 20, 1 << 20, 3 << 20, 5 << 20} {
		m := s.pushImage("a", "", fmt.Sprint(i), `,"annotations":{"x":"`+strings.Repeat("x", size)+`"},"subject":`+descriptor(oci.MediaTypeImage, subject))
		want = append(want, digestOf(m))
	}
	slices.Sort(want)
	var got []oci.Digest
	for next := "/v2/a/referrers/" + string(digestOf(subject)); next != ""; {
		a := s.get(next).wants(200)
		page := referrersOf(t, a)
		if len(a.body) > 4<<20 && len(page) > 1 || len(page) == 0 {
			t.Errorf("a page of %d referrers and %d bytes", len(page), len(a.body))
		}
		got = append(got, page...)
		next = a.next()
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages hold %v; want %v", got, want)
	}
}
