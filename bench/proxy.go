package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	proxyName    = "up"   // of the cache of the bench's own upstream
	proxyOther   = "dist" // and of that of distribution
	proxyRepo    = "bench/pull"
	proxyCrowd   = 50        // clients that pull one blob at once
	proxyRepeats = 50        // cold blobs whose first byte is awaited
	proxyWire    = 119 << 20 // bytes a second of an upstream that is reached by 1 Gbit/s
)

// proxyBench measures Berth as a cache: against its upstreams, and against what
// it serves of its own.
type proxyBench struct {
	opts     options
	src      *source
	origin   *origin
	upstream *target // distribution
	berth    *target
	lines    []string
}

// origin is an upstream within the bench, which knows when it sent what.
type origin struct {
	listener net.Listener
	mu       sync.Mutex
	blobs    map[string]*originBlob // by digest
}

type originBlob struct {
	blob
	wire  float64 // bytes a second; 0: as fast as can be
	sends atomic.Int64
	first atomic.Int64 // when its first byte was written, in Unix nanoseconds
}

func newOrigin() (*origin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &origin{listener: l, blobs: map[string]*originBlob{}}
	go http.Serve(l, o) // ends with the listener
	return o, nil
}

func (o *origin) add(b blob) *originBlob {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept := &originBlob{blob: b}
	o.blobs[b.digest] = kept
	return kept
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" {
		return
	}
	o.mu.Lock()
	b := o.blobs[filepath.Base(r.URL.Path)]
	o.mu.Unlock()
	if b == nil || !strings.Contains(r.URL.Path, "/blobs/") {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Docker-Content-Digest", b.digest)
	w.Header().Set("Content-Length", fmt.Sprint(b.size))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	b.sends.Add(1)
	b.first.CompareAndSwap(0, time.Now().UnixNano())
	if err := http.NewResponseController(w).Flush(); err != nil {
		return
	}
	begin, sent := time.Now(), 0
	for _, part := range b.appendTo(nil) {
		if b.wire > 0 {
			time.Sleep(time.Duration(float64(sent)/b.wire*float64(time.Second)) - time.Since(begin))
		}
		if _, err := w.Write(part); err != nil {
			return
		}
		sent += len(part)
	}
}

// firstByte is a sink that notes when something first came.
type firstByte struct{ at time.Time }

func (f *firstByte) Write(p []byte) (int, error) {
	if f.at.IsZero() && len(p) > 0 {
		f.at = time.Now()
	}
	return len(p), nil
}

func runProxy(ctx context.Context, o options, args []string) (err error) {
	work, err := os.MkdirTemp(o.dir, "berth-bench-proxy-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	b := &proxyBench{opts: o, src: newSource()}
	version, err := b.start(ctx, work)
	defer func() { err = errors.Join(err, b.stop()) }()
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{{"first byte", b.firstBytes}, {"throughput", b.throughput}, {"warm", b.warm}, {"crowd", b.crowd}} {
		if !o.only.MatchString(step.name) {
			continue
		}
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	host, err := describeHost(work)
	if err != nil {
		return err
	}
	fmt.Printf("| Load | Unit | Without the cache | Through it | Ratio | Goal |\n|---|---|--:|--:|--:|--:|\n%s\nMedians of %d rounds of %s; a ratio is the median, with the lowest and the highest, of the rounds'.\n\n- Machine: %s\n- Berth: %s\n- Date: %s\n- Command: `%s`\n",
		strings.Join(b.lines, ""), o.rounds, o.duration, host, version, time.Now().UTC().Format(time.DateOnly), commandLine(args))
	return nil
}

// start runs the upstreams and a Berth in front of both.
func (b *proxyBench) start(ctx context.Context, work string) (version string, err error) {
	if b.origin, err = newOrigin(); err != nil {
		return "", err
	}
	upstream, err := findDistribution(ctx, b.opts, work)
	if err != nil {
		return "", err
	}
	if b.upstream, err = upstream.start(ctx, filepath.Join(work, "upstream")); err != nil {
		return "", err
	}
	berth, err := buildBerth(ctx, b.opts, work)
	if err != nil {
		return "", err
	}
	plain := berth.arguments
	config := filepath.Join(work, "berth.yaml")
	text := "proxies:\n"
	for name, addr := range map[string]string{proxyName: b.origin.listener.Addr().String(), proxyOther: b.upstream.addr} {
		text += fmt.Sprintf("  - name: %s\n    upstreams: [\"http://%s\"]\n    networks: [127.0.0.0/8]\n    limits: {connections: 200}\n", name, addr)
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", err
	}
	berth.arguments = func(addr, dir string) ([]string, error) {
		args, err := plain(addr, dir)
		return append(args, "--config", config), err
	}
	b.berth, err = berth.start(ctx, filepath.Join(work, "cache"))
	return berth.version, err
}

func (b *proxyBench) stop() (err error) {
	for _, t := range []*target{b.berth, b.upstream} {
		if t != nil {
			err = errors.Join(err, t.stop())
		}
	}
	if b.origin != nil {
		err = errors.Join(err, b.origin.listener.Close())
	}
	return err
}

// line adds a row of two numbers for each round.
func (b *proxyBench) line(name, unit, goal string, without, through []float64) {
	ratio := make([]float64, len(without))
	for i := range ratio {
		ratio[i] = through[i] / without[i]
	}
	r := spreadOf(ratio)
	b.lines = append(b.lines, fmt.Sprintf("| %s | %s | %s | %s | %.2f (%.2f–%.2f) | %s |\n", name, unit,
		number(spreadOf(without).median), number(spreadOf(through).median), r.median, r.low, r.high, goal))
}

func (b *proxyBench) note(name, unit, goal string, value float64) {
	b.lines = append(b.lines, fmt.Sprintf("| %s | %s | %s | %s | %s | %s |\n", name, unit, absent, number(value), absent, goal))
}

// firstBytes measures how much later than the upstream's first byte that of a
// blob which nobody has asked for yet comes out of the cache.
func (b *proxyBench) firstBytes(ctx context.Context) error {
	c, err := dial(ctx, b.berth.addr)
	if err != nil {
		return err
	}
	defer c.close()
	var late []float64
	for range proxyRepeats {
		cold := b.origin.add(b.src.blob(4 * smallBlob))
		var first firstByte
		if _, err := c.do(request{method: http.MethodGet, path: blobPath(proxyName+"/"+proxyRepo, cold.digest), want: http.StatusOK, wantSize: cold.size, sink: &first}); err != nil {
			return err
		}
		late = append(late, float64(first.at.UnixNano()-cold.first.Load())/1e6)
	}
	b.note(fmt.Sprintf("Cold pull: first byte after the upstream's, median of %d blobs", proxyRepeats), "ms", "≤ 5", spreadOf(late).median)
	return nil
}

// throughput pulls large blobs straight from an upstream and, each for the first
// time, through the cache: from distribution, and over a wire of 1 Gbit/s.
func (b *proxyBench) throughput(ctx context.Context) error {
	what := "Cold pull, " + mebibytes(b.opts.blobSize) + ", 1 client, against the upstream itself"
	err := b.coldPulls(ctx, what, b.upstream.addr, proxyOther, func(c *client) (blob, error) {
		large := b.src.blob(b.opts.blobSize)
		return large, c.pushBlob(proxyRepo, &large)
	})
	if err != nil {
		return err
	}
	return b.coldPulls(ctx, what+" at 1 Gbit/s", b.origin.listener.Addr().String(), proxyName, func(*client) (blob, error) {
		large := b.src.blob(b.opts.blobSize)
		b.origin.add(large).wire = proxyWire
		return large, nil
	})
}

// coldPulls measures one upstream; fresh gives it a blob.
func (b *proxyBench) coldPulls(ctx context.Context, what, upstream, name string, fresh func(*client) (blob, error)) error {
	direct, err := dial(ctx, upstream)
	if err != nil {
		return err
	}
	defer direct.close()
	through, err := dial(ctx, b.berth.addr)
	if err != nil {
		return err
	}
	defer through.close()
	var without, with []float64
	for range b.opts.rounds {
		large, err := fresh(direct)
		if err != nil {
			return err
		}
		for _, turn := range []struct {
			c    *client
			repo string
			into *[]float64
		}{{direct, proxyRepo, &without}, {through, name + "/" + proxyRepo, &with}} {
			begin := time.Now()
			if _, err := turn.c.do(request{method: http.MethodGet, path: blobPath(turn.repo, large.digest), want: http.StatusOK, wantSize: large.size}); err != nil {
				return err
			}
			*turn.into = append(*turn.into, float64(large.size)/(1<<20)/time.Since(begin).Seconds())
		}
	}
	b.line(what, "MiB/s", "≥ 0.90", without, with)
	return nil
}

// warm compares what lies in the cache with what was pushed here.
func (b *proxyBench) warm(ctx context.Context) error {
	const hosted = "bench/own"
	cached := proxyOther + "/" + proxyRepo
	image := newImage("warm", b.src.blobs(1+imageLayers, 4096))
	large, small := b.src.blob(b.opts.blobSize), b.src.blob(smallBlob)
	for addr, repo := range map[string]string{b.upstream.addr: proxyRepo, b.berth.addr: hosted} {
		c, err := dial(ctx, addr)
		if err != nil {
			return err
		}
		err = errors.Join(c.pushImage(repo, "v1", image), c.pushBlob(repo, &large), c.pushBlob(repo, &small))
		c.close()
		if err != nil {
			return err
		}
	}
	for _, l := range []struct {
		name, unit string
		clients    int
		perOp      float64
		request    func(repo string) request
	}{
		{"Warm pull, " + mebibytes(large.size) + ", 2 clients, against a hosted repository", "MiB/s", fewClients, float64(large.size >> 20), func(repo string) request {
			return request{method: http.MethodGet, path: blobPath(repo, large.digest), want: http.StatusOK, wantSize: large.size}
		}},
		{"Warm pull, 1 MiB, 8 clients", "MiB/s", manyClients, 1, func(repo string) request {
			return request{method: http.MethodGet, path: blobPath(repo, small.digest), want: http.StatusOK, wantSize: small.size}
		}},
		{"Manifest GET by tag within its time, 8 clients", "requests/s", manyClients, 1, func(repo string) request {
			return request{method: http.MethodGet, path: manifestPath(repo, "v1"), want: http.StatusOK}
		}},
		{"Manifest GET by digest, 8 clients", "requests/s", manyClients, 1, func(repo string) request {
			return request{method: http.MethodGet, path: manifestPath(repo, image.digest), want: http.StatusOK}
		}},
	} {
		var without, with []float64
		for range b.opts.rounds {
			for _, turn := range []struct {
				repo string
				into *[]float64
			}{{hosted, &without}, {cached, &with}} {
				f, err := newFleet(ctx, b.berth.addr, l.clients)
				if err != nil {
					return err
				}
				rate, err := f.rate(b.opts.duration, func(w *worker) error {
					_, err := w.do(l.request(turn.repo))
					return err
				})
				f.close()
				if err != nil {
					return err
				}
				*turn.into = append(*turn.into, rate*l.perOp)
			}
		}
		b.line(l.name, l.unit, "≥ 0.90", without, with)
	}
	return nil
}

// crowd has many clients pull one blob that nobody has asked for yet, and then
// once more.
func (b *proxyBench) crowd(ctx context.Context) error {
	cold := b.origin.add(b.src.blob(b.opts.memorySize))
	f, err := newFleet(ctx, b.berth.addr, proxyCrowd)
	if err != nil {
		return err
	}
	defer f.close()
	pull := func() (float64, error) {
		begin := time.Now()
		err := f.each(func(w *worker, _ *atomic.Bool) error {
			var tail tailSink
			_, err := w.do(request{method: http.MethodGet, path: blobPath(proxyName+"/"+proxyRepo, cold.digest), want: http.StatusOK, wantSize: cold.size, sink: &tail})
			if err == nil && !bytes.HasSuffix(tail.last, cold.tail[:]) {
				err = errors.New("the blob does not end as it should")
			}
			return err
		})
		return time.Since(begin).Seconds(), err
	}
	first, err := pull()
	if err != nil {
		return err
	}
	peak, err := peakMemory(b.berth.pid)
	if err != nil {
		return err
	}
	again, err := pull()
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%d clients pull one blob of %s at once", proxyCrowd, mebibytes(cold.size))
	b.lines = append(b.lines, fmt.Sprintf("| %s: cold against warm | s | %s | %s | %.2f | ≤ 1.20 |\n", name, number(again), number(first), first/again))
	b.note(name+": upstream sends it", "times", "1", float64(cold.sends.Load()))
	b.note(name+": memory", "MiB resident", "≤ 128", float64(peak)/(1<<20))
	return nil
}

// tailSink keeps the end of what is written to it.
type tailSink struct{ last []byte }

func (t *tailSink) Write(p []byte) (int, error) {
	keep := p[max(0, len(p)-tailSize):]
	t.last = append(t.last, keep...)
	t.last = append(t.last[:0], t.last[max(0, len(t.last)-tailSize):]...)
	return len(p), nil
}
