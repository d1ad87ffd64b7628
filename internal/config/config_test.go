package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/notation"
)

// write makes a configuration file of content and returns its name.
func write(t testing.TB, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "berth.yaml")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func load(t *testing.T, s Sources) *Config {
	t.Helper()
	c, err := Load(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	c := load(t, Sources{})
	var want Config
	want.Tracing.Sample = 0.01
	want.Listen = "127.0.0.1:5000"
	want.Data = "./berth-data"
	want.Metadata.SQLite.Path = "berth-data/berth.db"
	want.Metadata.Postgres.Timeout = 10 * time.Second
	want.Storage.Folder.Path = "berth-data/blobs"
	want.Storage.S3 = S3{
		Redirect: "always", RedirectTTL: 20 * time.Minute, PartSize: 8 << 20, Memory: 32 << 20, TotalMemory: 384 << 20,
		Checksum: "crc32", Attempts: 8, Timeout: 10 * time.Second,
	}
	want.Auth.Mode = "auto"
	want.Auth.TokenTTL, want.Auth.KeyRotation, want.Auth.RefreshTTL = 5*time.Minute, 30*24*time.Hour, 90*24*time.Hour
	want.Auth.OIDC.NameClaim, want.Auth.OIDC.GroupsClaim = "preferred_username", "groups"
	want.Projects.Newcomers, want.Projects.Retention = "closed", 7*24*time.Hour
	want.Audit.Retention = 90 * 24 * time.Hour
	want.Log.Level, want.Log.Format = "info", "text"
	want.Uploads.Expire = 168 * time.Hour
	want.GC = GC{Interval: time.Minute, UnreferencedAfter: 24 * time.Hour, Untagged: "keep", OrphansAfter: "7d", Rate: "1000/s", SweepAfter: time.Hour}
	want.Shutdown.Grace = 30 * time.Second
	want.HTTP.BodyIdle = time.Minute
	want.origins = c.origins
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("got  %+v\nwant %+v", *c, want)
	}
}

func TestPrecedence(t *testing.T) {
	file := write(t, "listen: :1\ndata: /file\nlog: {level: warn, format: json}\n")
	c := load(t, Sources{
		File:    file,
		Environ: []string{"BERTH_LISTEN=:2", "BERTH_DATA=/env", "BERTH_LOG_FORMAT=", "PATH=/bin"},
		Flags:   map[string]string{"listen": ":3"},
	})
	if c.Listen != ":3" || c.Data != "/env" || c.Log.Level != "warn" || c.Log.Format != "json" {
		t.Errorf("listen %q, data %q, log %+v", c.Listen, c.Data, c.Log)
	}
	if c.Metadata.SQLite.Path != "/env/berth.db" || c.Storage.Folder.Path != "/env/blobs" {
		t.Errorf("derived from data: %q, %q", c.Metadata.SQLite.Path, c.Storage.Folder.Path)
	}
}

// Each key can be set by its variable, and by the file, to something else than
// its default.
func TestEveryKey(t *testing.T) {
	other := map[kind]string{text: "else", boolean: "true", duration: "36h", size: "16MiB", number: "3", share: "0.25"}
	special := map[string]string{
		"gc.untagged": "30d", "gc.orphans_after": "keep", "gc.rate": "50",
		"listen": "[::1]:0", "log.level": "debug", "log.format": "json",
		"url": "https://r.test/x", "other_urls": "http://a:5000,https://b", "auth.mode": "required",
		"auth.oidc.issuer": "https://id", "projects.newcomers": "claim", "http.trusted_proxies": "10.0.0.0/8, ::1", "admin.listen": "[::1]:9000", "tracing.endpoint": "http://collector:4318",
		"metadata.postgres.url": "postgres://berth@localhost/berth", "storage.s3.endpoint": "http://localhost:9000",
		"storage.s3.public_endpoint": "https://s3.test", "storage.s3.redirect": "networks", "storage.s3.redirect_networks": "10.0.0.0/8, ::1",
		"proxy.cache_size": "500GiB", "proxy.networks": "10.0.0.0/8, ::1",
		"storage.s3.redirect_ttl": "1h", "storage.s3.checksum": "md5", "storage.s3.encryption": "aws:kms",
	}
	// Keys that others have to stand beside.
	beside := map[string][]string{
		"tls.cert": {"BERTH_TLS_KEY=else"}, "tls.key": {"BERTH_TLS_CERT=else"},
		"auth.oidc.issuer": {"BERTH_AUTH_OIDC_CLIENT_ID=x", "BERTH_URL=https://x"}, "auth.oidc.client_id": {"BERTH_AUTH_OIDC_ISSUER=https://x", "BERTH_URL=https://x"},
		"other_urls": {"BERTH_URL=https://x"}, "storage.s3.kms_key": {"BERTH_STORAGE_S3_ENCRYPTION=aws:kms"},
		"storage.s3.redirect": {"BERTH_STORAGE_S3_REDIRECT_NETWORKS=10.0.0.1"}, "storage.s3.redirect_networks": {"BERTH_STORAGE_S3_REDIRECT=networks"},
	}
	for _, k := range keys {
		t.Run(k.path, func(t *testing.T) {
			value := special[k.path]
			if value == "" {
				value = other[k.kind]
			}
			c := load(t, Sources{Environ: append(beside[k.path], k.env()+"="+value)})
			if got := k.get(c); got != value {
				t.Fatalf("%s=%s gives %q", k.env(), value, got)
			}
			again := load(t, Sources{File: printed(t, c)})
			if got := k.get(again); got != value {
				t.Errorf("printed and read again: %q", got)
			}
		})
	}
}

// printed is the name of a file with what c prints.
func printed(t testing.TB, c *Config) string {
	t.Helper()
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	return write(t, out.String())
}

func TestFileProblems(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		want       []string // each at the file's name
	}{
		{"unknown", "lisen: :1\n", []string{`:1:1: unknown key "lisen"; did you mean "listen"?`}},
		{"unknown below", "tls:\n  crt: x\n", []string{`:2:3: unknown key "tls.crt"; did you mean "tls.cert"?`}},
		{"too high", "token_ttll: x\n", []string{`:1:1: unknown key "token_ttll"; did you mean "auth.token_ttl"?`}},
		{"moved", "auth:\n  htpasswd: x\n", []string{`:2:3: the key auth.htpasswd is gone; Berth keeps users itself now`}},
		{"network", "http:\n  trusted_proxies: 10.0.0.0/8, home\n", []string{`must be an address or a network such as 10.0.0.0/8, not "home"`}},
		{"URL", "url: registry.example.com\n", []string{`must be an address such as https://registry.example.com`}},
		{"URL with a quote", `url: 'https://x/"'` + "\n", []string{`must be an address such as`}},
		{"two storages", "storage:\n  folder:\n    path: x\n  s3:\n    bucket: y\n", []string{`exclude each other`}},
		{"networks of nobody", "storage:\n  s3:\n    redirect: networks\n", []string{`storage.s3.redirect_networks belong together`}},
		{"networks for nothing", "storage:\n  s3:\n    redirect_networks: 10.0.0.0/8\n", []string{`storage.s3.redirect_networks belong together`}},
		{"redirected to nowhere", "storage:\n  s3:\n    redirect: never\n    public_endpoint: https://x\n", []string{`storage.s3.public_endpoint is for redirection`}},
		{"redirect", "storage:\n  s3:\n    redirect: sometimes\n", []string{`:3:15: storage.s3.redirect: must be one of always, never, networks, not "sometimes"`}},
		{"long URL", "storage:\n  s3:\n    redirect_ttl: 1d\n", []string{`must be at most 12h, not "1d"`}},
		{"short URL", "storage:\n  s3:\n    redirect_ttl: 5s\n", []string{`must be at least 1m, not "5s"`}},
		{"key of nothing", "storage:\n  s3:\n    kms_key: x\n", []string{`needs storage.s3.encryption: aws:kms`}},
		{"encryption", "storage:\n  s3:\n    encryption: rot13\n", []string{`must be one of AES256, aws:kms, not "rot13"`}},
		{"no unit of a size", "storage:\n  s3:\n    memory: 33554432\n", []string{`:3:13: storage.s3.memory: must be a size such as 512KiB, 32MiB or 1GiB, not "33554432"`}},
		{"another unit", "storage:\n  s3:\n    memory: 32MB\n", []string{`must be a size such as`}},
		{"part too small", "storage:\n  s3:\n    part_size: 4MiB\n", []string{`storage.s3.part_size: must be from 5MiB to 64MiB, not "4MiB"`}},
		{"part too large", "storage:\n  s3:\n    part_size: 1GiB\n", []string{`must be from 5MiB to 64MiB`}},
		{"no attempt", "storage:\n  s3:\n    attempts: 0\n", []string{`:3:15: storage.s3.attempts: must be a number from 1 to 20, not "0"`}},
		{"attempts in words", "storage:\n  s3:\n    attempts: many\n", []string{`must be a number from 1 to 20, not "many"`}},
		{"prefix", "storage:\n  s3:\n    prefix: /berth\n", []string{`storage.s3.prefix must not begin with a slash`}},
		{"two databases", "metadata:\n  sqlite:\n    path: x\n  postgres:\n    url: postgres://x\n", []string{`exclude each other`}},
		{"no database", "metadata:\n  postgres:\n    url: mysql://root:secret@x\n", []string{`must be a URL such as postgres://berth@localhost/berth, not "mysql://root:xxxxx@x"`}},
		{"half a provider", "auth:\n  oidc:\n    issuer: https://id\n", []string{`auth.oidc.issuer and auth.oidc.client_id belong together`}},
		{"open and shut", "insecure_anonymous: true\nauth:\n  mode: required\n", []string{`contradict each other`}},
		{"hyphen", "gc:\n  unreferenced-after: 1h\n", []string{`:2:3: unknown key "gc.unreferenced-after"; did you mean "gc.unreferenced_after"?`}},
		{"unknown in a rule", "repositories:\n  - match: a\n    sparse: true\n", []string{`:3:5: unknown key "repositories.sparse"; did you mean "repositories.sparse_manifests"?`}},
		{"all at once", "lisen: x\ngc: {intervall: 1m}\n", []string{`:1:1: unknown key "lisen"`, `:2:6: unknown key "gc.intervall"; did you mean "gc.interval"?`}},
		{"twice", "data: a\nlisten: :1\ndata: b\n", []string{`:3:1: "data" is already set in line 1; keep one`}},
		{"group twice", "log: {level: info}\nlog: {format: text}\n", []string{`:2:1: "log" is already set in line 1`}},
		{"number for text", "data: 5\n", []string{`:1:7: data must be text, not a number; put it in quotes`}},
		{"list for text", "\nlisten: [::1]:5000\n", []string{`:2:`}},
		{"text for group", "tls: on\n", []string{`:1:6: tls must hold keys and values, not text`}},
		{"group for text", "listen: {port: 5}\n", []string{`listen must be text, not keys and values`}},
		{"text for boolean", "insecure_anonymous: yes\n", []string{`:1:21: insecure_anonymous must be true or false, not text`}},
		{"no unit", "shutdown:\n  grace: 30\n", []string{`:2:10: shutdown.grace: must be a duration such as 90s, 24h or 7d, not "30"`}},
		{"negative", "gc: {interval: -1m}\n", []string{`gc.interval: must be a duration`}},
		{"zero", "gc: {interval: 0s}\n", []string{`:1:16: gc.interval: must be more than nothing`}},
		{"share", "tracing: {sample: 1.5}\n", []string{`:1:19: tracing.sample: must be a number from 0 to 1, not "1.5"`}},
		{"no share", "tracing: {sample: NaN}\n", []string{`tracing.sample: must be a number from 0 to 1, not "NaN"`}},
		{"no value", "listen:\n", []string{`:1:1: listen has no value; give it one or remove the line`}},
		{"no port", "listen: localhost\n", []string{`:1:9: listen: must be host:port, such as`}},
		{"big port", "listen: :65536\n", []string{`listen: the port must be a number from 0 to 65535, not "65536"`}},
		{"level", "log: {level: loud}\n", []string{`log.level: must be one of debug, info, warn, error, not "loud"`}},
		{"empty", "data: ''\n", []string{`:1:7: data: must not be empty`}},
		{"control character", `data: "a\nb"`, []string{`data: must be UTF-8 on one line`}},
		{"half of TLS", "tls: {cert: a}\n", []string{"tls.cert and tls.key belong together"}},
		{"top level", "- a\n", []string{`:1:1: the file must hold keys and values, not a list`}},
		{"syntax", "listen: \"a\n", []string{`:1:9: `}},
		{"anchor", "data: &a x\n", []string{`:1:7: anchors, aliases, tags`}},
		{"tag", "data: !!str x\n", []string{`anchors, aliases, tags`}},
		{"deep", "data: " + strings.Repeat("[", 100_000), []string{`:1:23: too deep`}},
		{"deep block", strings.Repeat("- ", 100) + "a", []string{`too deep`}},
		{"many", strings.Repeat("a: 1\n", 50_000), []string{`the file is too long`}},
		{"two documents", "data: a\n---\ndata: b\n", []string{`:2:1: a second document begins here; keep one`}},
		{"rules are no list", "repositories: {match: a}\n", []string{`repositories must be a list of rules`}},
		{"kept for a word", "gc:\n  untagged: forever\n", []string{`:2:13: gc.untagged: must be keep, or a duration such as 90s, 24h or 7d, not "forever"`}},
		{"kept for nothing", "gc:\n  orphans_after: 0s\n", []string{`gc.orphans_after: must be keep, or a duration`}},
		{"rate", "gc:\n  rate: 5/m\n", []string{`gc.rate: must be a number a second such as 1000/s, or 0 for no bound, not "5/m"`}},
		{"untagged in a rule", "repositories:\n  - match: a\n    untagged: never\n", []string{`:3:15: repositories[0].untagged: must be keep, or`}},
		{"rule without match", "repositories:\n  - sparse_manifests: true\n", []string{`repositories[0] has no match`}},
		{"rule is text", "repositories:\n  - team/*\n", []string{`:2:5: repositories[0] must hold keys and values, not text`}},
		{"rule's pattern", "repositories:\n  - match: Team\n", []string{`:2:12: repositories[0].match: must be the letters of a repository name`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := write(t, tt.file)
			_, err := Load(Sources{File: name})
			if err == nil {
				t.Fatal("accepted")
			}
			got := strings.ReplaceAll(err.Error(), name, "")
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("got:  %s\nwant: %s", got, want)
				}
			}
		})
	}
}

func TestProblemsAreBounded(t *testing.T) {
	var file strings.Builder
	for i := range 1000 {
		file.WriteString("x" + strings.Repeat("y", i) + ": 1\n")
	}
	_, err := Load(Sources{File: write(t, file.String())})
	if err == nil {
		t.Fatal("accepted")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != maxProblems+1 || lines[maxProblems] != "and more; mend these first" {
		t.Errorf("%d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
}

func TestFileIsBounded(t *testing.T) {
	_, err := Load(Sources{File: write(t, strings.Repeat("#", maxFile+1))})
	if err == nil || !strings.Contains(err.Error(), "is larger than 1048576 bytes") {
		t.Errorf("got %v", err)
	}
	load(t, Sources{File: write(t, strings.Repeat("#", maxFile))})
}

func TestAbsentFile(t *testing.T) {
	if _, err := Load(Sources{File: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("accepted")
	}
}

func TestEnvironAndFlagProblems(t *testing.T) {
	for _, tt := range []struct {
		name    string
		sources Sources
		want    string
	}{
		{"unknown variable", Sources{Environ: []string{"BERTH_LSTEN=:1"}}, "unknown variable BERTH_LSTEN; did you mean BERTH_LISTEN?"},
		{"level forgotten", Sources{Environ: []string{"BERTH_GC_UNREFERENCED=1h"}}, "did you mean BERTH_GC_UNREFERENCED_AFTER?"},
		{"port", Sources{Environ: []string{"BERTH_PORT=5000"}}, "unknown variable BERTH_PORT"},
		{"wrong value", Sources{Environ: []string{"BERTH_GC_INTERVAL=soon"}}, `BERTH_GC_INTERVAL: must be a duration such as 90s, 24h or 7d, not "soon"`},
		{"wrong flag value", Sources{Flags: map[string]string{"listen": "x"}}, "--listen: must be host:port"},
		{"empty flag", Sources{Flags: map[string]string{"data": ""}}, "--data: must not be empty"},
		{"unknown flag", Sources{Flags: map[string]string{"tls.certs": "x"}}, "--tls-certs: sets the unknown key tls.certs; did you mean tls.cert?"},
		{"password of a URL", Sources{Flags: map[string]string{"data": "s3://u:hunter2@h/"}}, `--data: must be a path on this machine, not the URL "s3://u:xxxxx@h/"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(tt.sources)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got:  %v\nwant: %s", err, tt.want)
			}
		})
	}
}

// Kubernetes sets variables for a Service that is named berth.
func TestKubernetesVariables(t *testing.T) {
	load(t, Sources{Environ: []string{
		"BERTH_SERVICE_HOST=10.0.0.1", "BERTH_SERVICE_PORT=5000", "BERTH_SERVICE_PORT_HTTP=5000",
		"BERTH_PORT=tcp://10.0.0.1:5000", "BERTH_PORT_5000_TCP=tcp://10.0.0.1:5000", "BERTH_PORT_5000_TCP_PROTO=tcp",
		"BERTH_PORT_5000_TCP_PORT=5000", "BERTH_PORT_5000_TCP_ADDR=10.0.0.1",
		"BERTH_DB_SERVICE_HOST=10.0.0.2", "BERTH_DB_PORT=tcp://10.0.0.2:5432",
	}})
}

func TestExample(t *testing.T) {
	c := load(t, Sources{File: "../../examples/berth.yaml"})
	if c.Listen != "0.0.0.0:5000" || c.TLS.Key != "/etc/berth/tls.key" || c.Uploads.Expire != 7*24*time.Hour {
		t.Errorf("got %+v", c)
	}
	for repo, want := range map[string]bool{"mirror/a": true, "mirror/a/b": true, "mirror/a/complete": false, "team/a": false} {
		if got := c.Sparse(repo); got != want {
			t.Errorf("Sparse(%q) = %t", repo, got)
		}
	}
}

// parse is Load of a file of content, without the disk.
func parse(content []byte) (*Config, error) {
	l := newLoader()
	(&file{loader: l, name: "berth.yaml"}).read(content)
	return l.finish()
}

// FuzzLoad: whatever the file, loading ends, and what it accepts is printed as
// something that it accepts with the same meaning.
func FuzzLoad(f *testing.F) {
	example, err := os.ReadFile("../../examples/berth.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	for _, seed := range []string{manyProxies, "proxies: [{name: quay.io}]\nvirtual: [{name: a, sources: [b]}]", "", "listen: ':1'", "log: {level: debug}", "repositories: [{match: '**'}]", "a: [", "data: &a [*a]", "data: \"\\x41\"", "--- {}\n---", "? a\n: b"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		c, err := parse(content)
		if err != nil {
			return
		}
		var printed bytes.Buffer
		if err := c.Print(&printed); err != nil {
			t.Fatal(err)
		}
		again, err := parse(printed.Bytes())
		if err != nil {
			t.Fatalf("what was printed is refused: %v", err)
		}
		for i := range keys {
			if got, want := keys[i].get(again), notation.Redacted(keys[i].get(c)); got != want {
				t.Errorf("%s: %q, printed and read again %q", keys[i].path, want, got)
			}
		}
		if !reflect.DeepEqual(again.Repositories, c.Repositories) {
			t.Errorf("rules: %v, printed and read again %v", c.Repositories, again.Repositories)
		}
		if got, want := specsText(t, again), specsText(t, c); got != want {
			t.Errorf("proxies: %s, printed and read again %s", want, got)
		}
	})
}

// TestShares are numbers in the file, with or without a point.
func TestShares(t *testing.T) {
	for text, want := range map[string]float64{"0.25": 0.25, "1": 1, "0": 0, `"0.5"`: 0.5} {
		c := load(t, Sources{File: write(t, "tracing: {sample: "+text+"}\n")})
		if c.Tracing.Sample != want {
			t.Errorf("%s gives %v", text, c.Tracing.Sample)
		}
	}
}
