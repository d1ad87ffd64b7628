package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/test/upstreamtest"
)

// patienceOfTest bounds waits that a good product ends at once.
const patienceOfTest = 60 * time.Second

// reader is a client in the middle of a blob.
type reader struct {
	res    *http.Response
	cancel func()
	read   bytes.Buffer
}

// begin opens a path at a replica and reads its first byte.
func begin(a *api, path string) (*reader, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patienceOfTest)
	r := &reader{cancel: cancel}
	req, err := http.NewRequestWithContext(ctx, "GET", a.base+path, nil)
	if err == nil {
		r.res, err = a.http.Do(req)
	}
	if err == nil && r.res.StatusCode != 200 {
		err = fmt.Errorf("GET %s: %d", path, r.res.StatusCode)
	}
	if err == nil {
		_, err = io.CopyN(&r.read, r.res.Body, 1)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return r, nil
}

// rest reads to the end and holds all against a digest.
func (r *reader) rest(digest string) error {
	defer r.cancel()
	if _, err := io.Copy(&r.read, r.res.Body); err != nil {
		return err
	}
	if got := digestOf(r.read.Bytes()); got != digest {
		return fmt.Errorf("%d bytes with digest %s, want %s", r.read.Len(), got, digest)
	}
	return nil
}

// held has the upstream stop in the middle of its first blob until release.
func held(up *upstreamtest.Registry, at int64) (reached <-chan struct{}, release func()) {
	open, there := make(chan struct{}), make(chan struct{})
	var once sync.Once
	up.On(upstreamtest.Rule{Kind: upstreamtest.Blob, Method: "GET",
		Do: upstreamtest.Pause(at, func() { once.Do(func() { close(there) }) }, open)})
	return there, sync.OnceFunc(func() { close(open) })
}

func soon(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patienceOfTest):
		t.Fatalf("%s: not within %v", what, patienceOfTest)
	}
}

// readAll has n clients read a blob, at the replicas in turn, and returns once
// those of the first replica have begun; wait waits until all have read it.
func (k *cacheCheck) readAll(n int, digest string) (wait func()) {
	k.t.Helper()
	begun := make(chan struct{}, n)
	var all sync.WaitGroup
	for i := range n {
		a := k.c.at(i)
		all.Go(func() {
			r, err := begin(a, k.path("blobs", digest))
			if i%k.c.replicas == 0 {
				begun <- struct{}{}
			}
			if err == nil {
				err = r.rest(digest)
			}
			if err != nil {
				k.t.Errorf("reader %d: %v", i, err)
			}
		})
	}
	for range (n + k.c.replicas - 1) / k.c.replicas {
		soon(k.t, "the first byte at each of the readers", begun)
	}
	return all.Wait
}

// 1: fifty read a blob at once that is not here. The upstream sends it once, and
// all have its first byte before the upstream has sent its last: all those of one
// replica, while those of another wait for it.
func fiftyReaders(k *cacheCheck) {
	up := k.upstream()
	k.run(func() {
		d := up.AddBlob(app, "", upstreamtest.Bytes(100, 10<<20))
		_, release := held(up, 1<<20)
		defer release()
		if k.c.replicas > 1 { // have the first be the one that fetches
			r, err := begin(k.c.at(0), k.path("blobs", d.Digest))
			if err != nil {
				k.t.Fatal(err)
			}
			defer r.cancel()
		}
		wait := k.readAll(50, d.Digest)
		release()
		wait()
		k.asked(up, 1, upstreamtest.Blob, "GET")
	})
}

// 2: the first of several readers leaves after a tenth of the blob. The others
// get all of it, it is kept, and the upstream was asked once.
func firstReaderLeaves(k *cacheCheck) {
	up := k.upstream()
	k.run(func() {
		content := upstreamtest.Bytes(200, 10<<20)
		d := up.AddBlob(app, "", content)
		reached, release := held(up, 1<<20)
		defer release()
		first, err := begin(k.c.at(0), k.path("blobs", d.Digest))
		if err != nil {
			k.t.Fatal(err)
		}
		soon(k.t, "a tenth of the blob", reached)
		wait := k.readAll(9, d.Digest)
		first.cancel()
		release()
		wait()
		k.asked(up, 1, upstreamtest.Blob, "GET")

		// Nobody waits for it any more, and it comes all the same.
		alone := upstreamtest.Bytes(201, 10<<20)
		d = up.AddBlob(app, "", alone)
		reached, release = held(up, 1<<20)
		defer release()
		if first, err = begin(k.c.at(0), k.path("blobs", d.Digest)); err != nil {
			k.t.Fatal(err)
		}
		soon(k.t, "a tenth of the blob", reached)
		first.cancel()
		release()
		for range 2 {
			k.get(k.path("blobs", d.Digest)).gives(alone)
		}
		k.asked(up, 2, upstreamtest.Blob, "GET")
		up.Stop()
		for range 2 {
			k.get(k.path("blobs", digestOf(content))).gives(content)
			k.get(k.path("blobs", d.Digest)).gives(alone)
		}
	})
}

// 3: the upstream's connection breaks. What is missing is asked for by Range; the
// client notices nothing. The same with an upstream that ignores Range.
func brokenBody(k *cacheCheck) {
	up, ignores := k.upstream(), k.another("b")
	k.run(func() {
		for _, u := range []*upstreamtest.Registry{up, ignores} {
			content := upstreamtest.Bytes(300, 1<<20)
			d := u.AddBlob(app, "", content)
			after := upstreamtest.Behaviour(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) { serve(w, r) })
			name := k.name
			if u == ignores {
				after, name = upstreamtest.NoRange(), k.name+"b"
			}
			u.On(upstreamtest.Rule{Kind: upstreamtest.Blob, Method: "GET", Do: after})
			u.On(upstreamtest.Rule{Kind: upstreamtest.Blob, Method: "GET", Times: 1, Do: upstreamtest.Truncate(300_000)})
			k.get(k.pathOf(name+"/"+app, "blobs", d.Digest)).gives(content)
			k.asked(u, 2, upstreamtest.Blob, "GET")
			var resumed string
			for _, q := range u.Requests() {
				if q.Kind == upstreamtest.Blob && q.Method == "GET" {
					resumed = q.Header.Get("Range")
				}
			}
			var from int
			if _, err := fmt.Sscanf(resumed, "bytes=%d-", &from); err != nil || from <= 0 || from > 300_000 {
				k.t.Fatalf("the second request has Range %q", resumed)
			}
			k.get(k.pathOf(name+"/"+app, "blobs", d.Digest)).gives(content)
			k.asked(u, 2, upstreamtest.Blob, "GET")
		}
	})
}

// 4: bytes that are not the digest's are never a whole answer, and never kept.
func wrongBytes(k *cacheCheck) {
	up := k.upstream()
	k.run(func() {
		for i, size := range []int64{1 << 20, 100} {
			content := upstreamtest.Bytes(uint64(400+i), size)
			d := up.AddBlob(app, "", content)
			off := up.On(upstreamtest.Rule{Kind: upstreamtest.Blob, Method: "GET", Ref: d.Digest, Do: upstreamtest.Corrupt()})
			for range 2 { // at both replicas
				up.Forget()
				s := k.get(k.path("blobs", d.Digest))
				if s.status == 200 && (s.err == nil || int64(len(s.body)) >= size) {
					k.t.Fatalf("%s: %d wrong bytes, and %v", s.asked, len(s.body), s.err)
				}
				if s.status != 200 && s.status != 502 {
					k.t.Fatalf("%s: %d", s.asked, s.status)
				}
				if up.Count(upstreamtest.Blob, "GET") == 0 {
					k.t.Fatal("the upstream was not asked: wrong bytes are kept, or the right ones are refused")
				}
			}
			off()
			k.get(k.path("blobs", d.Digest)).gives(content)
		}
	})
}

// 5: HEAD of a blob that is not here tells all of it, and does not fetch it.
func headOfBlob(k *cacheCheck) {
	up := k.upstream()
	k.run(func() {
		d := up.AddBlob(app, "", upstreamtest.Bytes(500, 100_000))
		for range 2 {
			s := k.head(k.path("blobs", d.Digest)).is(200)
			equal(k.t, "Content-Length", s.header.Get("Content-Length"), "100000")
			equal(k.t, "Docker-Content-Digest", s.header.Get("Docker-Content-Digest"), d.Digest)
		}
		k.asked(up, 0, upstreamtest.Blob, "GET")
		k.head(k.path("blobs", digestOf([]byte("nothing")))).is(404)
	})
}

// 6: a range of a blob: cold, while the blob comes, and warm.
func ranges(k *cacheCheck) {
	up := k.upstream()
	k.run(func() {
		part := func(of func(path string, header ...string) said, d upstreamtest.Descriptor, content []byte) {
			k.t.Helper()
			s := of(k.path("blobs", d.Digest), "Range", "bytes=5-9").is(206)
			equal(k.t, "bytes", string(s.body), string(content[5:10]))
			equal(k.t, "Content-Range", s.header.Get("Content-Range"), "bytes 5-9/"+strconv.Itoa(len(content)))
		}
		cold := upstreamtest.Bytes(600, 100_000)
		d := up.AddBlob(app, "", cold)
		part(k.get, d, cold)
		k.get(k.path("blobs", d.Digest)).gives(cold)
		for range 2 {
			part(k.get, d, cold)
		}
		end := k.get(k.path("blobs", d.Digest), "Range", "bytes=-4").is(206)
		equal(k.t, "last bytes", string(end.body), string(cold[99_996:]))

		running := upstreamtest.Bytes(601, 4<<20)
		d = up.AddBlob(app, "", running)
		_, release := held(up, 1<<20)
		defer release()
		r, err := begin(k.c.at(0), k.path("blobs", d.Digest))
		if err != nil {
			k.t.Fatal(err)
		}
		part(func(path string, header ...string) said {
			s, err := askOf(k.c.at(0), "GET", path, nil, header...)
			if err != nil {
				k.t.Fatal(err)
			}
			s.t = k.t
			return s
		}, d, running)
		release()
		if err := r.rest(d.Digest); err != nil {
			k.t.Fatal(err)
		}
		for _, q := range up.Requests() {
			if q.Ref == d.Digest && q.Method == "GET" && strings.HasPrefix(q.Header.Get("Range"), "bytes=5-9") {
				k.t.Error("a range of what was coming was asked for anew")
			}
		}
	})
}
