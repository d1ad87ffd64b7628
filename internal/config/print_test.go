package config

import (
	"strings"
	"testing"
)

func TestPrint(t *testing.T) {
	c := load(t, Sources{
		File:    write(t, "log:\n  level: warn\nrepositories:\n  - match: a/**\n    sparse_manifests: true\n  - match: b\n    untagged: 30d\n"),
		Environ: []string{"BERTH_GC_UNREFERENCED_AFTER=2d"},
		Flags:   map[string]string{"listen": ":0", "data": "/srv"},
	})
	const want = `listen: ":0" # flag
url: "" # default
other_urls: "" # default
data: "/srv" # flag
insecure_anonymous: false # default
tls:
  cert: "" # default
  key: "" # default
metadata:
  sqlite:
    path: "/srv/berth.db" # default
  postgres:
    url: "" # default
    connections: 0 # default
    timeout: 10s # default
storage:
  folder:
    path: "/srv/blobs" # default
  s3:
    bucket: "" # default
    region: "" # default
    endpoint: "" # default
    path_style: false # default
    prefix: "" # default
    public_endpoint: "" # default
    redirect: "always" # default
    redirect_networks: "" # default
    redirect_ttl: 20m # default
    part_size: 8MiB # default
    equal_parts: false # default
    memory: 32MiB # default
    total_memory: 384MiB # default
    checksum: "crc32" # default
    encryption: "" # default
    kms_key: "" # default
    storage_class: "" # default
    attempts: 8 # default
    timeout: 10s # default
auth:
  mode: "auto" # default
  token_ttl: 5m # default
  key_rotation: 720h # default
  refresh_tokens: false # default
  refresh_ttl: 2160h # default
  oidc:
    issuer: "" # default
    client_id: "" # default
    client_secret_file: "" # default
    name_claim: "preferred_username" # default
    groups_claim: "groups" # default
projects:
  newcomers: "closed" # default
  retention: 168h # default
read_only: false # default
audit:
  retention: 2160h # default
admin:
  listen: "" # default
tracing:
  endpoint: "" # default
  sample: 0.01 # default
  from_proxies: false # default
log:
  level: "warn" # file
  format: "text" # default
uploads:
  expire: 168h # default
gc:
  interval: 1m # default
  unreferenced_after: 48h # BERTH_GC_UNREFERENCED_AFTER
  untagged: "keep" # default
  orphans_after: "7d" # default
  rate: "1000/s" # default
  sweep_after: 1h # default
proxy:
  cache_size: "" # default
  networks: "" # default
secrets:
  key_file: "" # default
shutdown:
  delay: 0s # default
  grace: 30s # default
http:
  trusted_proxies: "" # default
  body_idle: 1m # default
repositories:
  - match: "a/**" # file
    sparse_manifests: true # file
  - match: "b" # file
    sparse_manifests: false # file
    untagged: "30d" # file
proxies: [] # default
virtual: [] # default
`
	var out strings.Builder
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestPrintedLiteral(t *testing.T) {
	for _, tt := range []struct {
		kind        kind
		value, want string
	}{
		{text, "https://user:hunter2@host/x", `"https://user:xxxxx@host/x"`},
		{text, `true # "x"`, `"true # \"x\""`},
		{boolean, "true", "true"},
		{duration, "24h", "24h"},
	} {
		if got := literal(tt.kind, tt.value); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.value, got, tt.want)
		}
	}
}
