package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	smallBlob    = 1 << 20
	pullRepo     = "bench/pull"
	manifests    = 100 // manifests, tags and small blobs that the GET and HEAD loads ask for
	imageLayers  = 5   // layers of each of those manifests
	fewClients   = 2   // for large blobs: one a core of a small machine
	manyClients  = 8
	memoryBlobs  = 20 // concurrent pushes, and as many pulls
	tagsPage     = 100
	tagsFew      = 1_000
	tagsMany     = 100_000
	storeRepos   = 100
	storeClients = 32

	// maxTagsPerPush is how many tag parameters one manifest PUT may carry.
	maxTagsPerPush = 100
)

// row is one line of the table: a number that a load measures.
type row struct {
	name, unit string
	goal       string // what Berth is to reach
	ratio      bool   // more is better, and the limit server shows how much there is
}

// load is one kind of work. A load with prepare keeps its store through all
// rounds; one without gets an empty store for each turn.
type load struct {
	rows      []row
	berthOnly bool
	rounds    int           // 0 leaves it to the options
	timeout   time.Duration // of a turn, and of prepare
	prepare   func(ctx context.Context, t *target) error
	measure   func(ctx context.Context, t *target) ([]float64, error) // a number for each row
}

func (l load) name() string { return l.rows[0].name }

// loads lists everything there is to measure, in the order of the table.
func loads(o options) []load {
	src := newSource()
	all := []load{
		blobPush(o, src, o.blobSize, fewClients),
		blobPush(o, src, smallBlob, manyClients),
		blobPull(o, src, o.blobSize, fewClients, fewClients),
		blobPull(o, src, smallBlob, 64, manyClients),
		imagePush(o, src),
	}
	all = append(all, lookups(o, src)...)
	all = append(all, tagPages(o, src), startUp(o, src), memory(o, src))
	var chosen []load
	for _, l := range all {
		if o.only.MatchString(l.name()) {
			if l.rounds == 0 {
				l.rounds = o.rounds
			}
			if l.timeout == 0 {
				l.timeout = 5*time.Minute + 3*o.duration
			}
			chosen = append(chosen, l)
		}
	}
	return chosen
}

// rated is a load that repeats op on n clients; unitsPerOp turns operations
// into the row's unit.
func rated(o options, r row, n int, unitsPerOp float64, op func(*worker) error) load {
	return load{
		rows: []row{r},
		measure: func(ctx context.Context, t *target) ([]float64, error) {
			f, err := newFleet(ctx, t.addr, n)
			if err != nil {
				return nil, err
			}
			defer f.close()
			perSecond, err := f.timed(t, o.duration, op)
			return []float64{perSecond * unitsPerOp}, err
		},
	}
}

func blobPush(o options, src *source, size int64, clients int) load {
	r := row{fmt.Sprintf("Blob push, %s, %d clients", mebibytes(size), clients), "MiB/s", "≥ 0.85", true}
	return rated(o, r, clients, float64(size)/(1<<20), func(w *worker) error {
		b := src.blob(size)
		return w.pushBlob(w.repo("push"), &b)
	})
}

func blobPull(o options, src *source, size int64, count, clients int) load {
	r := row{fmt.Sprintf("Blob pull, %s, %d clients", mebibytes(size), clients), "MiB/s", "≥ 0.85", true}
	blobs := src.blobs(count, size)
	l := rated(o, r, clients, float64(size)/(1<<20), func(w *worker) error {
		b := &blobs[(w.id+w.done)%count]
		_, err := w.do(request{method: http.MethodGet, path: blobPath(pullRepo, b.digest), want: http.StatusOK, wantSize: size})
		return err
	})
	l.prepare = func(ctx context.Context, t *target) error {
		return pushAll(ctx, t, blobs)
	}
	return l
}

// pushAll stores the blobs in the repository that is pulled from and reads the
// first one back.
func pushAll(ctx context.Context, t *target, blobs []blob) error {
	f, err := newFleet(ctx, t.addr, fewClients)
	if err != nil {
		return err
	}
	defer f.close()
	err = f.share(len(blobs), func(w *worker, i int) error { return w.pushBlob(pullRepo, &blobs[i]) })
	if err != nil {
		return err
	}
	return f[0].verify(blobPath(pullRepo, blobs[0].digest), blobs[0].digest)
}

// imagePush pushes images that share nothing: three blobs of 2 to 20 KiB, then
// the manifest under a tag.
func imagePush(o options, src *source) load {
	r := row{fmt.Sprintf("Small image push (3 blobs + manifest), %d clients", manyClients), "images/s", "≥ 0.40", true}
	return rated(o, r, manyClients, 1, func(w *worker) error {
		blobs := make([]blob, 3)
		for i := range blobs {
			blobs[i] = src.blob(2<<10 + rand.Int64N(19)<<10)
		}
		return w.pushImage(w.repo("small"), fmt.Sprintf("v%d", w.done), newImage("small", blobs))
	})
}

// lookups are the short requests. All of them ask for one of many things in
// turn, so that no server answers from one warm entry.
func lookups(o options, src *source) []load {
	layers := src.blobs(imageLayers+1, 4<<10)
	images := make([]image, manifests)
	for i := range images {
		images[i] = newImage(tagName(i), layers)
	}
	blobs := src.blobs(manifests, 4<<10)

	lookup := func(name, method string, path func(i int) string, size func(i int) int) load {
		r := row{fmt.Sprintf("%s, %d clients", name, manyClients), "requests/s", "≥ 0.50", true}
		l := rated(o, r, manyClients, 1, func(w *worker) error {
			i := (w.id*manifests/manyClients + w.done) % manifests
			_, err := w.do(request{method: method, path: path(i), want: http.StatusOK, wantSize: int64(size(i))})
			return err
		})
		l.prepare = func(ctx context.Context, t *target) error { return pushLookups(ctx, t, layers, blobs, images) }
		return l
	}
	byTag := func(i int) string { return manifestPath(pullRepo, tagName(i)) }
	byDigest := func(i int) string { return manifestPath(pullRepo, images[i].digest) }
	manifestSize := func(i int) int { return len(images[i].content) }
	blob := func(i int) string { return blobPath(pullRepo, blobs[i].digest) }
	blobSize := func(i int) int { return int(blobs[i].size) }
	return []load{
		lookup("Manifest GET by tag", http.MethodGet, byTag, manifestSize),
		lookup("Manifest GET by digest", http.MethodGet, byDigest, manifestSize),
		lookup("Manifest HEAD by tag", http.MethodHead, byTag, manifestSize),
		lookup("Blob HEAD", http.MethodHead, blob, blobSize),
	}
}

func pushLookups(ctx context.Context, t *target, layers, blobs []blob, images []image) error {
	if err := pushAll(ctx, t, append(blobs[:len(blobs):len(blobs)], layers...)); err != nil {
		return err
	}
	f, err := newFleet(ctx, t.addr, manyClients)
	if err != nil {
		return err
	}
	defer f.close()
	err = f.share(len(images), func(w *worker, i int) error { return w.putManifest(pullRepo, tagName(i), images[i]) })
	if err != nil {
		return err
	}
	return f[0].verify(manifestPath(pullRepo, tagName(0)), images[0].digest)
}

// tagRepo is a repository of which pages of tags are read.
type tagRepo struct {
	name string
	tags int
}

// page reads one page behind a random tag that has a full page behind it.
func (r tagRepo) page(w *worker) error {
	last := tagName(rand.IntN(r.tags - tagsPage))
	path := fmt.Sprintf("/v2/%s/tags/list?n=%d&last=%s", r.name, tagsPage, last)
	_, err := w.do(request{method: http.MethodGet, path: path, want: http.StatusOK})
	return err
}

// tagPages compares a page of tags between a small and a large repository of
// one store.
func tagPages(o options, src *source) load {
	config := src.blobs(2, 2<<10)
	few, many := tagRepo{"bench/tags-few", tagsFew}, tagRepo{"bench/tags-many", tagsMany}
	name := func(r tagRepo) string {
		return fmt.Sprintf("Tags page (n=%d) of %s tags, 1 client", tagsPage, grouped(r.tags))
	}
	return load{
		rows: []row{
			{name(few), "pages/s", "", false},
			{name(many), "pages/s", "", false},
			{fmt.Sprintf("Cost of a page, %s tags ÷ %s tags", grouped(many.tags), grouped(few.tags)), "×", "≤ 1.3", false},
		},
		berthOnly: true,
		prepare: func(ctx context.Context, t *target) error {
			for _, r := range []tagRepo{few, many} {
				s := store{repos: []string{r.name}, blobs: config, tags: r.tags, tagsPerPush: maxTagsPerPush}
				if err := fillStore(ctx, t, s); err != nil {
					return err
				}
			}
			return nil
		},
		measure: func(ctx context.Context, t *target) ([]float64, error) {
			rates, err := alternate(ctx, t, o.duration, few.page, many.page)
			if err != nil {
				return nil, err
			}
			return append(rates, rates[0]/rates[1]), nil
		},
	}
}

// alternate gives operations short slices of time in turn, on one client, and
// returns how often a second each of them was done.
func alternate(ctx context.Context, t *target, d time.Duration, ops ...func(*worker) error) ([]float64, error) {
	f, err := newFleet(ctx, t.addr, 1)
	if err != nil {
		return nil, err
	}
	defer f.close()
	const slices = 5
	rates := make([]float64, len(ops))
	for range slices {
		for i, op := range ops {
			perSecond, err := f.rate(d/slices, op)
			if err != nil {
				return nil, err
			}
			rates[i] += perSecond / slices
		}
	}
	return rates, nil
}

// startUp takes the time from starting the process to its first answer, on a
// store of many manifests and tags.
func startUp(o options, src *source) load {
	s := store{blobs: src.blobs(2, 2<<10), tags: o.storeSize, tagsPerPush: o.tagsPerPush}
	for i := range storeRepos {
		s.repos = append(s.repos, fmt.Sprintf("bench/store-%d", i))
	}
	name := fmt.Sprintf("Start on %s manifests and %s tags", grouped(s.pushes()), grouped(s.tags))
	return load{
		rows:      []row{{name, "ms until ready", "< 1 000", false}},
		berthOnly: true,
		timeout:   5*time.Minute + time.Duration(s.pushes())*5*time.Millisecond,
		prepare:   func(ctx context.Context, t *target) error { return fillStore(ctx, t, s) },
		measure: func(_ context.Context, t *target) ([]float64, error) {
			return []float64{float64(t.ready.Microseconds()) / 1000}, nil
		},
	}
}

// store is content for fillStore: tags spread over repositories, some of them
// on each manifest, all manifests over the same blobs.
type store struct {
	repos             []string
	blobs             []blob
	tags, tagsPerPush int
}

func (s store) pushes() int { return (s.tags + s.tagsPerPush - 1) / s.tagsPerPush }

func fillStore(ctx context.Context, t *target, s store) error {
	f, err := newFleet(ctx, t.addr, storeClients)
	if err != nil {
		return err
	}
	defer f.close()
	err = f.share(len(s.repos), func(w *worker, i int) error {
		for k := range s.blobs {
			if err := w.pushBlob(s.repos[i], &s.blobs[k]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return f.share(s.pushes(), func(w *worker, i int) error {
		var tags []string
		for n := i * s.tagsPerPush; n < min((i+1)*s.tagsPerPush, s.tags); n++ {
			tags = append(tags, tagName(n))
		}
		m := newImage(tags[0], s.blobs)
		return w.putManifest(s.repos[i%len(s.repos)], m.digest, m, tags...)
	})
}

// memory has large pushes and pulls all at once and asks for the most memory
// the process ever had. Once is enough: it is no matter of speed.
func memory(o options, src *source) load {
	b := src.blob(o.memorySize)
	name := fmt.Sprintf("Memory, %d pushes + %d pulls of %s at once", memoryBlobs, memoryBlobs, mebibytes(o.memorySize))
	return load{
		rows:    []row{{name, "MiB resident", "≤ 128", false}},
		rounds:  1,
		timeout: 5*time.Minute + time.Duration(memoryBlobs*o.memorySize>>20)*50*time.Millisecond,
		prepare: func(ctx context.Context, t *target) error { return pushAll(ctx, t, []blob{b}) },
		measure: func(ctx context.Context, t *target) ([]float64, error) {
			if err := pushAndPull(ctx, t, src, &b); err != nil {
				return nil, err
			}
			peak, err := peakMemory(t.pid)
			return []float64{float64(peak) / (1 << 20)}, err
		},
	}
}

// pushAndPull pulls b on some clients while others push blobs of its size.
func pushAndPull(ctx context.Context, t *target, src *source, b *blob) error {
	f, err := newFleet(ctx, t.addr, 2*memoryBlobs)
	if err != nil {
		return err
	}
	defer f.close()
	return f.each(func(w *worker, _ *atomic.Bool) error {
		if w.id%2 == 0 {
			push := src.blob(b.size)
			return w.pushBlob(w.repo("memory"), &push)
		}
		_, err := w.do(request{method: http.MethodGet, path: blobPath(pullRepo, b.digest), want: http.StatusOK, wantSize: b.size})
		return err
	})
}

// tagName makes tags that sort like their numbers.
func tagName(n int) string { return fmt.Sprintf("v%07d", n) }

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
