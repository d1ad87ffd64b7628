package upstreamtest

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// answer is what a client got, with all of the body that came.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func get(t *testing.T, method, url string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableCompression: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(body), err}
}

// TestBehaviours: each does what it says, or what is tested with it is not tested.
func TestBehaviours(t *testing.T) {
	u := New(t)
	content := strings.Repeat("0123456789", 100)
	d := u.AddBlob("a/b", "", []byte(content))
	path := u.URL() + "/v2/a/b/blobs/" + d.Digest
	if a := get(t, "GET", path, "Range", "bytes=5-9"); a.status != 206 || a.body != "56789" {
		t.Fatalf("Range: %+v", a)
	}
	open := make(chan struct{})
	close(open)
	reached := 0
	for name, tt := range map[string]struct {
		do   Behaviour
		want func(a answer) bool
	}{
		"Status":   {Status(429, "Retry-After", "60"), func(a answer) bool { return a.status == 429 && a.header.Get("Retry-After") == "60" }},
		"HTML":     {HTML(200), func(a answer) bool { return a.status == 200 && strings.Contains(a.body, "<html>") }},
		"Redirect": {Redirect(307, "http://x.test"), func(a answer) bool { return a.status == 307 && a.header.Get("Location") == "http://x.test/"+d.Digest }},
		"Headers": {Headers("Docker-Content-Digest", "", "X", "y"), func(a answer) bool {
			return a.header.Get("Docker-Content-Digest") == "" && a.header.Get("X") == "y" && a.body == content
		}},
		"Truncate": {Truncate(15), func(a answer) bool { return a.status == 200 && a.err != nil && a.body == content[:15] }},
		"Pause":    {Pause(15, func() { reached++ }, open), func(a answer) bool { return a.body == content && reached == 1 }},
		"Slow":     {Slow(100, func() { reached++ }), func(a answer) bool { return a.body == content && reached >= 10 }},
		"Corrupt":  {Corrupt(), func(a answer) bool { return a.err == nil && a.body == "1"+content[1:] }},
		"Short":    {Short(10), func(a answer) bool { return a.err == nil && a.body == content[:10] }},
		"Gzip":     {Gzip(), func(a answer) bool { return a.header.Get("Content-Encoding") == "gzip" && len(a.body) < 200 }},
		"Oversize": {Oversize(5000), func(a answer) bool { return a.err == nil && len(a.body) == 5000 && strings.HasPrefix(a.body, content) }},
		"Wait":     {Wait(open), func(a answer) bool { return a.body == content }},
		"All":      {All(Headers("X", "y"), Corrupt()), func(a answer) bool { return a.header.Get("X") == "y" && a.body == "1"+content[1:] }},
	} {
		off := u.On(Rule{Kind: Blob, Method: "GET", Times: 1, Do: tt.do})
		if a := get(t, "GET", path); !tt.want(a) {
			t.Errorf("%s: %+v", name, a)
		}
		if a := get(t, "GET", path); a.body != content {
			t.Errorf("%s: more than once: %+v", name, a)
		}
		off()
	}
	u.On(Rule{Kind: Blob, Do: NoRange()})
	if a := get(t, "GET", path, "Range", "bytes=5-9"); a.status != 200 || a.body != content {
		t.Errorf("NoRange: %+v", a)
	}
	u.Behave()
	if n := u.Count(Blob, "GET"); n != 28 {
		t.Errorf("%d requests were counted", n)
	}
	u.Stop()
	if a := get(t, "GET", path); a.err == nil {
		t.Errorf("it answers when it is stopped: %+v", a)
	}
	u.Start()
	if a := get(t, "GET", path); a.body != content {
		t.Errorf("it does not answer again: %+v", a)
	}
}

// TestTokens: a token opens the repository that it was asked for.
func TestTokens(t *testing.T) {
	u := New(t)
	u.AddImage("a/b", "1", 1, 10)
	u.SetAuth(Auth{User: "me", Secret: "secret"})
	path := u.URL() + "/v2/a/b/manifests/1"
	a := get(t, "GET", path)
	if want := `Bearer realm="` + u.URL() + `/token",service="upstream",scope="repository:a/b:pull"`; a.status != 401 || a.header.Get("WWW-Authenticate") != want {
		t.Fatalf("%+v", a)
	}
	service := u.URL() + "/token?service=upstream&scope=repository:a/b:pull"
	if a := get(t, "GET", service); a.status != 401 {
		t.Fatalf("a token for nobody: %+v", a)
	}
	a = get(t, "GET", service, "Authorization", "Basic bWU6c2VjcmV0")
	var token struct{ Token string }
	if err := json.Unmarshal([]byte(a.body), &token); err != nil || token.Token == "" {
		t.Fatalf("%+v", a)
	}
	if a := get(t, "GET", path, "Authorization", "Bearer "+token.Token); a.status != 200 {
		t.Errorf("%+v", a)
	}
	if a := get(t, "GET", u.URL()+"/v2/c/d/manifests/1", "Authorization", "Bearer "+token.Token); a.status != 401 {
		t.Errorf("another repository: %+v", a)
	}
	u.Revoke()
	if a := get(t, "GET", path, "Authorization", "Bearer "+token.Token); a.status != 401 {
		t.Errorf("a void token: %+v", a)
	}
	if u.Count(Manifest) != 1 || len(u.Requests()) != 6 {
		t.Errorf("%d counted of\n%s", u.Count(Manifest), u.Asked())
	}
}

// TestReferrers: pages, filters, and the tag for clients without the API.
func TestReferrers(t *testing.T) {
	u := New(t)
	image := u.AddImage("a/b", "1", 1, 10)
	one := u.AddReferrer("a/b", image.Descriptor, "x/1", nil)
	u.AddReferrer("a/b", image.Descriptor, "x/2", map[string]string{"k": "v"})
	path := u.URL() + "/v2/a/b/referrers/" + image.Digest
	list := func(a answer) (l manifest) {
		t.Helper()
		if err := json.Unmarshal([]byte(a.body), &l); err != nil {
			t.Fatalf("%v: %+v", err, a)
		}
		return l
	}
	if l := list(get(t, "GET", path)); len(l.Manifests) != 2 || l.Manifests[1].Annotations["k"] != "v" {
		t.Errorf("%+v", l)
	}
	a := get(t, "GET", path+"?artifactType=x/1")
	if l := list(a); len(l.Manifests) != 1 || a.header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("%+v", a)
	}
	u.SetReferrers(ReferrersAPI{PageSize: 1, IgnoreFilter: true})
	a = get(t, "GET", path+"?artifactType=x/1")
	if want := "</v2/a/b/referrers/" + image.Digest + `?from=1>; rel="next"`; a.header.Get("Link") != want || a.header.Get("OCI-Filters-Applied") != "" {
		t.Errorf("%+v", a)
	}
	if l := list(get(t, "GET", path+"?from=1")); len(l.Manifests) != 1 || l.Manifests[0].ArtifactType != "x/2" {
		t.Errorf("%+v", l)
	}
	u.SetReferrers(ReferrersAPI{Absent: true})
	if a := get(t, "GET", path); a.status != 404 {
		t.Errorf("%+v", a)
	}
	u.AddFallback("a/b", image.Digest, true, one)
	if l := list(get(t, "GET", u.URL()+"/v2/a/b/manifests/"+FallbackTag(image.Digest))); len(l.Manifests) != 1 || l.Manifests[0].ArtifactType != "" {
		t.Errorf("%+v", l)
	}
	u.Remove("a/b", image.Digest)
	if a := get(t, "HEAD", u.URL()+"/v2/a/b/manifests/1"); a.status != 404 {
		t.Errorf("%+v", a)
	}
	if a := get(t, "GET", u.URL()+"/v2/a/b/tags/list"); !strings.Contains(a.body, FallbackTag(image.Digest)) || strings.Contains(a.body, `"1"`) {
		t.Errorf("%+v", a)
	}
}
