package test

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRestart stops the server as an administrator does, in the middle of uploads.
func TestRestart(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	s := mustStart(t, data)
	upload := func(seed uint64) *session {
		path, err := s.startUpload("restart/app")
		if err != nil {
			t.Fatal(err)
		}
		return &session{repo: "restart/app", path: path, content: stuff{seed, 8 << 20}}
	}

	half, cut, running := upload(1), upload(2), upload(3)
	if err := half.patch(s.api, half.content.size/2); err != nil {
		t.Fatal(err)
	}
	broken := io.MultiReader(io.LimitReader(cut.content.from(0), 3<<20), brokenReader{})
	if _, err := s.send("PATCH", cut.path, broken, []string{"Content-Type", "application/octet-stream"}, 202); err == nil {
		t.Fatal("a PATCH whose connection broke was answered")
	}
	finishRunning := slowPatch(s.api, running)
	time.Sleep(300 * time.Millisecond) // the request has surely arrived
	ended := make(chan error, 1)
	go func() { ended <- s.terminate() }()
	time.Sleep(300 * time.Millisecond) // and so has the signal
	if err := finishRunning(); err != nil {
		t.Fatalf("a request that ran at SIGTERM was not finished: %v", err)
	}
	running.acked = running.content.size
	if err := <-ended; err != nil {
		t.Fatalf("SIGTERM: %v", err)
	}

	s = mustStart(t, data)
	for name, u := range map[string]*session{"half": half, "cut": cut, "running": running} {
		path, offset, err := s.uploadOffset(u.path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if offset < u.acked || name != "cut" && offset != u.acked {
			t.Fatalf("%s: the server has %d bytes, %d were acknowledged", name, offset, u.acked)
		}
		u.path, u.acked = path, offset
		if err := u.patch(s.api, u.content.size); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := u.finish(s.api, u.content.digest()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := s.checkBlob(u.repo, u.content.digest(), u.content.size); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// slowPatch sends the first half of what a session still lacks; the function it
// returns sends the rest and waits for the answer.
func slowPatch(a *api, u *session) (finish func() error) {
	r, w := io.Pipe()
	answer := make(chan error, 1)
	go func() {
		_, err := a.send("PATCH", u.path, r, []string{"Content-Type", "application/octet-stream"}, 202)
		r.CloseWithError(io.ErrClosedPipe) // whoever still writes must not wait
		answer <- err
	}()
	content := u.content.from(u.acked)
	sent := make(chan struct{})
	go func() {
		io.CopyN(w, content, (u.content.size-u.acked)/2)
		close(sent)
	}()
	return func() error {
		<-sent
		io.Copy(w, content)
		w.Close()
		return <-answer
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("the client is gone") }

// TestSecondProcess wants a second server on one data folder refused, while
// the first one goes on, and the folder free again once the first has ended.
func TestSecondProcess(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	first := mustStart(t, data)
	second, err := launch(data)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-second.done:
	case <-time.After(15 * time.Second):
		second.kill()
		t.Fatalf("a second process serves the same data folder:\n%s", second.log.tail())
	}
	if second.err == nil || !strings.Contains(second.log.tail(), data) {
		t.Fatalf("a second process must fail and name the data folder: %v\n%s", second.err, second.log.tail())
	}
	r := &repo{t, first.api, "second/app"}
	image := r.pushImage("v1", 1)
	r.verify("v1")
	first.kill()
	r.api = mustStart(t, data).api
	r.same("v1", image.Digest)
}
