package hosted_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob/fsblob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/pgtest"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

// BenchmarkCollection measures pushes and pulls of a store of which half is
// garbage, by turns without collection and beside it. BERTH_BENCH_MANIFESTS is
// how many manifests there are, BERTH_BENCH_SECONDS how long a turn is,
// BERTH_BENCH_RATE the rate of collection.
func BenchmarkCollection(b *testing.B) {
	for name, options := range map[string]func(b *testing.B) meta.Options{
		"sqlite":   func(b *testing.B) meta.Options { return meta.Options{Path: filepath.Join(b.TempDir(), "berth.db")} },
		"postgres": func(b *testing.B) meta.Options { return meta.Options{Postgres: pgtest.Start(b, true).URL("postgres")} },
	} {
		b.Run(name, func(b *testing.B) {
			db, err := meta.Open(b.Context(), options(b))
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			files, err := fsblob.New(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			const grace = 5 * time.Second
			m := &measured{B: b, n: setting("MANIFESTS", 2000), turn: time.Duration(setting("SECONDS", 3)) * time.Second}
			m.r = hosted.New(db, files, hosted.Options{
				UnreferencedAge: grace, Retention: func(string) hosted.Retention { return hosted.Retention{Untagged: grace} },
				Rate: setting("RATE", 1000),
			})
			for range b.N {
				m.fill()
				time.Sleep(grace)
				m.run()
			}
		})
	}
}

func setting(name string, initial int) int {
	if n, err := strconv.Atoi(os.Getenv("BERTH_BENCH_" + name)); err == nil {
		return n
	}
	return initial
}

const (
	benchRepos   = 20
	benchFillers = 16
	benchClients = 4 // that push, and as many that pull
	benchTurns   = 6 // every other one beside collection
)

// measured is a store under load.
type measured struct {
	*testing.B
	r    *hosted.Registry
	n    int
	turn time.Duration
}

func benchRepo(i int) string { return fmt.Sprintf("bench%d/app%d", i%4, i%benchRepos) }

// push pushes an image of two blobs, which nothing else has.
func (m *measured) push(repo string, tags ...string) (registry.Manifest, error) {
	var blobs [2]oci.Descriptor
	for i := range blobs {
		content := registrytest.Random(1000)
		u, err := m.r.StartUpload(m.Context(), repo, registry.UploadOptions{})
		if err != nil {
			return registry.Manifest{}, err
		}
		blobs[i] = registrytest.Describe(registrytest.LayerType, content)
		if _, err := u.Commit(m.Context(), 0, reader(content), blobs[i].Digest); err != nil {
			return registry.Manifest{}, err
		}
	}
	doc := registrytest.Document{MediaType: oci.MediaTypeImage, Config: &blobs[0], Layers: blobs[1:]}
	manifest := doc.Manifest(m)
	_, err := m.r.PutManifest(m.Context(), repo, manifest, tags...)
	return manifest, err
}

// pull reads an image by its tag, with its blobs.
func (m *measured) pull(repo, tag string) error {
	found, err := m.r.Manifest(m.Context(), repo, oci.TagRef(tag))
	if err != nil {
		return err
	}
	parsed, err := oci.ParseManifest(found.MediaType, found.Content)
	if err != nil {
		return err
	}
	for _, d := range parsed.Blobs {
		b, err := m.r.Blob(m.Context(), repo, d.Digest)
		if err != nil {
			return err
		}
		rc, err := b.Open(m.Context(), 0, d.Size)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, rc)
		if err := errors.Join(err, rc.Close()); err != nil {
			return err
		}
	}
	return nil
}

// fill pushes the manifests, every other one without a tag.
func (m *measured) fill() {
	if _, err := m.r.Collect(m.Context()); err != nil { // the policy is no news then
		m.Fatal(err)
	}
	began := time.Now()
	var wait sync.WaitGroup
	for f := range benchFillers {
		wait.Go(func() {
			for i := f; i < m.n; i += benchFillers {
				var tags []string
				if i/benchRepos%2 == 0 {
					tags = []string{fmt.Sprint("v", i)}
				}
				if _, err := m.push(benchRepo(i), tags...); err != nil {
					m.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	if m.Failed() {
		m.FailNow()
	}
	m.Logf("%d manifests stored in %v", m.n, time.Since(began).Round(time.Second))
}

// run measures by turns, and reports both sides.
func (m *measured) run() {
	var alone, beside sample
	var sum hosted.Collected
	var busy time.Duration
	for i := range benchTurns {
		if i%2 == 0 {
			m.load(&alone)
			continue
		}
		ctx, cancel := context.WithCancel(m.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			began := time.Now()
			got, err := m.collect(ctx)
			busy += time.Since(began)
			if err != nil && ctx.Err() == nil {
				m.Error(err)
			}
			sum.Manifests += got.Manifests
			sum.Links += got.Links
			sum.Objects += got.Objects
		}()
		m.load(&beside)
		select {
		case <-done:
			m.Error("collection found no more garbage before its turn was over: store more manifests, or make turns shorter")
		default:
		}
		cancel()
		<-done
	}
	m.Logf("collected %d manifests, %d links and %d objects in %v", sum.Manifests, sum.Links, sum.Objects, busy.Round(time.Second))
	report := func(what string, a, b []time.Duration) {
		for _, p := range []int{50, 99} {
			x, y := percentile(a, p), percentile(b, p)
			m.ReportMetric(x.Seconds()*1000, fmt.Sprintf("ms-%s-p%d", what, p))
			m.ReportMetric(y.Seconds()*1000, fmt.Sprintf("ms-%s-p%d-gc", what, p))
			m.ReportMetric(y.Seconds()/x.Seconds(), fmt.Sprintf("x-%s-p%d", what, p))
		}
		m.ReportMetric(float64(len(b))/float64(len(a)), "x-"+what+"-rate")
	}
	report("push", alone.pushes, beside.pushes)
	report("pull", alone.pulls, beside.pulls)
}

// collect goes on until there is nothing left, or ctx ends.
func (m *measured) collect(ctx context.Context) (hosted.Collected, error) {
	got, err := m.r.Collect(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return got, err
}

func percentile(list []time.Duration, p int) time.Duration {
	slices.Sort(list)
	return list[min(len(list)-1, len(list)*p/100)]
}

// sample is how long things took.
type sample struct {
	mu            sync.Mutex
	pushes, pulls []time.Duration
}

// load has clients push and pull for one turn.
func (m *measured) load(s *sample) {
	end := time.Now().Add(m.turn)
	var wait sync.WaitGroup
	client := func(into *[]time.Duration, do func(i int) error) {
		wait.Go(func() {
			var mine []time.Duration
			for i := 0; ; i++ {
				began := time.Now()
				if began.After(end) {
					break
				}
				if err := do(i); err != nil {
					m.Error(err)
					return
				}
				mine = append(mine, time.Since(began))
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			*into = append(*into, mine...)
		})
	}
	for c := range benchClients {
		client(&s.pushes, func(i int) error {
			_, err := m.push(benchRepo(c+i), fmt.Sprintf("c%d", c))
			return err
		})
		client(&s.pulls, func(i int) error {
			at := (i*7 + c*131) % m.n
			at -= at / benchRepos % 2 * benchRepos // one with a tag
			return m.pull(benchRepo(at), fmt.Sprint("v", at))
		})
	}
	wait.Wait()
}
