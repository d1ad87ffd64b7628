package ocihttp_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/ocihttp"
	"github.com/berth-registry/berth/internal/registry"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestErrorBodies holds every code's answer, headers and all, against its
// golden file.
func TestErrorBodies(t *testing.T) {
	var failure error
	s := newServer(t, func(o *ocihttp.Options) {
		o.Identify = func(*http.Request) (auth.Identity, error) { return auth.Identity{}, failure }
	})
	cases := map[string]error{
		"uncoded":        errors.New("open /secret/place: permission denied"),
		"several-digest": &registry.Error{Code: registry.ManifestBlobUnknown, Detail: []oci.Digest{digestOf("a"), digestOf("b")}},
		"oci-digest":     fmt.Errorf("descriptor: %w", oci.ErrDigest),
		"odd-detail":     &registry.Error{Code: registry.Denied, Detail: func() {}},
		"no-detail":      &registry.Error{Code: registry.Denied, Err: errors.New("a secret")},
		"html":           registry.Errorf(registry.Denied, "", "<a> & </a>"),
		"unknown-code":   &registry.Error{Code: registry.Codes + 3},
	}
	for c := registry.Internal; c < registry.Codes; c++ {
		name := strings.ReplaceAll(c.String(), " ", "-")
		cases[name] = &registry.Error{Code: c, Repo: "other", Detail: map[string]string{"hint": "the detail"}, Err: errors.New("a secret")}
	}
	for name, err := range cases {
		t.Run(name, func(t *testing.T) {
			failure = err
			a := s.do("DELETE", "/v2/team/app/manifests/latest", nil, "X-Request-Id", "the-id")
			golden(t, name, a)
			if strings.Contains(a.body, "secret") {
				t.Errorf("the cause reached the client: %s", a.body)
			}
			if line := s.log.String(); a.status == 500 && name == "uncoded" && !strings.Contains(line, "/secret/place") {
				t.Errorf("the cause is not in the log: %s", line)
			}
			s.do("HEAD", "/v2/team/app/manifests/latest", nil).wants(a.status).holds("")
		})
	}
}

var goldenHeaders = []string{"Content-Type", "Allow", "Retry-After", "Www-Authenticate", "X-Request-Id", "Docker-Distribution-Api-Version", "X-Content-Type-Options"}

func golden(t *testing.T, name string, a *answer) {
	t.Helper()
	var got strings.Builder
	fmt.Fprintf(&got, "%d\n", a.status)
	for _, key := range goldenHeaders {
		if v := a.header.Get(key); v != "" {
			fmt.Fprintf(&got, "%s: %s\n", key, v)
		}
	}
	fmt.Fprintf(&got, "\n%s", a.body)
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", file, got.String(), want)
	}
}

// TestHiddenLooksAbsent: a refusal that hides a repository and its absence
// are the same bytes.
func TestHiddenLooksAbsent(t *testing.T) {
	hidden := newServer(t, func(o *ocihttp.Options) {
		open := o.Open
		o.Open = func(id auth.Identity) registry.Registry {
			return registry.Guard(open(id), func(_ context.Context, op registry.Op) error {
				if strings.HasPrefix(op.Repo, "hidden/") {
					return registry.Errorf(registry.NameUnknown, op.Repo, "you may not see this")
				}
				return nil
			})
		}
	})
	hidden.pushImage("open/app", "v1", "config")
	for _, path := range []string{"/manifests/v1", "/blobs/" + string(digestOf("config")), "/tags/list", "/tags/list?n=1"} {
		there := hidden.get("/v2/hidden/app"+path).fails(404, "NAME_UNKNOWN")
		absent := hidden.get("/v2/absent/app"+path).fails(404, "NAME_UNKNOWN")
		if strings.ReplaceAll(there.body, "hidden", "absent") != absent.body {
			t.Errorf("%s: hidden %s, absent %s", path, there.body, absent.body)
		}
	}
	hidden.get("/v2/hidden/app/referrers/" + string(digestOf("x"))).wants(200)
}

func TestRequestID(t *testing.T) {
	s := newServer(t)
	made := regexp.MustCompile(`^[0-9a-f]{24}$`)
	for sent, kept := range map[string]bool{
		"abc-1.Z_9": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "a b": false, "é": false, "a;b": false,
	} {
		got := s.get("/v2/", "X-Request-Id", sent).wants(200).header.Get("X-Request-Id")
		if kept && got != sent || !kept && !made.MatchString(got) {
			t.Errorf("X-Request-Id %q was answered with %q", sent, got)
		}
		if !strings.Contains(s.log.String(), `"request_id":"`+got+`"`) {
			t.Errorf("id %q is not in the log", got)
		}
	}
}

func TestIdentity(t *testing.T) {
	var opened auth.Identity
	s := newServer(t, func(o *ocihttp.Options) {
		o.Challenge = func(_ *http.Request, scope string, _ error) string { return "Bearer scope=" + scope }
		o.Identify = func(r *http.Request) (auth.Identity, error) {
			name, password, _ := r.BasicAuth()
			if password != "right" {
				return auth.Identity{}, registry.Errorf(registry.Unauthorized, "", "wrong password")
			}
			return auth.Identity{Principal: access.Principal{Kind: access.User, Name: name}}, nil
		}
		open := o.Open
		o.Open = func(id auth.Identity) registry.Registry { opened = id; return open(id) }
	})
	for _, c := range [][3]string{
		{"GET", "/v2/", ""},
		{"GET", "/v2/_catalog", "registry:catalog:*"},
		{"HEAD", "/v2/a/b/manifests/v1", "repository:a/b:pull"},
		{"GET", "/v2/a/b/tags/list", "repository:a/b:pull"},
		{"PUT", "/v2/a/b/manifests/v1", "repository:a/b:pull,push"},
		{"DELETE", "/v2/a/b/manifests/v1", "repository:a/b:delete"},
		{"POST", "/v2/a/b/blobs/uploads/", "repository:a/b:pull,push"},
		{"POST", "/v2/a/b/blobs/uploads/?from=c/d&mount=" + string(oci.SHA256.FromBytes(nil)), "repository:a/b:pull,push repository:c/d:pull"},
		{"POST", "/v2/a/b/blobs/uploads/?from=%22bad&mount=" + string(oci.SHA256.FromBytes(nil)), "repository:a/b:pull,push"},
		{"PATCH", "/v2/a/b/blobs/uploads/x", "repository:a/b:pull,push"},
	} {
		s.do(c[0], c[1], nil).wants(401, "Www-Authenticate", "Bearer scope="+c[2])
	}
	s.get("/v2/").fails(401, "UNAUTHORIZED")
	s.get("/v2/_catalog?secret=inquery", "Authorization", "Basic YW5uOnJpZ2h0").wants(200)
	if opened.Name != "ann" {
		t.Errorf("the registry was opened for %+v", opened)
	}
	for _, secret := range []string{"YW5uOnJpZ2h0", "right", "inquery"} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
	if !strings.Contains(s.log.String(), `"identity":"user:ann"`) {
		t.Error("the log does not name the caller")
	}
}

func TestPanicIsA500(t *testing.T) {
	s := newServer(t, func(o *ocihttp.Options) {
		o.Open = func(auth.Identity) registry.Registry { panic("a secret") }
	})
	a := s.get("/v2/_catalog").fails(500, "UNKNOWN")
	if strings.Contains(a.body, "secret") {
		t.Errorf("the panic reached the client: %s", a.body)
	}
	for _, want := range []string{"a secret", "TestPanicIsA500", a.header.Get("X-Request-Id")} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the log lacks %q", want)
		}
	}
}

// TestComeBack: what is not available for now may say for how long.
func TestComeBack(t *testing.T) {
	var limit *registry.Limit
	s := newServer(t, func(o *ocihttp.Options) {
		open := o.Open
		o.Open = func(id auth.Identity) registry.Registry {
			return registry.Guard(open(id), func(context.Context, registry.Op) error {
				return &registry.Error{Code: registry.Unavailable, Limit: limit}
			})
		}
	})
	s.get("/v2/a/tags/list").fails(503, "UNAVAILABLE")
	limit = &registry.Limit{RetryAfter: 61 * time.Second}
	a := s.get("/v2/a/tags/list").fails(503, "UNAVAILABLE")
	a.wants(503, "Retry-After", "61")
	if got := a.header.Get("Ratelimit-Limit"); got != "" {
		t.Errorf("a limit that is not of a rate is told as %q", got)
	}
}

// TestLimits: a refusal says how much is allowed and when to come back, in
// whole seconds that are enough.
func TestLimits(t *testing.T) {
	limit := &registry.Limit{Amount: 100, Window: time.Minute, RetryAfter: 1500 * time.Millisecond}
	s := newServer(t, func(o *ocihttp.Options) {
		open := o.Open
		o.Open = func(id auth.Identity) registry.Registry {
			return registry.Guard(open(id), func(context.Context, registry.Op) error {
				return &registry.Error{Code: registry.TooManyRequests, Limit: limit}
			})
		}
	})
	a := s.get("/v2/a/tags/list").fails(429, "TOOMANYREQUESTS")
	for key, want := range map[string]string{
		"Retry-After": "2", "Ratelimit-Limit": "100", "Ratelimit-Remaining": "0",
		"Ratelimit-Reset": "2", "Ratelimit-Policy": "100;w=60",
	} {
		a.wants(429, key, want)
	}
}
