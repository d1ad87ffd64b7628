package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// stock is what a world has before a fault.
type stock struct {
	image, blob descriptor
	session     string
}

func (w *world) stock() stock {
	w.t.Helper()
	r := &repo{w.t, w.api, "fault/app"}
	s := stock{image: r.pushImage("v1", 1), blob: r.must(w.api.pushBlob("fault/app", stuff{5, 100_000}.bytes()))}
	var err error
	if s.session, err = w.api.startUpload("fault/app"); err != nil {
		w.t.Fatal(err)
	}
	w.alive("")
	return s
}

// reads and writes are a request of each kind that the database must answer.
func (w *world) reads(s stock) []reply {
	return w.all([]request{
		{"GET", "/v2/fault/app/manifests/v1", nil},
		{"HEAD", "/v2/fault/app/manifests/v1", nil},
		{"HEAD", "/v2/fault/app/blobs/" + s.blob.Digest, nil},
		{"GET", "/v2/fault/app/blobs/" + s.blob.Digest, nil},
		{"GET", "/v2/fault/app/tags/list", nil},
		{"GET", "/v2/fault/app/referrers/" + s.image.Digest, nil},
		{"GET", "/v2/_catalog", nil},
		{"GET", s.session, nil},
	})
}

func (w *world) writes(s stock) []reply {
	content := stuff{99, 1000}
	manifest := asJSON(map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "layers": []descriptor{},
		"config": descriptor{"application/vnd.oci.image.config.v1+json", s.blob.Digest, s.blob.Size}})
	return w.all([]request{
		{"POST", "/v2/fault/app/blobs/uploads/", nil},
		{"POST", "/v2/fault/app/blobs/uploads/?digest=" + content.digest(), content.bytes()},
		{"POST", "/v2/fault/other/blobs/uploads/?mount=" + s.blob.Digest + "&from=fault/app", nil},
		{"PATCH", s.session, content.bytes()},
		{"PUT", s.session + "?digest=" + content.digest(), content.bytes()},
		{"DELETE", s.session, nil},
		{"PUT", "/v2/fault/app/manifests/v2", manifest},
		{"DELETE", "/v2/fault/app/manifests/v1", nil},
	})
}

type request struct {
	method, path string
	body         []byte
}

// all sends requests at the same time.
func (w *world) all(list []request) []reply {
	replies := make([]reply, len(list))
	var wg sync.WaitGroup
	for i, r := range list {
		wg.Go(func() { replies[i] = w.ask(r.method, r.path, bytes.NewReader(r.body), "Content-Type", ociManifest) })
	}
	wg.Wait()
	return replies
}

func unavailable(t *testing.T, replies []reply) {
	t.Helper()
	for _, r := range replies {
		r.unavailable(t)
	}
}

// whole wants everything there and working, without a restart, soon.
func (w *world) whole(s stock) {
	w.t.Helper()
	w.soon(func() error { _, _, err := w.api.manifest("fault/app", "v1"); return err })
	r := &repo{w.t, w.api, "fault/app"}
	if got, _, err := w.api.manifest("fault/app", "v1"); err != nil || got.Digest != s.image.Digest {
		w.t.Errorf("v1 is %v, %v; want %s", got, err, s.image.Digest)
	}
	content := stuff{7, 300_000}
	if err := w.api.finishUpload(s.session, content.digest(), content.from(0)); err != nil {
		w.t.Errorf("the session from before: %v", err)
	}
	r.pushImage("after", 3)
	w.alive("")
}

// soon wants f to succeed within a second or so of a fault's end; a machine
// that is busy with other tests gets more.
func (w *world) soon(f func() error) {
	w.t.Helper()
	begin := time.Now()
	for {
		err := f()
		if err == nil {
			w.t.Logf("healed after %v", time.Since(begin).Round(time.Millisecond))
			return
		}
		if time.Since(begin) > 8*time.Second {
			w.t.Fatalf("not healed after %v: %v", time.Since(begin), err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestPostgresGone ends the server: its port is closed. Every request gets 503
// at once, and all goes on as soon as it is back.
func TestPostgresGone(t *testing.T) {
	w := newWorld(t)
	s := w.stock()
	w.postgres.stop(syscall.SIGINT)
	w.toPG.refuse()
	unavailable(t, w.reads(s))
	unavailable(t, w.writes(s))
	for _, path := range []string{"/auth/token?scope=repository:fault/app:pull", "/api/v1/projects"} {
		r := w.ask("GET", path, nil)
		r.is(t, 503)
		if r.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", path)
		}
	}
	w.ask("GET", "/v2/", nil).unavailable(t)
	w.alive("database")
	w.postgres.start()
	w.toPG.pass()
	w.whole(s)
}

// TestPostgresSilent lets packets vanish: those that wait are answered in bounded
// time, and who comes later at once.
func TestPostgresSilent(t *testing.T) {
	w := newWorld(t)
	s := w.stock()
	w.toPG.freeze()
	unavailable(t, w.reads(s))
	for _, r := range append(w.reads(s), w.writes(s)...) {
		r.unavailable(t)
		if r.took > 5*time.Second {
			t.Errorf("%s: answered after %v, although it was known that nothing can be had", r.what, r.took)
		}
	}
	w.alive("database")
	w.toPG.pass()
	w.whole(s)
	// And where all connections of before are dead.
	w.toPG.freeze()
	w.ask("GET", "/v2/fault/app/tags/list", nil).unavailable(t)
	w.toPG.reset()
	w.toPG.pass()
	w.soon(func() error { _, err := w.api.tags("fault/app"); return err })
}

// TestPostgresSlow gives every packet a delay: all works, later.
func TestPostgresSlow(t *testing.T) {
	w := newWorld(t)
	s := w.stock()
	w.toPG.slow(60*time.Millisecond, 0)
	for _, r := range w.reads(s) {
		if r.err != nil || r.status >= 400 {
			t.Errorf("%s: %d %v", r.what, r.status, r.err)
		}
	}
	w.whole(s)
}

// TestPostgresRestarts restarts the server again and again while clients push
// in chunks. They see nothing but answers that they may repeat; each session
// goes on.
func TestPostgresRestarts(t *testing.T) {
	w := newWorld(t)
	w.stock()
	var pushed, refused atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				n, err := w.pushPatiently(fmt.Sprint("fault/", c), stuff{uint64(c*1000 + i), 400_000})
				if err != nil {
					t.Error(err)
					return
				}
				pushed.Add(1)
				refused.Add(int64(n))
			}
		})
	}
	for i, how := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGINT} {
		before := pushed.Load()
		w.waitUntil(func() bool { return pushed.Load() >= before+3 })
		w.postgres.stop(how)
		if i > 0 { // the first is too short to be seen
			time.Sleep(2500 * time.Millisecond)
		}
		w.postgres.start()
	}
	w.waitUntil(func() bool { return pushed.Load() >= 12 })
	close(stop)
	clients.Wait()
	t.Logf("%d pushed; %d requests were refused and repeated", pushed.Load(), refused.Load())
	if refused.Load() == 0 {
		t.Error("the restarts met nobody: nothing was tested")
	}
}

func (w *world) waitUntil(done func() bool) {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Error("nothing is pushed any more")
			return
		}
	}
}

// pushPatiently pushes a blob in two chunks and repeats what gets 503, as often
// as needed, asking where the session stands. 416 says that the request before
// has not given the session back yet.
func (w *world) pushPatiently(name string, content stuff) (refused int, err error) {
	end := time.Now().Add(40 * time.Second)
	again := func(err error) bool {
		var status *statusError
		refused++
		time.Sleep(50 * time.Millisecond)
		return errors.As(err, &status) && (status.got == 503 || status.got == 416) && time.Now().Before(end)
	}
	var path string
	begin := func() error {
		for {
			if path, err = w.api.startUpload(name); err == nil {
				return nil
			} else if !again(err) {
				return fmt.Errorf("begin: %w", err)
			}
		}
	}
	if err := begin(); err != nil {
		return refused, err
	}
	for at := int64(0); at < content.size; {
		acked, n := at, min(content.size-at, content.size/2)
		_, err := w.api.send("PATCH", path, stuff{content.seed, at + n}.from(at), []string{"Content-Range", fmt.Sprintf("%d-%d", at, at+n-1)}, 202)
		for err != nil {
			n = 0
			var status *statusError
			switch {
			case acked == 0 && errors.As(err, &status) && status.got == 404: // a crash may forget one without a byte
				if at, err = 0, begin(); err != nil {
					return refused, err
				}
			case !again(err):
				return refused, fmt.Errorf("patch: %w", err)
			default:
				_, at, err = w.api.uploadOffset(path)
			}
		}
		at += n
	}
	for {
		if err = w.api.finishUpload(path, content.digest(), nil); err == nil || w.api.checkLink(name, content.digest()) == nil {
			break
		} else if !again(err) {
			return refused, fmt.Errorf("finish: %w", err)
		}
	}
	return refused, w.api.checkLink(name, content.digest())
}

// checkLink wants a blob to be in a repository. One that was committed by a
// request without an answer is, and its session is not there any more.
func (a *api) checkLink(name, digest string) (err error) {
	for range 100 {
		_, err = a.send("HEAD", "/v2/"+name+"/blobs/"+digest, nil, nil, 200)
		var status *statusError
		if !errors.As(err, &status) || status.got != 503 {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// TestPostgresReadOnly makes the server a standby in effect: reads go on.
func TestPostgresReadOnly(t *testing.T) {
	w := newWorld(t)
	s := w.stock()
	w.postgres.sql(`ALTER SYSTEM SET default_transaction_read_only = on`)
	w.postgres.sql(`SELECT pg_reload_conf()`)
	time.Sleep(300 * time.Millisecond)
	for _, r := range w.reads(s) {
		if r.err != nil || r.status >= 400 {
			t.Errorf("%s: %d %v %s", r.what, r.status, r.err, r.body)
		}
	}
	unavailable(t, w.writes(s))
	w.ask("GET", "/auth/token?scope=repository:fault/app:pull", nil).is(t, 200)
	w.alive("")
	w.postgres.sql(`ALTER SYSTEM RESET default_transaction_read_only`)
	w.postgres.sql(`SELECT pg_reload_conf()`)
	w.whole(s)
}

// TestPostgresFull fills the disk of the server: what is there can be read, what
// does not fit is refused with 507, and all goes on when there is room.
func TestPostgresFull(t *testing.T) {
	w := newWorld(t, smallDisk)
	s := w.stock()
	filler := filepath.Join(w.postgres.dir, "filler")
	fill(t, filler, 0)
	r := &repo{t, w.api, "fault/app"}
	for _, digest := range pushUntilFull(t, r, s.image) {
		if _, _, err := w.api.manifest("fault/app", digest); err != nil {
			t.Error(err)
		}
	}
	for _, r := range w.reads(s) {
		if r.err != nil || r.status >= 400 {
			t.Errorf("%s: %d %v %s", r.what, r.status, r.err, r.body)
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	w.whole(s)
}

// TestPostgresConnections takes all of the server's connections away, and gives
// them back.
func TestPostgresConnections(t *testing.T) {
	w := newWorld(t)
	s := w.stock()
	giveBack := w.postgres.occupy()
	w.toPG.refuse() // berth has none now, and gets none of those
	time.Sleep(100 * time.Millisecond)
	again := w.postgres.occupy()
	w.toPG.pass()
	unavailable(t, w.all([]request{{"GET", "/v2/fault/app/tags/list", nil}, {"GET", "/v2/_catalog", nil}, {"POST", "/v2/fault/app/blobs/uploads/", nil}}))
	w.book.says(t, "too many clients")
	giveBack()
	again()
	w.whole(s)
}

// TestStorm lets many clients repeat what fails, all the time of an outage, and
// at once when it is over: memory, goroutines and connections stay bounded.
func TestStorm(t *testing.T) {
	w := newWorld(t, "BERTH_METADATA_POSTGRES_TIMEOUT=3s")
	w.stock()
	before := w.metric("go_goroutines")
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var served, refused atomic.Int64
	var slowest atomic.Int64
	for range 200 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r := w.ask("GET", "/v2/fault/app/manifests/v1", nil)
				switch {
				case r.err == nil && r.status == 200:
					served.Add(1)
				case r.err == nil && r.status == 503:
					refused.Add(1)
				default:
					t.Errorf("%s: %d %v %s", r.what, r.status, r.err, r.body)
					return
				}
				for old := slowest.Load(); int64(r.took) > old && !slowest.CompareAndSwap(old, int64(r.took)); old = slowest.Load() {
				}
				time.Sleep(20 * time.Millisecond) // far less than Retry-After asks for
			}
		})
	}
	time.Sleep(500 * time.Millisecond)
	w.toPG.freeze()
	time.Sleep(8 * time.Second) // longer than the first of them wait
	during, memory := w.metric("go_goroutines"), w.peakMemory(t)
	opened := w.toPG.count()
	w.toPG.reset()
	w.toPG.pass()
	back := served.Load()
	w.soon(func() error {
		if served.Load() < back+400 {
			return errors.New("few are served")
		}
		return nil
	})
	close(stop)
	clients.Wait()
	t.Logf("%d served, %d refused, the slowest after %v; %.0f goroutines before, %.0f during; %d MiB; %d connections to the database in all",
		served.Load(), refused.Load(), time.Duration(slowest.Load()).Round(time.Millisecond), before, during, w.peakMemory(t)>>20, w.toPG.count())
	if refused.Load() < 600 || time.Duration(slowest.Load()) > within {
		t.Error("clients were kept waiting")
	}
	if grown := w.peakMemory(t) - memory; grown > 64<<20 {
		t.Errorf("%d MiB more after the outage than in it", grown>>20)
	}
	if now := w.toPG.count(); now-opened > 200 {
		t.Errorf("%d connections were opened when it was over: the pool is not bounded", now-opened)
	}
	w.settles(before)
}

// settles wants no more goroutines than before, give or take a few, once what
// was under way has ended.
func (w *world) settles(before float64) {
	w.t.Helper()
	w.api.http.CloseIdleConnections()
	var now float64
	for range 300 {
		if now = w.metric("go_goroutines"); now <= before+40 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Errorf("%.0f goroutines, %.0f before the faults", now, before)
}

// TestHundredFaults breaks both engines a hundred times: nothing is left of it.
func TestHundredFaults(t *testing.T) {
	w := newWorld(t, "BERTH_STORAGE_S3_REDIRECT=never", "BERTH_METADATA_POSTGRES_CONNECTIONS=8",
		"BERTH_METADATA_POSTGRES_TIMEOUT=3s", "BERTH_STORAGE_S3_TIMEOUT=3s")
	s := w.stock()
	if err := w.api.checkBlob("fault/app", s.blob.Digest, s.blob.Size); err != nil {
		t.Fatal(err)
	}
	before := w.metric("go_goroutines")
	for i := range 100 {
		p := []*proxy{w.toPG, w.toS3}[i%2]
		switch i / 2 % 4 {
		case 0:
			p.reset()
		case 1:
			p.refuse()
		case 2:
			p.freeze()
		case 3:
			p.cut(500, 500)
		}
		var requests sync.WaitGroup
		for j := range 4 {
			requests.Go(func() {
				w.ask("GET", "/v2/fault/app/blobs/"+s.blob.Digest, nil)
				content := stuff{uint64(i*10 + j), 1000}
				w.ask("POST", "/v2/fault/app/blobs/uploads/?digest="+content.digest(), bytes.NewReader(content.bytes()))
			})
		}
		time.Sleep(20 * time.Millisecond)
		p.cut(0, 0)
		p.pass()
		requests.Wait()
	}
	if err := w.api.checkBlob("fault/app", s.blob.Digest, s.blob.Size); err != nil {
		t.Error(err)
	}
	t.Logf("%.0f goroutines before, %.0f after", before, w.metric("go_goroutines"))
	w.settles(before)
	w.whole(s)
}
