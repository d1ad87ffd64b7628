package credential

import (
	"net/url"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/registry"
)

func TestRealms(t *testing.T) {
	for _, c := range []struct {
		upstream, realm string
		listed          string
		ok              bool
	}{
		{"https://registry-1.docker.io", "https://auth.docker.io/token", "", true},
		{"https://registry-1.docker.io", "https://AUTH.Docker.IO./token", "", true},
		{"https://ghcr.io", "https://ghcr.io/token", "", true},
		{"https://registry.gitlab.com", "https://gitlab.com/jwt/auth", "", true},
		{"https://quay.io", "https://quay.io/v2/auth", "", true},
		{"https://lscr.io", "https://ghcr.io/token", "", false},
		{"https://lscr.io", "https://ghcr.io/token", "GHCR.io", true},
		{"https://registry-1.docker.io", "http://auth.docker.io/token", "", false},
		{"https://registry-1.docker.io", "http://auth.docker.io/token", "auth.docker.io", false},
		{"http://registry.example.com", "http://auth.example.com/token", "", true},
		{"http://registry.example.com", "https://auth.example.com/token", "", true},
		{"https://registry.example.com", "https://example.com.evil.test/token", "", false},
		{"https://registry.example.com", "https://evil-example.com/token", "", false},
		{"https://registry.example.com", "https://auth.example.com@evil.test/token", "", false},
		{"https://registry.example.com", "https://user@auth.example.com/token", "", false},
		{"https://registry.example.com", "https://auth.example.com/token#x", "", false},
		{"https://registry.example.com", "ftp://auth.example.com/token", "", false},
		{"https://registry.example.com", "https:auth.example.com/token", "", false},
		{"https://registry.example.com", "https:///token", "", false},
		{"https://registry.example.com", "https://:443/token", "", false},
		{"https://registry.example.com", "/token", "", false},
		{"https://registry.example.com", "https://auth.example.com/\x00", "", false},
		{"https://registry.example.com", "https://auth.example.com/" + strings.Repeat("x", maxRealm), "", false},
		{"https://one.co.uk", "https://two.co.uk/token", "", false},
		{"https://one.github.io", "https://two.github.io/token", "", false},
		{"https://registry", "https://auth/token", "", false},
		{"https://registry", "https://registry/token", "", true},
		{"https://registry.svc", "https://auth.svc/token", "", false},
		{"http://localhost:5000", "http://localhost:5001/token", "", true},
		{"http://127.0.0.1:5000", "http://127.0.0.1:5001/token", "", true},
		{"http://127.0.0.1:5000", "http://localhost:5001/token", "", false},
		{"http://127.0.0.1:5000", "http://127.0.0.2:5001/token", "", false},
		{"http://10.0.0.1", "http://11.0.0.1/token", "", false},
		{"http://[::1]:5000", "http://[::1]:5001/token", "", true},
		{"http://[fe80::1]", "http://[fe80::2]/token", "", false},
		{"https://git.internal", "https://sso.other:8443/token", "sso.other:8443", true},
		{"https://git.internal", "https://sso.other:8444/token", "sso.other:8443", false},
		{"https://git.internal", "https://sso.other:8444/token", "sso.other", true},
	} {
		u, err := url.Parse(c.upstream)
		if err != nil {
			t.Fatal(err)
		}
		r := realms{upstream: u}
		if c.listed != "" {
			r.listed = []string{c.listed}
		}
		_, err = r.check(c.realm)
		if (err == nil) != c.ok || err != nil && !registry.IsCode(err, registry.Faulty) {
			t.Errorf("%s sends us to %.60q (listed %q): %v", c.upstream, c.realm, c.listed, err)
		}
		if err != nil && strings.Contains(err.Error(), "/token") {
			t.Errorf("an error repeats an address: %v", err)
		}
	}
}
