package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

func (s *site) scrape(t *testing.T) string {
	t.Helper()
	w := httptest.NewRecorder()
	s.metrics.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// series counts those of ours.
func series(scrape string) (n int) {
	for line := range strings.Lines(scrape) {
		if strings.HasPrefix(line, "berth_") {
			n++
		}
	}
	return n
}

// mark is in all that the hostile client makes up.
const mark = "zqzq"

// hostile makes requests that no two alike, some nearly right.
func hostile(r *rand.Rand) *http.Request {
	word := func() string { return fmt.Sprintf("%s%x", mark, r.Uint64()) }
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	digest := oci.SHA256.FromBytes([]byte(word())).String()
	path := pick("/v2/", "/v2/", "/v2/", "/api/v1/", "/auth/", "/", "") + pick(
		word()+"/manifests/"+word(), word()+"/"+word()+"/manifests/"+digest, word()+"/blobs/"+digest, word()+"/tags/list",
		word()+"/referrers/"+digest, word()+"/blobs/uploads/", word()+"/blobs/uploads/"+word(), "_catalog", "projects/"+word(), "token?scope="+word(), word())
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	method := pick("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", strings.ToUpper(word()))
	req := httptest.NewRequest(method, path, strings.NewReader(word()))
	req.RemoteAddr, req.Host = fmt.Sprintf("127.0.0.%d:%d", 1+r.IntN(250), 1+r.IntN(60000)), "localhost"
	req.Header.Set("User-Agent", word())
	req.Header.Set("X-Request-Id", word())
	req.Header.Set("Content-Type", "application/"+word())
	req.Header.Set("Traceparent", fmt.Sprintf("00-%016x%016x-%016x-01", r.Uint64(), r.Uint64(), r.Uint64()))
	if r.IntN(40) == 0 {
		req.SetBasicAuth(word(), word())
	}
	return req
}

// TestSeriesAreBounded: nothing that strangers make up becomes a series.
func TestSeriesAreBounded(t *testing.T) {
	s := siteOf(t, map[string]string{"admin.listen": "127.0.0.1:0", "projects.newcomers": "open"})
	r := rand.New(rand.NewPCG(1, 2))
	send := func(n int) {
		for range n {
			s.handler.ServeHTTP(httptest.NewRecorder(), hostile(r))
		}
	}
	before := series(s.scrape(t))
	send(2000)
	first := s.scrape(t)
	send(2000)
	second := s.scrape(t)
	t.Logf("%d series before, %d after 2000 hostile requests, %d after 4000", before, series(first), series(second))
	if n := series(second); n > 4000 {
		t.Errorf("%d series", n)
	}
	if grown := series(second) - series(first); grown > series(first)/10 {
		t.Errorf("%d series more after as many requests again", grown)
	}
	if strings.Contains(strings.ToLower(second), mark) {
		t.Error("what a client made up is in the metrics")
	}
}

// TestClassOfRepositories: by what memory has of the project; counting does not
// ask the database.
func TestClassOfRepositories(t *testing.T) {
	s := siteOf(t, nil)
	ask := asking(t, s)
	for _, v := range []string{"public", "internal", "private"} {
		if got := ask("POST", "127.0.0.1:5000", "/api/v1/projects", "", `{"name":"p-`+v+`","visibility":"`+v+`"}`); got.Code != http.StatusCreated {
			t.Fatalf("%d %s", got.Code, got.Body)
		}
		ask("GET", "127.0.0.1:5000", "/v2/p-"+v+"/app/tags/list", "", "")
	}
	ask("GET", "127.0.0.1:5000", "/v2/nobody/app/tags/list", "", "")
	ask("GET", "127.0.0.1:5000", "/v2/", "", "")
	got := s.scrape(t)
	for _, line := range []string{
		`{class="public",front="oci",method="GET",route="tags",status="404"} 1`,
		`{class="internal",front="oci",method="GET",route="tags",status="404"} 1`,
		`{class="private",front="oci",method="GET",route="tags",status="404"} 1`,
		`{class="unknown",front="oci",method="GET",route="tags",status="404"} 1`,
		`{class="none",front="oci",method="GET",route="ping",status="200"} 1`,
	} {
		if !strings.Contains(got, "berth_http_requests_total"+line+"\n") {
			t.Errorf("%s is missing", line)
		}
	}
	reads := func() (n float64) {
		for line := range strings.Lines(s.scrape(t)) {
			if rest, ok := strings.CutPrefix(line, `berth_db_operations_total{kind="read",outcome="done"} `); ok {
				fmt.Sscan(rest, &n)
			}
		}
		return n
	}
	before := reads()
	if class := s.classOf("never/seen"); class != "unknown" || reads() != before {
		t.Errorf("a repository that nobody asked for is %s, after %v reads", class, reads()-before)
	}
}

// TestRequestsAreTraced through all layers, with the id that the answer shows,
// and without what must not be told.
func TestRequestsAreTraced(t *testing.T) {
	s := siteOf(t, map[string]string{"admin.listen": "127.0.0.1:0"})
	ask := asking(t, s)
	if got := ask("PUT", "127.0.0.1:5000", "/v2/team/app/manifests/v1", "", ""); got.Code < 400 {
		t.Fatalf("%d", got.Code)
	}
	s.store.db.Close() // from now on requests fail
	r := httptest.NewRequest(http.MethodGet, "/v2/team/app/manifests/secret-tag?token=hunter2", nil)
	r.Host, r.RemoteAddr = "localhost", "192.0.2.7:1"
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	if w.Code < 500 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	shown := httptest.NewRecorder()
	s.tracer.ServeHTTP(shown, nil)
	var all struct {
		Failed []struct {
			RequestID  string `json:"request_id"`
			Route      string
			Repository string
			Status     int
			Steps      []struct{ Layer, Name, Outcome string }
		}
	}
	if err := json.Unmarshal(shown.Body.Bytes(), &all); err != nil || len(all.Failed) != 1 {
		t.Fatalf("%v: %s", err, shown.Body)
	}
	got := all.Failed[0]
	if got.RequestID == "" || got.RequestID != w.Header().Get("X-Request-Id") || got.Route != "manifest" || got.Repository != "team/app" || got.Status != w.Code {
		t.Errorf("%+v", got)
	}
	layers := fmt.Sprint(got.Steps)
	for _, want := range []string{"registry manifest.read", "sql read"} {
		if !strings.Contains(layers, want) {
			t.Errorf("no step %q in %s", want, layers)
		}
	}
	for _, secret := range []string{"secret-tag", "hunter2", "192.0.2.7", "sha256"} {
		if strings.Contains(shown.Body.String(), secret) {
			t.Errorf("%s is told: %s", secret, shown.Body)
		}
	}
}

// TestTracesOfProxies go on here only where that is configured, and only those of
// proxies that are trusted.
func TestTracesOfProxies(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, tt := range []struct {
		from, peer string
		follow     bool
	}{
		{"false", "10.0.0.1:1", false}, {"true", "10.0.0.1:1", true}, {"true", "192.0.2.1:1", false},
	} {
		spans := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		c := settings(t, map[string]string{
			"tracing.endpoint": spans.URL, "tracing.sample": "0", "tracing.from_proxies": tt.from, "http.trusted_proxies": "10.0.0.0/8",
		})
		var log bytes.Buffer
		s, err := newSite(t.Context(), c, opened(t, c), "test", slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
		r.RemoteAddr, r.Host = tt.peer, "localhost"
		r.Header.Set("Traceparent", parent)
		r.Header.Set("X-Forwarded-For", "192.0.2.9")
		s.handler.ServeHTTP(httptest.NewRecorder(), r)
		s.closeWithin(cutTimeout)
		spans.Close()
		if taken, _ := s.tracer.Sent(); (taken > 0) != tt.follow {
			t.Errorf("%+v: %d spans were sent", tt, taken)
		}
		if got := strings.Contains(log.String(), "trace_id=0af7651916cd43dd8448eb211c80319c"); got != tt.follow {
			t.Errorf("%+v: logged %s", tt, log.String())
		}
	}
}

// TestNoTracingWithoutAReader: where nobody could see a trace, there is none.
func TestNoTracingWithoutAReader(t *testing.T) {
	s := siteOf(t, nil)
	if s.tracer != nil || len(s.observers) != 1 {
		t.Errorf("%v, %d observers", s.tracer, len(s.observers))
	}
}

// TestSample shows what waits, and stops to when it cannot be known.
func TestSample(t *testing.T) {
	s := siteOf(t, map[string]string{"admin.listen": "127.0.0.1:0"})
	u := meta.Upload{ID: meta.NewID(), Repository: "team/app", Algorithm: oci.SHA256, Hash: []byte{}, State: []byte{}}
	if err := s.store.db.CreateUpload(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	s.sampleBacklog(t.Context())
	if got := s.scrape(t); !strings.Contains(got, "berth_uploads_open 1\n") || !strings.Contains(got, `berth_gc_queue{queue="dead_objects"} 0`) {
		t.Errorf("%s", got)
	}
	if err := s.ready.check(); err != nil || !strings.Contains(s.scrape(t), "berth_ready 1\n") {
		t.Errorf("not ready: %v", err)
	}
	s.ready.stopping.Store(true)
	if !strings.Contains(s.scrape(t), "berth_ready 0\n") {
		t.Error("ready while it stops")
	}
	s.store.db.Close()
	s.sampleBacklog(t.Context())
	if strings.Contains(s.scrape(t), "berth_uploads_open") {
		t.Error("old counts are shown as if they were known")
	}
}
