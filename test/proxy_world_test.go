package test

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/berth-registry/berth/test/upstreamtest"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"
)

// app is the repository of the upstream that most tests of caches read.
const app = "team/app"

// spec is a proxy of the configuration file.
type spec map[string]any

// with is a copy in which some keys have other values.
func (s spec) with(more spec) spec {
	s = maps.Clone(s)
	maps.Copy(s, more)
	return s
}

// ofNow has all that was heard of a tag be too old at once.
func ofNow() spec { return spec{"tags": spec{"ttl": "1ms"}} }

// caching is one Berth, of one process or two replicas, with caches.
type caching struct {
	t        *testing.T
	base     []string // addresses of the replicas
	entry    string   // the address for clients
	key      string   // the administrator's
	replicas int

	restart func(t *testing.T, config string) // with another configuration
	stop    func(t *testing.T)
	rows    *sql.DB // its database
}

// proxies is the part of a configuration that says what to cache.
func proxies(specs map[string]spec) string {
	var text strings.Builder
	text.WriteString("proxies:\n")
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		fmt.Fprintf(&text, "  - %s\n", asJSON(specs[name].with(spec{"name": name}))) // JSON is YAML
	}
	return text.String()
}

// oneProcess is a Berth on SQLite and a folder. data is where it keeps all; PORT
// in config is the one that it listens on.
func oneProcess(t *testing.T, data, config string) *caching {
	t.Helper()
	out, err := berth("admin", "reset", "--data", data).Output()
	if err != nil {
		t.Fatalf("berth admin reset: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	address := freeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	c := &caching{t: t, replicas: 1, entry: "http://" + address, base: []string{"http://" + address}, key: lines[len(lines)-1]}
	var s *server
	begin := func(t *testing.T, config string) {
		t.Helper()
		file := filepath.Join(c.t.TempDir(), "berth.yaml")
		write(t, file, strings.ReplaceAll(config, "PORT", port))
		s = &server{log: &logBook{ready: make(chan string, 1)}, done: make(chan struct{})}
		running := s
		s.cmd = berth("serve", "--config", file, "--listen", address, "--url", c.entry, "--data", data)
		s.cmd.Env = append(s.cmd.Env, "BERTH_AUTH_MODE=required")
		s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
		if err := s.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { running.err = running.cmd.Wait(); close(running.done) }()
		select {
		case <-s.log.ready:
		case <-s.done:
			t.Fatalf("berth serve ended: %v\n%s", s.err, s.log.tail())
		}
	}
	begin(t, config)
	c.stop = func(t *testing.T) {
		t.Helper()
		http.DefaultClient.CloseIdleConnections()
		if err := s.terminate(); err != nil {
			t.Error(err)
		}
	}
	c.restart = func(t *testing.T, config string) {
		t.Helper()
		c.stop(t)
		begin(t, config)
	}
	c.rows = opened(t, "sqlite", "file:"+filepath.Join(data, "berth.db")+"?_pragma=busy_timeout(10000)")
	t.Cleanup(func() {
		select {
		case <-s.done:
		default:
			s.kill()
		}
		if t.Failed() {
			t.Logf("end of the server's log:\n%s", s.log.tail())
		}
	})
	return c
}

// twoReplicas is a Berth on PostgreSQL and S3. dir is where all of it lies.
func twoReplicas(t *testing.T, dir, config string) *caching {
	t.Helper()
	file := filepath.Join(t.TempDir(), "berth.yaml")
	whole := func(config string) string { return readFile(t, "../examples/replicas/berth.yaml") + config }
	write(t, file, whole(config))
	f, err := startFleet(dir, "CONFIG="+file, "BERTH_SHUTDOWN_DELAY=0s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.must(t, "down")
		if t.Failed() {
			t.Log(f.logs())
		}
	})
	return &caching{
		t: t, replicas: 2, entry: f.env["URL"], base: []string{f.env["BERTH_1"], f.env["BERTH_2"]}, key: f.key,
		restart: func(t *testing.T, config string) {
			t.Helper()
			write(t, file, whole(config))
			for _, replica := range []string{"berth-1", "berth-2"} {
				f.must(t, "restart", replica)
			}
		},
		stop: func(t *testing.T) { f.must(t, "stop", "berth-1"); f.must(t, "stop", "berth-2") },
		rows: opened(t, "pgx", f.env["POSTGRES_URL"]),
	}
}

// roomFor is a folder of the test's that PostgreSQL, which is another user, may
// enter.
func roomFor(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(shared.dir, "caching-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func opened(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(4)
	t.Cleanup(func() { db.Close() })
	return db
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// at speaks as the administrator to one replica; 0 is the first.
func (c *caching) at(replica int) *api {
	base := c.base[replica%len(c.base)]
	return &api{base: base, http: &http.Client{Transport: authorized{basicHeader("admin", c.key), hostOf(base)}}}
}

// inTurn speaks as the administrator to another replica with each request.
func (c *caching) inTurn() *api {
	return &api{base: c.base[0], http: &http.Client{Transport: &turns{c: c}}}
}

// place is where clients find it.
func (c *caching) place() *place {
	a := &api{base: c.entry, http: &http.Client{Transport: authorized{basicHeader("admin", c.key), hostOf(c.entry)}}}
	return &place{api: a, user: "admin", secret: c.key}
}

func hostOf(base string) string { return strings.TrimPrefix(base, "http://") }

// turns is a transport that sends what goes to the first replica to each in turn.
type turns struct {
	c *caching
	n atomic.Int64
}

func (a *turns) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != hostOf(a.c.base[0]) { // S3
		return http.DefaultTransport.RoundTrip(r)
	}
	next := a.c.at(int(a.n.Add(1) - 1))
	r = r.Clone(r.Context())
	r.URL.Host = next.host()
	return next.http.Transport.RoundTrip(r)
}

// cacheCheck is one thing that caches must do, with proxies of its own in a Berth
// that many checks share.
type cacheCheck struct {
	t     *testing.T // of what runs now
	name  string
	specs map[string]spec // of its proxies, by name
	later map[string]spec // after the restart; nil: the same
	hosts []*upstreamtest.Host

	c      *caching
	client *api // of this check, at the replicas in turn
	first  func()
	second func()
}

// upstream is a new registry, with a proxy of the check's name before it.
func (k *cacheCheck) upstream(more ...spec) *upstreamtest.Registry { return k.another("", more...) }

// another is one with a suffix to the name.
func (k *cacheCheck) another(suffix string, more ...spec) *upstreamtest.Registry {
	up := upstreamtest.New(k.t)
	k.hosts = append(k.hosts, up.Host)
	k.proxy(k.name+suffix, append([]spec{{"upstreams": []string{up.URL()}}}, more...)...)
	return up
}

// host is a server that is no registry.
func (k *cacheCheck) host(ip string, h http.Handler) *upstreamtest.Host {
	host := upstreamtest.NewHost(k.t, ip, h)
	k.hosts = append(k.hosts, host)
	return host
}

// proxy adds a proxy that may dial this machine.
func (k *cacheCheck) proxy(name string, more ...spec) {
	s := spec{"networks": []string{"127.0.0.0/8"}}
	for _, m := range more {
		s = s.with(m)
	}
	k.specs[name] = s
}

// change is how a proxy is configured after the restart.
func (k *cacheCheck) change(suffix string, more spec) {
	k.later[k.name+suffix] = k.specs[k.name+suffix].with(more)
}

// run is what the check does, and again what it does after all were done and
// the Berth was restarted.
func (k *cacheCheck) run(f func())   { k.first = f }
func (k *cacheCheck) again(f func()) { k.second = f }

// path is that of something of the upstream's app in the check's cache.
func (k *cacheCheck) path(of, ref string) string { return k.pathOf(k.name+"/"+app, of, ref) }

func (k *cacheCheck) pathOf(repo, of, ref string) string { return "/v2/" + repo + "/" + of + "/" + ref }

// repo is a repository of the check's cache.
func (k *cacheCheck) repo() *repo { return &repo{k.t, k.client, k.name + "/" + app} }

// said is an answer.
type said struct {
	t      *testing.T
	asked  string
	status int
	header http.Header
	body   []byte
	err    error // of the body
}

// get asks the replica whose turn it is. header is a list of names and values.
func (k *cacheCheck) get(path string, header ...string) said {
	return k.ask("GET", path, nil, header...)
}

func (k *cacheCheck) head(path string, header ...string) said {
	return k.ask("HEAD", path, nil, header...)
}

func (k *cacheCheck) ask(method, path string, body []byte, header ...string) said {
	k.t.Helper()
	s, err := askOf(k.client, method, path, body, header...)
	if err != nil {
		k.t.Fatal(err)
	}
	s.t = k.t
	return s
}

// askOf is ask for whoever is not the test itself.
func askOf(a *api, method, path string, body []byte, header ...string) (said, error) {
	req, err := http.NewRequest(method, a.base+path, bytes.NewReader(body))
	if err != nil {
		return said{}, err
	}
	if strings.Contains(path, "/manifests/") && method != "PUT" {
		req.Header.Set("Accept", manifestTypes)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	res, err := a.http.Do(req)
	if err != nil {
		return said{}, err
	}
	defer res.Body.Close()
	s := said{asked: method + " " + path, status: res.StatusCode, header: res.Header}
	var b bytes.Buffer
	_, s.err = b.ReadFrom(res.Body)
	s.body = b.Bytes()
	return s, nil
}

// is wants a status and a whole body.
func (s said) is(status int) said {
	s.t.Helper()
	if s.status != status || s.err != nil {
		s.t.Fatalf("%s: %d %v, want %d: %.300q, Cache-Status %q", s.asked, s.status, s.err, status, s.body, s.header.Get("Cache-Status"))
	}
	return s
}

// fails wants an error of the protocol with this code.
func (s said) fails(status int, code string) said {
	s.t.Helper()
	s.is(status)
	if !bytes.Contains(s.body, fmt.Appendf(nil, `"code":%q`, code)) {
		s.t.Fatalf("%s: %d, want %s: %s", s.asked, s.status, code, s.body)
	}
	return s
}

// gives wants 200 with exactly this content, named by its digest.
func (s said) gives(content []byte) said {
	s.t.Helper()
	s.is(200)
	if !bytes.Equal(s.body, content) {
		s.t.Fatalf("%s: %d bytes %.100q, want %d bytes %.100q", s.asked, len(s.body), s.body, len(content), content)
	}
	return s
}

// manifest wants 200 with exactly this manifest.
func (s said) manifest(m upstreamtest.Image) said {
	s.t.Helper()
	s.gives(m.Content)
	for name, want := range map[string]string{"Docker-Content-Digest": m.Digest, "Content-Type": m.MediaType} {
		if got := s.header.Get(name); got != want {
			s.t.Fatalf("%s: %s %q, want %q", s.asked, name, got, want)
		}
	}
	return s
}

// cache wants parts of Cache-Status.
func (s said) cache(want ...string) said {
	s.t.Helper()
	for _, w := range want {
		if !slices.Contains(strings.Split(s.header.Get("Cache-Status"), "; "), w) {
			s.t.Fatalf("%s: Cache-Status %q lacks %q", s.asked, s.header.Get("Cache-Status"), w)
		}
	}
	return s
}

// asked wants exactly so many requests of a kind to have reached an upstream.
func (k *cacheCheck) asked(up *upstreamtest.Registry, n int, kind upstreamtest.Kind, methods ...string) {
	k.t.Helper()
	if got := up.Count(kind, methods...); got != n {
		k.t.Fatalf("the upstream was asked %d times for a %s (%v), want %d; all that it was asked:\n%s", got, kind, methods, n, up.Asked())
	}
}

// unasked wants nothing to have reached an upstream.
func (k *cacheCheck) unasked(up *upstreamtest.Registry) {
	k.t.Helper()
	if n := len(up.Requests()); n != 0 {
		k.t.Fatalf("the upstream should not have been asked:\n%s", up.Asked())
	}
}

// runChecks runs them side by side on one Berth, then the second halves on the
// same Berth after a restart. config is what the file says besides proxies.
func runChecks(t *testing.T, begin func(t *testing.T, dir, config string) *caching, config, configLater string, list map[string]func(*cacheCheck)) {
	specs, later := map[string]spec{}, map[string]spec{}
	var checks []*cacheCheck
	for _, name := range slices.Sorted(maps.Keys(list)) {
		number, _, _ := strings.Cut(name, " ")
		k := &cacheCheck{t: t, name: "c" + number, specs: map[string]spec{}, later: map[string]spec{}}
		list[name](k)
		maps.Copy(specs, k.specs)
		maps.Copy(later, k.specs)
		maps.Copy(later, k.later)
		checks = append(checks, k)
	}
	secrets := fmt.Sprintf("secrets:\n  key_file: %s\n", filepath.Join(t.TempDir(), "key"))
	write(t, strings.Fields(secrets)[2], strings.Repeat("0123456789abcdef", 4)+"\n")
	common := secrets + "proxy:\n  networks: " + managedNetwork + "\n"
	config, configLater = common+config, common+configLater
	c := begin(t, roomFor(t), config+proxies(specs))
	half := func(title string, of func(*cacheCheck) func()) {
		t.Run(title, func(t *testing.T) {
			for i, name := range slices.Sorted(maps.Keys(list)) {
				k := checks[i]
				if of(k) == nil {
					continue
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					k.t, k.c, k.client = t, c, c.inTurn()
					of(k)()
				})
			}
		})
	}
	half("first", func(k *cacheCheck) func() { return k.first })
	if slices.ContainsFunc(checks, func(k *cacheCheck) bool { return k.second != nil }) {
		c.restart(t, configLater+proxies(later))
		half("restarted", func(k *cacheCheck) func() { return k.second })
	}
	for _, k := range checks {
		keptSecret(t, k, c.key)
	}
}

// keptSecret wants that no upstream ever saw what the client logs in with.
func keptSecret(t *testing.T, k *cacheCheck, key string) {
	t.Helper()
	secrets := []string{key, base64.StdEncoding.EncodeToString([]byte("admin:" + key))}
	for _, h := range k.hosts {
		for _, q := range h.Requests() {
			for name, values := range q.Header {
				for _, secret := range secrets {
					if strings.Contains(strings.Join(values, "\n"), secret) {
						t.Errorf("%s: the upstream was told the client's secret with %s of %s %s", k.name, name, q.Method, q.Path)
					}
				}
			}
		}
	}
}
