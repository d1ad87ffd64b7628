package test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// streaming makes berth send blobs itself, and give up soon enough for tests.
var streaming = []string{"BERTH_STORAGE_S3_REDIRECT=never", "BERTH_STORAGE_S3_TIMEOUT=3s"}

// withoutS3 wants all to be served that needs no bucket, and 503 in bounded time
// for the rest.
func (w *world) withoutS3(s stock) {
	w.t.Helper()
	for _, r := range w.reads(s) {
		if strings.HasPrefix(r.what, "GET") && strings.Contains(r.what, "/blobs/sha256") {
			r.unavailable(w.t)
			continue
		}
		if r.err != nil || r.status >= 400 {
			w.t.Errorf("%s: %d %v, but needs no bucket: %s", r.what, r.status, r.err, r.body)
		}
	}
	small, large := stuff{99, 1000}, stuff{98, 6 << 20}
	unavailable(w.t, w.all([]request{
		{"POST", "/v2/fault/app/blobs/uploads/?digest=" + small.digest(), small.bytes()},
		{"PATCH", s.session, large.bytes()},
	}))
	if begun, err := w.api.startUpload("fault/app"); err != nil {
		w.t.Errorf("an upload begins without the bucket: %v", err)
	} else {
		w.ask("PATCH", begun, small.from(0)).is(w.t, 202)
		w.ask("PUT", begun+"?digest="+small.digest(), nil).unavailable(w.t)
	}
	w.ask("POST", "/v2/fault/other/blobs/uploads/?mount="+s.blob.Digest+"&from=fault/app", nil).is(w.t, 201)
	w.alive("") // other replicas could do no more
	status, body := w.probe("/readyz")
	for range 150 { // one that is well is looked at every ten seconds
		if strings.Contains(body, `"storage"`) {
			break
		}
		time.Sleep(100 * time.Millisecond)
		status, body = w.probe("/readyz")
	}
	if status != 200 || !strings.Contains(body, `"storage"`) {
		w.t.Errorf("/readyz does not tell of the bucket: %d %s", status, body)
	}
	if status, body := w.probe("/readyz?storage"); status != 503 || !strings.Contains(body, "bucket") {
		w.t.Errorf("/readyz?storage: %d %s", status, body)
	}
}

// wholeS3 is whole, with the blob streamed too.
func (w *world) wholeS3(s stock) {
	w.t.Helper()
	w.soon(func() error { return w.api.checkBlob("fault/app", s.blob.Digest, s.blob.Size) })
	w.whole(s)
}

func TestS3Gone(t *testing.T) {
	w := newWorld(t, streaming...)
	s := w.stock()
	w.s3.stop(syscall.SIGKILL)
	w.toS3.refuse()
	time.Sleep(time.Second)
	w.withoutS3(s)
	w.s3.start()
	w.toS3.pass()
	w.wholeS3(s)
}

func TestS3Silent(t *testing.T) {
	w := newWorld(t, streaming...)
	s := w.stock()
	w.toS3.freeze()
	w.withoutS3(s)
	w.toS3.pass()
	w.wholeS3(s)
}

// TestS3Redirects: where clients go to the bucket, berth needs it for pushes only.
func TestS3Redirects(t *testing.T) {
	w := newWorld(t, "BERTH_STORAGE_S3_TIMEOUT=3s")
	s := w.stock()
	w.toS3.refuse()
	for _, r := range w.reads(s) {
		if r.err != nil || r.status >= 400 {
			t.Errorf("%s: %d %v", r.what, r.status, r.err)
		}
	}
	r := w.ask("GET", "/v2/fault/app/blobs/"+s.blob.Digest, nil)
	r.is(t, http.StatusTemporaryRedirect)
	w.toS3.pass()
	res, err := http.Get(r.header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if content, err := io.ReadAll(res.Body); err != nil || digestOf(content) != s.blob.Digest {
		t.Errorf("the redirect's target: %d, %v", res.StatusCode, err)
	}
}

// TestS3Slow: delays and little bandwidth are no faults.
func TestS3Slow(t *testing.T) {
	w := newWorld(t, streaming...)
	s := w.stock()
	w.toS3.slow(3*time.Millisecond, 0)
	content := stuff{31, 9 << 20}
	if err := w.api.finishUpload(s.session, content.digest(), content.from(0)); err != nil {
		t.Fatal(err)
	}
	if err := w.api.checkBlob("fault/app", content.digest(), content.size); err != nil {
		t.Error(err)
	}
}

// TestS3Says has the service answer with errors: a burst of its pleas to slow
// down is not seen by clients; what lasts is a 503, and the log says what to do.
func TestS3Says(t *testing.T) {
	w := newWorld(t, streaming...)
	s := w.stock()
	content := stuff{41, 12 << 20}
	n := 0
	w.s3Says.follow(func(*http.Request) (int, string) {
		if n++; n%3 != 0 {
			return 503, "SlowDown"
		}
		return 0, ""
	})
	w.soonPatient(func() error {
		if _, err := w.api.pushBlob("fault/app", content.bytes()); err != nil {
			return err
		}
		return w.api.checkBlob("fault/app", content.digest(), content.size)
	})
	if given := w.s3Says.follow(nil); given < 4 {
		t.Errorf("%d answers SlowDown: nothing was tested", given)
	}
	for _, c := range []struct {
		status       int
		code, advice string
	}{
		{503, "SlowDown", "SlowDown"},
		{403, "SignatureDoesNotMatch", "the secret key is not that of the access key"},
		{403, "AccessDenied", "allow these credentials"},
		{403, "RequestTimeTooSkewed", "clock differs"},
		{404, "NoSuchBucket", "create the bucket"},
		{500, "InternalError", "InternalError"},
	} {
		w.s3Says.follow(always(c.status, c.code))
		w.ask("GET", "/v2/fault/app/blobs/"+s.blob.Digest, nil).unavailable(t)
		small := stuff{99, 1000}
		w.ask("POST", "/v2/fault/app/blobs/uploads/?digest="+small.digest(), small.from(0)).unavailable(t)
		if w.s3Says.follow(nil) == 0 {
			t.Errorf("nobody was told %s: nothing was tested", c.code)
		}
		w.book.says(t, c.advice)
		w.soon(func() error { return w.api.checkBlob("fault/app", s.blob.Digest, s.blob.Size) })
	}
	w.wholeS3(s)
}

// soonPatient is soon for what may have bad luck.
func (w *world) soonPatient(f func() error) {
	w.t.Helper()
	var err error
	for range 5 {
		if err = f(); err == nil {
			return
		}
	}
	w.t.Error(err)
}

// TestS3WrongKey starts with credentials that the service refuses, and with a
// bucket that is not there.
func TestS3WrongKey(t *testing.T) {
	w := newWorld(t, append([]string{"AWS_SECRET_ACCESS_KEY=" + secretKey + "-of-yesterday"}, streaming...)...)
	small := stuff{99, 1000}
	push := func() reply {
		return w.ask("POST", "/v2/fault/app/blobs/uploads/?digest="+small.digest(), small.from(0))
	}
	push().unavailable(t)
	w.book.says(t, "the secret key is not that of the access key")
	if status, body := w.probe("/readyz?storage"); status != 503 || !strings.Contains(body, "secret key") {
		t.Errorf("/readyz?storage: %d %s", status, body)
	}
	w.kill()
	w.env = append(w.env, "AWS_SECRET_ACCESS_KEY="+secretKey)
	w.start()
	push().is(t, 201)
	bucket := filepath.Join(w.s3.dir, "data", "berth")
	if err := os.Rename(bucket, bucket+"-away"); err != nil {
		t.Fatal(err)
	}
	push().unavailable(t)
	w.ask("GET", "/v2/fault/app/blobs/"+small.digest(), nil).unavailable(t)
	w.book.says(t, "create the bucket")
	if err := os.Rename(bucket+"-away", bucket); err != nil {
		t.Fatal(err)
	}
	w.soon(func() error { return w.api.checkBlob("fault/app", small.digest(), small.size) })
}

// TestS3Cut breaks connections in the middle of parts and of downloads. What can
// be sent or had again is, and nobody sees it; a download that cannot go on ends
// as a broken one, never as one that looks whole.
func TestS3Cut(t *testing.T) {
	w := newWorld(t, streaming...)
	s := w.stock()
	content := stuff{51, 20 << 20}
	w.toS3.cut(3<<20, 0)
	if err := w.api.finishUpload(s.session, content.digest(), content.from(0)); err != nil {
		t.Fatal(err)
	}
	w.toS3.cut(0, 5<<20)
	if err := w.api.checkBlob("fault/app", content.digest(), content.size); err != nil {
		t.Error(err)
	}
	for name, breakIt := range map[string]func(){"refused": w.toS3.refuse, "silent": w.toS3.freeze} {
		w.toS3.reset()
		w.toS3.slow(0, 8<<20)
		res, err := w.api.call("GET", "/v2/fault/app/blobs/"+content.digest(), nil, nil, 200)
		if err != nil {
			t.Fatal(err)
		}
		h, begin := sha256.New(), time.Now()
		n, err := io.CopyN(h, res.Body, 2<<20)
		if err != nil {
			t.Fatal(err)
		}
		breakIt()
		m, err := io.Copy(h, res.Body)
		res.Body.Close()
		n += m
		t.Logf("%s: %d of %d bytes, %v after %v", name, n, content.size, err, time.Since(begin).Round(time.Millisecond))
		if err == nil || n >= content.size || res.ContentLength != content.size {
			t.Errorf("%s: a download of %d bytes, of which %d came, ends with %v", name, res.ContentLength, n, err)
		}
		if time.Since(begin) > within {
			t.Errorf("%s: it was kept waiting", name)
		}
		w.toS3.slow(0, 0)
		w.toS3.pass()
		rest, err := w.api.call("GET", "/v2/fault/app/blobs/"+content.digest(), nil, []string{"Range", fmt.Sprintf("bytes=%d-", n)}, 206)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(h, rest.Body)
		rest.Body.Close()
		if got := fmt.Sprintf("sha256:%x", h.Sum(nil)); err != nil || got != content.digest() {
			t.Errorf("%s: resumed from byte %d: %s, %v", name, n, got, err)
		}
	}
}

// TestScratchFull has no room for parts that memory has no room for.
func TestScratchFull(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatalf("mount a small tmpfs (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t, append([]string{"BERTH_STORAGE_S3_TOTAL_MEMORY=1MiB", dataIn(disk)}, streaming...)...)
	s := w.stock()
	filler, content := filepath.Join(disk, "filler"), stuff{61, 20 << 20}
	fill(t, filler, 3<<20)
	isFull(t, w.api.finishUpload(s.session, content.digest(), content.from(0)))
	if err := w.api.checkBlob("fault/app", s.blob.Digest, s.blob.Size); err != nil {
		t.Errorf("a pull meanwhile: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := w.api.finishUpload(s.session, content.digest(), content.from(0)); err != nil {
		t.Errorf("the session goes on: %v", err)
	}
	if err := w.api.checkBlob("fault/app", content.digest(), content.size); err != nil {
		t.Error(err)
	}
}
