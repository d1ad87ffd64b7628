package proxyspec

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func decode(t *testing.T, text string) Proxy {
	t.Helper()
	p, err := Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestCheck: each mistake is found, at its field, with what to write.
func TestCheck(t *testing.T) {
	for _, tt := range []struct{ json, want string }{
		{`{}`, `name: must be given`},
		{`{"name": "Hub"}`, `name: invalid project name "Hub"`},
		{`{"name": "a/b", "upstreams": ["https://x"]}`, `name: invalid project name "a/b"`},
		{`{"name": "registry.example.com"}`, `upstreams: must be given, for "registry.example.com" is not a name whose address is known: write the registry's, such as https://registry.example.com`},
		{`{"name": "a", "upstreams": ["registry.example.com"]}`, `upstreams[0]: must be an address such as https://`},
		{`{"name": "a", "upstreams": ["https://x", "https://u:hunter2@x"]}`, `upstreams[1]: must not hold a user or password`},
		{`{"name": "a", "upstreams": ["https://x/?a=b"]}`, `upstreams[0]: must end with its path`},
		{`{"name": "a", "upstreams": ["https://x/v2"]}`, `upstreams[0]: must end before /v2`},
		{`{"name": "a", "upstreams": ["http://x"]}`, `upstreams[0]: must be https://, unless plain_http: true`},
		{`{"name": "docker.io", "hosts": ["Hub.example.com"]}`, `hosts[0]: must be a host in lower case`},
		{`{"name": "docker.io", "namespaces": ["https://x"]}`, `namespaces[0]: must be a host`},
		{`{"name": "docker.io", "repositories": ["!nginx"]}`, `repositories[0]: matches nothing: Docker Hub has what has a name of one part under library/; write library/nginx`},
		{`{"name": "docker.io", "repositories": ["A"]}`, `repositories[0]: must be the letters of a repository name`},
		{`{"name": "docker.io", "credential": {"username": "u"}}`, `credential.username: has no password`},
		{`{"name": "docker.io", "credential": {"password": "hunter2"}}`, `credential.username: must be given with a password`},
		{`{"name": "docker.io", "credential": {"username": "u", "token": "hunter2"}}`, `credential.username: belongs to a password, not to token`},
		{`{"name": "docker.io", "credential": {"token": "hunter2", "helper": "pass"}}`, `credential: has token and helper; keep one`},
		{`{"name": "docker.io", "credential": {"token": "hun\nter2"}}`, `credential.token: must be text on one line`},
		{`{"name": "docker.io", "credential": {"helper": "../x"}}`, `credential.helper: must be the NAME of a program`},
		{`{"name": "docker.io", "credential": {"exchange": "aws"}}`, `credential.exchange: must be one of ecr, gcp, acr, not "aws"`},
		{`{"name": "docker.io", "tls": {"ca_file": "https://x"}}`, `tls.ca_file: must be a file on this machine`},
		{`{"name": "docker.io", "http_proxy": "proxy:3128"}`, `http_proxy: must be none or an address such as http://proxy.example.com:3128`},
		{`{"name": "docker.io", "networks": ["home"]}`, `networks[0]: must be an address or a network such as 10.0.0.0/8, not "home"`},
		{`{"name": "docker.io", "tags": {"ttls": [{"match": "v1/2", "ttl": "1h"}]}}`, `tags.ttls[0].match: a pattern of tags`},
		{`{"name": "docker.io", "tags": {"on_upstream_delete": "drop"}}`, `tags.on_upstream_delete: must be one of keep, follow, not "drop"`},
		{`{"name": "docker.io", "tags": {"on_upstream_delete": "follow", "keep_deleted": "1d"}}`, `tags.keep_deleted: is for on_upstream_delete: keep`},
		{`{"name": "docker.io", "tags": {"negative": "forever"}}`, `tags.negative: must end`},
		{`{"name": "docker.io", "referrers": {"unknown": "empty"}}`, `referrers.unknown: must be one of refuse, local`},
		{`{"name": "docker.io", "referrers": {"prefetch": [""]}}`, `referrers.prefetch[0]: must be an artifact type`},
		{`{"name": "docker.io", "cache": {"pins": ["library/nginx:v 1"]}}`, `cache.pins[0]: a pattern of tags`},
		{`{"name": "docker.io", "limits": {"requests": "100"}}`, `limits.requests: must be a number in a time such as 10/s, 100/m or 2500/h, not "100"`},
		{`{"name": "docker.io", "limits": {"connections": -1}}`, `limits.connections: must be a number from 1`},
		{`{"name": "docker.io", "limits": {"reserve": -1}}`, `limits.reserve: must not be negative`},
	} {
		var p Proxy
		if err := json.Unmarshal([]byte(tt.json), &p); err != nil {
			t.Errorf("%s: %v", tt.json, err)
			continue
		}
		err := Check(p)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\ngot:  %v\nwant: %s", tt.json, err, tt.want)
			continue
		}
		if field := (*FieldError)(nil); !errors.As(err, &field) {
			t.Errorf("%s: no field in %v", tt.json, err)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the secret is told: %v", tt.json, err)
		}
	}
}

const full = `{"name":"docker.io","upstreams":["https://mirror.example.com/hub","https://registry-1.docker.io"],"hosts":["hub.example.com:5000"],` +
	`"namespaces":["registry.example.com:5000"],"repositories":["library/*","!library/old"],"credential":{"username":"u","password":"p"},` +
	`"tls":{"ca_file":"/etc/ca.pem"},"http_proxy":"none","networks":["10.0.0.0/8"],"realms":["auth.example.com"],"plain_http":true,` +
	`"tags":{"ttl":"1m30s","ttls":[{"match":"v*","ttl":"forever"},{"match":"latest","ttl":"0s"}],"max_stale":"720h","on_upstream_delete":"keep","keep_deleted":"0s","negative":"5s"},` +
	`"referrers":{"ttl":"1m","max_stale":"forever","push":false,"unknown":"local","prefetch":["*"]},` +
	`"cache":{"size":"500GiB","max_idle":"2160h","pins":["library/nginx:1.*"]},"limits":{"connections":4,"queue":5,"requests":"100/m","bandwidth":"1000","reserve":0}}`

// TestJSON: what is written is what was read, in every field.
func TestJSON(t *testing.T) {
	p := decode(t, full)
	text, err := json.Marshal(p)
	if err != nil || string(text) != full {
		t.Errorf("%v\ngot  %s\nwant %s", err, text, full)
	}
	for i := range reflect.TypeFor[Proxy]().NumField() {
		if reflect.ValueOf(p).Field(i).IsZero() {
			t.Errorf("%s is not tried", reflect.TypeFor[Proxy]().Field(i).Name)
		}
	}
	for _, bad := range []string{``, `[]`, full + `{}`, `{"name":"docker.io","upstream":"https://x"}`, `{"name":"docker.io","tags":{"ttl":60}}`, `{"name":"docker.io","cache":{"size":"5 apples"}}`, `{"name":"docker.io","cache":{"size":-1}}`} {
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
	if p := decode(t, `{"name":"docker.io","cache":{"size":5000}}`); p.Cache.Size != 5000 {
		t.Errorf("a number gives %d", p.Cache.Size)
	}
}

func TestManaged(t *testing.T) {
	for _, bad := range []string{
		`"credential":{"username":"u","password_file":"/etc/shadow"}`, `"credential":{"token_file":"x"}`, `"credential":{"helper":"pass"}`,
		`"tls":{"ca_file":"/etc/ca.pem"}`, `"http_proxy":"http://u:hunter2@proxy:3128"`,
		`"networks":["169.254.169.254"]`, `"credential":{"exchange":"gcp"}`,
	} {
		p := decode(t, `{"name":"docker.io",`+bad+`}`)
		if err := CheckManaged(p); err == nil || !strings.Contains(err.Error(), "for the configuration file alone") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if err := CheckManaged(decode(t, `{"name":"docker.io","credential":{"username":"u","password":"p"},"http_proxy":"http://proxy:3128"}`)); err != nil {
		t.Error(err)
	}
}

// TestDiskFields: what CheckManaged refuses is what the fields say of themselves.
func TestDiskFields(t *testing.T) {
	for field, want := range map[string]string{"PasswordFile": "disk", "TokenFile": "disk", "Helper": "disk", "Password": "secret", "Token": "secret"} {
		f, _ := reflect.TypeFor[Credential]().FieldByName(field)
		if f.Tag.Get(want) != "true" {
			t.Errorf("%s has no tag %s", field, want)
		}
	}
}

func TestWellKnown(t *testing.T) {
	hub := decode(t, `{"name":"docker.io"}`)
	if got := hub.Endpoints(); !slices.Equal(got, []string{"https://registry-1.docker.io"}) || !hub.Library() {
		t.Errorf("docker.io is at %v", got)
	}
	quay := decode(t, `{"name":"quay.io"}`)
	if got := quay.Endpoints(); !slices.Equal(got, []string{"https://quay.io"}) || quay.Library() {
		t.Errorf("quay.io is at %v", got)
	}
	for _, text := range []string{`{"name":"hub","upstreams":["https://registry-1.docker.io"]}`, `{"name":"hub","upstreams":["https://mirror.example.com"],"namespaces":["Index.docker.io"]}`} {
		if p := decode(t, text); !p.Library() {
			t.Errorf("%s has no library/", text)
		}
	}
	for _, name := range known {
		if _, err := Decode([]byte(`{"name":"` + name + `"}`)); err != nil {
			t.Error(err)
		}
	}
}

func TestNormalNamespace(t *testing.T) {
	for ns, want := range map[string]string{
		"docker.io": "docker.io", "Docker.IO": "docker.io", "docker.io:443": "docker.io", "index.docker.io": "docker.io", "registry-1.docker.io:443": "docker.io",
		"registry.hub.docker.com": "docker.io", "quay.io:80": "quay.io", "quay.io.": "quay.io", "r:5000": "r:5000", "[::1]:443": "[::1]", "[::1]:5000": "[::1]:5000", "[::1]": "[::1]",
	} {
		if got, ok := NormalNamespace(ns); !ok || got != want {
			t.Errorf("%q: %q, %t", ns, got, ok)
		}
	}
	for _, ns := range []string{"", ":443", "a/b", "a b", "a\n", "http://a", "a:443:443", "ä.example", strings.Repeat("a", 256)} {
		if got, ok := NormalNamespace(ns); ok {
			t.Errorf("%q is taken for %q", ns, got)
		}
	}
}

func TestMatches(t *testing.T) {
	p := decode(t, full)
	allow := p.Allow()
	for name, want := range map[string]bool{"library/nginx": true, "library/old": false, "library/a/b": false, "team/nginx": false} {
		if allow(name) != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
	if all := decode(t, `{"name":"docker.io"}`); all.Allow() != nil {
		t.Error("without patterns something is refused")
	}
	but := decode(t, `{"name":"docker.io","repositories":["!library/old"]}`)
	if f := but.Allow(); f("library/old") || !f("library/new") {
		t.Error("a list of what may not be had takes away more, or less")
	}
	for tag, want := range map[string]time.Duration{"v1": -1, "latest": 0, "edge": 90 * time.Second} {
		if got := p.TagTTL("library/nginx", tag); got != want {
			t.Errorf("%s: %v", tag, got)
		}
	}
	if got := (&Proxy{}).TagTTL("a", "b"); got != time.Minute {
		t.Errorf("by default %v", got)
	}
	only := decode(t, `{"name":"quay.io","tags":{"ttls":[{"match":"team/**:v*","ttl":"1h"}]}}`)
	if only.TagTTL("team/a/b", "v1") != time.Hour || only.TagTTL("other", "v1") != time.Minute {
		t.Error("a pattern of a repository and a tag is not kept to")
	}
	if !p.Pinned("library/nginx", "1.25") || p.Pinned("library/nginx", "2") || p.Pinned("library/nginx", "") || p.Pinned("library/redis", "1.25") {
		t.Error("pins")
	}
	if p.Tags.KeepDeleted.Or(time.Hour) != 1 || p.Referrers.MaxStale.Or(time.Hour) < 99*365*24*time.Hour || (*Duration)(nil).Or(time.Hour) != time.Hour ||
		p.Tags.MaxStale.Bound() != 30*24*time.Hour || p.Referrers.MaxStale.Bound() != 0 {
		t.Error("times")
	}
}

func TestVirtual(t *testing.T) {
	for _, tt := range []struct {
		v    Virtual
		want string
	}{
		{Virtual{}, "name: must be given"},
		{Virtual{Name: "all"}, "sources: must name at least one project"},
		{Virtual{Name: "all", Sources: []string{"a", "a"}}, `sources[1]: "a" stands here twice`},
		{Virtual{Name: "all", Sources: []string{"all"}}, `sources[0]: "all" stands here twice, or is the virtual project itself`},
		{Virtual{Name: "all", Sources: []string{"A"}}, `sources[0]: invalid project name`},
	} {
		if err := CheckVirtual(tt.v); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt.v, err)
		}
	}
}

func TestCheckSet(t *testing.T) {
	ok := []Proxy{{Name: "docker.io"}, {Name: "quay.io", Hosts: []string{"quay.test"}}}
	if err := CheckSet(ok, []Virtual{{Name: "all", Sources: []string{"team", "docker.io"}}}); err != nil {
		t.Error(err)
	}
	for want, err := range map[string]error{
		`proxies[1].name: "docker.io" is that of proxies[0] already`:           CheckSet([]Proxy{{Name: "docker.io"}, {Name: "docker.io"}}, nil),
		`proxies[1].namespaces: "docker.io" is that of proxies[0] already`:     CheckSet([]Proxy{{Name: "docker.io"}, {Name: "hub", Namespaces: []string{"index.docker.io"}}}, nil),
		`proxies[1].hosts[0]: "h" is that of proxies[0] already`:               CheckSet([]Proxy{{Name: "a", Hosts: []string{"h"}}, {Name: "b", Hosts: []string{"h"}}}, nil),
		`virtual[0].name: "docker.io" is that of proxies[0] already; keep one`: CheckSet(ok, []Virtual{{Name: "docker.io"}}),
		`virtual[1].sources[0]: "a" is virtual itself; name its sources`:       CheckSet(nil, []Virtual{{Name: "a"}, {Name: "b", Sources: []string{"a"}}}),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// FuzzDecode: what is accepted is written as something with the same meaning.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(`{"name":"quay.io","cache":{"size":1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Decode(data)
		if err != nil {
			return
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if twice, _ := json.Marshal(again); string(twice) != string(text) {
			t.Errorf("%s becomes %s", text, twice)
		}
	})
}
