package proxy_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/proxy"
	"github.com/berth-registry/berth/internal/upstream"
)

// A day of a fleet. The whole one is `BERTH_FLEET=24 go test ./internal/proxy -run
// DayOfAFleet -v`; among the tests it has fewer hours and nodes.
const (
	fleetImages = 200
	fleetMoves  = 10   // tags that move each hour
	fleetBudget = 2000 // requests an hour that the configuration allows
)

// busyRegistry is an upstream whose tags move. It counts what it is asked.
type busyRegistry struct {
	mu       sync.Mutex
	versions [fleetImages]int
	asked    map[string]int // by kind, since the last look
}

func (b *busyRegistry) manifest(image, version int) []byte {
	config := oci.SHA256.FromBytes(fmt.Appendf(nil, "config %d %d", image, version))
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[]}`, oci.MediaTypeImage, config)
}

// ServeHTTP knows /v2/fleet/image-N/manifests/{latest,DIGEST}.
func (b *busyRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	dir, ref := path.Split(r.URL.Path)
	image, err := strconv.Atoi(strings.TrimPrefix(path.Base(path.Dir(path.Clean(dir))), "image-"))
	b.mu.Lock()
	defer b.mu.Unlock()
	kind := r.Method + " by digest"
	if ref == "latest" {
		kind = r.Method + " by tag"
	}
	b.asked[kind]++
	if err != nil || image < 0 || image >= fleetImages {
		http.NotFound(w, r)
		return
	}
	content := b.manifest(image, b.versions[image])
	d := oci.SHA256.FromBytes(content)
	if ref != "latest" && ref != d.String() {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", oci.MediaTypeImage)
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	if r.Method == http.MethodGet {
		w.Write(content)
	}
}

// hour says what was asked since it was last called, and moves some tags.
func (b *busyRegistry) hour(rng *rand.Rand) (asked map[string]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	asked, b.asked = b.asked, map[string]int{}
	for range fleetMoves {
		b.versions[rng.IntN(fleetImages)]++
	}
	return asked
}

// TestDayOfAFleet: what ten thousand nodes pull in a day costs the upstream no
// more requests than the configuration allows, and no node its pull.
func TestDayOfAFleet(t *testing.T) {
	hours, nodes := 2, 1000
	if n, err := strconv.Atoi(os.Getenv("BERTH_FLEET")); err == nil {
		hours, nodes = n, 10_000
	}
	busy := &busyRegistry{asked: map[string]int{}}
	server := httptest.NewServer(busy)
	t.Cleanup(server.Close)
	var ahead atomic.Int64
	start := time.Now()
	now := func() time.Time { return start.Add(time.Duration(ahead.Load())) } // stands still meanwhile
	origin, err := upstream.New(upstream.Options{
		Name: "hub", Endpoints: []string{server.URL}, Now: now,
		Transport: upstream.Transport{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		Limits:    upstream.Limits{Requests: fleetBudget, Per: time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(origin.Close)
	db := openDB(t, now)
	results := map[string]int{}
	cache := hosted.New(db, memblob.New(), hosted.Options{Sparse: func(string) bool { return true }})
	p, err := proxy.New(origin, cache, proxy.Options{
		Name: "hub", State: db, Spool: t.TempDir(), Now: now, Stretch: origin.Stretch,
		Observe: func(e proxy.Event) { results[e.Result]++ }, // pulls come one after the other
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)

	rng := rand.New(rand.NewPCG(1, 2))
	popular := rand.NewZipf(rng, 1.1, 8, fleetImages-1)
	t.Log("hour  pulls  hits  revalidated  stale  asked upstream")
	for hour := range hours {
		clear(results)
		pulls := nodes // each node pulls once an hour: the tag, and then what it stands for
		for range pulls {
			ahead.Add(int64(time.Hour) / int64(pulls))
			repo := fmt.Sprintf("hub/fleet/image-%d", popular.Uint64())
			desc, err := p.Resolve(t.Context(), repo, oci.TagRef("latest"))
			if err != nil {
				t.Fatalf("hour %d, %s by tag: %v", hour, repo, err)
			}
			if _, err := p.Manifest(t.Context(), repo, oci.DigestRef(desc.Digest)); err != nil {
				t.Fatalf("hour %d, %s by digest: %v", hour, repo, err)
			}
		}
		asked := busy.hour(rng)
		total := 0
		for _, n := range asked {
			total += n
		}
		t.Logf("%4d  %5d  %5d  %5d  %4d  %d: %v", hour, pulls, results["hit"], results["revalidated"], results["stale"], total, asked)
		if total > fleetBudget {
			t.Errorf("hour %d: %d requests upstream, %d are allowed", hour, total, fleetBudget)
		}
		if served := results["hit"] + results["revalidated"] + results["stale"] + results["miss"]; served != 2*pulls {
			t.Errorf("hour %d: %d answers of %d: %v", hour, served, 2*pulls, results)
		}
	}
}
