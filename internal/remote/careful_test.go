package remote_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
	"github.com/berth-registry/berth/internal/remote"
)

type httpContext = context.Context

func tag(s string) oci.Ref { return oci.TagRef(s) }

// wantCode wants an error of the code, none for 0.
func wantCode(t *testing.T, what string, err error, code registry.Code) {
	t.Helper()
	if code == 0 && err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if code != 0 {
		registrytest.WantCode(t, what, err, code)
	}
}

// TestFrugal: which requests it takes to learn what a HEAD may not tell.
func TestFrugal(t *testing.T) {
	status := func(head int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(head)
				return
			}
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"errors":[{"code":"NAME_UNKNOWN"}]}`)
		}
	}
	headers := func(length, digest string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", oci.MediaTypeIndex)
			if r.Method == http.MethodHead {
				if length != "" {
					w.Header().Set("Content-Length", length)
				}
				if digest != "" {
					w.Header().Set("Docker-Content-Digest", digest)
				}
				return
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(index)))
			io.WriteString(w, index)
		}
	}
	size := fmt.Sprint(len(index))
	for what, c := range map[string]struct {
		script         http.HandlerFunc
		frugal, lavish string // methods of the requests
		blob           string // of both, "" for the same
		code           registry.Code
		lavishCode     registry.Code
	}{
		"not there":     {status(404), "HEAD", "HEAD GET", "", registry.ManifestUnknown, registry.NameUnknown},
		"no HEAD":       {status(405), "HEAD GET", "HEAD GET", "", registry.NameUnknown, registry.NameUnknown},
		"all is told":   {headers(size, string(indexDigest)), "HEAD", "HEAD", "", 0, 0},
		"no digest":     {headers(size, ""), "HEAD GET", "HEAD GET", "HEAD", 0, 0},
		"no size":       {headers("", string(indexDigest)), "HEAD GET", "HEAD GET", "", 0, 0},
		"not available": {status(503), "HEAD", "HEAD", "", registry.Unavailable, registry.Unavailable},
	} {
		for _, frugal := range []bool{true, false} {
			t.Run(fmt.Sprint(what, " frugal ", frugal), func(t *testing.T) {
				var methods []string
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					methods = append(methods, r.Method)
					c.script(w, r)
				}))
				defer s.Close()
				r := client(t, s.URL, remote.Options{Frugal: frugal})
				want, code := c.frugal, c.code
				if !frugal {
					want, code = c.lavish, c.lavishCode
				}
				_, err := r.Resolve(t.Context(), "team/app", tag("v1"))
				wantCode(t, "resolve", err, code)
				if got := strings.Join(methods, " "); got != want {
					t.Errorf("resolving took %s, want %s", got, want)
				}
				methods = nil
				if code == registry.ManifestUnknown {
					code = registry.BlobUnknown
				}
				if c.blob != "" {
					want = c.blob
				}
				_, err = r.Blob(t.Context(), "team/app", indexDigest)
				wantCode(t, "find a blob", err, code)
				if got := strings.Join(methods, " "); got != want {
					t.Errorf("finding a blob took %s, want %s", got, want)
				}
			})
		}
	}
}

// TestUnverified: the content is the caller's to judge, where it lies and how long
// it is are not.
func TestUnverified(t *testing.T) {
	const wrong = "012345678x" // of the right length
	ranges := func(content string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
		}
	}
	for what, c := range map[string]struct {
		script http.HandlerFunc
		off, n int64
		want   string // "" for an error
		code   registry.Code
	}{
		"whole":        {ranges(wrong), 0, 10, wrong, 0},
		"a part":       {ranges(wrong), 5, 5, "5678x", 0},
		"too short":    {ranges("01234"), 0, 10, "", registry.Faulty},
		"too long":     {ranges(wrong + wrong), 0, 10, "", registry.Faulty},
		"part too far": {ranges("01234"), 5, 5, "", registry.Faulty},
		"part of more": {ranges(wrong + wrong), 5, 5, "", registry.Faulty},
		"broken off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "012")
		}, 0, 10, "", registry.Unavailable},
		"ends too soon": {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "012"); w.(http.Flusher).Flush() }, 0, 10, "", registry.Unavailable},
	} {
		t.Run(what, func(t *testing.T) {
			methods := 0
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { methods++; c.script(w, r) }))
			defer s.Close()
			r := client(t, s.URL, remote.Options{Unverified: true})
			got, err := readExactly(t, r.KnownBlob("team/app", oci.Descriptor{Digest: blobDigest, Size: 10}), c.off, c.n)
			wantCode(t, "read", err, c.code)
			if c.code == 0 && got != c.want {
				t.Errorf("read %q", got)
			}
			if methods != 1 {
				t.Errorf("%d requests to read a blob whose size is known", methods)
			}
		})
	}
}

// TestRefusals: what our credentials do not open does not exist for us, but that
// is not all that is known of it.
func TestRefusals(t *testing.T) {
	for what, c := range map[string]struct {
		status  int
		code    string
		lenient registry.Code // with Refusals
		strict  registry.Code // without
		refused bool
	}{
		"401":                  {401, "", registry.NameUnknown, registry.Unauthorized, true},
		"403":                  {403, "", registry.NameUnknown, registry.Denied, true},
		"401 UNAUTHORIZED":     {401, "UNAUTHORIZED", registry.NameUnknown, registry.Unauthorized, true},
		"403 DENIED":           {403, "DENIED", registry.NameUnknown, registry.Denied, true},
		"403 MANIFEST_UNKNOWN": {403, "MANIFEST_UNKNOWN", registry.NameUnknown, registry.ManifestUnknown, true},
		"404 DENIED":           {404, "DENIED", registry.NameUnknown, registry.Denied, true},
		"403 TOOMANYREQUESTS":  {403, "TOOMANYREQUESTS", registry.TooManyRequests, registry.TooManyRequests, false},
		"404":                  {404, "", registry.ManifestUnknown, registry.ManifestUnknown, false},
		"404 NAME_UNKNOWN":     {404, "NAME_UNKNOWN", registry.NameUnknown, registry.NameUnknown, false},
		"500 DENIED":           {500, "DENIED", registry.Unavailable, registry.Unavailable, false},
		"418":                  {418, "", registry.Faulty, registry.Faulty, false},
		"400":                  {400, "", registry.Faulty, registry.Faulty, false},
		"408":                  {408, "", registry.Unavailable, registry.Unavailable, false},
		"304":                  {304, "", registry.Faulty, registry.Faulty, false},
	} {
		for _, lenient := range []bool{true, false} {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(c.status)
				if c.code != "" {
					fmt.Fprintf(w, `{"errors":[{"code":%q}]}`, c.code)
				}
			}))
			want := c.strict
			if lenient {
				want = c.lenient
			}
			_, err := client(t, s.URL, remote.Options{Refusals: lenient}).Manifest(t.Context(), "team/app", tag("v1"))
			registrytest.WantCode(t, what, err, want)
			if errors.Is(err, registry.ErrRefused) != (lenient && c.refused) {
				t.Errorf("%s, lenient %v: refused is wrong: %v", what, lenient, err)
			}
			s.Close()
		}
	}
}

// TestRefusalsOfStorage: an address that was made for us and is refused says
// nothing of our rights.
func TestRefusalsOfStorage(t *testing.T) {
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer storage.Close()
	r := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, storage.URL, http.StatusTemporaryRedirect)
	})
	_, err := r.Manifest(t.Context(), "team/app", tag("v1"))
	registrytest.WantCode(t, "get", err, registry.Unavailable)
}

// TestStorageForReadingAlone: addresses that are good for a GET only.
func TestStorageForReadingAlone(t *testing.T) {
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		manifest(index, "")(w, r)
	}))
	defer storage.Close()
	s := httptest.NewServer(http.RedirectHandler(storage.URL, http.StatusTemporaryRedirect))
	defer s.Close()
	r := client(t, s.URL, remote.Options{Frugal: true, Refusals: true})
	d, err := r.Resolve(t.Context(), "team/app", tag("v1"))
	if err != nil || d.Digest != indexDigest {
		t.Errorf("resolved %v, %v", d, err)
	}
	b, err := r.Blob(t.Context(), "team/app", indexDigest)
	if err != nil || b.Descriptor().Size != int64(len(index)) {
		t.Errorf("found %v, %v", b, err)
	}
}

func TestRetryAfterIsTold(t *testing.T) {
	for _, c := range []struct {
		status int
		header string
		code   registry.Code
		want   time.Duration // 0: nothing
	}{
		{429, "60", registry.TooManyRequests, time.Minute},
		{503, "7", registry.Unavailable, 7 * time.Second},
		{500, "7", registry.Unavailable, 7 * time.Second},
		{429, "", registry.TooManyRequests, 0},
		{503, "soon", registry.Unavailable, 0},
		{404, "60", registry.ManifestUnknown, 0},
	} {
		r := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", c.header)
			w.WriteHeader(c.status)
		})
		_, err := r.Manifest(t.Context(), "team/app", tag("v1"))
		registrytest.WantCode(t, fmt.Sprint(c.status), err, c.code)
		var coded *registry.Error
		if errors.As(err, &coded); (coded.Limit == nil) != (c.want == 0) || coded.Limit != nil && coded.Limit.RetryAfter != c.want {
			t.Errorf("%d with %q: %+v", c.status, c.header, coded.Limit)
		}
	}
}

// TestStatusIsTold: who passes an error on can say what upstream answered.
func TestStatusIsTold(t *testing.T) {
	for _, status := range []int{401, 403, 404, 418, 429, 500, 503} {
		r := upstream(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
		_, err := r.Manifest(t.Context(), "team/app", oci.TagRef("v1"))
		var answer interface{ HTTPStatus() int }
		if !errors.As(err, &answer) || answer.HTTPStatus() != status {
			t.Errorf("of %d is told %v", status, err)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"60": time.Minute, " 60 ": time.Minute, "0": time.Second, "86400": 24 * time.Hour, "86401": 24 * time.Hour,
		"99999999999999": 24 * time.Hour, "1795262430": 30 * time.Second, "Sat, 21 Nov 2026 12:01:30 GMT": 90 * time.Second,
		"Sat, 21 Nov 2026 11:00:00 GMT": time.Second, "Fri, 21 Nov 2036 11:00:00 GMT": 24 * time.Hour,
		"-1": -1, "": -1, "soon": -1, "1.5": -1, "60s": -1, "99999999999999999999": -1,
	} {
		got, ok := remote.RetryAfter(http.Header{"Retry-After": {value}}, now)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q is %v, %v", value, got, ok)
		}
	}
	// Of two clocks the one counts that the date was read from.
	h := http.Header{"Retry-After": {"Sat, 21 Nov 2026 15:00:30 GMT"}, "Date": {"Sat, 21 Nov 2026 15:00:00 GMT"}}
	if got, _ := remote.RetryAfter(h, now); got != 30*time.Second {
		t.Errorf("by the clock of the answer it is %v", got)
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"60", "-1", "Sat, 21 Nov 2026 12:01:30 GMT", "1795262430", "1e9", "9223372036854775807", "-9223372036854775808"} {
		f.Add(s, "Sat, 21 Nov 2026 12:00:00 GMT")
		f.Add(s, "")
	}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value, date string) {
		wait, ok := remote.RetryAfter(http.Header{"Retry-After": {value}, "Date": {date}}, now)
		if ok != (wait != 0) || ok && (wait < time.Second || wait > 24*time.Hour) {
			t.Errorf("%q by %q is %v, %v", value, date, wait, ok)
		}
	})
}

// TestChallenged: a 401 is told of once, and the request sent again if that is of
// use.
func TestChallenged(t *testing.T) {
	faulty := registry.Errorf(registry.Faulty, "", "the realm is refused")
	for what, c := range map[string]struct {
		retry bool
		err   error
		good  string // Authorization that the registry takes
		asked int
		code  registry.Code
	}{
		"it helps":             {true, nil, "Bearer 1", 2, 0},
		"it does not help":     {true, nil, "never", 2, registry.NameUnknown},
		"it is of no use":      {false, nil, "never", 1, registry.NameUnknown},
		"it cannot be done":    {false, faulty, "never", 1, registry.Faulty},
		"it went wrong":        {true, errors.New("x"), "never", 1, registry.Unavailable},
		"there is no question": {true, nil, "Bearer 0", 1, 0},
	} {
		t.Run(what, func(t *testing.T) {
			var told []string
			asked := 0
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked++
				if r.Header.Get("Authorization") != c.good {
					w.Header().Set("WWW-Authenticate", "Bearer realm=x")
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				manifest(index, "")(w, r)
			}))
			defer s.Close()
			r := client(t, s.URL, remote.Options{
				Refusals:      true,
				Authorization: func(context.Context, string) (string, error) { return fmt.Sprint("Bearer ", len(told)), nil },
				Challenged: func(_ context.Context, repo, sent string, h http.Header) (bool, error) {
					told = append(told, repo+" "+sent+" "+h.Get("WWW-Authenticate"))
					return c.retry, c.err
				},
			})
			_, err := r.Manifest(t.Context(), "team/app", tag("v1"))
			wantCode(t, "get", err, c.code)
			var coded *registry.Error
			if errors.As(err, &coded) && coded.Repo != "team/app" {
				t.Errorf("the error is about %q", coded.Repo)
			}
			if asked != c.asked {
				t.Errorf("%d requests, want %d", asked, c.asked)
			}
			if c.good != "Bearer 0" && !slices.Equal(told, []string{"team/app Bearer 0 Bearer realm=x"}) {
				t.Errorf("told %q", told)
			}
		})
	}
}

// TestNotChallenged: neither by whom we were redirected to, nor about what cannot
// be sent again.
func TestNotChallenged(t *testing.T) {
	told := 0
	o := remote.Options{Challenged: func(context.Context, string, string, http.Header) (bool, error) { told++; return true, nil }}
	refuse := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusUnauthorized)
	}
	storage := httptest.NewServer(http.HandlerFunc(refuse))
	defer storage.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			http.Redirect(w, r, storage.URL, http.StatusTemporaryRedirect)
			return
		}
		refuse(w, r)
	}))
	defer s.Close()
	r := client(t, s.URL, o)
	_, err := r.Manifest(t.Context(), "team/app", tag("v1"))
	registrytest.WantCode(t, "get", err, registry.Unavailable)
	_, err = r.PutManifest(t.Context(), "team/app", registry.Manifest{MediaType: oci.MediaTypeIndex, Content: []byte(index)})
	registrytest.WantCode(t, "put", err, registry.Unauthorized)
	if told != 0 {
		t.Errorf("told %d times", told)
	}
	registrytest.WantCode(t, "delete", r.DeleteTag(t.Context(), "team/app", "v1"), registry.Unauthorized)
	if told != 1 {
		t.Errorf("told %d times of a request that can be sent again", told)
	}
}

// TestNoAnswer: what kept an answer from coming decides whose fault it is.
func TestNoAnswer(t *testing.T) {
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains of us
	untrusted.StartTLS()
	defer untrusted.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	downgraded := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusTemporaryRedirect))
	defer downgraded.Close()
	limited := registry.Errorf(registry.TooManyRequests, "", "later")
	limited.Limit = &registry.Limit{RetryAfter: time.Minute}
	for what, c := range map[string]struct {
		address   string
		transport http.RoundTripper
		code      registry.Code
	}{
		"an unknown name":          {"http://nowhere.invalid", nil, registry.Unavailable},
		"an untrusted certificate": {untrusted.URL, nil, registry.Faulty},
		"no TLS":                   {strings.Replace(plain.URL, "http:", "https:", 1), nil, registry.Faulty},
		"out of TLS":               {downgraded.URL, downgraded.Client().Transport, registry.Faulty},
		"its own reasons":          {plain.URL, fails{limited}, registry.TooManyRequests},
		"any reason":               {plain.URL, fails{io.ErrUnexpectedEOF}, registry.Unavailable},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := client(t, c.address, remote.Options{Transport: c.transport}).Manifest(t.Context(), "team/app", tag("v1"))
			registrytest.WantCode(t, "get", err, c.code)
			var coded *registry.Error
			if errors.As(err, &coded); coded.Repo != "team/app" || (coded.Limit != nil) != (c.code == registry.TooManyRequests) {
				t.Errorf("got %+v", coded)
			}
		})
	}
}

type fails struct{ err error }

func (f fails) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }
