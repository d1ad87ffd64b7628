package remote_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/ocihttp"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
	"github.com/berth-registry/berth/internal/remote"
)

// TestBehindAPath: a registry whose API lies behind a path, whether it knows of
// the path or something before it takes it away.
func TestBehindAPath(t *testing.T) {
	for name, knows := range map[string]bool{"it knows": true, "it does not know": false} {
		t.Run(name, func(t *testing.T) {
			registrytest.Run(t, func(t *testing.T) registry.Registry {
				r := open(t, hosted.Options{})
				front := ocihttp.New(ocihttp.Options{Open: func(auth.Identity) registry.Registry { return r }})
				s := httptest.NewServer(behind("/a/b", front, knows))
				t.Cleanup(s.Close)
				return client(t, s.URL+"/a/b/", remote.Options{})
			}, registrytest.Options{})
		})
	}
}

// behind serves h behind a path; with rewrite what it answers leads there too.
func behind(path string, h http.Handler, rewrite bool) http.Handler {
	return http.StripPrefix(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rewrite {
			w = &rewriter{ResponseWriter: w, path: path}
		}
		h.ServeHTTP(w, r)
	}))
}

type rewriter struct {
	http.ResponseWriter
	path string
}

func (w *rewriter) WriteHeader(status int) {
	h := w.Header()
	if location := h.Get("Location"); strings.HasPrefix(location, "/") {
		h.Set("Location", w.path+location)
	}
	if link := h.Get("Link"); strings.HasPrefix(link, "</") {
		h.Set("Link", "<"+w.path+link[1:])
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *rewriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// TestPathsAreOthers: of an origin, what lies behind our path is ours, and the
// rest is somebody else's.
func TestPathsAreOthers(t *testing.T) {
	for lead, want := range map[string]registry.Code{
		"/path/v2/team/app/x":                   0,
		"/v2/team/app/x":                        0, // it does not know its path
		"/other/v2/team/app/x":                  registry.Faulty,
		"/pathological/v2/team/app/x":           registry.Faulty,
		"/path/../other/v2/team/app/x":          registry.Faulty,
		"/path/%2e%2e/other/v2/team/app/x":      registry.Faulty,
		"/path%2f..%2fother/v2/x":               registry.Faulty,
		"/v2/../../other/v2/x":                  registry.Faulty,
		"http://elsewhere.example/path/v2/x":    registry.Faulty,
		"//elsewhere.example/path/v2/x":         registry.Faulty,
		"https://user@elsewhere.example/path/x": registry.Faulty,
	} {
		t.Run(lead, func(t *testing.T) {
			var asked []string
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = append(asked, r.URL.Path+" "+r.Header.Get("Authorization"))
				switch {
				case strings.HasSuffix(r.URL.Path, "/tags/list"):
					w.Header().Set("Link", "<"+lead+">; rel=next")
					w.Write([]byte(`{"tags":["a"]}`))
				case r.Method == http.MethodPost:
					w.Header().Set("Location", lead)
					w.WriteHeader(http.StatusAccepted)
				case r.Method == http.MethodDelete:
					w.WriteHeader(http.StatusNoContent)
				default:
					w.Write([]byte(`{"tags":["b"]}`))
				}
			}))
			defer s.Close()
			r := client(t, s.URL+"/path", remote.Options{Authorization: remote.Basic("u", "p")})
			var err error
			for _, err = range r.Tags(t.Context(), "team/app", "") {
			}
			wantCode(t, "list", err, want)
			u, err := r.StartUpload(t.Context(), "team/app", registry.UploadOptions{})
			wantCode(t, "start an upload", err, want)
			if err == nil {
				wantCode(t, "cancel it", u.Cancel(t.Context()), 0)
			}
			for _, path := range asked {
				if !strings.HasPrefix(path, "/path/v2/") {
					t.Errorf("asked for %s", path)
				}
			}
			if want == 0 && len(asked) != 4 || want != 0 && len(asked) != 2 {
				t.Errorf("asked %q", asked)
			}
		})
	}
}

// TestRedirectsWithinAnOrigin: they are followed, but who else lives there does
// not get our credentials.
func TestRedirectsWithinAnOrigin(t *testing.T) {
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path+" "+r.Header.Get("Authorization"))
		switch r.URL.Path {
		case "/path/v2/team/app/manifests/v1":
			http.Redirect(w, r, "/path/elsewhere", http.StatusTemporaryRedirect)
		case "/path/elsewhere":
			http.Redirect(w, r, "/other/v2", http.StatusTemporaryRedirect)
		default:
			manifest(index, "")(w, r)
		}
	}))
	defer s.Close()
	r := client(t, s.URL+"/path", remote.Options{Authorization: func(_ httpContext, _ string) (string, error) { return "Bearer x", nil }})
	if _, err := r.Manifest(t.Context(), "team/app", tag("v1")); err != nil {
		t.Fatal(err)
	}
	if want := []string{"/path/v2/team/app/manifests/v1 Bearer x", "/path/elsewhere Bearer x", "/other/v2 "}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

func TestParseAddress(t *testing.T) {
	for address, want := range map[string]string{
		"https://Example.com":                   "https://example.com",
		"https://example.com:443/":              "https://example.com",
		"http://example.com:80":                 "http://example.com",
		"http://example.com:443":                "http://example.com:443",
		"https://example.com/artifactory/api/x": "https://example.com/artifactory/api/x",
		"https://example.com/a/":                "https://example.com/a",
		"http://[::1]:5000":                     "http://[::1]:5000",
		"https://example.com/a/v2":              "",
		"https://example.com/v2/":               "",
		"https://example.com/a//b":              "",
		"https://example.com/a/../b":            "",
		"https://example.com/a%2fb":             "",
		"https://example.com/a b":               "",
		"https://example.com/?":                 "",
		"https://:5000":                         "",
		"https://user:secret@example.com/a":     "",
		"https://user:secret@example .com/a":    "",
	} {
		u, err := remote.ParseAddress(address)
		switch {
		case want == "" && err == nil:
			t.Errorf("%q is taken for %s", address, u)
		case want == "" && strings.Contains(err.Error(), "secret"):
			t.Errorf("%q: the password shows in %v", address, err)
		case want != "" && (err != nil || u.String() != want):
			t.Errorf("%q is taken for %v, %v", address, u, err)
		}
	}
}
