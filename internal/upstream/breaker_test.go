package upstream_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
	"github.com/berth-registry/berth/internal/upstream"
)

// wantLater wants an error that says to come back after at least least and at
// most most.
func wantLater(t *testing.T, what string, err error, code registry.Code, least, most time.Duration) {
	t.Helper()
	registrytest.WantCode(t, what, err, code)
	var coded *registry.Error
	if !errors.As(err, &coded) || coded.Limit == nil {
		t.Errorf("%s: %v does not say when to come back", what, err)
	} else if wait := coded.Limit.RetryAfter; wait < least || wait > most {
		t.Errorf("%s: come back after %v", what, wait)
	}
}

func host(s *script) string { return strings.TrimPrefix(s.URL, "http://") }

// hostState is the state of the breaker of a host.
func hostState(t *testing.T, u *upstream.Registry, s *script, role upstream.Role) upstream.HostStatus {
	t.Helper()
	for _, h := range u.Status().Hosts {
		if h.Host == host(s) && h.Role == role {
			return h
		}
	}
	t.Fatalf("no %s %s in %+v", role, host(s), u.Status().Hosts)
	return upstream.HostStatus{}
}

// TestBreaker: a host that fails five times in a row is not asked for a while;
// then one request sees how it is.
func TestBreaker(t *testing.T) {
	for what, failing := range map[string]http.HandlerFunc{"no answer": hangUp, "500": status(500), "503": status(503)} {
		t.Run(what, func(t *testing.T) {
			now := newClock()
			s := scripted(t, failing)
			u := open(t, upstream.Options{Endpoints: []string{s.URL}, Now: now.now})
			fail := func(n int) {
				t.Helper()
				for range n {
					registrytest.WantCode(t, "resolve", resolve(t, u), registry.Unavailable)
				}
			}
			fail(4)
			s.now(serve)
			wantCode(t, "resolve", resolve(t, u), 0)
			s.now(failing)
			fail(4)
			s.now(http.NotFound) // an answer like any other
			wantCode(t, "resolve", resolve(t, u), registry.ManifestUnknown)
			s.now(failing)
			fail(4)
			if h := hostState(t, u, s, upstream.RoleRegistry); h.State != upstream.Closed || h.Failures != 4 {
				t.Errorf("before: %+v", h)
			}
			fail(1)
			s.asked()
			s.now(serve)
			wantLater(t, "open", resolve(t, u), registry.Unavailable, 24*time.Second, 36*time.Second)
			now.move(23 * time.Second)
			wantLater(t, "still open", resolve(t, u), registry.Unavailable, time.Second, 13*time.Second)
			s.wantAsked(t, "while it is open")
			if h := hostState(t, u, s, upstream.RoleRegistry); h.State != upstream.Open || h.Failures != 5 || !h.Until.After(now.now()) {
				t.Errorf("open: %+v", h)
			}

			now.move(13 * time.Second)
			if h := hostState(t, u, s, upstream.RoleRegistry); h.State != upstream.HalfOpen {
				t.Errorf("half open: %+v", h)
			}
			s.now(failing)
			fail(1)
			wantLater(t, "open again after one", resolve(t, u), registry.Unavailable, 24*time.Second, 36*time.Second)
			if n := len(s.asked()); n != 1 {
				t.Errorf("asked %d times to see", n)
			}
			now.move(37 * time.Second)
			s.now(serve)
			wantCode(t, "closed", resolve(t, u), 0)
			s.now(failing)
			fail(4) // it counts from the beginning
			s.now(serve)
			wantCode(t, "closed", resolve(t, u), 0)
		})
	}
}

// TestOneProbe: while one request sees how a host is, no other is sent.
func TestOneProbe(t *testing.T) {
	now := newClock()
	s := scripted(t, hangUp)
	u := open(t, upstream.Options{Endpoints: []string{s.URL}, Now: now.now, Limits: upstream.Limits{Failures: 1}})
	wantCode(t, "fail", resolve(t, u), registry.Unavailable)
	now.move(40 * time.Second)
	arrived, answer := make(chan bool), make(chan bool)
	s.now(func(w http.ResponseWriter, r *http.Request) { arrived <- true; <-answer; serve(w, r) })
	s.asked()
	probe := make(chan error)
	go func() { _, err := u.Resolve(t.Context(), "team/app", v1); probe <- err }()
	<-arrived
	wantLater(t, "beside it", resolve(t, u), registry.Unavailable, time.Second, time.Second)
	close(answer)
	wantCode(t, "the probe", <-probe, 0)
	s.wantAsked(t, "to see", "HEAD manifests/v1")
	s.now(serve)
	wantCode(t, "behind it", resolve(t, u), 0)
}

// TestProbeOfWhoLeft: a probe whose caller leaves makes room for the next.
func TestProbeOfWhoLeft(t *testing.T) {
	now := newClock()
	s := scripted(t, hangUp)
	u := open(t, upstream.Options{Endpoints: []string{s.URL}, Now: now.now, Limits: upstream.Limits{Failures: 1}})
	wantCode(t, "fail", resolve(t, u), registry.Unavailable)
	now.move(40 * time.Second)
	ctx, leave := context.WithCancel(t.Context())
	s.now(func(_ http.ResponseWriter, r *http.Request) { leave(); <-r.Context().Done() })
	if _, err := u.Resolve(ctx, "team/app", v1); !errors.Is(err, context.Canceled) {
		t.Errorf("probe: %v", err)
	}
	s.now(serve)
	wantCode(t, "the next", resolve(t, u), 0)
}

// TestWhoLeavesIsNoFailure: nor is what we do not dial.
func TestWhoLeavesIsNoFailure(t *testing.T) {
	s := scripted(t, nil)
	u := open(t, upstream.Options{Endpoints: []string{s.URL}, Limits: upstream.Limits{Failures: 1}})
	ctx, leave := context.WithCancel(t.Context())
	s.now(func(_ http.ResponseWriter, r *http.Request) { leave(); <-r.Context().Done() })
	if _, err := u.Resolve(ctx, "team/app", v1); err == nil {
		t.Error("resolved without an answer")
	}
	s.now(serve)
	wantCode(t, "resolve", resolve(t, u), 0)
}

// TestBodiesThatBreakOff are failures of their host.
func TestBodiesThatBreakOff(t *testing.T) {
	s := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "01234")
	})
	u := open(t, upstream.Options{Endpoints: []string{s.URL}, Limits: upstream.Limits{Failures: 1}})
	_, err := read(t.Context(), known(u))
	registrytest.WantCode(t, "read", err, registry.Unavailable)
	_, err = read(t.Context(), known(u))
	wantLater(t, "read again", err, registry.Unavailable, time.Second, time.Minute)
	if n := len(s.asked()); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// TestRoles: a token service, a registry and its storage fail each for itself.
func TestRoles(t *testing.T) {
	tokens := scripted(t, serveToken)
	storage := scripted(t, serve)
	s := scripted(t, nil)
	u := open(t, upstream.Options{Endpoints: []string{s.URL}, Limits: upstream.Limits{Failures: 1}, Authorize: tokenUser(tokens.URL)})
	blob := "blobs/" + blobDigest.String()
	s.now(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			if r.Header.Get("Authorization") != "Bearer good" {
				t.Errorf("the registry gets Authorization %q", r.Header.Get("Authorization"))
			}
			http.Redirect(w, r, storage.URL+"/v2/team/app/"+blob, http.StatusTemporaryRedirect)
			return
		}
		serve(w, r)
	})
	storage.now(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("the storage gets Authorization %q", r.Header.Get("Authorization"))
		}
		serve(w, r)
	})
	if got, err := read(t.Context(), known(u)); got != string(content) || err != nil {
		t.Fatalf("read %q, %v", got, err)
	}
	storage.now(hangUp)
	_, err := read(t.Context(), known(u))
	registrytest.WantCode(t, "read", err, registry.Unavailable)
	storage.asked()
	_, err = read(t.Context(), known(u))
	wantLater(t, "read", err, registry.Unavailable, time.Second, time.Minute)
	storage.wantAsked(t, "storage")
	wantCode(t, "resolve", resolve(t, u), 0)

	tokens.now(status(500))
	registrytest.WantCode(t, "resolve", resolve(t, u), registry.Unavailable)
	tokens.asked()
	s.asked()
	wantLater(t, "resolve", resolve(t, u), registry.Unavailable, time.Second, time.Minute)
	tokens.wantAsked(t, "tokens")
	s.wantAsked(t, "registry")
	if h := hostState(t, u, s, upstream.RoleRegistry); h.State != upstream.Closed {
		t.Errorf("registry: %+v", h)
	}
	if h := hostState(t, u, tokens, upstream.RoleToken); h.State != upstream.Open {
		t.Errorf("tokens: %+v", h)
	}
	if h := hostState(t, u, storage, upstream.RoleStorage); h.State != upstream.Open {
		t.Errorf("storage: %+v", h)
	}
}

func serveToken(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "good") }

// tokenUser authorizes with a token that it gets anew each time.
func tokenUser(service string) func(*url.URL, http.RoundTripper) (upstream.Authorizer, error) {
	return func(_ *url.URL, tokens http.RoundTripper) (upstream.Authorizer, error) {
		return &bearer{service, &http.Client{Transport: tokens}}, nil
	}
}

type bearer struct {
	service string
	client  *http.Client
}

func (b *bearer) Authorization(ctx context.Context, repo string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.service+"/token?scope="+url.QueryEscape(repo), nil)
	if err != nil {
		return "", err
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	token, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = registry.Errorf(registry.Unavailable, "", "no token")
	}
	return "Bearer " + string(token), err
}

func (b *bearer) Challenged(context.Context, string, string, http.Header) (bool, error) {
	return false, nil
}

// TestAuthorizersOfEndpoints: each endpoint has its own, or none.
func TestAuthorizersOfEndpoints(t *testing.T) {
	tokens := scripted(t, serveToken)
	var seen []string
	note := func(name string, then http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			seen = append(seen, name+" "+r.Header.Get("Authorization"))
			then(w, r)
		}
	}
	m, o := scripted(t, note("mirror", http.NotFound)), scripted(t, note("registry", serve))
	var endpoints []string
	u := open(t, upstream.Options{Endpoints: []string{m.URL + "/path", o.URL}, Authorize: func(at *url.URL, rt http.RoundTripper) (upstream.Authorizer, error) {
		endpoints = append(endpoints, at.String())
		if len(endpoints) == 1 {
			return nil, nil
		}
		return tokenUser(tokens.URL)(at, rt)
	}})
	wantCode(t, "resolve", resolve(t, u), 0)
	if want := m.URL + "/path " + o.URL; strings.Join(endpoints, " ") != want {
		t.Errorf("authorizers of %q, want %s", endpoints, want)
	}
	if want := "mirror , registry Bearer good"; strings.Join(seen, ", ") != want {
		t.Errorf("seen %q, want %s", seen, want)
	}
	no := errors.New("no")
	if _, err := upstream.New(upstream.Options{Name: "hub", Endpoints: []string{o.URL}, Authorize: func(*url.URL, http.RoundTripper) (upstream.Authorizer, error) {
		return nil, no
	}}); !errors.Is(err, no) {
		t.Errorf("an authorizer that cannot be: %v", err)
	}
}

// TestObserved: every request that was sent is told of, with what it brought.
func TestObserved(t *testing.T) {
	var seen calls
	storage, tokens := scripted(t, serve), scripted(t, serveToken)
	s := scripted(t, nil)
	u := open(t, upstream.Options{Endpoints: []string{s.URL}, Observe: seen.observe, Authorize: tokenUser(tokens.URL)})
	s.now(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, storage.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		serve(w, r)
	})
	want := func(what string, want ...upstream.Call) {
		t.Helper()
		got := seen.take()
		if len(got) != len(want) {
			t.Fatalf("%s: observed %+v", what, got)
		}
		for i, c := range got {
			if c.Duration <= 0 || (c.Err != nil) != (want[i].Err != nil) {
				t.Errorf("%s: observed %+v", what, c)
			}
			c.Duration, c.Err, want[i].Err = 0, nil, nil
			if c != want[i] {
				t.Errorf("%s: observed %+v, want %+v", what, c, want[i])
			}
		}
	}
	token := upstream.Call{Kind: upstream.KindToken, Role: upstream.RoleToken, Host: host(tokens), Method: "GET", Status: 200, Bytes: 4}
	call := func(k upstream.Kind, method string, status int, bytes int64) upstream.Call {
		return upstream.Call{Kind: k, Role: upstream.RoleRegistry, Host: host(s), Method: method, Status: status, Bytes: bytes}
	}
	wantCode(t, "resolve", resolve(t, u), 0)
	want("resolve", token, call(upstream.KindManifest, "HEAD", 200, 0))
	if _, err := u.Manifest(t.Context(), "team/app", v1); err != nil {
		t.Fatal(err)
	}
	want("manifest", token, call(upstream.KindManifest, "GET", 200, int64(len(index))))
	read(t.Context(), known(u))
	stored := upstream.Call{Kind: upstream.KindBlob, Role: upstream.RoleStorage, Host: host(storage), Method: "GET", Status: 200, Bytes: 10}
	page := `<a href="` + storage.URL + "/v2/team/app/blobs/" + blobDigest.String() + `">Temporary Redirect</a>.` + "\n\n"
	want("blob", token, call(upstream.KindBlob, "GET", 307, int64(len(page))), stored)
	registrytest.WantList(t, "tags", u.Tags(t.Context(), "team/app", ""), "v1", "v2")
	want("tags", token, call(upstream.KindTags, "GET", 200, int64(len(`{"tags":["v1","v2"]}`))))
	if _, _, err := u.AllReferrers(t.Context(), "team/app", indexDigest); err != nil {
		t.Fatal(err)
	}
	const missing = int64(len("404 page not found\n"))
	want("referrers", token, call(upstream.KindReferrers, "GET", 404, missing), token, call(upstream.KindReferrers, "GET", 404, missing))
	s.now(hangUp)
	resolve(t, u)
	failed := call(upstream.KindManifest, "HEAD", 0, 0)
	failed.Err = io.EOF
	want("failure", token, failed)
	if failed.Class() != "failed" {
		t.Errorf("a call that failed is of class %s", failed.Class())
	}
}

// TestNothingHeld: when everything is over, nothing is counted as under way.
func TestNothingHeld(t *testing.T) {
	s := scripted(t, serve)
	u := open(t, upstream.Options{Endpoints: []string{s.URL}})
	rc, err := known(u).Open(t.Context(), 0, 10)
	wantCode(t, "open", err, 0)
	if n := u.Status().InFlight; n != 1 {
		t.Errorf("%d under way while a body is read", n)
	}
	rc.Close()
	rc.Close()
	resolve(t, u)
	u.Manifest(t.Context(), "team/app", oci.TagRef("v3"))
	s.now(hangUp)
	resolve(t, u)
	if st := u.Status(); st.InFlight != 0 || st.Queued != 0 || st.Stretch != 1 || len(st.Endpoints) != 1 || st.Endpoints[0].Address != s.URL {
		t.Errorf("in the end: %+v", st)
	}
}
