package namespace

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func table(*http.Request) *Table {
	return NewTable([]Upstream{
		{Name: "docker.io", Namespaces: []string{"docker.io"}, Hosts: []string{"hub.example.com", "hub.example.com:5000"}},
		{Name: "quay", Namespaces: []string{"quay", "quay.io"}},
		{Name: "inner", Namespaces: []string{"inner", "registry.inner:5000"}},
	}, []string{"all"}, []string{"registry.example.com", "registry.example.com:8443"})
}

// ask sends a request and returns what came behind the handler, nil if nothing did.
func ask(method, host, target string) (seen *http.Request, answer *httptest.ResponseRecorder) {
	r := httptest.NewRequest(method, "http://x"+target, nil)
	r.Host = host
	w := httptest.NewRecorder()
	Handler(table, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r })).ServeHTTP(w, r)
	return seen, w
}

func TestRewritten(t *testing.T) {
	const own = "registry.example.com"
	for _, tt := range []struct{ host, target, want, ns string }{
		{own, "/v2/", "/v2/", ""},
		{own, "/v2/?ns=evil.example", "/v2/?ns=evil.example", ""},
		{own, "/v2", "/v2", ""},
		{own, "/v2/team/app/manifests/1", "/v2/team/app/manifests/1", ""},
		{own, "/v2/library/app/manifests/1?ns=docker.io", "/v2/docker.io/library/app/manifests/1", "docker.io"},
		{own, "/v2/library/app/manifests/1?n%73=Index.Docker.IO:443", "/v2/docker.io/library/app/manifests/1", "docker.io"},
		{own, "/v2/docker.io/library/app/manifests/1", "/v2/docker.io/library/app/manifests/1", ""},
		{own, "/v2/docker.io/library/app/manifests/1?ns=docker.io", "/v2/docker.io/library/app/manifests/1", "docker.io"},
		{own, "/v2/docker.io/library/app/manifests/1?ns=mirror.example", "/v2/docker.io/library/app/manifests/1", ""},
		{own, "/v2/org/app/blobs/sha256%3Aaa?ns=quay.io:80&a=%20", "/v2/quay/org/app/blobs/sha256%3Aaa?a=%20", "quay.io"},
		{own, "/v2/org/app/tags/list?n=5&ns=registry.inner:5000&last=x", "/v2/inner/org/app/tags/list?n=5&last=x", "registry.inner:5000"},
		{own, "/v2/org/app/tags/list?ns=registry.example.com:443", "/v2/org/app/tags/list", ""},
		{own, "/v2/org/app/tags/list?ns=registry.example.com:8443", "/v2/org/app/tags/list", ""},
		{"localhost:5000", "/v2/org/app/tags/list?ns=localhost:5000", "/v2/org/app/tags/list", ""},
		{own, "/v2/org/app/tags/list?ns=", "/v2/org/app/tags/list?ns=", ""},
		{own, "/v2/all/app/tags/list?ns=docker.io", "/v2/all/app/tags/list", "docker.io"},
		{own, "/v2/_catalog?ns=docker.io&n=1", "/v2/_catalog?n=1", "docker.io"},
		{own, "/v2/app/manifests/1?ns=hub.example.com", "/v2/docker.io/app/manifests/1", "hub.example.com"},
		{own, "/v2/a%2fb/manifests/1?ns=docker.io", "/v2/docker.io/a%2fb/manifests/1", "docker.io"},
		{own, "/v2//manifests/1?ns=docker.io", "/v2/docker.io//manifests/1", "docker.io"},
		{own, "/v2/../x?ns=docker.io", "/v2/docker.io/../x", "docker.io"},
		{own, "/%762/app/manifests/1?ns=docker.io", "/%762/app/manifests/1?ns=docker.io", ""},
		{own, "/auth/token?ns=evil.example", "/auth/token?ns=evil.example", ""},
		{own, "/v2/app/manifests/1?ns=evil.example;", "/v2/app/manifests/1?ns=evil.example;", ""},
		{"hub.example.com", "/v2/app/manifests/1", "/v2/docker.io/app/manifests/1", ""},
		{"HUB.example.com:443", "/v2/app/manifests/1", "/v2/docker.io/app/manifests/1", ""},
		{"hub.example.com:5000", "/v2/app/manifests/1?ns=docker.io", "/v2/docker.io/app/manifests/1", "docker.io"},
		{"hub.example.com", "/v2/docker.io/app/manifests/1", "/v2/docker.io/app/manifests/1", ""},
		{"hub.example.com", "/v2/all/app/manifests/1", "/v2/all/app/manifests/1", ""},
		{"hub.example.com", "/v2/app/blobs/uploads/?mount=sha256:aa&from=library/base", "/v2/docker.io/app/blobs/uploads/?mount=sha256:aa&from=docker.io%2Flibrary%2Fbase", ""},
		{"hub.example.com", "/v2/app/blobs/uploads/?from=docker.io%2Fbase&mount=sha256:aa", "/v2/docker.io/app/blobs/uploads/?from=docker.io%2Fbase&mount=sha256:aa", ""},
		{"", "/v2/app/manifests/1", "/v2/app/manifests/1", ""},
	} {
		seen, w := ask("GET", tt.host, tt.target)
		if seen == nil {
			t.Errorf("%s %s: %d %s", tt.host, tt.target, w.Code, w.Body)
			continue
		}
		if got := seen.URL.RequestURI(); got != tt.want || w.Header().Get("OCI-Namespace") != tt.ns {
			t.Errorf("%s %s: %s, OCI-Namespace %q; want %s, %q", tt.host, tt.target, got, w.Header().Get("OCI-Namespace"), tt.want, tt.ns)
		}
	}
}

// TestOwnHost: who adds an upstream does not take over what is asked of this
// server itself.
func TestOwnHost(t *testing.T) {
	own := NewTable([]Upstream{{Name: "evil", Namespaces: []string{"evil", "registry.example.com"}, Hosts: []string{"registry.example.com", "other.example.com"}}}, nil, []string{"registry.example.com:443"})
	for host, want := range map[string]string{"registry.example.com": "", "REGISTRY.example.com.": "", "other.example.com": "evil"} {
		if got := own.HostOf(&http.Request{Host: host}); got != want {
			t.Errorf("%s means %q", host, got)
		}
	}
	if name, known := own.namespaces["registry.example.com"]; known {
		t.Errorf("ns means %q", name)
	}
}

func TestRefused(t *testing.T) {
	const own = "registry.example.com"
	for _, tt := range []struct {
		host, target string
		status       int
		code         string
	}{
		{own, "/v2/app/manifests/1?ns=evil.example", 404, "NAME_UNKNOWN"},
		{own, "/v2/app/manifests/1?ns=http://evil.example", 404, "NAME_UNKNOWN"},
		{own, "/v2/_catalog?ns=evil.example", 404, "NAME_UNKNOWN"},
		{own, "/v2/docker.io/app/manifests/1?ns=quay.io", 400, "UNSUPPORTED"},
		{own, "/v2/app/manifests/1?ns=docker.io&ns=docker.io", 400, "UNSUPPORTED"},
		{own, "/v2/app/manifests/1?ns=docker.io&n%73=", 400, "UNSUPPORTED"},
		{own, "/v2/app/manifests/1?ns=" + strings.Repeat("a", 256), 400, "UNSUPPORTED"},
		{"hub.example.com", "/v2/app/manifests/1?ns=quay.io", 400, "UNSUPPORTED"},
		{"hub.example.com", "/v2/quay/app/manifests/1", 400, "UNSUPPORTED"},
		{"hub.example.com", "/v2/app/manifests/1?ns=evil.example", 404, "NAME_UNKNOWN"},
	} {
		seen, w := ask("GET", tt.host, tt.target)
		if seen != nil || w.Code != tt.status || !strings.Contains(w.Body.String(), `"code":"`+tt.code+`"`) || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d %s", tt.host, tt.target, w.Code, w.Body)
		}
	}
	if _, w := ask("HEAD", own, "/v2/app/manifests/1?ns=evil.example"); w.Code != 404 || w.Body.Len() > 0 {
		t.Errorf("HEAD: %d %s", w.Code, w.Body)
	}
}

func TestRepository(t *testing.T) {
	r := &http.Request{Host: "hub.example.com"}
	for name, want := range map[string]string{"library/app": "docker.io/library/app", "app": "docker.io/app", "docker.io/app": "docker.io/app", "all/app": "all/app"} {
		if got := table(nil).Repository(r, name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := table(nil).Repository(&http.Request{Host: "registry.example.com"}, "app"); got != "app" {
		t.Errorf("under another host: %s", got)
	}
}

// FuzzHandler: whatever is sent, what comes behind the handler is what was sent,
// but for a known prefix and ns; and its path has one spelling.
func FuzzHandler(f *testing.F) {
	f.Add("hub.example.com", "/v2/app/manifests/1", "ns=docker.io")
	f.Add("a", "/v2/%2e%2e/app/blobs/sha256%3aaa", "ns=quay.io&from=%2f&mount=x")
	f.Add("a", "/v2//", "n%73=docker.io")
	f.Fuzz(func(t *testing.T, host, path, query string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || u.Host != "" || u.RawQuery != "" || u.Scheme != "" {
			return
		}
		u.RawQuery = query
		before := *u
		var seen *http.Request
		w := httptest.NewRecorder()
		Handler(table, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r })).ServeHTTP(w, &http.Request{Method: "GET", Host: host, URL: u, Header: http.Header{}})
		if *u != before {
			t.Fatal("the request itself was changed")
		}
		if seen == nil {
			if w.Code != 404 && w.Code != 400 {
				t.Fatalf("status %d", w.Code)
			}
			return
		}
		was, is := before.EscapedPath(), seen.URL.EscapedPath()
		if unescaped, err := url.PathUnescape(is); err != nil || unescaped != seen.URL.Path {
			t.Fatalf("%q has the path %q", is, seen.URL.Path)
		}
		if was != is {
			rest, ok := strings.CutPrefix(was, "/v2/")
			found := false
			for _, prefix := range []string{"docker.io", "quay", "inner"} {
				found = found || is == "/v2/"+prefix+"/"+rest
			}
			if !ok || !found {
				t.Fatalf("%q became %q", was, is)
			}
		}
		if values, err := url.ParseQuery(query); err == nil && strings.HasPrefix(was, "/v2/") && was != "/v2/" && values.Get("ns") != "" {
			if after, err := url.ParseQuery(seen.URL.RawQuery); err != nil || after.Has("ns") {
				t.Fatalf("%q became %q, %v", query, seen.URL.RawQuery, err)
			}
		}
	})
}
