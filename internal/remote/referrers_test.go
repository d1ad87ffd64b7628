package remote_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
	"github.com/berth-registry/berth/internal/remote"
)

// lister is a registry of one repository with or without a referrers API, whose
// requests are counted.
type lister struct {
	api  http.HandlerFunc // of /v2/<name>/referrers/
	tag  string           // index under the referrers tag; "": none
	now  time.Time
	mu   sync.Mutex
	asks map[string]int // by kind
	r    *remote.Registry
}

func newLister(t *testing.T, l *lister) *lister {
	t.Helper()
	s := httptest.NewServer(l)
	t.Cleanup(s.Close)
	l.now, l.asks = time.Unix(1e9, 0), map[string]int{}
	l.r = client(t, s.URL, remote.Options{Frugal: true, Refusals: true, Now: func() time.Time { return l.now }, Stall: 2 * time.Second})
	return l
}

func (l *lister) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.Contains(r.URL.Path, "/referrers/"):
		l.note("api")
		l.api(w, r)
	case strings.HasSuffix(r.URL.Path, "/manifests/"+indexDigest.ReferrersTag()) && l.tag != "":
		l.note("tag")
		manifest(l.tag, "")(w, r)
	default:
		l.note("tag")
		w.WriteHeader(http.StatusNotFound)
	}
}

func (l *lister) note(kind string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asks[kind]++
}

// asked is how often something of a kind was asked for.
func (l *lister) asked(kind string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asks[kind]
}

// all lists the referrers of index, as upstream has them.
func (l *lister) all(t *testing.T) (digests []oci.Digest, tagged bool, err error) {
	t.Helper()
	list, tagged, err := l.r.AllReferrers(t.Context(), "team/app", indexDigest)
	for _, d := range list {
		digests = append(digests, d.Digest)
	}
	return digests, tagged, err
}

func listing(digests ...oci.Digest) string {
	var all []string
	for _, d := range digests {
		all = append(all, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":5,"artifactType":"a/b","annotations":{"x":"y"}}`, oci.MediaTypeImage, d))
	}
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, oci.MediaTypeIndex, strings.Join(all, ","))
}

// answers serves a body of a type.
func answers(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func TestAllReferrersByPage(t *testing.T) {
	pages := []string{listing(otherDigest), listing(), listing(blobDigest, otherDigest)}
	l := newLister(t, &lister{api: func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") != oci.MediaTypeIndex || r.URL.Query().Has("artifactType") {
			t.Errorf("asked with %v for %s", r.Header, r.URL)
		}
		w.Header().Set("Content-Type", oci.MediaTypeIndex)
		lists(pages...)(w, r)
	}, tag: listing(indexDigest)})
	list, tagged, err := l.r.AllReferrers(t.Context(), "team/app", indexDigest)
	if err != nil || tagged || len(list) != 3 || list[0].Digest != otherDigest || list[1].Digest != blobDigest {
		t.Fatalf("listed %+v, tagged %v, %v", list, tagged, err)
	}
	if d := list[0]; d.ArtifactType != "a/b" || d.Annotations["x"] != "y" || d.Size != 5 || d.MediaType != oci.MediaTypeImage {
		t.Errorf("the first is %+v", d)
	}
	if l.asked("api") != 3 || l.asked("tag") != 0 {
		t.Errorf("asked the API %d times, for the tag %d times", l.asked("api"), l.asked("tag"))
	}
}

// TestNoReferrersAPI: answers of registries that have none are told from those of
// registries that fail, and remembered for an hour.
func TestNoReferrersAPI(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { t.Error("was asked"); http.NotFound(w, nil) }))
	defer elsewhere.Close()
	for what, c := range map[string]struct {
		api        http.HandlerFunc
		remembered bool
	}{
		"404":                     {http.NotFound, true},
		"404 with a code":         {answers(404, "application/json", `{"errors":[{"code":"NOT_FOUND"}]}`), true},
		"405":                     {answers(405, "", ""), true},
		"unsupported":             {answers(400, "application/json", `{"errors":[{"code":"UNSUPPORTED"}]}`), true},
		"a redirect to elsewhere": {http.RedirectHandler(elsewhere.URL, http.StatusSeeOther).ServeHTTP, true},
		"a page for people":       {answers(200, "text/html", "<html>Not here!</html>"), true},
		"nothing":                 {answers(200, "", ""), true},
		"another document":        {answers(200, "application/json", `{"referrers":[]}`), true},
		"an image":                {answers(200, oci.MediaTypeImage, `{"schemaVersion":2,"config":{}}`), true},
		"a list":                  {answers(200, "application/json", `[]`), true},
		"404 of a repository":     {answers(404, "application/json", `{"errors":[{"code":"NAME_UNKNOWN"}]}`), false},
		"404 of an image":         {answers(404, "application/json", `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`), false},
		"redirected home and lost": {func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/nowhere") {
				http.NotFound(w, r)
				return
			}
			http.Redirect(w, r, "/nowhere/referrers/", http.StatusTemporaryRedirect)
		}, true},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLister(t, &lister{api: c.api, tag: listing(otherDigest)})
			for i := range 3 {
				list, tagged, err := l.all(t)
				if err != nil || !tagged || len(list) != 1 || list[0] != otherDigest {
					t.Fatalf("%d: listed %v, tagged %v, %v", i, list, tagged, err)
				}
			}
			first := l.asked("api")
			if per := first; c.remembered && per > 2 || !c.remembered && per != 3 {
				t.Errorf("asked the API %d times", per)
			}
			l.now = l.now.Add(59 * time.Minute)
			l.all(t)
			if c.remembered && l.asked("api") != first {
				t.Error("asked again within the hour")
			}
			l.now = l.now.Add(2 * time.Minute)
			l.all(t)
			if l.asked("api") == first {
				t.Error("never asked again")
			}
			l.tag = ""
			if list, _, err := l.all(t); err != nil || len(list) != 0 {
				t.Errorf("without a tag: %v, %v", list, err)
			}
		})
	}
}

// TestReferrersNotKnown: that nobody answers is not that there are none.
func TestReferrersNotKnown(t *testing.T) {
	repeat := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", fmt.Sprintf(`<%s?n=%d>; rel="next"`, r.URL.Path, len(r.URL.RawQuery)))
		answers(200, oci.MediaTypeIndex, listing(otherDigest))(w, r)
	}
	second := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery != "" {
				h(w, r)
				return
			}
			repeat(w, r)
		}
	}
	for what, c := range map[string]struct {
		api  http.HandlerFunc
		code registry.Code
	}{
		"500":                     {answers(500, "", ""), registry.Unavailable},
		"503":                     {answers(503, "", ""), registry.Unavailable},
		"429":                     {answers(429, "", ""), registry.TooManyRequests},
		"401":                     {answers(401, "", ""), registry.NameUnknown},
		"403":                     {answers(403, "", ""), registry.NameUnknown},
		"404 that is a 403":       {answers(404, "", `{"errors":[{"code":"DENIED"}]}`), registry.NameUnknown},
		"hung up":                 {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, registry.Unavailable},
		"stalled":                 {stall, registry.Unavailable},
		"half an index":           {answers(200, oci.MediaTypeIndex, listing(otherDigest)[:90]), registry.Unavailable},
		"half of something":       {answers(200, "application/json", listing(otherDigest)[:90]), registry.Unavailable},
		"no index in spite of it": {answers(200, oci.MediaTypeIndex, "<html>"), registry.Faulty},
		"an endless list":         {repeat, registry.Faulty},
		"a page of 9 MiB":         {answers(200, oci.MediaTypeIndex, `{"manifests":[],"x":"`+strings.Repeat("x", 9<<20)+`"}`), registry.Faulty},
		"too many of them":        {answers(200, oci.MediaTypeIndex, `{"manifests":[`+strings.Repeat(`{},`, 50_000)+`{}]}`), registry.Faulty},
		"a link to elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `<http://elsewhere.example/v2/x>; rel=next`)
			answers(200, oci.MediaTypeIndex, listing(otherDigest))(w, r)
		}, registry.Faulty},
		"second page 404":        {second(http.NotFound), registry.Faulty},
		"second page 500":        {second(answers(500, "", "")), registry.Unavailable},
		"second page for people": {second(answers(200, "text/html", "<html>")), registry.Faulty},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLister(t, &lister{api: c.api, tag: listing(otherDigest)})
			list, tagged, err := l.all(t)
			registrytest.WantCode(t, "list", err, c.code)
			if len(list) != 0 || tagged || l.asked("tag") != 0 {
				t.Errorf("listed %v, tagged %v; asked for the tag %d times", list, tagged, l.asked("tag"))
			}
			if errors.Is(err, registry.ErrRefused) != (c.code == registry.NameUnknown) {
				t.Errorf("refused is wrong: %v", err)
			}
			var first error
			for _, first = range l.r.Referrers(t.Context(), "team/app", indexDigest, "", "") {
				break
			}
			registrytest.WantCode(t, "list again", first, c.code)
		})
	}
}

// TestReferrersTagNotKnown: neither is that nobody answers for the tag.
func TestReferrersTagNotKnown(t *testing.T) {
	for status, code := range map[int]registry.Code{500: registry.Unavailable, 429: registry.TooManyRequests, 403: registry.NameUnknown} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/referrers/") {
				http.NotFound(w, r)
				return
			}
			w.WriteHeader(status)
		}))
		_, _, err := client(t, s.URL, remote.Options{Refusals: true}).AllReferrers(t.Context(), "team/app", indexDigest)
		registrytest.WantCode(t, fmt.Sprint(status), err, code)
		s.Close()
	}
}

// TestReferrersTagOfSomethingElse: whoever calls something like that has no
// referrers.
func TestReferrersTagOfSomethingElse(t *testing.T) {
	for _, content := range []string{"<html>", "[]", `{"schemaVersion":2}`, `{"manifests":{}}`, `{"manifests":[1]}`} {
		l := newLister(t, &lister{api: http.NotFound, tag: content})
		if list, _, err := l.all(t); err != nil || len(list) != 0 {
			t.Errorf("%s: listed %v, %v", content, list, err)
		}
	}
}

// TestReferrersAPIThatWasThere: of a registry that has answered, a 404 tells
// nothing but of one repository.
func TestReferrersAPIThatWasThere(t *testing.T) {
	l := newLister(t, &lister{api: answers(200, oci.MediaTypeIndex, listing(otherDigest))})
	if list, tagged, err := l.all(t); err != nil || tagged || len(list) != 1 {
		t.Fatalf("listed %v, %v, %v", list, tagged, err)
	}
	there := l.api
	l.api = http.NotFound
	if list, tagged, err := l.all(t); err != nil || !tagged || len(list) != 0 {
		t.Fatalf("listed %v, %v, %v", list, tagged, err)
	}
	l.api = there
	if list, tagged, err := l.all(t); err != nil || tagged || len(list) != 1 {
		t.Errorf("listed %v, %v, %v", list, tagged, err)
	}
}

// TestReferrersForms: what registries send that is meant as an index.
func TestReferrersForms(t *testing.T) {
	for what, c := range map[string]struct{ contentType, body string }{
		"no type in the body":   {oci.MediaTypeIndex + "; charset=utf-8", `{"schemaVersion":2,"manifests":[{"digest":"` + string(otherDigest) + `"}]}`},
		"no type in the header": {"application/json", listing(otherDigest)},
		"with more":             {oci.MediaTypeIndex, `{"x":[{"manifests":[]}],"manifests":[{"digest":"` + string(otherDigest) + `","more":{}},{"digest":"x"}],"y":null}`},
	} {
		l := newLister(t, &lister{api: answers(200, c.contentType, c.body)})
		if list, tagged, err := l.all(t); err != nil || tagged || len(list) != 1 || list[0] != otherDigest {
			t.Errorf("%s: listed %v, tagged %v, %v", what, list, tagged, err)
		}
	}
	l := newLister(t, &lister{api: answers(200, oci.MediaTypeIndex, `{"manifests":null}`)})
	if list, tagged, err := l.all(t); err != nil || tagged || len(list) != 0 {
		t.Errorf("none: listed %v, tagged %v, %v", list, tagged, err)
	}
}

// TestReferrersOfWhoLeft: nobody is remembered to lack an API because a caller
// did not wait.
func TestReferrersOfWhoLeft(t *testing.T) {
	l := newLister(t, &lister{api: answers(200, oci.MediaTypeIndex, listing(otherDigest))})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := l.r.AllReferrers(ctx, "team/app", indexDigest); !errors.Is(err, context.Canceled) {
		t.Errorf("for a caller who left: %v", err)
	}
	if list, tagged, err := l.all(t); err != nil || tagged || len(list) != 1 {
		t.Errorf("listed %v, tagged %v, %v", list, tagged, err)
	}
}
