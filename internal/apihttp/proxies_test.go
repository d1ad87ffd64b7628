package apihttp

import (
	"bufio"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/manage"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/proxyspec"
)

// caches stand for those that a server runs: one of the configuration, and those
// of the database. Their upstreams have one image.
type caches struct {
	db    *meta.DB
	noKey bool
}

func (p *caches) Configured() ([]proxyspec.Proxy, []proxyspec.Virtual) {
	return []proxyspec.Proxy{{
		Name: "ghcr.io", Credential: proxyspec.Credential{Token: "hunter2"}, HTTPProxy: "http://u:hunter2@proxy:3128", TLS: proxyspec.TLS{CAFile: "/etc/ca.pem"},
	}, {Name: "registry.k8s.io"}, {Name: "registry.suse.com"}}, []proxyspec.Virtual{{Name: "all", Sources: []string{"ghcr.io"}}}
}

func (p *caches) Seal(_ string, secret []byte) ([]byte, error) {
	if p.noKey {
		return nil, manage.ErrNoKey
	}
	return append([]byte("sealed "), secret...), nil
}

func (p *caches) Changed(context.Context) error { return nil }

func (p *caches) ProxyStats(context.Context, string) (manage.ProxyStats, error) {
	return manage.ProxyStats{
		Bytes: 5, Stretch: 1, Endpoints: []manage.ProxyEndpoint{{Address: "https://ghcr.io"}},
		Hosts: []manage.ProxyHost{{Host: "ghcr.io", Role: "registry", State: "open", Failures: 5}},
	}, nil
}

func (p *caches) RefreshProxy(context.Context, string, string, string) error { return nil }

func (p *caches) PurgeProxy(_ context.Context, _, repo, _ string) (manage.ProxyFreed, error) {
	if strings.HasSuffix(repo, "/none") {
		return manage.ProxyFreed{}, &manage.Error{Code: manage.NotFound, Detail: "no such repository"}
	}
	return manage.ProxyFreed{Images: 1, Manifests: 2, Blobs: 3, Bytes: 4}, nil
}

func (p *caches) PrefetchProxy(_ context.Context, _, repo string, _ oci.Ref, _ []string, report func(manage.ProxyProgress)) error {
	report(manage.ProxyProgress{Manifests: 1})
	report(manage.ProxyProgress{Manifests: 1, Blobs: 2, Bytes: 30})
	if strings.HasSuffix(repo, "/none") {
		return &manage.Error{Code: manage.NotFound, Detail: "no such repository"}
	}
	return nil
}

func (p *caches) TestProxy(_ context.Context, _, repo string, _ oci.Ref, report func(manage.ProxyStep)) error {
	report(manage.ProxyStep{Endpoint: "https://ghcr.io", Name: "ping", OK: true, Detail: "it answers"})
	if repo == "none" {
		report(manage.ProxyStep{Endpoint: "https://ghcr.io", Name: "manifest HEAD", Detail: "it is not there", Advice: "look for another"})
	}
	return nil
}

// TestProxySecrets: what is given is stored sealed and never comes back.
func TestProxySecrets(t *testing.T) {
	s := populated(t)
	const put = `{"name":"docker.io","credential":{"username":"u","password":"hunter2"},"tags":{"ttl":"5m"}}`
	for _, a := range []answered{
		s.do("root", "PUT /proxies/docker.io", put).wants(200), s.do("root", "GET /proxies/docker.io", "").wants(200), s.do("root", "GET /proxies", "").wants(200), s.do("root", "GET /proxies/ghcr.io", "").wants(200),
	} {
		if strings.Contains(a.body, "hunter2") {
			t.Errorf("a secret is told: %s", a.body)
		}
	}
	stored := func() string {
		row, err := s.db.Proxy(t.Context(), "docker.io")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(row.Spec, "hunter") {
			t.Errorf("a secret is stored in the clear: %s", row.Spec)
		}
		return string(row.Secret)
	}
	if got := stored(); got != "sealed hunter2" {
		t.Errorf("stored is %q", got)
	}
	const without = `{"name":"docker.io","credential":{"username":"u"}}`
	s.do("root", "PUT /proxies/docker.io", without).wants(422)
	s.do("root", "PUT /proxies/docker.io?keepSecret=true", without).wants(200)
	if got := stored(); got != "sealed hunter2" {
		t.Errorf("kept is %q", got)
	}
	s.do("root", "PUT /proxies/docker.io?keepSecret=true", `{"name":"docker.io","credential":{"username":"other"}}`).wants(422)
	s.do("root", "PUT /proxies/docker.io?keepSecret=true", `{"name":"docker.io","credential":{"username":"u"},"upstreams":["https://evil.example"]}`).wants(422)
	s.do("root", "PUT /proxies/docker.io?keepSecret=true", put).wants(422)
	s.do("root", "PUT /proxies/docker.io", `{"name":"docker.io"}`).wants(200)
	if got := stored(); got != "" {
		t.Errorf("what was taken away is %q", got)
	}
}

// TestProxiesInPages: those of the configuration have their place among the others.
func TestProxiesInPages(t *testing.T) {
	s := populated(t)
	for _, name := range []string{"docker.io", "quay.io", "gcr.io", "mcr.microsoft.com"} {
		s.do("root", "PUT /proxies/"+name, `{"name":"`+name+`"}`).wants(200)
	}
	for _, limit := range []string{"1", "2", "3", "4", "5", "6", "7", "8"} {
		var names []string
		for after := ""; ; {
			var page List[Proxy]
			s.do("root", "GET /proxies?limit="+limit+"&after="+after, "").wants(200).into(&page)
			for _, p := range page.Items {
				names = append(names, p.Name)
			}
			if after = page.Next; after == "" {
				break
			}
		}
		if got := strings.Join(names, " "); got != "docker.io gcr.io ghcr.io mcr.microsoft.com quay.io registry.k8s.io registry.suse.com" {
			t.Errorf("in pages of %s: %s", limit, got)
		}
	}
}

// TestProxyLines: what takes long tells how it goes, and in the end how it went.
func TestProxyLines(t *testing.T) {
	s := populated(t)
	for _, tt := range []struct{ what, body, last string }{
		{"POST /proxies/ghcr.io/prefetch", `{"repository":"a","reference":"1"}`, `{"manifests":1,"blobs":2,"bytes":30,"failed":0,"done":true}`},
		{"POST /proxies/ghcr.io/prefetch", `{"repository":"none","reference":"1"}`, `{"manifests":1,"blobs":2,"bytes":30,"failed":0,"done":true,"error":"no such repository"}`},
		{"POST /proxies/ghcr.io/test", `{}`, `{"ok":true,"done":true}`},
		{"POST /proxies/ghcr.io/test", `{"repository":"none","reference":"1"}`, `{"ok":false,"done":true}`},
	} {
		a := s.do("root", tt.what, tt.body).wants(200)
		last, n := "", 0
		for lines := bufio.NewScanner(strings.NewReader(a.body)); lines.Scan(); n++ {
			if last = lines.Text(); !json.Valid([]byte(last)) {
				t.Errorf("%s: %q", tt.what, last)
			}
		}
		if last != tt.last || n < 2 {
			t.Errorf("%s: the last of %d lines is %s", tt.what, n, last)
		}
	}
}
