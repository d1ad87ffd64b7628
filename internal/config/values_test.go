package config

import (
	"strings"
	"testing"
)

func TestNetworks(t *testing.T) {
	var got []string
	for _, p := range networks("10.0.0.0/8, ::1,::ffff:192.0.2.0/120 ,::ffff:192.0.2.7") {
		got = append(got, p.String())
	}
	if want := "10.0.0.0/8 ::1/128 192.0.2.0/24 192.0.2.7/32"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNearest(t *testing.T) {
	for name, want := range map[string]string{
		"lisen": "listen", "lsiten": "listen", "LISTEN": "listen", "dat": "data", "tls.crt": "tls.cert", "tls.certificate": "tls.cert",
		"certt": "tls.cert", "sqlite.path": "metadata.sqlite.path", "expire": "uploads.expire", "log.levle": "log.level",
		"gc.unreferenced": "gc.unreferenced_after", "http.idle": "http.body_idle", "insecure": "insecure_anonymous",
		"sparse_manifests": "repositories.sparse_manifests",
	} {
		if got := nearest(name, keyPaths(), "."); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"ab", "", 2}, {"ab", "ab", 0}, {"ab", "ba", 1}, {"kitten", "sitting", 3}, {"abc", "axc", 1}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("%q to %q: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
