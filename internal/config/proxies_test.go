package config

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/notation"
	"github.com/berth-registry/berth/internal/proxyspec"
)

// TestProxyProblems are found where they stand.
func TestProxyProblems(t *testing.T) {
	for _, tt := range []struct{ name, file, want string }{
		{"proxies are no list", "proxies: {name: docker.io}\n", `:1:10: proxies must be a list, each of its items beginning with - name:, not keys and values`},
		{"proxy without name", "proxies:\n  - hosts: [a]\n", `:2:10: proxies[0].name: must be given`},
		{"unknown proxy", "proxies:\n  - name: docker.io\n  - name: registry.example.com\n", `:3:9: proxies[1].upstreams: must be given, for "registry.example.com" is not a name whose address is known`},
		{"unknown in a proxy", "proxies:\n  - name: docker.io\n    tags:\n      tll: 5m\n", `:4:7: unknown key "proxies.tags.tll"; did you mean "proxies.tags.ttl"?`},
		{"unknown in a list of a proxy", "proxies:\n  - name: docker.io\n    tags:\n      ttls: [{match: a, time: 5m}]\n", `:4:25: unknown key "proxies.tags.ttls.time"; did you mean`},
		{"duration of a proxy", "proxies:\n  - name: docker.io\n    tags: {ttl: 60}\n", `:3:17: proxies[0].tags.ttl: must be a duration such as 90s, 24h or 7d, or forever, not "60"`},
		{"size of a proxy", "proxies:\n  - name: docker.io\n    cache: {size: 5 apples}\n", `:3:19: proxies[0].cache.size: must be a size such as`},
		{"list of a proxy", "proxies:\n  - name: docker.io\n    hosts: hub.example.com\n", `:3:12: proxies[0].hosts must be a list such as [a, b], not text`},
		{"number of a proxy", "proxies:\n  - name: docker.io\n    limits: {queue: many}\n", `:3:21: proxies[0].limits.queue: must be a whole number, not "many"`},
		{"boolean of a proxy", "proxies:\n  - name: docker.io\n    referrers: {push: 1}\n", `:3:23: proxies[0].referrers.push must be true or false, not a number`},
		{"item of a proxy", "proxies:\n  - name: docker.io\n    upstreams:\n      - https://a\n      - b\n", `:5:9: proxies[0].upstreams[1]: must be an address such as`},
		{"proxy is text", "proxies: [docker.io]\n", `:1:11: proxies[0] must hold keys and values, not text`},
		{"password is a number", "proxies:\n  - name: docker.io\n    credential: {username: u, password: 12345}\n", `:3:41: proxies[0].credential.password must be text, not a number; put it in quotes`},
		{"two proxies", "proxies:\n  - name: docker.io\n  - name: hub\n    upstreams: [https://a]\n    namespaces: [index.docker.io]\n", `:5:17: proxies[1].namespaces: "docker.io" is that of proxies[0] already; keep one`},
		{"own host", "url: https://hub.example.com\nproxies:\n  - name: docker.io\n    hosts: [hub.example.com:443]\n", `:4:13: proxies[0].hosts[0]: "hub.example.com:443" is this server's own url`},
		{"virtual without sources", "virtual:\n  - name: all\n", `:2:9: virtual[0].sources: must name at least one project`},
		{"virtual proxy", "proxies:\n  - name: docker.io\nvirtual:\n  - name: docker.io\n    sources: [a]\n", `:4:11: virtual[0].name: "docker.io" is that of proxies[0] already; keep one`},
		{"cache size", "proxy:\n  cache_size: 5GB\n", `:2:15: proxy.cache_size: must be a size such as`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := write(t, tt.file)
			_, err := Load(Sources{File: name})
			if err == nil {
				t.Fatal("accepted")
			}
			if got := strings.ReplaceAll(err.Error(), name, ""); !strings.Contains(got, tt.want) {
				t.Errorf("got:  %s\nwant: %s", got, tt.want)
			}
		})
	}
}

// specsText is what there is in lists, without secrets.
func specsText(t *testing.T, c *Config) string {
	t.Helper()
	proxies := slices.Clone(c.Proxies)
	for i := range proxies {
		p := &proxies[i]
		p.HTTPProxy = notation.Redacted(p.HTTPProxy)
		for _, secret := range []*string{&p.Credential.Password, &p.Credential.Token} {
			if *secret != "" {
				*secret = hiddenSecret
			}
		}
	}
	text, err := json.Marshal([]any{proxies, c.Virtuals})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const manyProxies = `proxies:
  - name: docker.io
    upstreams: [https://mirror.example.com/hub, https://registry-1.docker.io]
    hosts: [hub.example.com]
    repositories: ["library/*", "!library/old"]
    credential: {username: u, password: hunter2}
    tags:
      ttl: 5m
      ttls:
        - match: latest
          ttl: 0s
        - {match: "*.*.*", ttl: forever}
    referrers: {push: false}
    cache: {size: 500GiB}
    limits: {queue: 5, reserve: 0, bandwidth: 1000}
  - name: quay.io
    credential: {token: hunter2}
    http_proxy: http://u:hunter2@proxy:3128
virtual:
  - name: all
    sources: [team, docker.io]
`

// TestProxies: all that a list holds is read, and printed so that it can be read
// again, but for secrets.
func TestProxies(t *testing.T) {
	c := load(t, Sources{File: write(t, manyProxies)})
	hub := c.Proxies[0]
	if hub.Name != "docker.io" || hub.Upstreams[1] != "https://registry-1.docker.io" || hub.Credential.Password != "hunter2" || *hub.Tags.TTL != proxyspec.Duration(5*time.Minute) ||
		hub.Tags.TTLs[1].TTL != proxyspec.Forever || *hub.Referrers.Push || hub.Cache.Size != 500<<30 || hub.Limits.Queue != 5 || *hub.Limits.Reserve != 0 || hub.Limits.Bandwidth != 1000 {
		t.Errorf("got %+v", hub)
	}
	if c.ReservedProject("quay.io") != "proxies" || c.ReservedProject("all") != "virtual" || c.ReservedProject("team") != "" {
		t.Error("names are not reserved, or too many are")
	}
	text, err := os.ReadFile(printed(t, c))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "hunter2") {
		t.Errorf("a secret is printed:\n%s", text)
	}
	if got, want := specsText(t, load(t, Sources{File: write(t, string(text))})), specsText(t, c); got != want {
		t.Errorf("printed and read again\n%s\nfrom\n%s", got, want)
	}
}
