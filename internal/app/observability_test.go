package app

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/berth-registry/berth/internal/blob/s3blob"
	"github.com/berth-registry/berth/internal/blob/s3blob/s3test"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/pgtest"
)

const (
	examples = "../../examples/observability/"
	document = "../../docs/observability.md"
)

// family is a metric as a scrape shows it.
type family struct {
	help, kind string
	labels     map[string]map[string]bool // by name, the values that were seen
}

// families are those of a scrape.
func families(t *testing.T, text string) map[string]*family {
	t.Helper()
	all := map[string]*family{}
	sample := regexp.MustCompile(`^([a-z_0-9]+)(?:\{(.*)\})? `)
	label := regexp.MustCompile(`([a-z_]+)="((?:[^"\\]|\\.)*)"`)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(rest, " ")
			all[name] = &family{help: help, labels: map[string]map[string]bool{}}
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			all[name].kind = kind
			continue
		}
		found := sample.FindStringSubmatch(line)
		if found == nil {
			t.Fatalf("a line of the scrape is %q", line)
		}
		f := all[base(all, found[1])]
		if f == nil {
			t.Fatalf("%q belongs to no metric", line)
		}
		for _, pair := range label.FindAllStringSubmatch(found[2], -1) {
			if f.labels[pair[1]] == nil {
				f.labels[pair[1]] = map[string]bool{}
			}
			f.labels[pair[1]][pair[2]] = true
		}
	}
	return all
}

// base is the metric that a name of a histogram's part belongs to.
func base(all map[string]*family, name string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if short, ok := strings.CutSuffix(name, suffix); ok && all[short] != nil && all[name] == nil {
			return short
		}
	}
	return name
}

// everything is a scrape of a server that has all there is: PostgreSQL, S3, TLS
// and a collector of traces.
func everything(t *testing.T) map[string]*family {
	t.Helper()
	s3 := s3test.Start(t)
	t.Setenv("AWS_ACCESS_KEY_ID", s3test.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s3test.SecretKey)
	spans := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(spans.Close)
	cert, key := certificate(t)
	return scrapeOf(t, map[string]string{
		"metadata.postgres.url": pgtest.Database(t),
		"storage.s3.bucket":     s3test.Bucket, "storage.s3.endpoint": s3.URL(), "storage.s3.region": "us-east-1", "storage.s3.path_style": "true",
		"tracing.endpoint": spans.URL, "tracing.sample": "1", "tls.cert": cert, "tls.key": key,
	})
}

// scrapeOf runs a server until it has been used and has collected.
func scrapeOf(t *testing.T, keys map[string]string) map[string]*family {
	t.Helper()
	admin := freeAddress(t)
	keys["listen"], keys["admin.listen"], keys["gc.interval"], keys["proxy.networks"] = "127.0.0.1:0", admin, "50ms", "127.0.0.1"
	url := serving(t, keys)
	use(t, url)
	usePulledThrough(t, url)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		all := families(t, fetch(t, "http://"+admin+"/metrics"))
		ended := all["berth_job_last_success_timestamp_seconds"]
		if all["berth_uploads_open"] != nil && all["berth_proxy_upstream_remaining"] != nil && ended != nil && ended.labels["name"]["gc"] && ended.labels["name"]["upkeep"] {
			return all
		}
		if time.Now().After(end) {
			t.Fatalf("no sample and no collection: %v", slices.Sorted(maps.Keys(all)))
		}
	}
}

// serving runs Serve until the test ends.
func serving(t *testing.T, keys map[string]string) (url string) {
	t.Helper()
	c := settings(t, keys)
	r, w := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, c, "test", Streams{Out: w, Err: io.Discard}) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(r).ReadString('\n')
		line <- text
		io.Copy(io.Discard, r)
	}()
	select {
	case text := <-line:
		return regexp.MustCompile(`https?://[0-9.:]+`).FindString(text)
	case err := <-ended:
		ended <- nil
		t.Fatalf("serve: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the server does not start")
	}
	return ""
}

var client = &http.Client{
	Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// use pushes and pulls, by right and wrong.
func use(t *testing.T, url string) {
	t.Helper()
	blob := []byte("some bytes")
	d := oci.SHA256.FromBytes(blob).String()
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	for _, step := range []struct {
		method, path string
		body         []byte
		want         []int
	}{
		{"POST", "/v2/team/app/blobs/uploads/?digest=" + d, blob, []int{201}},
		{"POST", "/v2/team/app/blobs/uploads/", nil, []int{202}},
		{"PUT", "/v2/team/app/manifests/v1", manifest, []int{201}},
		{"GET", "/v2/team/app/manifests/v1", nil, []int{200}},
		{"GET", "/v2/team/app/blobs/" + d, nil, []int{200, 307}},
		{"GET", "/v2/team/none/manifests/v1", nil, []int{404}},
		{"GET", "/auth/token", nil, []int{200}},
		{"GET", "/api/v1/projects", nil, []int{200}},
	} {
		r, err := http.NewRequest(step.method, url+step.path, bytes.NewReader(step.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", oci.MediaTypeIndex)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !slices.Contains(step.want, resp.StatusCode) {
			t.Fatalf("%s %s: %s %s", step.method, step.path, resp.Status, text)
		}
	}
}

// usePulledThrough pulls through a cache, from an upstream that says what it allows.
func usePulledThrough(t *testing.T, url string) {
	t.Helper()
	index := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("RateLimit-Limit", "100;w=21600")
		w.Header().Set("RateLimit-Remaining", "76;w=21600")
		w.Header().Set("Content-Type", oci.MediaTypeIndex)
		w.Header().Set("Docker-Content-Digest", oci.SHA256.FromBytes(index).String())
		w.Write(index)
	}))
	t.Cleanup(up.Close)
	send(t, "PUT", url+"/api/v1/proxies/mirror", "application/json", []byte(`{"name":"mirror","upstreams":["`+up.URL+`"]}`), 200)
	send(t, "GET", url+"/v2/mirror/app/manifests/1", "", nil, 200)
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(text)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// certificate makes one that runs out tomorrow.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "berth"}, NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// expressions are all that the dashboard and the alerts ask Prometheus for.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	var dashboard struct {
		Panels []struct {
			Title, Type string
			Targets     []struct{ Expr string }
		}
		Templating struct{ List []struct{ Definition string } }
	}
	read(t, examples+"dashboard.json", json.Unmarshal, &dashboard)
	for _, p := range dashboard.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks for nothing", p.Title)
		}
		for i, target := range p.Targets {
			all[fmt.Sprintf("panel %q %d", p.Title, i)] = target.Expr
		}
	}
	for _, v := range dashboard.Templating.List {
		if series, ok := strings.CutPrefix(v.Definition, "label_values("); ok {
			series, _, _ = strings.Cut(series, ", ")
			all["variable "+v.Definition] = series
		}
	}
	for _, group := range alerts(t).Groups {
		for _, r := range group.Rules {
			all["alert "+r.Alert] = r.Expr
		}
	}
	return all
}

type alertFile struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr string
			Annotations struct{ Summary, Action string }
			Labels      struct{ Severity string }
		}
	}
}

func alerts(t *testing.T) (file alertFile) {
	t.Helper()
	read(t, examples+"alerts.yml", func(text []byte, v any) error { return yaml.Unmarshal(text, v) }, &file)
	return file
}

func read(t *testing.T, name string, parse func([]byte, any) error, v any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err == nil {
		err = parse(text, v)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// Values of labels that the code may set, though a short use does not show them.
var (
	outcomes = slices.Concat(meta.Outcomes(), s3blob.Outcomes())
	statuses = []string{"429"}
)

// TestShown holds what the examples and the documentation say against what a
// server shows.
func TestShown(t *testing.T) {
	all := everything(t)
	t.Run("examples", func(t *testing.T) { testExamples(t, all) })
	t.Run("documented", func(t *testing.T) { testDocumented(t, all) })
	t.Run("without servers", func(t *testing.T) { testWithoutServers(t, all) })
}

// testExamples: each metric, label and value that the dashboard and the alerts
// name is one that a server shows.
func testExamples(t *testing.T, all map[string]*family) {
	found := expressions(t)
	if len(found) < 60 {
		t.Errorf("only %d expressions", len(found))
	}
	for where, expr := range found {
		for _, problem := range wrong(all, expr) {
			t.Errorf("%s: %s\n%s", where, problem, expr)
		}
	}
	for _, bad := range []string{
		`rate(berth_nothing_total[5m])`, `berth_ready{colour="red"}`, `berth_gc_queue{queue="pony"}`, `sum by (colour) (berth_ready)`,
		`berth_db_commit_duration_seconds`, `berth_http_requests_total{status="4xx"}`,
	} {
		if len(wrong(all, bad)) == 0 {
			t.Errorf("%s passes for right", bad)
		}
	}
}

var (
	selector = regexp.MustCompile(`\b((?:berth|go|process)_[a-z0-9_]+|up)\b(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)(=~|!~|!=|=)"([^"]*)"`)
	grouping = regexp.MustCompile(`\b(?:by|on|without|ignoring) \(([^)]*)\)`)
)

// wrong lists what an expression names that is not there.
func wrong(all map[string]*family, expr string) (problems []string) {
	known := map[string]bool{"job": true, "instance": true}
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		if s[1] == "up" {
			continue // Prometheus' own
		}
		name := base(all, s[1])
		f := all[name]
		switch {
		case f == nil:
			problems = append(problems, "there is no "+s[1])
			continue
		case f.kind == "histogram" && name == s[1]:
			problems = append(problems, s[1]+" is a histogram, which has no value")
		}
		for label := range f.labels {
			known[label] = true
		}
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			problems = append(problems, mismatch(f, s[1], m[1], m[2], m[3])...)
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(g[1], ",") {
			if label = strings.TrimSpace(label); label != "" && !known[label] {
				problems = append(problems, "nothing has the label "+label)
			}
		}
	}
	return problems
}

func mismatch(f *family, name, label, operator, value string) []string {
	if label == "job" || label == "instance" {
		return nil // of Prometheus
	}
	seen := f.labels[label]
	if seen == nil {
		return []string{name + " has no label " + label}
	}
	values := slices.Collect(maps.Keys(seen))
	switch label {
	case "outcome":
		values = append(values, outcomes...)
	case "status":
		values = append(values, statuses...)
	case "method":
		values = append(values, "HEAD")
	case "pool":
		values = append(values, "read", "write") // of SQLite
	case "class":
		values = append(values, "public", "internal", "5xx", "failed") // of repositories, of upstreams' answers
	case "result":
		values = append(values, "hit", "miss", "stale", "revalidated", "negative", "error", "passed")
	}
	if operator == "=" || operator == "!=" {
		if !slices.Contains(values, value) {
			return []string{fmt.Sprintf("%s is never %s=%q", name, label, value)}
		}
		return nil
	}
	if _, err := regexp.Compile(value); err != nil {
		return []string{err.Error()}
	}
	for part := range strings.SplitSeq(value, "|") {
		whole := regexp.MustCompile("^(?:" + part + ")$")
		if !slices.ContainsFunc(values, whole.MatchString) && part != "5.." {
			return []string{fmt.Sprintf("%s is never %s=~%q", name, label, part)}
		}
	}
	return nil
}

// TestAlertsSayWhatToDo, each once.
func TestAlertsSayWhatToDo(t *testing.T) {
	seen := map[string]bool{}
	for _, group := range alerts(t).Groups {
		for _, r := range group.Rules {
			if seen[r.Alert] || r.Annotations.Summary == "" || r.Annotations.Action == "" ||
				!slices.Contains([]string{"critical", "warning", "info"}, r.Labels.Severity) {
				t.Errorf("alert %+v", r)
			}
			seen[r.Alert] = true
		}
	}
	if len(seen) < 15 {
		t.Errorf("%d alerts", len(seen))
	}
}

// TestExamplesByPromtool: Prometheus itself takes the files and every expression
// of the dashboard, and the alerts fire for what they are for, and only then.
func TestExamplesByPromtool(t *testing.T) {
	promtool := tool(t, "promtool")
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	run("check", "config", examples+"prometheus.yml")
	run("check", "rules", examples+"alerts.yml")
	run("test", "rules", examples+"alerts_test.yml")
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	for where, expr := range expressions(t) {
		if strings.HasPrefix(where, "panel") {
			rules = append(rules, rule{fmt.Sprint("panel:", len(rules)), strings.ReplaceAll(expr, "$__rate_interval", "5m")})
		}
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	run("check", "rules", name)
}

// tool finds a program that scripts/install-test-tools installs.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../../.tools/bin/" + name)
	if err == nil {
		if _, err = os.Stat(path); err == nil {
			return path
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	t.Skipf("no %s: scripts/install-test-tools check installs it", name)
	return ""
}

// testDocumented holds the table of docs/observability.md against what a server
// shows; -update writes it.
func testDocumented(t *testing.T, all map[string]*family) {
	var table strings.Builder
	table.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if f := all[name]; strings.HasPrefix(name, "berth_") {
			labels := maps.Clone(f.labels)
			delete(labels, "le")
			list := "`" + strings.Join(slices.Sorted(maps.Keys(labels)), "`, `") + "`"
			fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", name, f.kind, strings.TrimPrefix(list, "``"), f.help)
		}
	}
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- metrics: go test ./internal/app -run Shown -update -->\n", "<!-- end of metrics -->"
	head, rest, ok := strings.Cut(string(text), begin)
	old, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", document)
	}
	if *updateGolden {
		if err := os.WriteFile(document, []byte(head+begin+table.String()+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != table.String() {
		t.Errorf("%s is not current; run go test ./internal/app -run Shown -update\ngot:\n%s\nwant:\n%s", document, old, table.String())
	}
	for _, name := range regexp.MustCompile("berth_[a-z0-9_]+").FindAllString(head+tail, -1) {
		if all[base(all, name)] == nil && !strings.HasSuffix(name, "_") { // the beginning of names
			t.Errorf("%s names %s, which there is not", document, name)
		}
	}
}

// testWithoutServers: with SQLite and a folder there are the same metrics, but
// for S3's and those of what is not configured.
func testWithoutServers(t *testing.T, all map[string]*family) {
	plain := scrapeOf(t, map[string]string{})
	for name := range all {
		optional := strings.HasPrefix(name, "berth_s3_") || strings.HasPrefix(name, "berth_tracing_") || strings.HasPrefix(name, "berth_tls_")
		if (plain[name] == nil) != optional {
			t.Errorf("%s: with SQLite and a folder %t", name, plain[name] != nil)
		}
	}
	for _, pool := range []string{"read", "write"} {
		if !plain["berth_db_connections"].labels["pool"][pool] {
			t.Errorf("the pool %s is not shown", pool)
		}
	}
}

// TestCollectedIsCounted: all that collection reports has a counter.
func TestCollectedIsCounted(t *testing.T) {
	st := opened(t, settings(t, nil))
	st.collected(hosted.Collected{Projects: 1, Uploads: 2, Links: 3, Objects: 4, Manifests: 5, Referrers: 6, Swept: 7, Bytes: 8})
	st.metrics.Job("gc", time.Second, errors.New("no"))
	w := httptest.NewRecorder()
	st.metrics.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, line := range []string{
		`berth_gc_removed_total{kind="projects"} 1`, `berth_gc_removed_total{kind="uploads"} 2`,
		`berth_gc_removed_total{kind="links"} 3`, `berth_gc_removed_total{kind="objects"} 4`,
		`berth_gc_removed_total{kind="manifests"} 5`, `berth_gc_removed_total{kind="referrers"} 6`,
		`berth_gc_removed_total{kind="swept"} 7`, `berth_gc_freed_bytes_total 8`,
		`berth_job_runs_total{name="gc",outcome="failed"} 1`,
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("%s is missing", line)
		}
	}
	if strings.Contains(w.Body.String(), `berth_job_last_success_timestamp_seconds{name="gc"}`) {
		t.Error("a run that failed is a success")
	}
}
