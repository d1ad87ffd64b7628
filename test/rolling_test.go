package test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// patient repeats requests as docker, containerd and crane do: where the
// connection broke, or a balancer or server says that it is a passing trouble.
// It counts the repetitions.
type patient struct {
	next    http.RoundTripper
	repeats *atomic.Int64
}

const patience = 5 // attempts, as crane has

func (p patient) RoundTrip(r *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		res, err := p.next.RoundTrip(r)
		passing := err != nil || slices.Contains([]int{502, 503, 504}, res.StatusCode)
		if !passing || try == patience || r.Body != nil && r.GetBody == nil {
			return res, err
		}
		if err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		p.repeats.Add(1)
		time.Sleep(time.Duration(try) * 200 * time.Millisecond)
		if r.GetBody != nil {
			if r.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// worker pushes and pulls images until it is told to stop.
type worker struct {
	*pusher
	pushes, uploads int64 // done; and blobs that were begun anew
}

// work pushes an image and pulls it, again and again. A blob whose upload broke
// is pushed anew, as clients do, and counted.
func (w *worker) work(until <-chan struct{}) error {
	for {
		select {
		case <-until:
			return nil
		default:
		}
		w.images++
		tag := fmt.Sprint("v", w.images%5)
		seed := w.number<<32 | w.images
		content := asJSON(map[string]any{
			"schemaVersion": 2, "mediaType": ociManifest,
			"config": w.push(stuff{seed, 300}), "layers": []descriptor{w.push(stuff{seed + 1<<20, 400_000})},
		})
		d, err := w.api.pushManifest(w.repo, tag, ociManifest, content)
		if err != nil {
			return err
		}
		got, err := w.api.verify(w.repo, tag)
		if err != nil {
			return err
		}
		if got.Digest != d.Digest {
			return fmt.Errorf("tag %s is %s after %s was acknowledged", tag, got.Digest, d.Digest)
		}
		w.pushes++
	}
}

// push uploads a blob; the error of the last attempt shows in the manifest's.
func (w *worker) push(content stuff) (d descriptor) {
	for range patience {
		var err error
		if d, err = w.api.pushBlob(w.repo, content.bytes()); err == nil {
			return d
		}
		w.uploads++
	}
	return d
}

// roll runs 16 clients while restart replaces both replicas, one after the
// other. It tells how many requests they repeated, and how many blobs they had
// to push anew.
func roll(t *testing.T, restart func(f *fleet, part string)) (repeated, anew int64) {
	f := sharedFleet(t)
	var repeats atomic.Int64
	var workers []*worker
	for i := range 16 {
		a := f.through(t).root()
		a.http.Transport = patient{a.http.Transport, &repeats}
		workers = append(workers, &worker{pusher: &pusher{api: a, repo: fmt.Sprint(nameOf(t), "/", i), number: uint64(i)}})
	}
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- together(workers, func(w *worker) error { return w.work(stop) })
	}()
	time.Sleep(time.Second)
	for _, part := range []string{"berth-1", "berth-2"} {
		restart(f, part)
		time.Sleep(2 * time.Second) // until the balancer has noticed
	}
	close(stop)
	err := <-ended
	var pushes, uploads int64
	for _, w := range workers {
		pushes, uploads = pushes+w.pushes, uploads+w.uploads
	}
	t.Logf("%d images pushed and pulled; %d requests repeated, %d blobs pushed anew", pushes, repeats.Load(), uploads)
	if err != nil {
		t.Error(err)
	}
	if pushes < 16 {
		t.Error("the restarts came before anything happened: nothing was tested")
	}
	return repeats.Load(), uploads
}

// TestRollingRestart: replicas are replaced one by one, as by an administrator,
// and clients notice nothing.
func TestRollingRestart(t *testing.T) {
	_, anew := roll(t, func(f *fleet, part string) { f.must(t, "restart", part) })
	if anew != 0 {
		t.Errorf("%d uploads were cut off", anew)
	}
}

// TestRollingKill: replicas are killed one by one, and clients notice nothing
// that they do not try again by themselves.
func TestRollingKill(t *testing.T) {
	roll(t, func(f *fleet, part string) {
		f.must(t, "kill", part)
		time.Sleep(time.Second)
		f.must(t, "start", part)
	})
}
