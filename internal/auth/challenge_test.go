package auth_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/auth"
)

func challenges(t *testing.T, urls ...string) *auth.Challenges {
	t.Helper()
	c, err := auth.NewChallenges(service, urls)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// asked is a request with a Host, which came in at 192.0.2.7:5000.
func asked(host string, secure bool) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	r.Host = host
	if secure {
		r.TLS = &tls.ConnectionState{}
	}
	local := &net.TCPAddr{IP: net.ParseIP("192.0.2.7"), Port: 5000}
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
}

func TestChallengeValue(t *testing.T) {
	c := challenges(t, "https://registry.test")
	const begin = `Bearer realm="https://registry.test/auth/token",service="registry.test"`
	for _, tt := range []struct {
		scope string
		err   error
		want  string
	}{
		{"", nil, begin},
		{"", auth.ErrCredentials, begin},
		{"repository:a/b:pull,push repository:c:pull", nil, begin + `,scope="repository:a/b:pull,push repository:c:pull"`},
		{"", auth.ErrInvalidToken, begin + `,error="invalid_token"`},
		{"repository:a:pull", fmt.Errorf("x: %w", auth.ErrInsufficientScope), begin + `,scope="repository:a:pull",error="insufficient_scope"`},
		{"repository:a\",x=\"y:pull", nil, begin},
		{"a\r\nSet-Cookie: x", nil, begin},
	} {
		if got := c.Value(asked("registry.test", true), tt.scope, tt.err); got != tt.want {
			t.Errorf("%q, %v: %s; want %s", tt.scope, tt.err, got, tt.want)
		}
	}
}

// TestChallengeAt: who came by another name of this server's gets a token there.
func TestChallengeAt(t *testing.T) {
	hub := func(r *http.Request) bool { return strings.HasPrefix(r.Host, "hub.test") }
	named, nameless := challenges(t, "https://registry.test"), challenges(t)
	named.AlsoAt(hub)
	nameless.AlsoAt(hub)
	for _, tt := range []struct {
		c          *auth.Challenges
		host, want string
	}{
		{named, "hub.test", `Bearer realm="https://hub.test/auth/token",service="registry.test"`},
		{named, "other.test", `Bearer realm="https://registry.test/auth/token",service="registry.test"`},
		{named, `hub.test",x="`, `Bearer realm="https://registry.test/auth/token",service="registry.test"`},
		{nameless, "hub.test:5000", `Bearer realm="http://hub.test:5000/auth/token",service="registry.test"`},
	} {
		if got := tt.c.Value(asked(tt.host, false), "", nil); got != tt.want {
			t.Errorf("%s: %s; want %s", tt.host, got, tt.want)
		}
	}
}

// TestChallengeHosts: only what is configured, or plainly this machine, is ever
// named.
func TestChallengeHosts(t *testing.T) {
	named := challenges(t, "https://Registry.test/", "http://mirror.test:5000/sub", "https://alias.test:443")
	nameless := challenges(t)
	const basic = `Basic realm="Berth"`
	for _, tt := range []struct {
		c      *auth.Challenges
		host   string
		secure bool
		want   string // realm, or all of it
	}{
		{named, "registry.test", true, "https://Registry.test/auth/token"},
		{named, "REGISTRY.test:443", true, "https://Registry.test/auth/token"},
		{named, "mirror.test:5000", false, "http://mirror.test:5000/sub/auth/token"},
		{named, "alias.test", true, "https://alias.test:443/auth/token"},
		{named, "mirror.test", false, "https://Registry.test/auth/token"},
		{named, "evil.test", true, "https://Registry.test/auth/token"},
		{named, `evil.test",x="`, true, "https://Registry.test/auth/token"},
		{named, "localhost:5000", false, "https://Registry.test/auth/token"},
		{nameless, "localhost:5000", false, "http://localhost:5000/auth/token"},
		{nameless, "localhost", true, "https://localhost/auth/token"},
		{nameless, "127.0.0.1:5000", false, "http://127.0.0.1:5000/auth/token"},
		{nameless, "127.9.9.9", false, "http://127.9.9.9/auth/token"},
		{nameless, "[::1]:5000", true, "https://[::1]:5000/auth/token"},
		{nameless, "[::1]", false, "http://[::1]/auth/token"},
		{nameless, "192.0.2.7:5000", false, "http://192.0.2.7:5000/auth/token"},
		{nameless, "192.0.2.7:5001", false, basic},
		{nameless, "192.0.2.7", false, basic},
		{nameless, "192.0.2.8:5000", false, basic},
		{nameless, "registry.test", true, basic},
		{nameless, "localhost.evil.test", false, basic},
		{nameless, "localhost:5000/x", false, basic},
		{nameless, "localhost:99999", false, basic},
		{nameless, `localhost",x="y:5000`, false, basic},
		{nameless, "[::1%25x]:5000", false, basic},
		{nameless, "127.0.0.1\r\nx: y", false, basic},
		{nameless, "", false, basic},
	} {
		want := tt.want
		if want != basic {
			want = `Bearer realm="` + want + `",service="registry.test"`
		}
		if got := tt.c.Value(asked(tt.host, tt.secure), "", nil); got != want {
			t.Errorf("%q: %s; want %s", tt.host, got, want)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, base := range []string{"https://registry.test", "http://localhost:5000", "https://registry.test/sub/", "http://[::1]:5000"} {
		if err := auth.Validate(base, service); err != nil {
			t.Errorf("%s: %v", base, err)
		}
	}
	for _, base := range []string{
		"", "not a url", "registry.test", "ftp://registry.test", "https://", "https:///x", "https://:5000", `https://a"b.test`, "https://a.test/\r\nx",
		"https://a.test/é", "https://user:swordfish@a.test", "https://a.test?x", "https://a.test?", "https://a.test#x", `https://a.test/\`, "https://a.test/%zz",
	} {
		err := auth.Validate(base, service)
		if err == nil || strings.Contains(err.Error(), "swordfish") {
			t.Errorf("%s: %v", base, err)
		}
		if _, err := auth.NewChallenges(service, []string{base}); err == nil {
			t.Errorf("%s is used", base)
		}
	}
	for _, name := range []string{"", ":5000", `a"b`, "a\nb", `a\b`, "ä"} {
		if auth.Validate("https://registry.test", name) == nil {
			t.Errorf("service %q is valid", name)
		}
	}
}

func TestServiceOf(t *testing.T) {
	for want, urls := range map[string][]string{
		"berth": nil, "registry.test": {"https://Registry.test/x", "https://other.test"}, "localhost:5000": {"http://localhost:5000"},
	} {
		if got := auth.ServiceOf(urls); got != want {
			t.Errorf("%q: %q", urls, got)
		}
	}
}

func TestErrors(t *testing.T) {
	if !errors.Is(auth.ErrInvalidToken, auth.ErrCredentials) || !errors.Is(auth.ErrInsufficientScope, auth.ErrCredentials) {
		t.Error("the errors below ErrCredentials are not")
	}
}
