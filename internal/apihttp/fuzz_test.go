package apihttp

import (
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzRequests: whatever is asked for, the answer is one of the document's and
// not the server's fault.
func FuzzRequests(f *testing.F) {
	for _, e := range exchanges {
		method, rest, _ := strings.Cut(e.what, " ")
		path, query, _ := strings.Cut(rest, "?")
		f.Add(method, path, query, e.body, "")
	}
	f.Add("POST", "/groups", "", `{"name":"x"}`, "an-idempotency-key")
	s := serve(f, filepath.Join(f.TempDir(), "berth.db"))
	s.populate()
	f.Fuzz(func(t *testing.T, method, path, query, body, key string) {
		methods := []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
		if !slices.Contains(methods, method) || !strings.HasPrefix(path, "/") || strings.ContainsAny(key, "\r\n\x00") {
			t.Skip() // no request that a client could send
		}
		s.t = t
		u := url.URL{Path: path, RawQuery: url.PathEscape(query)}
		if values, err := url.ParseQuery(query); err == nil {
			u.RawQuery = values.Encode()
		}
		what := method + " " + u.String()
		var headers []string
		if key != "" {
			headers = []string{onceHeader, key}
		}
		if strings.HasPrefix(path, "/users/root") || strings.HasPrefix(path, "/me/keys") {
			t.Skip() // would end the fuzzer's own rights
		}
		if a := s.do("root", what, body, headers...); a.status >= 500 || a.status == http.StatusUnauthorized {
			t.Errorf("%s: %d %s", a.what, a.status, a.body)
		}
	})
}
